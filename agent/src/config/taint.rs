//! Taints as flags and files write them: `key=value:Effect` or `key:Effect`.

use anyhow::{Context as _, ensure};
use pagurus_controlplane_api::labels;
use serde::Deserialize;

/// A taint this node registers with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, often empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads `key=value:Effect`, `key:Effect` or `key=:Effect`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (pair, effect) =
            text.rsplit_once(':').with_context(|| format!("taint {text:?} is not KEY=VALUE:EFFECT"))?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        ensure!(
            ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect),
            "taint {text:?}: the effect is NoSchedule, PreferNoSchedule or NoExecute"
        );
        let mut problems = labels::qualified_name(key);
        problems.extend(labels::label_value(value));
        ensure!(problems.is_empty(), "taint {text:?}: {}", problems.join("; "));
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            let parsed = Taint::parse(text).ok();
            let expected = expected.map(|(k, v, e)| Taint {
                key: k.to_owned(),
                value: v.to_owned(),
                effect: e.to_owned(),
            });
            assert_eq!(parsed, expected, "{text}");
        };
        check("a=b:NoSchedule", Some(("a", "b", "NoSchedule")));
        check("example.com/a:NoExecute", Some(("example.com/a", "", "NoExecute")));
        check("a=:PreferNoSchedule", Some(("a", "", "PreferNoSchedule")));
        check("a=b", None);
        check("a=b:Never", None);
        check("=b:NoSchedule", None);
    }
}
