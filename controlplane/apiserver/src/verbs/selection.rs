//! Which objects a list, a watch or a deletion of many is about: selectors, from the query. It must not know objects' contents
//! beyond the cache's index.

use pagurus_controlplane_api::selectors::{FieldSelector, LabelSelector};
use pagurus_controlplane_api::status::ApiError;

use crate::cache::{Cached, Snapshot};
use crate::engine::Target;
use crate::registry::FieldName;
use crate::request::Call;

/// Namespace, labels and fields that objects must have.
#[derive(Debug, Clone)]
pub(super) struct Select {
    pub(super) namespace: Option<String>,
    /// The one name that the path or the field selector fixes.
    pub(super) name: Option<String>,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    /// Where the fields must be looked at in the request's version, which only a webhook can make.
    seen_as: Option<Target>,
}

impl Select {
    /// Reads path and query.
    pub(super) fn read(call: &Call, target: &Target) -> Result<Self, ApiError> {
        let bad =
            |e: pagurus_controlplane_api::selectors::SelectorError| ApiError::bad_request(e.to_string());
        let labels =
            LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default()).map_err(bad)?;
        let fields =
            FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default()).map_err(bad)?;
        check_fields(&fields, target)?;
        let fields = fields.renamed(target.kind.strategy.field_names(&target.resource.group));
        let by_content = fields.requirements().iter().any(|r| !r.field.starts_with("metadata."));
        Ok(Self {
            seen_as: (by_content && target.is_mixed()).then(|| target.clone()),
            namespace: call.info.namespace.clone().filter(|_| target.resource.namespaced),
            name: call.info.name.clone(),
            labels: Some(labels).filter(|l| !l.is_everything()),
            fields: Some(fields).filter(|f| !f.is_everything()),
        })
    }

    /// Whether there is anything to choose by, beside the namespace.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none() && self.name.is_none()
    }

    /// The part of a snapshot that is worth looking at: one object where namespace and name are fixed.
    pub(super) fn narrow(&self, snapshot: Snapshot, target: &Target) -> Snapshot {
        match (&self.namespace, &self.name) {
            (namespace, Some(name)) if namespace.is_some() || !target.resource.namespaced => {
                snapshot.only(namespace.as_deref(), name)
            }
            _ => snapshot,
        }
    }

    /// Whether the object is meant.
    pub(super) fn matches(&self, object: &Cached) -> bool {
        self.namespace.as_ref().is_none_or(|n| object.key.namespace.as_deref() == Some(n))
            && self.name.as_ref().is_none_or(|n| object.key.name == *n)
            && self.labels.as_ref().is_none_or(|l| l.matches(&object.labels))
            && self.fields.as_ref().is_none_or(|f| match &self.seen_as {
                None => f.matches(|name| object.field(name)),
                Some(target) => {
                    let values = converted_fields(target, object);
                    let value = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
                    f.matches(|name| value(name).or_else(|| object.field(name)))
                }
            })
    }

    /// Has the objects of a snapshot converted in one go, if [`Self::matches`] must look at them in another version.
    pub(super) async fn convert_ahead(&self, snapshot: &Snapshot) -> Result<(), ApiError> {
        let Some(target) = &self.seen_as else { return Ok(()) };
        let objects = snapshot.below(self.namespace.as_deref(), None).map(|(_, object)| object.clone());
        target.convert_ahead(objects.collect()).await
    }
}

/// The selectable fields of an object in the version of a request. What cannot be converted has none: who lists or watches is told of the
/// failure before.
fn converted_fields(target: &Target, object: &Cached) -> Vec<(FieldName, String)> {
    let strategy = &target.kind.strategy;
    let Ok(value) = target.to_request_version(object.value()) else { return Vec::new() };
    let names = strategy.selectable_in(&target.resource.version).iter();
    names.map(|name| (name.clone(), strategy.field(&value, name).unwrap_or_default())).collect()
}

/// Refuses fields that the kind does not make selectable.
fn check_fields(fields: &FieldSelector, target: &Target) -> Result<(), ApiError> {
    let known = target.kind.strategy.selectable_in(&target.resource.version);
    let names = target.kind.strategy.field_names(&target.resource.group);
    for requirement in fields.requirements() {
        let field = requirement.field.as_str();
        let generic =
            field == "metadata.name" || (field == "metadata.namespace" && target.resource.namespaced);
        let is_known = match names {
            [] => known.iter().any(|name| name == field),
            names => names.iter().any(|(name, _)| *name == field),
        };
        if !generic && !is_known {
            let custom = target.kind.strategy.custom().is_some();
            let message = if known.is_empty() && !custom {
                let quoted = pagurus_controlplane_api::go::quote(field);
                format!(
                    "{quoted} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {field}")
            };
            return Err(ApiError::bad_request(message));
        }
    }
    Ok(())
}
