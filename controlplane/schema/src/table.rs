//! The table itself: every type of the API with its fields, and every resource that is served.
//!
//! It is read once from a compact text that `cargo xtask codegen` makes. This module must not know how the text is made,
//! nor what anybody does with the facts in it.

mod field;
mod load;
mod resource;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub use field::{Field, FieldKind, ListType, PatchStrategy, Presence, Type};
pub use load::LoadError;
pub use resource::{Column, GroupKind, Resource, Storage, Subresource};

/// The committed table of the API version this build serves.
const BUILTIN: &str = include_str!("table/v1_37.txt");

/// Names a type of one table. Cheap to copy; meaningless in another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// All types and resources of the API.
#[derive(Debug)]
pub struct Table {
    types: Vec<Type>,
    by_name: HashMap<Arc<str>, TypeId>,
    by_kind: HashMap<(Arc<str>, Arc<str>, Arc<str>), TypeId>,
    resources: Vec<Resource>,
    by_resource: HashMap<(Arc<str>, Arc<str>, Arc<str>), usize>,
    groups: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

impl Table {
    /// The built-in table, read from the committed text on first use.
    pub fn builtin() -> &'static Table {
        static TABLE: LazyLock<Table> = LazyLock::new(|| {
            Table::parse(BUILTIN).expect("the committed type table is well formed (a test reads it)")
        });
        &TABLE
    }

    /// Reads a table from its text form.
    pub fn parse(text: &str) -> Result<Table, LoadError> {
        load::parse(text)
    }

    /// The type with this id.
    pub fn type_(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// All types with their ids, by package and name.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(i, t)| (TypeId(i as u32), t))
    }

    /// The type of this full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type of any kind that has an `apiVersion` of its own: resources, their lists, options, reviews, `Status`.
    pub fn kind_type(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.by_kind.get(&(Arc::from(group), Arc::from(version), Arc::from(kind))).copied()
    }

    /// The resource served at this group, version and plural name.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        let at = self.by_resource.get(&(Arc::from(group), Arc::from(version), Arc::from(plural)))?;
        Some(&self.resources[*at])
    }

    /// Every served resource, in discovery's order.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The served resource whose objects are of this kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
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
    pub fn storage_of<'t>(&'t self, resource: &'t Resource) -> &'t Resource {
        let s = &resource.storage;
        self.resource(&s.group, &s.version, &s.plural).unwrap_or(resource)
    }
}
