//! Which names a definition may have beside the others of its group. Pure: definitions in, names and conditions out.

use std::collections::{BTreeSet, HashMap};

use pagurus_controlplane_api::go;
use serde_json::{Value, json};

use crate::resources::fields::Fields;

/// The names that a definition gets, and what stands against those it asks for: the reason and the message of a condition.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) names: Value,
    pub(super) conflict: Option<(&'static str, String)>,
}

/// The accepted names of all definitions, by what they name: asking does not cost more with every definition.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Which definitions have a name, by `GROUP/NAME`: those of resources, and those of kinds.
    resources: HashMap<String, BTreeSet<String>>,
    kinds: HashMap<String, BTreeSet<String>>,
    /// What each definition has.
    held: HashMap<String, [Vec<String>; 2]>,
}

impl Taken {
    /// A definition has these names of a group now, and no others.
    pub(super) fn hold(&mut self, owner: &str, group: &str, names: &Value) {
        self.release(owner);
        let keys = |names: Vec<&str>| -> Vec<String> {
            names.into_iter().filter(|name| !name.is_empty()).map(|name| key(group, name)).collect()
        };
        let mut resources = vec![names.text("plural"), names.text("singular")];
        resources.extend(names.texts("shortNames"));
        let held = [keys(resources), keys(vec![names.text("kind"), names.text("listKind")])];
        for (keys, map) in held.iter().zip([&mut self.resources, &mut self.kinds]) {
            for key in keys {
                map.entry(key.clone()).or_default().insert(owner.to_owned());
            }
        }
        self.held.insert(owner.to_owned(), held);
    }

    /// A definition has no names any more.
    pub(super) fn release(&mut self, owner: &str) {
        let Some(held) = self.held.remove(owner) else { return };
        for (keys, map) in held.iter().zip([&mut self.resources, &mut self.kinds]) {
            for key in keys {
                if let Some(owners) = map.get_mut(key) {
                    owners.remove(owner);
                    if owners.is_empty() {
                        map.remove(key);
                    }
                }
            }
        }
    }

    /// Whether another definition of the group has the name for its resource, or for its kind.
    fn has(&self, owner: &str, group: &str, name: &str, of_kinds: bool) -> bool {
        let map = if of_kinds { &self.kinds } else { &self.resources };
        map.get(&key(group, name)).is_some_and(|owners| owners.iter().any(|other| other != owner))
    }
}

fn key(group: &str, name: &str) -> String {
    format!("{group}/{name}")
}

/// Decides on the names of the definition called `owner`, beside those that the others of its group have.
pub(super) fn names(owner: &str, definition: &Value, taken: &Taken) -> Accepted {
    let wanted = definition.at("spec.names");
    let had = definition.at("status.acceptedNames");
    let group = definition.text("spec.group");
    let is_taken = |name: &str, of_kinds: bool| taken.has(owner, group, name, of_kinds);
    let in_use = |name: &str| format!("{} is already in use", go::quote(name));
    let mut names = json!({});
    let mut conflict = None;
    for (field, reason, of_kinds) in [
        ("plural", "PluralConflict", false),
        ("singular", "SingularConflict", false),
        ("kind", "KindConflict", true),
        ("listKind", "ListKindConflict", true),
    ] {
        let name = wanted.text(field);
        let kept = if !name.is_empty() && had.text(field) != name && is_taken(name, of_kinds) {
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
        wanted.texts("shortNames").filter(new).filter(|name| is_taken(name, false)).map(in_use).collect();
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
        let wanted = json!({"spec": {"group": "g", "names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList",
            "shortNames": ["x"], "categories": ["all"]}}});
        let mut taken = Taken::default();
        let free = names("as.g", &wanted, &taken);
        assert_eq!(free.names, wanted["spec"]["names"]);
        assert_eq!(free.conflict, None);
        taken.hold("as.g", "g", &free.names);
        assert_eq!(names("as.g", &wanted, &taken), free, "one's own names are no conflict");
        taken.release("as.g");
        for (group, other, expected) in [
            ("g", json!({"plural": "bs", "kind": "A"}), Some(("KindConflict", "\"A\" is already in use"))),
            (
                "g",
                json!({"plural": "bs", "shortNames": ["x"]}),
                Some(("ShortNamesConflict", "\"x\" is already in use")),
            ),
            ("g", json!({"plural": "a"}), Some(("SingularConflict", "\"a\" is already in use"))),
            ("other", json!({"plural": "a", "kind": "A"}), None),
        ] {
            taken.hold("other", group, &other);
            let found = names("as.g", &wanted, &taken).conflict;
            assert_eq!(found.as_ref().map(|(reason, text)| (*reason, text.as_str())), expected, "{other}");
        }
        taken.hold("other", "g", &json!({"plural": "as", "kind": "A"}));
        taken.release("other");
        assert_eq!(names("as.g", &wanted, &taken), free, "what is let go is free again");
        assert!(taken.held.is_empty() && taken.resources.is_empty() && taken.kinds.is_empty());
    }
}
