//! What documents say that follows from nothing else: unions, the values of maps, what a deletion answers. Read from a committed text that
//! `cargo xtask codegen` makes. It must not know how documents look.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::table::Resource;

const TEXT: &str = include_str!("v1_37.txt");

static FACTS: LazyLock<Facts> = LazyLock::new(|| Facts::read(TEXT));

#[derive(Debug, Default)]
struct Facts {
    unions: HashMap<&'static str, Value>,
    /// By type, then by field: there are few.
    map_types: Vec<[&'static str; 3]>,
    map_enums: Vec<([&'static str; 2], Vec<&'static str>)>,
    answer_object: Vec<[&'static str; 3]>,
    versions: Vec<(&'static str, &'static str)>,
}

impl Facts {
    fn read(text: &'static str) -> Self {
        let mut facts = Self::default();
        for line in text.lines() {
            let fields: Vec<&'static str> = line.split('\t').collect();
            match fields[..] {
                ["U", type_, unions] => {
                    facts.unions.extend(serde_json::from_str(unions).ok().map(|value| (type_, value)));
                }
                ["M", type_, field, map_type] => facts.map_types.push([type_, field, map_type]),
                ["V", type_, field, values] => {
                    facts.map_enums.push(([type_, field], values.split(',').collect()));
                }
                ["D", group, version, plural] => facts.answer_object.push([group, version, plural]),
                ["G", group, version] => facts.versions.push((group, version)),
                _ => {}
            }
        }
        facts
    }
}

/// The unions among the fields of a type.
pub(super) fn unions(type_: &str) -> Option<&'static Value> {
    FACTS.unions.get(type_)
}

/// How a field that is no atomic map is owned, where that is said.
pub(super) fn map_type(type_: &str, field: &str) -> Option<&'static str> {
    let found = FACTS.map_types.iter().find(|known| known[..2] == [type_, field]);
    found.map(|known| known[2])
}

/// The values that the entries of a map can have.
pub(super) fn map_enum(type_: &str, field: &str) -> Option<&'static [&'static str]> {
    let found = FACTS.map_enums.iter().find(|(of, _)| *of == [type_, field]);
    found.map(|(_, values)| &values[..])
}

/// Whether a deletion answers with the object instead of a status.
pub(super) fn deletion_answers_object(resource: &Resource) -> bool {
    FACTS.answer_object.contains(&[&*resource.group, &*resource.version, &*resource.plural])
}

/// The groups and versions, served or not, that have options and watch events of their own.
pub(super) fn versions() -> &'static [(&'static str, &'static str)] {
    &FACTS.versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_facts_are_read() {
        let lines = TEXT.lines().count();
        let facts = &*FACTS;
        let read = facts.unions.len()
            + facts.map_types.len()
            + facts.map_enums.len()
            + facts.answer_object.len()
            + facts.versions.len();
        assert_eq!(read, lines, "every line says something");
        assert!(unions("io.k8s.api.core.v1.SeccompProfile").is_some());
        assert!(versions().contains(&("apps", "v1beta2")));
    }
}
