//! A set of field paths, as a tree. A step of a path is kept in the form that `FieldsV1` gives it: `f:NAME` for a field or map entry,
//! `k:{...}` for the keys of a list item, `v:...` for the value of a set's item, `i:N` for an index.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths. The path to a node is a member if the node says so; nodes without members below do not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    steps: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// Whether no path is a member.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A set of paths written with dots: `metadata.name`; for fixed sets of plain fields.
    pub fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let steps: Vec<String> = path.split('.').map(|name| format!("f:{name}")).collect();
            set.insert(&steps);
        }
        set
    }

    /// Adds a path; the empty path is not a field and is not added.
    pub fn insert(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.steps.entry(first.clone()).or_default();
        if rest.is_empty() { node.member = true } else { node.below.insert(rest) }
    }

    /// Whether a child by this step is itself a member.
    pub fn has(&self, step: &str) -> bool {
        self.steps.get(step).is_some_and(|node| node.member)
    }

    /// The paths below a step.
    pub fn below(&self, step: &str) -> Option<&Set> {
        self.steps.get(step).map(|node| &node.below)
    }

    /// Paths in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut all = self.clone();
        for (step, node) in &other.steps {
            let mine = all.steps.entry(step.clone()).or_default();
            mine.member |= node.member;
            mine.below = mine.below.union(&node.below);
        }
        all
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.combine(other, |mine, theirs| {
            theirs.map(|theirs| Node {
                member: mine.member && theirs.member,
                below: mine.below.intersection(&theirs.below),
            })
        })
    }

    /// Paths in this one only. A member that goes leaves the members below it.
    pub fn difference(&self, other: &Set) -> Set {
        self.combine(other, |mine, theirs| {
            Some(match theirs {
                None => mine.clone(),
                Some(theirs) => Node {
                    member: mine.member && !theirs.member,
                    below: mine.below.difference(&theirs.below),
                },
            })
        })
    }

    /// Paths in this one that are neither in the other nor below one of its members.
    pub fn outside(&self, other: &Set) -> Set {
        self.combine(other, |mine, theirs| match theirs {
            None => Some(mine.clone()),
            Some(theirs) if theirs.member => None,
            Some(theirs) => Some(Node { member: mine.member, below: mine.below.outside(&theirs.below) }),
        })
    }

    fn combine(&self, other: &Set, each: impl Fn(&Node, Option<&Node>) -> Option<Node>) -> Set {
        let steps = self.steps.iter().filter_map(|(step, mine)| {
            let node = each(mine, other.steps.get(step))?;
            (!node.is_empty()).then(|| (step.clone(), node))
        });
        Set { steps: steps.collect() }
    }

    /// A copy in which the members of every node are chosen anew: `member(step, was member, path so far)`.
    pub(crate) fn with_members(
        &self,
        path: &mut Vec<String>,
        member: &impl Fn(&[String], bool) -> bool,
    ) -> Set {
        let mut steps = BTreeMap::new();
        for (step, node) in &self.steps {
            path.push(step.clone());
            let new =
                Node { member: member(path, node.member), below: node.below.with_members(path, member) };
            path.pop();
            if !new.is_empty() {
                steps.insert(step.clone(), new);
            }
        }
        Set { steps }
    }

    /// Every member's path, parents before children.
    pub fn paths(&self) -> Vec<Vec<String>> {
        fn walk(set: &Set, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
            for (step, node) in &set.steps {
                path.push(step.clone());
                if node.member {
                    all.push(path.clone());
                }
                walk(&node.below, path, all);
                path.pop();
            }
        }
        let mut all = Vec::new();
        walk(self, &mut Vec::new(), &mut all);
        all
    }

    /// As `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let entries = self.steps.iter().map(|(step, node)| {
            let mut below = match node.below.to_json() {
                Value::Object(below) => below,
                _ => Map::new(),
            };
            // A dot says that the node itself is a member where that is not plain from its having nothing below.
            if node.member && !below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (step.clone(), Value::Object(below))
        });
        Value::Object(entries.collect())
    }

    /// From `FieldsV1`; unknown step forms are an error that names them.
    pub fn from_json(value: &Value) -> Result<Set, String> {
        let Value::Object(entries) = value else { return Err(format!("not an object: {value}")) };
        let mut steps = BTreeMap::new();
        for (step, below) in entries.iter().filter(|(step, _)| *step != ".") {
            if !matches!(step.get(..2), Some("f:" | "k:" | "v:" | "i:")) {
                return Err(format!("not a path element: {step:?}"));
            }
            let inner = Set::from_json(below)?;
            let member = inner.is_empty() || below.get(".").is_some();
            steps.insert(canonical(step), Node { member, below: inner });
        }
        Ok(Set { steps })
    }
}

/// Keys and values are compared as JSON, not as text.
fn canonical(step: &str) -> String {
    match step.split_at(2) {
        (form @ ("k:" | "v:"), json) => match serde_json::from_str::<Value>(json) {
            Ok(value) => format!("{form}{value}"),
            Err(_) => step.to_owned(),
        },
        _ => step.to_owned(),
    }
}

/// A path as messages show it: `.spec.containers[name="a"].image`.
pub(crate) fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        match step.split_at(2) {
            ("f:", name) => {
                text.push('.');
                text.push_str(name);
            }
            ("k:", json) => {
                let keys = serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            ("v:", json) => text.push_str(&format!("[={json}]")),
            (_, rest) => text.push_str(&format!("[{rest}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::from_json(&value).expect("a field set")
    }

    #[test]
    fn operations() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}}, "f:d": {}}));
        for (name, got, want) in [
            ("union", a.union(&b), json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}})),
            ("intersection", a.intersection(&b), json!({"f:a": {"f:b": {}}})),
            ("difference", a.difference(&b), json!({"f:a": {}, "f:c": {}})),
            ("a member takes what is below along", a.outside(&set(json!({"f:a": {}}))), json!({"f:c": {}})),
        ] {
            assert_eq!(got.to_json(), want, "{name}");
        }
    }

    #[test]
    fn keys_are_compared_as_json() {
        assert_eq!(set(json!({"k:{\"b\":1,\"a\":2}": {}})), set(json!({"k:{\"a\":2, \"b\":1}": {}})));
        assert!(Set::from_json(&json!({"x:": {}})).is_err());
    }

    #[test]
    fn messages() {
        let path: Vec<String> =
            ["f:spec", "f:ports", "k:{\"port\":80,\"protocol\":\"TCP\"}", "f:name"].map(str::to_owned).into();
        assert_eq!(shown(&path), ".spec.ports[port=80,protocol=\"TCP\"].name");
        assert_eq!(
            shown(&["f:metadata".to_owned(), "f:finalizers".to_owned(), "v:\"a\"".to_owned()]),
            ".metadata.finalizers[=\"a\"]"
        );
    }
}
