//! The objects an empty cluster holds, as the API server carries them: one object per line, in the order of their making.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Remakes `out` from the published list of bootstrap objects.
pub(super) fn write(spec: &Path, version: &str, out: &Path) -> anyhow::Result<()> {
    let source = spec.join(format!("bootstrap-objects-v{version}.json"));
    let text = std::fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    let objects: Vec<Value> =
        serde_json::from_str(&text).with_context(|| format!("{} is no list of objects", source.display()))?;
    let text = render(objects)?;
    std::fs::write(out, &text).with_context(|| format!("write {}", out.display()))?;
    println!("wrote {}: {} lines, {} bytes", out.display(), text.lines().count(), text.len());
    Ok(())
}

/// Sorted by kind, namespace and name, so that a new list makes a small difference.
fn render(objects: Vec<Value>) -> anyhow::Result<String> {
    let mut sorted = BTreeMap::new();
    for object in objects {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        if key.0.is_empty() || key.2.is_empty() {
            bail!("an object without kind or name: {object}");
        }
        sorted.insert(key, object.to_string());
    }
    let lines: Vec<String> = sorted.into_values().collect();
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_object_a_line_in_order() {
        let object = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name}});
        let text = render(vec![object("B", "x"), object("A", "y"), object("A", "x")]).unwrap();
        let names: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(names.len(), 3);
        let parsed: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, [object("A", "x"), object("A", "y"), object("B", "x")]);
        assert!(render(vec![json!({})]).is_err());
    }
}
