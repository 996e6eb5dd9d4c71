//! A set of field paths. It is kept in the form of `FieldsV1`, the tree that `metadata.managedFields` holds, so that what nobody touches
//! is carried along as it is: a step of a path is `f:NAME` for a field or map entry, `k:{...}` for the keys of a list item, `v:...` for
//! the value of a set's item, `i:N` for an index.

use serde_json::{Map, Value};

/// A set of paths: entries by their steps, each with what is below it. The path to a node is a member if nothing is below it, or if a dot
/// says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(Map<String, Value>);

/// Says that the path to a node is a member, where something is below it.
const DOT: &str = ".";

static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// What is below a node, the dot included.
fn inside(node: &Value) -> &Map<String, Value> {
    node.as_object().unwrap_or(&NOTHING)
}

fn is_member(node: &Value) -> bool {
    let inside = inside(node);
    inside.is_empty() || inside.contains_key(DOT)
}

/// A node; none if neither it nor anything below it is a member.
pub(super) fn node(mut below: Map<String, Value>, member: bool) -> Option<Value> {
    if !member {
        below.remove(DOT);
        return (!below.is_empty()).then_some(Value::Object(below));
    }
    match below.len() {
        0 => {}
        1 if below.contains_key(DOT) => below.clear(),
        _ => drop(below.insert(DOT.to_owned(), Value::Object(Map::new()))),
    }
    Some(Value::Object(below))
}

/// Changes what is below a node and whether it is a member; false if nothing is left of it.
fn change(place: &mut Value, member: bool, below: impl FnOnce(&mut Map<String, Value>)) -> bool {
    let mut inside = match place.take() {
        Value::Object(inside) => inside,
        _ => Map::new(),
    };
    inside.remove(DOT);
    below(&mut inside);
    match node(inside, member) {
        Some(node) => {
            *place = node;
            true
        }
        None => false,
    }
}

/// What a path goes through below a node.
#[derive(Clone, Copy)]
pub(crate) struct Below<'s>(&'s Map<String, Value>);

impl<'s> Below<'s> {
    /// Whether there is nothing.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether a child by this step is itself a member.
    pub(crate) fn has(self, step: &str) -> bool {
        self.0.get(step).is_some_and(is_member)
    }

    /// The paths below a step.
    pub(crate) fn below(self, step: &str) -> Option<Below<'s>> {
        self.0.get(step).map(|node| Below(inside(node)))
    }
}

impl Set {
    /// Of the tree that was made with [`node`].
    pub(super) fn of_tree(tree: Map<String, Value>) -> Self {
        Self(tree)
    }

    /// Of `FieldsV1` that this module wrote.
    pub(super) fn trusted(value: Value) -> Self {
        match value {
            Value::Object(tree) => Self(tree),
            _ => Self::default(),
        }
    }

    /// Whether no path is a member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        fn add(tree: &mut Map<String, Value>, path: &[String]) {
            let Some((first, rest)) = path.split_first() else { return };
            let known = tree.contains_key(first);
            let place = tree.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            let member = rest.is_empty() || (known && is_member(place));
            change(place, member, |below| add(below, rest));
        }
        add(&mut self.0, path);
    }

    /// The set as a tree to walk through.
    pub(crate) fn all(&self) -> Below<'_> {
        Below(&self.0)
    }

    /// Paths in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut all = self.clone();
        all.add(other);
        all
    }

    /// Adds the paths of another set.
    pub fn add(&mut self, other: &Set) {
        fn add(tree: &mut Map<String, Value>, other: &Map<String, Value>) {
            for (step, theirs) in other.iter().filter(|(step, _)| *step != DOT) {
                match tree.get_mut(step) {
                    None => drop(tree.insert(step.clone(), theirs.clone())),
                    Some(mine) => {
                        let member = is_member(mine) || is_member(theirs);
                        change(mine, member, |below| add(below, inside(theirs)));
                    }
                }
            }
        }
        add(&mut self.0, &other.0);
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Set) -> Set {
        fn both(mine: &Map<String, Value>, theirs: &Map<String, Value>) -> Map<String, Value> {
            // Through the smaller of the two.
            let (few, many) = if mine.len() <= theirs.len() { (mine, theirs) } else { (theirs, mine) };
            let shared = few.iter().filter(|(step, _)| *step != DOT).filter_map(|(step, a)| {
                let b = many.get(step)?;
                node(both(inside(a), inside(b)), is_member(a) && is_member(b))
                    .map(|node| (step.clone(), node))
            });
            shared.collect()
        }
        Set(both(&self.0, &other.0))
    }

    /// Paths in this one only. A member that goes leaves the members below it.
    pub fn difference(&self, other: &Set) -> Set {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Takes the paths of another set out. A member that goes leaves the members below it.
    pub fn subtract(&mut self, other: &Set) {
        fn subtract(tree: &mut Map<String, Value>, other: &Map<String, Value>) {
            for (step, theirs) in other.iter().filter(|(step, _)| *step != DOT) {
                let Some(mine) = tree.get_mut(step) else { continue };
                let member = is_member(mine) && !is_member(theirs);
                if !change(mine, member, |below| subtract(below, inside(theirs))) {
                    tree.remove(step);
                }
            }
        }
        subtract(&mut self.0, &other.0);
    }

    /// Leaves the paths that are neither in the other set nor below one of its members.
    pub fn retain_outside(&mut self, other: &Set) {
        fn retain(tree: &mut Map<String, Value>, other: &Map<String, Value>) {
            for (step, theirs) in other.iter().filter(|(step, _)| *step != DOT) {
                let Some(mine) = tree.get_mut(step) else { continue };
                let member = is_member(mine);
                if is_member(theirs) || !change(mine, member, |below| retain(below, inside(theirs))) {
                    tree.remove(step);
                }
            }
        }
        retain(&mut self.0, &other.0);
    }

    /// A copy in which the members of every node are chosen anew: `member(path so far, was member)`.
    pub(crate) fn with_members(&self, member: &impl Fn(&[String], bool) -> bool) -> Set {
        fn chosen(
            tree: &Map<String, Value>,
            path: &mut Vec<String>,
            member: &impl Fn(&[String], bool) -> bool,
        ) -> Map<String, Value> {
            let mut out = Map::new();
            for (step, old) in tree.iter().filter(|(step, _)| *step != DOT) {
                path.push(step.clone());
                let new = node(chosen(inside(old), path, member), member(path, is_member(old)));
                path.pop();
                if let Some(new) = new {
                    out.insert(step.clone(), new);
                }
            }
            out
        }
        Set(chosen(&self.0, &mut Vec::new(), member))
    }

    /// Every member's path, parents before children.
    pub fn paths(&self) -> Vec<Vec<String>> {
        fn walk(tree: &Map<String, Value>, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
            for (step, node) in tree.iter().filter(|(step, _)| *step != DOT) {
                path.push(step.clone());
                if is_member(node) {
                    all.push(path.clone());
                }
                walk(inside(node), path, all);
                path.pop();
            }
        }
        let mut all = Vec::new();
        walk(&self.0, &mut Vec::new(), &mut all);
        all
    }

    /// As `FieldsV1`.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// As `FieldsV1`.
    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }

    /// From `FieldsV1`; unknown step forms are an error that names them.
    pub fn from_json(value: &Value) -> Result<Set, String> {
        fn read(value: &Value) -> Result<Map<String, Value>, String> {
            let Value::Object(entries) = value else { return Err(format!("not an object: {value}")) };
            let mut tree = Map::new();
            for (step, below) in entries.iter().filter(|(step, _)| *step != DOT) {
                if !matches!(step.get(..2), Some("f:" | "k:" | "v:" | "i:")) {
                    return Err(format!("not a path element: {step:?}"));
                }
                let inside = read(below)?;
                let member = inside.is_empty() || below.get(DOT).is_some();
                if let Some(node) = node(inside, member) {
                    tree.insert(canonical(step), node);
                }
            }
            Ok(tree)
        }
        read(value).map(Set)
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

    fn outside(set: &Set, other: &Set) -> Set {
        let mut left = set.clone();
        left.retain_outside(other);
        left
    }

    #[test]
    fn operations() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}}, "f:d": {}}));
        for (name, got, want) in [
            ("union", a.union(&b), json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}})),
            ("intersection", a.intersection(&b), json!({"f:a": {"f:b": {}}})),
            ("difference", a.difference(&b), json!({"f:a": {}, "f:c": {}})),
            ("a member takes what is below along", outside(&a, &set(json!({"f:a": {}}))), json!({"f:c": {}})),
            ("what a plain node has below", outside(&a, &b), json!({"f:a": {}, "f:c": {}})),
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

    /// Sets as lists of paths, the plainest form.
    mod model {
        use super::*;
        use proptest::prelude::*;
        use std::collections::BTreeSet;

        type Paths = BTreeSet<Vec<String>>;

        fn paths() -> impl Strategy<Value = Paths> {
            let step = prop::sample::select(vec!["f:a", "f:b", "k:{\"n\":1}", "v:1"]).prop_map(str::to_owned);
            prop::collection::btree_set(prop::collection::vec(step, 1..4), 0..8)
        }

        fn built(paths: &Paths) -> Set {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        }

        proptest! {
            #[test]
            fn operations_are_those_of_lists(a in paths(), b in paths()) {
                let (x, y) = (built(&a), built(&b));
                let listed = |set: Set| set.paths().into_iter().collect::<Paths>();
                prop_assert_eq!(listed(x.clone()), a.clone());
                prop_assert_eq!(listed(x.union(&y)), a.union(&b).cloned().collect::<Paths>());
                prop_assert_eq!(listed(x.intersection(&y)), a.intersection(&b).cloned().collect::<Paths>());
                prop_assert_eq!(listed(x.difference(&y)), a.difference(&b).cloned().collect::<Paths>());
                let below = |path: &Vec<String>| b.iter().any(|member| path.starts_with(member));
                let outer = a.iter().filter(|path| !below(path)).cloned().collect::<Paths>();
                prop_assert_eq!(listed(outside(&x, &y)), outer);
                let with = x.with_members(&|path, member| member || path.len() == 1);
                let firsts = a.iter().map(|path| vec![path[0].clone()]);
                prop_assert_eq!(listed(with), a.iter().cloned().chain(firsts).collect::<Paths>());
                // The same set however it was made: it is compared as it is kept.
                for set in [x.union(&y), x.intersection(&y), x.difference(&y), outside(&x, &y)] {
                    prop_assert_eq!(&built(&listed(set.clone())), &set);
                    prop_assert_eq!(Set::from_json(&set.to_json()).unwrap(), set);
                }
            }
        }
    }
}
