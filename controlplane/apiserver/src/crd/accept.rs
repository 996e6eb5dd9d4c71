//! Which names a definition may have beside the others of its group. Pure: definitions in, names and conditions out.

use pagurus_controlplane_api::go;
use serde_json::{Value, json};

use crate::resources::fields::Fields;

/// The names that a definition gets, and what stands against those it asks for: the reason and the message of a condition.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) names: Value,
    pub(super) conflict: Option<(&'static str, String)>,
}

/// Decides on a definition's names. `others` are the accepted names of the other definitions of its group.
pub(super) fn names(definition: &Value, others: &[Value]) -> Accepted {
    let wanted = definition.at("spec.names");
    let had = definition.at("status.acceptedNames");
    let is_resource = |name: &str| {
        others.iter().any(|o| {
            o.text("plural") == name || o.text("singular") == name || o.texts("shortNames").any(|s| s == name)
        })
    };
    let is_kind = |name: &str| others.iter().any(|o| o.text("kind") == name || o.text("listKind") == name);
    let in_use = |name: &str| format!("{} is already in use", go::quote(name));
    let mut names = json!({});
    let mut conflict = None;
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &is_resource as &dyn Fn(&str) -> bool),
        ("singular", "SingularConflict", &is_resource),
        ("kind", "KindConflict", &is_kind),
        ("listKind", "ListKindConflict", &is_kind),
    ] {
        let name = wanted.text(field);
        let kept = if !name.is_empty() && had.text(field) != name && taken(name) {
            conflict = Some((reason, in_use(name)));
            had.text(field)
        } else {
            name
        };
        if !kept.is_empty() || matches!(field, "plural" | "kind") {
            names[field] = kept.into();
        }
    }
    let mut short = wanted.at("shortNames").clone();
    let new = |name: &&str| !had.texts("shortNames").any(|known| known == *name);
    let clashing: Vec<String> =
        wanted.texts("shortNames").filter(new).filter(|name| is_resource(name)).map(in_use).collect();
    if !clashing.is_empty() {
        let text =
            if clashing.len() == 1 { clashing.join(", ") } else { format!("[{}]", clashing.join(", ")) };
        conflict = Some(("ShortNamesConflict", text));
        short = had.at("shortNames").clone();
    }
    for (field, value) in [("shortNames", short), ("categories", wanted.at("categories").clone())] {
        if value.as_array().is_some_and(|list| !list.is_empty()) {
            names[field] = value;
        }
    }
    Accepted { names, conflict }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use_are_refused() {
        let wanted = json!({"spec": {"names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList",
            "shortNames": ["x"], "categories": ["all"]}}});
        let free = names(&wanted, &[]);
        assert_eq!(free.names, wanted["spec"]["names"]);
        assert_eq!(free.conflict, None);
        let check = |other: Value, reason: &str, message: &str| {
            let found = names(&wanted, &[other]);
            assert_eq!(found.conflict, Some((reason_of(reason), message.to_owned())));
        };
        fn reason_of(text: &str) -> &'static str {
            ["KindConflict", "ShortNamesConflict", "SingularConflict"]
                .into_iter()
                .find(|r| *r == text)
                .unwrap_or_default()
        }
        check(json!({"plural": "bs", "kind": "A"}), "KindConflict", "\"A\" is already in use");
        check(json!({"plural": "bs", "shortNames": ["x"]}), "ShortNamesConflict", "\"x\" is already in use");
        check(json!({"plural": "a"}), "SingularConflict", "\"a\" is already in use");
    }
}
