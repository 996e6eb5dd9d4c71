//! The table itself: every type of the API with its fields, and every resource that is served.
//!
//! It is read once from a compact text that `cargo xtask codegen` makes. This module must not know how the text is made,
//! nor what anybody does with the facts in it.

#[cfg(test)]
pub(crate) mod arbitrary;
mod field;
mod load;
mod overlay;
mod resource;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub use field::{Field, FieldKind, ListType, PatchStrategy, Presence, Type};
pub use load::LoadError;
pub use resource::{Column, GroupKind, Resource, Storage, Subresource};

/// The committed table of the API version this build serves.
const BUILTIN: &str = include_str!("table/v1_37.txt");

const META_PACKAGE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Kinds that every group and version has.
const OPTIONS_OF_EVERY_GROUP: &[&str] = &[
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "UpdateOptions",
    "WatchEvent",
];

/// Names a type of one table. Cheap to copy; meaningless in another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

impl TypeId {
    /// The number of the type in its table.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Finds by group, version and name without allocating.
#[derive(Debug, Default)]
struct Index<T> {
    entries: Vec<([Arc<str>; 3], T)>,
}

impl<T: Copy> Index<T> {
    fn new(mut entries: Vec<([Arc<str>; 3], T)>) -> Self {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Index { entries }
    }

    fn get(&self, group: &str, version: &str, name: &str) -> Option<T> {
        let wanted = [group, version, name];
        let found = self.entries.binary_search_by(|(key, _)| key.iter().map(|part| &**part).cmp(wanted));
        found.ok().map(|at| self.entries[at].1)
    }
}

/// All types and resources of the API.
#[derive(Debug)]
pub struct Table {
    /// The table below this one, whose types keep their ids and come first.
    base: Option<Arc<Table>>,
    types: Vec<Type>,
    by_name: HashMap<Arc<str>, TypeId>,
    by_kind: Index<TypeId>,
    resources: Vec<Arc<Resource>>,
    by_resource: Index<usize>,
    groups: Vec<(Arc<str>, Vec<Arc<str>>)>,
    digest: u64,
}

impl Table {
    /// The built-in table, read from the committed text on first use.
    pub fn builtin() -> &'static Arc<Table> {
        static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| {
            let table = Table::parse(BUILTIN);
            Arc::new(table.expect("the committed type table is well formed (a test reads it)"))
        });
        &TABLE
    }

    /// Reads a table from its text form.
    pub fn parse(text: &str) -> Result<Table, LoadError> {
        load::parse(text)
    }

    /// Names the table's content: equal for equal text in one build.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The type with this id.
    pub fn type_(&self, id: TypeId) -> &Type {
        match &self.base {
            Some(base) if (id.0 as usize) < base.types.len() => base.type_(id),
            Some(base) => &self.types[id.0 as usize - base.types.len()],
            None => &self.types[id.0 as usize],
        }
    }

    /// All types with their ids, by package and name; those of a table below this one are not among them.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        let first = self.base.as_ref().map_or(0, |base| base.types.len());
        self.types.iter().enumerate().map(move |(i, t)| (TypeId((first + i) as u32), t))
    }

    /// The type of this full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        let below = || self.base.as_ref().and_then(|base| base.type_named(name));
        self.by_name.get(name).copied().or_else(below)
    }

    /// The type of any kind that has an `apiVersion` of its own: resources, their lists, options, reviews, `Status`.
    pub fn kind_type(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.by_kind.get(group, version, kind).or_else(|| {
            let everywhere = OPTIONS_OF_EVERY_GROUP.contains(&kind);
            let options = || self.type_named(&format!("{META_PACKAGE}.{kind}"));
            let below = || self.base.as_ref().and_then(|base| base.kind_type(group, version, kind));
            if everywhere { options() } else { below() }
        })
    }

    /// The resource served at this group, version and plural name.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_resource.get(group, version, plural).map(|at| &self.resources[at])
    }

    /// Every served resource, in discovery's order.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The served resource whose objects are of this kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| &*r.kind == kind && &*r.group == group && &*r.version == version)
    }

    /// The served groups (the core group is the empty name), in discovery's order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(group, _)| &**group)
    }

    /// The served versions of a group, the preferred one first.
    pub fn versions(&self, group: &str) -> impl Iterator<Item = &str> {
        let found = self.groups.iter().find(|(name, _)| &**name == group);
        found.into_iter().flat_map(|(_, versions)| versions.iter().map(|v| &**v))
    }

    /// The resource in whose form the objects of `resource` are stored.
    pub fn storage_of<'t>(&'t self, resource: &'t Arc<Resource>) -> &'t Arc<Resource> {
        let s = &resource.storage;
        self.resource(&s.group, &s.version, &s.plural).unwrap_or(resource)
    }
}

#[cfg(test)]
mod tests;
