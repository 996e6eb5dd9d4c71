//! Objects in several versions: managers own fields of the version they wrote, and what became of those is told in that version.
//!
//! It must not know how objects are converted.

use super::compare::{Comparison, compare};
use super::set::Set;
use super::view::Place;
use crate::table::{Table, TypeId};
use serde_json::Value;
use std::borrow::Cow;

/// The versions an object can be seen in.
pub trait Versions {
    /// The type of the object in a version, `GROUP/VERSION`; none if it is not served in it (any more).
    fn type_in(&self, api_version: &str) -> Option<TypeId>;

    /// The object, which is in the version `from`, in the version `to`; none if there is no way.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// For objects that have one version only.
#[derive(Debug, Clone, Copy)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn type_in(&self, _api_version: &str) -> Option<TypeId> {
        None
    }

    fn convert(&self, _object: &Value, _from: &str, _to: &str) -> Option<Value> {
        None
    }
}

/// What an object is: its type in the version it is written in, and its other versions.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    /// The types.
    pub table: &'a Table,
    /// The object's type.
    pub id: TypeId,
    /// Its other versions.
    pub versions: &'a dyn Versions,
}

impl<'a> Form<'a> {
    pub(super) fn place(&self) -> Place<'a> {
        Place::root(self.table, self.id)
    }

    /// The same object in the version `to`; this is the version `from`.
    pub(super) fn at(&self, from: &str, to: &str) -> Option<Form<'a>> {
        let id = if from == to { Some(self.id) } else { self.versions.type_in(to) };
        id.map(|id| Form { id, ..*self })
    }

    /// The object in another version; free where it is the same.
    pub(super) fn converted(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        if from == to { Some(object.clone()) } else { self.versions.convert(object, from, to) }
    }
}

impl std::fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Form").field("type", &self.table.type_(self.id).name).finish_non_exhaustive()
    }
}

/// A change as the managers of each version see it, compared once per version.
pub(super) struct Seen<'a> {
    form: &'a Form<'a>,
    version: &'a str,
    before: &'a Value,
    after: &'a Value,
    reset: &'a Set,
    own: Comparison,
    others: Vec<(String, Option<Comparison>)>,
}

impl<'a> Seen<'a> {
    /// The change between two objects of `version`, without the fields in `reset`.
    pub(super) fn new(
        form: &'a Form<'a>,
        version: &'a str,
        before: &'a Value,
        after: &'a Value,
        reset: &'a Set,
    ) -> Self {
        let own = without(compare(&form.place(), before, after), reset);
        Self { form, version, before, after, reset, own, others: Vec::new() }
    }

    /// The fields that came or changed in the version of the write.
    pub(super) fn into_changed(self) -> Set {
        self.own.changed
    }

    /// The change in a version; none if that is no more.
    pub(super) fn comparison(&mut self, version: &str) -> Option<&Comparison> {
        if version == self.version {
            return Some(&self.own);
        }
        let known = self.others.iter().position(|(other, _)| other == version);
        let at = known.unwrap_or_else(|| {
            let made = self.compared_in(version);
            self.others.push((version.to_owned(), made));
            self.others.len() - 1
        });
        self.others[at].1.as_ref()
    }

    fn compared_in(&self, version: &str) -> Option<Comparison> {
        let there = self.form.at(self.version, version)?;
        let convert = |object: &'a Value| -> Option<Cow<'a, Value>> {
            // Nothing is nothing in every version.
            let nothing = object.get("kind").is_none();
            if nothing {
                return Some(Cow::Borrowed(object));
            }
            self.form.converted(object, self.version, version).map(Cow::Owned)
        };
        let (before, after) = (convert(self.before)?, convert(self.after)?);
        Some(without(compare(&there.place(), &before, &after), self.reset))
    }
}

fn without(mut comparison: Comparison, reset: &Set) -> Comparison {
    comparison.changed.retain_outside(reset);
    comparison.removed.retain_outside(reset);
    comparison
}
