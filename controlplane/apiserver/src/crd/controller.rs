//! Follows the definitions: accepts their names, serves their resources, and tells so in their status, in this order: whoever reads
//! that a definition is established can use it at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::field::{Path, aggregate};
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::Table;
use pagurus_controlplane_schema::table::{GroupKind, Resource, Storage, Subresource};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::accept::{self, Accepted};
use super::{Custom, terminate};
use crate::cache::{Cache, CacheError, Cached};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::registry::{Kind, Rules, Served};
use crate::request::UserInfo;
use crate::resources::extensions::{CLEANUP, approval_condition, set_condition, structural_errors};
use crate::resources::fields::Fields;

pub(super) const GROUP: &str = "apiextensions.k8s.io";
pub(super) const PLURAL: &str = "customresourcedefinitions";
/// How long to wait before a definition that could not be served is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a status is written when others keep coming between.
const ATTEMPTS: usize = 8;
/// What a custom resource can do, in discovery's order.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// See the module's description.
pub struct Definitions {
    engine: Arc<Engine>,
    objects: Arc<dyn Objects>,
    definitions: Arc<Cache>,
    known: HashMap<String, Known>,
}

/// What was made of a definition.
struct Known {
    revision: u64,
    uid: String,
    group: String,
    plural: String,
    accepted: Value,
    served: Option<(Arc<Cache>, CancellationToken)>,
    /// The generation that is served, and whether it was going away then: other changes are not the resource's.
    of: Option<(i64, bool)>,
    /// What keeps its schemas from being structural.
    violations: String,
    terminating: bool,
}

/// The definitions as a resource.
pub(super) fn resource() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", PLURAL)
}

impl Definitions {
    /// Serves what is established already, so that it is there from the first request on.
    pub async fn start(engine: Arc<Engine>, objects: Arc<dyn Objects>) -> Result<Self, CacheError> {
        let definitions = engine.cache(GROUP, PLURAL).ok_or(CacheError::Gone { asked: 0 })?;
        let mut this = Self { engine, objects, definitions, known: HashMap::new() };
        for cached in this.definitions.list(None) {
            let definition = cached.value();
            if conditions::is_true(&definition, "Established") {
                this.serve(&cached.key.name, &definition).await?;
            }
        }
        Ok(this)
    }

    /// Follows the definitions until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let seen = self.definitions.revision();
            let whole = self.pass().await;
            let again =
                async { if whole { std::future::pending().await } else { tokio::time::sleep(RETRY).await } };
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = self.definitions.changed(seen) => {}
                () = again => {}
            }
        }
    }

    /// Looks at all definitions that changed; false if something failed.
    async fn pass(&mut self) -> bool {
        let now = self.definitions.snapshot();
        let gone: Vec<String> = self
            .known
            .iter()
            .filter(|(name, known)| now.get(None, name).is_none_or(|cached| cached.uid != known.uid))
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().for_each(|name| self.forget(name));
        let mut whole = gone.is_empty();
        for cached in now.objects.values() {
            if self.known.get(&cached.key.name).is_some_and(|known| known.revision == cached.revision) {
                continue;
            }
            if let Err(error) = self.take(cached).await {
                warn!(definition = cached.key.name, %error, "a custom resource cannot be served, trying again");
                whole = false;
            }
        }
        whole
    }

    /// A definition is gone: so is its resource. Names that it held are free for others.
    fn forget(&mut self, name: &str) {
        let Some(known) = self.known.remove(name) else { return };
        self.engine.serve_custom(&known.group, &known.plural, Vec::new());
        if let Some((_, stop)) = known.served {
            stop.cancel();
        }
        for other in self.known.values_mut().filter(|other| other.group == known.group) {
            other.revision = 0;
        }
    }

    async fn take(&mut self, cached: &Cached) -> Result<(), CacheError> {
        let (definition, name) = (cached.value(), cached.key.name.as_str());
        let group = definition.text("spec.group");
        let others: Vec<Value> = self
            .known
            .iter()
            .filter(|(other, known)| *other != name && known.group == group)
            .map(|(_, known)| known.accepted.clone())
            .collect();
        let accepted = accept::names(&definition, &others);
        let serves = accepted.conflict.is_none() || conditions::is_true(&definition, "Established");
        let deleting = definition.has("metadata.deletionTimestamp");
        let of = (definition.int("metadata.generation"), deleting);
        let fresh = self.known.get(name).is_none_or(|known| known.of != Some(of));
        if serves && fresh {
            self.serve(name, &definition).await?;
        }
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known::of(&definition));
        if fresh {
            known.violations = violations(&definition);
        }
        if serves {
            known.of = Some(of);
        }
        let violations = known.violations.clone();
        let written = self.tell(name, &cached.uid, &definition, &accepted, &violations).await;
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known::of(&definition));
        known.accepted = accepted.names;
        known.uid.clone_from(&cached.uid);
        if written {
            known.revision = cached.revision;
        }
        if deleting && !known.terminating && definition.texts("metadata.finalizers").any(|f| f == CLEANUP) {
            known.terminating = true;
            let ending = terminate::run(self.engine.clone(), name.to_owned(), cached.uid.clone());
            tokio::spawn(ending);
        }
        Ok(())
    }

    /// Serves a definition's versions as they are now, in place of what was served of it.
    async fn serve(&mut self, name: &str, definition: &Value) -> Result<(), CacheError> {
        let custom = Arc::new(Custom::of(definition, self.objects.clone()));
        let resources = custom.versions().iter().map(|v| (resource_of(definition, &custom, v), &v.schema));
        let table = Arc::new(Table::overlay(Table::builtin(), resources.collect()));
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known::of(definition));
        let (group, plural) = (definition.text("spec.group"), definition.text("spec.names.plural"));
        let storage = table.resource(group, &custom.storage().name, plural).cloned();
        let Some(storage) = storage else {
            error!(definition = name, "a definition has no storage version");
            return Ok(());
        };
        let kind = match &known.served {
            Some((cache, _)) => {
                cache.follow(Rules::Custom(custom.clone()));
                let strategy = Rules::Custom(custom.clone());
                Kind { resource: storage, table: table.clone(), strategy, cache: cache.clone() }
            }
            None => {
                let stop = CancellationToken::new();
                let kind =
                    self.engine.start_kind(storage, table.clone(), custom.clone(), stop.clone()).await?;
                known.served = Some((kind.cache.clone(), stop));
                kind
            }
        };
        let kind = Arc::new(kind);
        let served = table.resources().iter().filter(|r| custom.version(&r.version).served);
        let served = served.map(|r| Served::stored(r.clone(), kind.clone())).collect();
        self.engine.serve_custom(group, plural, served);
        Ok(())
    }

    /// Writes what became of a definition into its status; false if that failed.
    async fn tell(
        &self,
        name: &str,
        uid: &str,
        definition: &Value,
        accepted: &Accepted,
        violations: &str,
    ) -> bool {
        // The schemas are most of a definition, and nothing here looks at them.
        let mut small = json!({"metadata": definition.at("metadata"), "status": definition.at("status")});
        small["spec"] = json!({"group": definition.at("spec.group")});
        if !settle(&mut small, accepted, violations) {
            return true;
        }
        let change = |definition: &mut Value| {
            definition.text("metadata.uid") == uid && settle(definition, accepted, violations)
        };
        match write_status(&self.engine, name, change).await {
            Ok(()) => true,
            // It is gone.
            Err(error) if error.code == 404 => true,
            Err(error) => {
                warn!(definition = name, %error, "the status of a definition cannot be written, trying again");
                false
            }
        }
    }
}

/// Writes the status of a definition as a client of the API would, so that its managers tell who did; again if somebody came between.
/// `change` says whether there is anything to write.
pub(super) async fn write_status(
    engine: &Engine,
    name: &str,
    change: impl Fn(&mut Value) -> bool,
) -> Result<(), ApiError> {
    let (resource, user) = (resource(), UserInfo::server());
    for attempt in 1.. {
        let mut definition = engine.get(&resource, None, name).await?;
        if !change(&mut definition) {
            return Ok(());
        }
        match engine.update(&resource, None, name, Some("status"), definition, &user).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code == 409 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Known {
    fn of(definition: &Value) -> Self {
        Self {
            revision: 0,
            uid: definition.text("metadata.uid").to_owned(),
            group: definition.text("spec.group").to_owned(),
            plural: definition.text("spec.names.plural").to_owned(),
            accepted: definition.at("status.acceptedNames").clone(),
            served: None,
            of: None,
            violations: String::new(),
            terminating: false,
        }
    }
}

/// Brings a definition's status up to date; whether that changed it.
fn settle(definition: &mut Value, accepted: &Accepted, violations: &str) -> bool {
    let before = definition.at("status").clone();
    if !definition.at("status").is_object() {
        definition["status"] = json!({});
    }
    definition["status"]["acceptedNames"] = accepted.names.clone();
    match &accepted.conflict {
        None => {
            set_condition(definition, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            let message = "the initial names have been accepted";
            set_condition(definition, "Established", true, "InitialNamesAccepted", message);
        }
        Some((reason, message)) => {
            set_condition(definition, "NamesAccepted", false, reason, message);
            if !conditions::is_true(definition, "Established") {
                set_condition(definition, "Established", false, "NotAccepted", "not all names are accepted");
            }
        }
    }
    if let Some((holds, reason, message)) = approval_condition(definition) {
        set_condition(definition, "KubernetesAPIApprovalPolicyConformant", holds, reason, &message);
    }
    if !violations.is_empty() {
        set_condition(definition, "NonStructuralSchema", true, "Violations", violations);
    } else if conditions::is_true(definition, "NonStructuralSchema")
        && let Some(list) = definition["status"]["conditions"].as_array_mut()
    {
        list.retain(|condition| condition.text("type") != "NonStructuralSchema");
    }
    before != *definition.at("status")
}

/// What keeps schemas from before they had to be structural from being so.
fn violations(definition: &Value) -> String {
    let mut errors = Vec::new();
    if definition.flag("spec.preserveUnknownFields") {
        errors.push(pagurus_controlplane_api::field::FieldError::invalid(
            "spec.preserveUnknownFields",
            true,
            "must be false",
        ));
    }
    for (at, version) in definition.items("spec.versions").iter().enumerate() {
        let path = Path::new("spec").child("versions").index(at).child("schema").child("openAPIV3Schema");
        errors.extend(structural_errors(&path, version.at("schema.openAPIV3Schema")));
    }
    if errors.is_empty() { String::new() } else { aggregate(&errors) }
}

/// A version as a resource.
fn resource_of(definition: &Value, custom: &Custom, version: &super::Version) -> Resource {
    let names = definition.at("spec.names");
    let group: Arc<str> = definition.text("spec.group").into();
    let texts = |name: &str| names.texts(name).map(Arc::from).collect();
    let verbs = |verbs: &[&str]| verbs.iter().map(|verb| Arc::from(*verb)).collect::<Vec<Arc<str>>>();
    let kind = |group: &str, version: &str, kind: &str| GroupKind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    };
    let subresource = |name: &str, kind: GroupKind| Subresource {
        name: name.into(),
        verbs: verbs(&["get", "patch", "update"]),
        type_id: Table::builtin().kind_type(&kind.group, &kind.version, &kind.kind),
        kind,
    };
    let mut subresources = Vec::new();
    if version.scale.is_some() {
        subresources.push(subresource("scale", kind("autoscaling", "v1", "Scale")));
    }
    if version.has_status {
        subresources.push(subresource("status", kind(&group, &version.name, names.text("kind"))));
    }
    let deleting = definition.has("metadata.deletionTimestamp");
    let storage_version = custom.storage().name.clone();
    let plural: Arc<str> = names.text("plural").into();
    Resource {
        version: version.name.clone(),
        singular: names.text("singular").into(),
        kind: names.text("kind").into(),
        list_kind: names.text("listKind").into(),
        namespaced: definition.text("spec.scope") == "Namespaced",
        // Nothing new comes to what is going away.
        verbs: verbs(
            &VERBS.iter().copied().filter(|verb| !(deleting && *verb == "create")).collect::<Vec<_>>(),
        ),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        subresources,
        storage: Storage { group: group.clone(), version: storage_version.clone(), plural: plural.clone() },
        storage_version_hash: storage_hash(&group, &storage_version, names.text("kind")).into(),
        storage_version,
        type_id: any_type(),
        columns: Vec::new(),
        plural,
        group,
    }
}

/// Any type: the table sets that of a custom resource when it is made.
fn any_type() -> pagurus_controlplane_schema::TypeId {
    Table::builtin().resources()[0].type_id
}

/// Names the form that objects are stored in: the first eight bytes of the digest of group, version and kind.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_what_became_of_a_definition() {
        let mut definition =
            json!({"spec": {"group": "example.org", "versions": []}, "status": {"conditions": null}});
        let names = json!({"plural": "as", "kind": "A"});
        let accepted = Accepted { names: names.clone(), conflict: None };
        assert!(settle(&mut definition, &accepted, ""));
        let shown: Vec<(&str, &str, &str)> = definition
            .items("status.conditions")
            .iter()
            .map(|c| (c.text("type"), c.text("status"), c.text("reason")))
            .collect();
        assert_eq!(
            shown,
            [("NamesAccepted", "True", "NoConflicts"), ("Established", "True", "InitialNamesAccepted")]
        );
        assert_eq!(definition["status"]["acceptedNames"], names);
        assert!(!settle(&mut definition, &accepted, ""), "the second time nothing changes");
        let refused =
            Accepted { names, conflict: Some(("KindConflict", "\"A\" is already in use".to_owned())) };
        assert!(settle(&mut definition, &refused, ""));
        assert!(conditions::is_true(&definition, "Established"), "what is established stays so");
        assert!(!conditions::is_true(&definition, "NamesAccepted"));
    }
}
