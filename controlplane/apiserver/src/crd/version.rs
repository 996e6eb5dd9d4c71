//! One version of a custom resource, as its definition describes it. It must not know the other versions.

use std::sync::{Arc, OnceLock};

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_schema::structural::Schema;
use serde_json::Value;

use super::columns::{self, Column};
use super::rules::Rules;
use crate::registry::FieldName;
use crate::resources::fields::Fields;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Version {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Whether requests may use it.
    pub(crate) served: bool,
    /// What its objects look like.
    pub(crate) schema: Schema,
    /// What to tell whoever uses it, if it is going away.
    pub(crate) deprecation: Option<String>,
    /// Whether the status is written on its own.
    pub(crate) has_status: bool,
    /// Where replicas are, if it can be scaled.
    pub(crate) scale: Option<Scale>,
    /// The fields that selectors may name, as they name them.
    pub(crate) selectable: Vec<FieldName>,
    /// The rules of the schema, compiled when an object is first asked about: most definitions of a large cluster have none.
    rules: OnceLock<Option<Rules>>,
    pub(super) columns: Vec<Column>,
    /// The definitions of its tables' columns.
    pub(crate) column_definitions: Arc<Value>,
}

/// Where a version keeps what the `scale` subresource shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    /// The path of the replicas wanted, such as `.spec.replicas`.
    pub(crate) spec: String,
    /// The path of the replicas there are.
    pub(crate) status: String,
    /// The path of the selector of what is counted, as text.
    pub(crate) selector: Option<String>,
}

impl Version {
    /// Of an entry of a definition's `spec.versions`.
    pub(crate) fn of(group: &str, kind: &str, version: &Value) -> Self {
        let name = version.text("name");
        let deprecation = version.flag("deprecated").then(|| match version.some_text("deprecationWarning") {
            Some(text) => text.to_owned(),
            None => format!("{group}/{name} {kind} is deprecated"),
        });
        let scale = version.at("subresources.scale");
        let scale = scale.is_object().then(|| Scale {
            spec: scale.text("specReplicasPath").to_owned(),
            status: scale.text("statusReplicasPath").to_owned(),
            selector: scale.some_text("labelSelectorPath").filter(|path| !path.is_empty()).map(str::to_owned),
        });
        let (columns, definitions) = columns::of_version(version);
        let fields = version.items("selectableFields").iter();
        Self {
            name: name.into(),
            served: version.flag("served"),
            schema: Schema::parse(version.at("schema.openAPIV3Schema")),
            deprecation,
            has_status: version.has("subresources.status"),
            scale,
            selectable: fields
                .map(|f| FieldName::from(f.text("jsonPath").trim_start_matches('.').to_owned()))
                .collect(),
            rules: OnceLock::new(),
            columns,
            column_definitions: Arc::new(definitions),
        }
    }

    /// What the rules of the schema say against an object, new or changed, whose values are such as the schema wants.
    pub(super) fn check_rules(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.rules().map(|rules| rules.check(object, old).errors).unwrap_or_default()
    }

    /// Rules that do not hold, and did not before, for values that stay as they were.
    pub(super) fn kept_failures(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        self.rules().map(|rules| rules.check(object, Some(old)).kept).unwrap_or_default()
    }

    fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::of(&self.schema)).as_ref()
    }
}
