//! What is served at one moment: groups, their versions and their resources, built-in and custom ones alike. A registry never
//! changes; a new one takes its place when a custom resource comes or goes, and shares all groups that stayed as they were.
//!
//! It must not know requests, nor where custom resources come from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use imbl::OrdMap;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::convert;
use pagurus_controlplane_schema::discovery;
use pagurus_controlplane_schema::fields::Versions;
use pagurus_controlplane_schema::table::{Resource, Table, TypeId};
use serde_json::Value;

use crate::cache::{Cache, Cached};
use crate::strategy::Strategy;

/// The name of a field that selectors may name.
pub type FieldName = Cow<'static, str>;

/// The name of a field that is part of the program.
pub const fn named(name: &'static str) -> FieldName {
    Cow::Borrowed(name)
}

/// The rules of a kind: of the program for built-in kinds, made of its definition for a custom one.
#[derive(Clone)]
pub enum Rules {
    /// Part of the program.
    Builtin(&'static dyn Strategy),
    /// Made while the program runs.
    Custom(Arc<dyn Strategy>),
}

impl Deref for Rules {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Rules::Builtin(strategy) => *strategy,
            Rules::Custom(strategy) => &**strategy,
        }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rules::Builtin(_) => "Rules::Builtin",
            Rules::Custom(_) => "Rules::Custom",
        })
    }
}

/// A resource in the form it is stored in, with its rules and its cache.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The resource in its storage version.
    pub resource: Arc<Resource>,
    /// Its types.
    pub table: Arc<Table>,
    /// Its rules.
    pub strategy: Rules,
    /// Its objects.
    pub cache: Arc<Cache>,
}

impl Kind {
    /// The resource in the version named `GROUP/VERSION`, if the same objects are served in it.
    pub fn version(&self, api_version: &str) -> Option<&Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = self.table.resource(group, version, &self.resource.plural)?;
        Arc::ptr_eq(self.table.storage_of(resource), &self.resource).then_some(resource)
    }

    /// An object of one version in another.
    fn converted(
        &self,
        mut object: Value,
        from: &Arc<Resource>,
        to: &Arc<Resource>,
    ) -> Result<Value, ApiError> {
        if let Some(custom) = self.strategy.custom() {
            return custom.convert(object, &to.version);
        }
        if !Arc::ptr_eq(from, to) {
            convert::convert(&self.table, from, to, &mut object).map_err(ApiError::internal)?;
        }
        Ok(object)
    }
}

/// A resource as a request names it, and the kind behind it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource in the request's version.
    pub resource: Arc<Resource>,
    /// What is stored.
    pub kind: Arc<Kind>,
}

impl Target {
    /// The types of the resource, in all versions.
    pub fn table(&self) -> &Arc<Table> {
        &self.kind.table
    }

    /// Whether the request's version is the one objects are stored in.
    pub fn is_storage_version(&self) -> bool {
        Arc::ptr_eq(&self.resource, &self.kind.resource) && !self.is_mixed()
    }

    /// Whether stored objects may have to be converted by somebody else.
    pub fn is_mixed(&self) -> bool {
        self.kind.strategy.custom().is_some_and(|custom| custom.is_mixed())
    }

    /// Converts stored objects beforehand where somebody else must be asked, so that nobody has to wait while showing them.
    ///
    /// # Errors
    /// The webhook's.
    pub async fn convert_ahead(&self, objects: Vec<Arc<Cached>>) -> Result<(), ApiError> {
        match self.kind.strategy.custom() {
            Some(custom) if custom.is_mixed() => {
                let values = objects.iter().map(|object| object.value()).collect();
                custom.prepare(values, &self.resource.version).await
            }
            _ => Ok(()),
        }
    }

    /// A stored object in the request's version.
    pub fn to_request_version(&self, object: Value) -> Result<Value, ApiError> {
        self.kind.converted(object, &self.kind.resource, &self.resource)
    }

    /// The same of an object that is kept: copied only where the versions differ.
    pub fn in_request_version<'v>(&self, object: &'v Value) -> Result<Cow<'v, Value>, ApiError> {
        if self.is_storage_version() {
            return Ok(Cow::Borrowed(object));
        }
        self.to_request_version(object.clone()).map(Cow::Owned)
    }

    /// An object of the request's version in the stored form.
    pub fn to_storage_version(&self, object: Value) -> Result<Value, ApiError> {
        self.kind.converted(object, &self.resource, &self.kind.resource)
    }
}

impl Versions for Target {
    fn type_in(&self, api_version: &str) -> Option<TypeId> {
        self.kind.version(api_version).map(|resource| resource.type_id)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.kind.version(from)?, self.kind.version(to)?);
        self.kind.converted(object.clone(), from, to).ok()
    }
}

/// A resource in one version, and the kind behind it where its objects are kept at all (reviews are not).
#[derive(Debug, Clone)]
pub struct Served {
    /// The resource.
    pub resource: Arc<Resource>,
    /// What answers requests for stored objects.
    pub target: Option<Arc<Target>>,
}

impl Served {
    /// A resource whose objects are kept as `kind`.
    pub fn stored(resource: Arc<Resource>, kind: Arc<Kind>) -> Self {
        Self { target: Some(Arc::new(Target { resource: resource.clone(), kind })), resource }
    }

    /// Whether it comes from a definition and not from the program.
    pub fn is_custom(&self) -> bool {
        self.target.as_ref().is_some_and(|t| matches!(t.kind.strategy, Rules::Custom(_)))
    }
}

/// A version of a group.
#[derive(Debug)]
pub struct Version {
    /// Its name, such as `v1`.
    pub name: Arc<str>,
    resources: Vec<Served>,
    /// Where in `resources` the one of a plural name is.
    places: HashMap<Arc<str>, usize>,
    list: OnceLock<Bytes>,
}

impl Version {
    fn new(name: Arc<str>, resources: Vec<Served>) -> Self {
        let places = resources.iter().enumerate().map(|(at, s)| (s.resource.plural.clone(), at)).collect();
        Self { name, resources, places, list: OnceLock::new() }
    }

    /// The resources, in discovery's order.
    pub fn resources(&self) -> &[Served] {
        &self.resources
    }

    /// The resource of this plural name.
    pub fn resource(&self, plural: &str) -> Option<&Served> {
        self.places.get(plural).map(|at| &self.resources[*at])
    }

    /// The version's `APIResourceList`, made on first use.
    pub fn resource_list(&self, group: &str) -> Bytes {
        let make = || {
            let resources = self.resources.iter().map(|s| &*s.resource);
            discovery::api_resource_list(group, &self.name, resources).to_string().into()
        };
        self.list.get_or_init(make).clone()
    }
}

/// A group.
#[derive(Debug)]
pub struct Group {
    /// Its name, empty for core.
    pub name: Arc<str>,
    versions: Vec<Arc<Version>>,
    /// Its place in discovery: built-in groups have one each, custom ones follow by name.
    rank: usize,
    entry: OnceLock<String>,
}

impl Group {
    fn new(name: Arc<str>, rank: usize, versions: Vec<Arc<Version>>) -> Self {
        Self { name, versions, rank, entry: OnceLock::new() }
    }

    /// The versions, the preferred one first.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// The names of the versions, the preferred one first.
    pub fn version_names(&self) -> Vec<&str> {
        self.versions.iter().map(|v| &*v.name).collect()
    }

    /// The version of this name.
    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| &*v.name == name)
    }

    /// The group's entry of aggregated discovery, made on first use.
    pub fn entry(&self) -> &str {
        let make = || {
            let versions = self
                .versions
                .iter()
                .map(|version| (&*version.name, version.resources.iter().map(|s| &*s.resource)));
            discovery::aggregated_group(&self.name, versions).to_string()
        };
        self.entry.get_or_init(make)
    }
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    groups: OrdMap<Arc<str>, Arc<Group>>,
    /// How many registries there were before this one.
    generation: u64,
}

impl Registry {
    /// What is part of the program: all of a table, with the kinds of those resources that are kept.
    pub fn builtin(table: &Table, kinds: &HashMap<(Arc<str>, Arc<str>), Arc<Kind>>) -> Self {
        let serve = |resource: &Arc<Resource>| {
            let stored = table.storage_of(resource);
            match kinds.get(&(stored.group.clone(), stored.plural.clone())) {
                Some(kind) => Served::stored(resource.clone(), kind.clone()),
                None => Served { resource: resource.clone(), target: None },
            }
        };
        let group = |(rank, name): (usize, &str)| {
            let version = |version: &str| {
                let resources = table.resources().iter();
                let of_version = resources.filter(|r| &*r.group == name && &*r.version == version);
                Arc::new(Version::new(version.into(), of_version.map(serve).collect()))
            };
            let name: Arc<str> = name.into();
            (
                name.clone(),
                Arc::new(Group::new(name.clone(), rank, table.versions(&name).map(version).collect())),
            )
        };
        Self { groups: table.groups().enumerate().map(group).collect(), generation: 0 }
    }

    /// The same with these custom resources, which are all versions of one plural name in a group, in place of those that
    /// were there. None are served any more if there are none.
    pub fn with_custom(&self, group: &str, plural: &str, served: Vec<Served>) -> Self {
        let old = self.groups.get(group);
        let mut versions: Vec<(Arc<str>, Vec<Served>)> = Vec::new();
        for version in old.iter().flat_map(|g| g.versions.iter()) {
            let kept = version.resources.iter().filter(|s| !(s.is_custom() && &*s.resource.plural == plural));
            versions.push((version.name.clone(), kept.cloned().collect()));
        }
        for served in served {
            let name = &served.resource.version;
            match versions.iter_mut().find(|(version, _)| version == name) {
                Some((_, resources)) => resources.push(served),
                None => versions.push((name.clone(), vec![served])),
            }
        }
        versions.retain(|(_, resources)| !resources.is_empty());
        let rank = old.map_or(usize::MAX, |g| g.rank);
        if rank == usize::MAX {
            versions.sort_by(|(a, _), (b, _)| compare_versions(b, a));
            versions
                .iter_mut()
                .for_each(|(_, r)| r.sort_by(|a, b| a.resource.plural.cmp(&b.resource.plural)));
        }
        let mut groups = self.groups.clone();
        if versions.is_empty() {
            groups.remove(group);
        } else {
            let name: Arc<str> = group.into();
            let versions =
                versions.into_iter().map(|(name, resources)| Arc::new(Version::new(name, resources)));
            groups.insert(name.clone(), Arc::new(Group::new(name, rank, versions.collect())));
        }
        Self { groups, generation: self.generation + 1 }
    }

    /// Tells registries of one engine apart: it grows with every change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }

    /// All groups, in discovery's order.
    pub fn groups(&self) -> Vec<&Arc<Group>> {
        let mut groups: Vec<&Arc<Group>> = self.groups.values().collect();
        groups.sort_by_key(|g| g.rank);
        groups
    }

    /// The resource served at this group, version and plural name.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Served> {
        self.group(group)?.version(version)?.resource(plural)
    }

    /// All resources in all versions.
    pub fn resources(&self) -> impl Iterator<Item = &Served> {
        let versions = self.groups.values().flat_map(|g| g.versions.iter());
        versions.flat_map(|v| v.resources.iter())
    }

    /// The resource of this kind.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Served> {
        let version = self.group(group)?.version(version)?;
        version.resources.iter().find(|s| &*s.resource.kind == kind)
    }

    /// The kind behind a resource, in whatever version it is served. Events of both groups are the same objects.
    pub fn kind(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        let versions = &self.group(group)?.versions;
        let served = versions.iter().find_map(|version| version.resource(plural))?;
        served.target.as_ref().map(|target| &target.kind)
    }

    /// All stored kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        let targets = self.resources().filter_map(|served| served.target.as_ref());
        targets.filter(|target| target.is_storage_version()).map(|target| &target.kind)
    }
}

/// How versions of an API are told better and worse: general availability before beta before alpha, each by its numbers; names
/// of another form come last, in reverse order of the alphabet (Kubernetes' documentation of CustomResourceDefinition versions).
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    match (kube_version(a), kube_version(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// `v2beta1` as (stability, major, minor), larger is better; `None` if the name has another form.
fn kube_version(name: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| {
        let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| plain)
    };
    let rest = name.strip_prefix('v')?;
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    number(rest).map(|major| (2, major, 0))
}

#[cfg(test)]
mod tests;
