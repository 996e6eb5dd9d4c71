//! Which objects a list, a watch or a deletion of many is about: selectors, from the query. It must not know objects' contents
//! beyond the cache's index.

use pagurus_controlplane_api::selectors::{FieldSelector, LabelSelector};
use pagurus_controlplane_api::status::ApiError;

use crate::cache::{Cached, Snapshot};
use crate::engine::Target;
use crate::request::Call;

/// Namespace, labels and fields that objects must have.
#[derive(Debug, Clone)]
pub(super) struct Select {
    pub(super) namespace: Option<String>,
    /// The one name that the path or the field selector fixes.
    pub(super) name: Option<String>,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
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
        Ok(Self {
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
            && self.fields.as_ref().is_none_or(|f| f.matches(|name| object.field(name)))
    }
}

/// Refuses fields that the kind does not make selectable.
fn check_fields(fields: &FieldSelector, target: &Target) -> Result<(), ApiError> {
    let known = target.kind.strategy.selectable_fields();
    for requirement in fields.requirements() {
        let field = requirement.field.as_str();
        let generic =
            field == "metadata.name" || (field == "metadata.namespace" && target.resource.namespaced);
        if !generic && !known.iter().any(|name| name == field) {
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
