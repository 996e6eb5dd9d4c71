//! What the table says of a served resource. It must not know how requests reach it.

use std::sync::Arc;

use super::TypeId;

/// A resource as discovery shows it, in one version.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: Arc<str>,
    /// API version.
    pub version: Arc<str>,
    /// Name in paths.
    pub plural: Arc<str>,
    /// Singular name for people.
    pub singular: Arc<str>,
    /// Kind of its objects.
    pub kind: Arc<str>,
    /// Kind of its lists.
    pub list_kind: Arc<str>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Verbs, sorted.
    pub verbs: Vec<Arc<str>>,
    /// Short names.
    pub short_names: Vec<Arc<str>>,
    /// Categories, such as `all`.
    pub categories: Vec<Arc<str>>,
    /// Subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// Where and in which version objects are stored.
    pub storage: Storage,
    /// Version in which objects are stored (`storage.version`).
    pub storage_version: Arc<str>,
    /// Discovery's `storageVersionHash`.
    pub storage_version_hash: Arc<str>,
    /// Type of its objects.
    pub type_id: TypeId,
    /// Columns of its tables.
    pub columns: Vec<Column>,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }

    /// Whether the resource has this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| &**v == verb)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| &*s.name == name)
    }

    /// The subresource's own type if it has one, else the resource's (status, finalize, approval, ...).
    pub fn subresource_type(&self, name: &str) -> Option<TypeId> {
        self.subresource(name).map(|s| s.type_id.unwrap_or(self.type_id))
    }
}

/// Part of a resource with a path and verbs of its own.
#[derive(Debug)]
pub struct Subresource {
    /// Last element of its path.
    pub name: Arc<str>,
    /// What it takes and answers.
    pub kind: GroupKind,
    /// Verbs, sorted.
    pub verbs: Vec<Arc<str>>,
    /// The type of `kind`, if the table has it.
    pub type_id: Option<TypeId>,
}

/// A kind with its API group and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKind {
    /// API group; empty for core.
    pub group: Arc<str>,
    /// API version.
    pub version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
}

/// The form in which the objects of a resource are stored. Resources of two groups can share one (events).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// API group; empty for core.
    pub group: Arc<str>,
    /// API version.
    pub version: Arc<str>,
    /// Plural name.
    pub plural: Arc<str>,
}

/// A column of a resource's table.
#[derive(Debug)]
pub struct Column {
    /// Heading.
    pub name: Arc<str>,
    /// `string`, `integer`, ...
    pub type_: Arc<str>,
    /// `name`, `date` or empty.
    pub format: Arc<str>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i64,
}

/// `v1` for the core group, else `group/version`.
pub(crate) fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
