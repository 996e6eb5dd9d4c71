//! Serves one definition and tells so in its status, in this order: whoever reads that a definition is established can use it at once.
//! It must not know the other definitions.

use std::sync::Arc;
use std::time::Duration;

use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::field::{FieldError, Path, aggregate};
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::Table;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Custom;
use super::accept::Accepted;
use super::resource::resource_of;
use crate::cache::{Cache, CacheError};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::registry::{Kind, Rules, Served};
use crate::request::UserInfo;
use crate::resources::extensions::{approval_condition, set_condition, structural_errors};
use crate::resources::fields::Fields;

pub(super) const GROUP: &str = "apiextensions.k8s.io";
pub(super) const PLURAL: &str = "customresourcedefinitions";
/// How long to wait before a definition that could not be served is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a status is written when others keep coming between.
const ATTEMPTS: usize = 8;

/// The definitions as a resource.
pub(super) fn definitions() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", PLURAL)
}

/// What answers requests for a custom resource.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) cache: Arc<Cache>,
    /// Ends the cache.
    pub(super) stop: CancellationToken,
    /// The generation that is served, and whether it was going away then: other changes are not the resource's.
    pub(super) of: (i64, bool),
}

/// One turn of a definition.
pub(super) struct Job {
    pub(super) engine: Arc<Engine>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) name: String,
    pub(super) definition: Value,
    /// Its revision.
    pub(super) revision: u64,
    pub(super) accepted: Accepted,
    /// What is served of it already.
    pub(super) serving: Option<Serving>,
    /// What kept the schemas of a generation from being structural.
    pub(super) violations: Option<(i64, String)>,
}

/// What became of a definition in its turn.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) name: String,
    /// The revision that needs no other turn, or why there must be one.
    pub(super) result: Result<u64, Failure>,
    pub(super) serving: Option<Serving>,
    pub(super) violations: Option<(i64, String)>,
}

/// Why a definition must have another turn.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Its objects cannot be read.
    #[error("its resource cannot be served: {0}")]
    Serve(#[from] CacheError),
    /// Its status cannot be written.
    #[error("its status cannot be written: {0}")]
    Tell(#[from] ApiError),
}

impl Job {
    /// Does it; after a failure it waits for a moment, so that the next turn comes later.
    pub(super) async fn run(mut self) -> Done {
        let result = self.attempt().await;
        if let Err(error) = &result {
            warn!(definition = self.name, %error, "a custom resource is not what its definition says, trying again");
            let cancelled = self.engine.cancelled();
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        Done { name: self.name, result, serving: self.serving, violations: self.violations }
    }

    async fn attempt(&mut self) -> Result<u64, Failure> {
        let generation = self.definition.int("metadata.generation");
        let of = (generation, self.definition.has("metadata.deletionTimestamp"));
        let serves = self.accepted.conflict.is_none() || conditions::is_true(&self.definition, "Established");
        if serves && self.serving.as_ref().is_none_or(|serving| serving.of != of) {
            self.serve(of).await?;
        }
        let violations = match self.violations.take() {
            Some((known, violations)) if known == generation => violations,
            _ => violations(&self.definition),
        };
        let told = self.tell(&violations).await;
        self.violations = Some((generation, violations));
        Ok(told?)
    }

    /// Serves a definition's versions as they are now, in place of what was served of it.
    async fn serve(&mut self, of: (i64, bool)) -> Result<(), CacheError> {
        let definition = &self.definition;
        let custom = Arc::new(Custom::of(definition, self.objects.clone()));
        let resources = custom.versions().iter().map(|v| (resource_of(definition, &custom, v), &v.schema));
        let table = Arc::new(Table::overlay(Table::builtin(), resources.collect()));
        let (group, plural) = (definition.text("spec.group"), definition.text("spec.names.plural"));
        let storage = table.resource(group, &custom.storage().name, plural).cloned();
        let Some(storage) = storage else {
            tracing::error!(definition = self.name, "a definition has no storage version");
            return Ok(());
        };
        let kind = match &mut self.serving {
            Some(serving) => {
                let strategy = Rules::Custom(custom.clone());
                if serving.of.0 != of.0 {
                    serving.cache.follow(strategy.clone());
                }
                serving.of = of;
                Kind { resource: storage, table: table.clone(), strategy, cache: serving.cache.clone() }
            }
            None => {
                let (kind, stop) = self.engine.start_kind(storage, table.clone(), custom.clone()).await?;
                self.serving = Some(Serving { cache: kind.cache.clone(), stop, of });
                kind
            }
        };
        let kind = Arc::new(kind);
        let served = table.resources().iter().filter(|r| custom.version(&r.version).served);
        let served = served.map(|r| Served::stored(r.clone(), kind.clone())).collect();
        self.engine.serve_custom(group, plural, served);
        Ok(())
    }

    /// Writes what became of the definition into its status; the revision up to which that is so.
    async fn tell(&self, violations: &str) -> Result<u64, ApiError> {
        let definition = &self.definition;
        // The schemas are most of a definition, and nothing here looks at them.
        let mut small = json!({"metadata": definition.at("metadata"), "status": definition.at("status")});
        small["spec"] = json!({"group": definition.at("spec.group")});
        if !settle(&mut small, &self.accepted, violations) {
            return Ok(self.revision);
        }
        let uid = definition.text("metadata.uid");
        let change = |definition: &mut Value| {
            definition.text("metadata.uid") == uid && settle(definition, &self.accepted, violations)
        };
        let written = match write_status(&self.engine, &self.name, change).await {
            Ok(written) => written,
            // It is gone.
            Err(error) if error.code == 404 => None,
            Err(error) => return Err(error),
        };
        // What was written says nothing new, unless somebody else has changed the rest meanwhile.
        let own = written.filter(|written| {
            let same = |path: &str| written.at(path) == definition.at(path);
            same("metadata.generation") && same("metadata.deletionTimestamp")
        });
        let own = own.and_then(|written| written.text("metadata.resourceVersion").parse().ok());
        Ok(own.unwrap_or(self.revision))
    }
}

/// Writes the status of a definition as a client of the API would, so that its managers tell who did; again if somebody came between.
/// `change` says whether there is anything to write. The definition as it was written, if it was.
pub(super) async fn write_status(
    engine: &Engine,
    name: &str,
    change: impl Fn(&mut Value) -> bool,
) -> Result<Option<Value>, ApiError> {
    let (resource, user) = (definitions(), UserInfo::server());
    for attempt in 1.. {
        let mut definition = engine.get(&resource, None, name).await?;
        if !change(&mut definition) {
            return Ok(None);
        }
        match engine.update(&resource, None, name, Some("status"), definition, &user).await {
            Ok(written) => return Ok(Some(written)),
            Err(error) if error.code == 409 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
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
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, "must be false"));
    }
    for (at, version) in definition.items("spec.versions").iter().enumerate() {
        let path = Path::new("spec").child("versions").index(at).child("schema").child("openAPIV3Schema");
        errors.extend(structural_errors(&path, version.at("schema.openAPIV3Schema")));
    }
    if errors.is_empty() { String::new() } else { aggregate(&errors) }
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
