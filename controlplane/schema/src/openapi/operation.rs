//! One operation of a path: parameters, body, answers. It must not know which operations there are.

use serde_json::{Value, json};

use super::Dialect;
use super::schema::{self, reference};
use crate::table::GroupKind;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Get,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::List => "list",
            Action::Get => "get",
            Action::Create => "post",
            Action::Update => "put",
            Action::Patch => "patch",
            Action::Delete => "delete",
            Action::DeleteCollection => "deletecollection",
            Action::Connect => "connect",
        }
    }
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) action: Action,
    pub(super) kind: GroupKind,
    /// Schema of the body, where the action has one.
    pub(super) body: Option<String>,
    /// Schema of the answer; plain text without one.
    pub(super) answer: Option<String>,
    pub(super) tag: String,
}

const OBJECT_TYPES: &[&str] = &["application/json", "application/yaml"];
const WATCH_TYPES: &[&str] = &["application/json", "application/yaml", "application/json;stream=watch"];
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Query parameters: name, type, meaning.
type Parameters = &'static [(&'static str, &'static str, &'static str)];

const WRITE: Parameters = &[
    ("dryRun", "string", "All: everything but the storing happens"),
    ("fieldManager", "string", "Name of the actor that makes the change"),
    ("fieldValidation", "string", "What happens to unknown and doubled fields: Ignore, Warn or Strict"),
];
const FORCE: Parameters = &[("force", "boolean", "Apply takes over fields that others own")];
const DELETE: Parameters = &[
    ("dryRun", "string", "All: everything but the storing happens"),
    ("gracePeriodSeconds", "integer", "Seconds before the object goes; zero means at once"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete even what cannot be read"),
    ("orphanDependents", "boolean", "Deprecated: see propagationPolicy"),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground"),
];
const LIST: Parameters = &[
    ("allowWatchBookmarks", "boolean", "A watch may send bookmarks"),
    ("continue", "string", "Token of the previous page"),
    ("fieldSelector", "string", "Restricts by fields"),
    ("labelSelector", "string", "Restricts by labels"),
    ("limit", "integer", "Items in one page"),
    ("resourceVersion", "string", "How fresh the answer must be"),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan"),
    ("sendInitialEvents", "boolean", "A watch begins with what is there"),
    ("timeoutSeconds", "integer", "Seconds after which the call ends"),
    ("watch", "boolean", "Send changes as they happen"),
];

impl Operation {
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut out = json!({
            "tags": [self.tag],
            "description": format!("{} {}", self.action.name(), self.kind.kind),
            "operationId": self.id,
            "responses": self.responses(dialect),
            "x-kubernetes-action": self.action.name(),
            "x-kubernetes-group-version-kind":
                {"group": self.kind.group, "version": self.kind.version, "kind": self.kind.kind},
        });
        let mut parameters: Vec<Value> = self.parameters().map(|(n, t, d)| query(dialect, n, t, d)).collect();
        let body = self.body_schema();
        match (dialect, body) {
            (Dialect::V2, body) => {
                if let Some((name, types)) = body {
                    let required = self.is_body_required();
                    let schema = reference(dialect, &name);
                    parameters.insert(
                        0,
                        json!({"in": "body", "name": "body", "required": required, "schema": schema}),
                    );
                    out["consumes"] =
                        if self.action == Action::Patch { json!(types) } else { json!(["*/*"]) };
                } else {
                    out["consumes"] = json!(["*/*"]);
                }
                out["produces"] = json!(self.answer_types());
                out["schemes"] = json!(["https"]);
            }
            (Dialect::V3, Some((name, types))) => {
                out["requestBody"] =
                    json!({"content": content(dialect, &name, types), "required": self.is_body_required()});
            }
            (Dialect::V3, None) => {}
        }
        if !parameters.is_empty() {
            out["parameters"] = Value::Array(parameters);
        }
        out
    }

    fn parameters(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let sets: &[Parameters] = match self.action {
            Action::List => &[LIST],
            Action::Create | Action::Update => &[WRITE],
            Action::Patch => &[WRITE, FORCE],
            Action::Delete => &[DELETE],
            Action::DeleteCollection => &[DELETE, LIST],
            Action::Get | Action::Connect => &[],
        };
        let mut names: Vec<(&str, &str, &str)> = sets.iter().flat_map(|set| set.iter().copied()).collect();
        names.sort_unstable();
        if self.action == Action::DeleteCollection {
            names.retain(|(name, ..)| !matches!(*name, "watch" | "allowWatchBookmarks"));
        }
        names.into_iter()
    }

    /// The body's schema and media types.
    fn body_schema(&self) -> Option<(String, &'static [&'static str])> {
        match self.action {
            Action::Create | Action::Update => Some((self.body.clone()?, OBJECT_TYPES)),
            Action::Patch => Some((schema::PATCH.to_owned(), PATCH_TYPES)),
            Action::Delete | Action::DeleteCollection => {
                Some(("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(), OBJECT_TYPES))
            }
            Action::List | Action::Get | Action::Connect => None,
        }
    }

    fn is_body_required(&self) -> bool {
        !matches!(self.action, Action::Delete | Action::DeleteCollection)
    }

    fn answer_types(&self) -> &'static [&'static str] {
        match self.action {
            Action::Connect => &["*/*"],
            Action::List => WATCH_TYPES,
            _ => OBJECT_TYPES,
        }
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let codes: &[(&str, &str)] = match self.action {
            Action::Create => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            Action::Update | Action::Patch => &[("200", "OK"), ("201", "Created")],
            Action::Delete => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut out = json!({"401": {"description": "Unauthorized"}});
        for (code, meaning) in codes {
            out[*code] = json!({"description": meaning});
            match (dialect, &self.answer) {
                (Dialect::V2, Some(name)) => out[*code]["schema"] = reference(dialect, name),
                (Dialect::V2, None) => out[*code]["schema"] = json!({"type": "string"}),
                (Dialect::V3, Some(name)) => {
                    out[*code]["content"] = content(dialect, name, self.answer_types())
                }
                (Dialect::V3, None) => out[*code]["content"] = json!({"*/*": {"schema": {"type": "string"}}}),
            }
        }
        out
    }
}

fn content(dialect: Dialect, name: &str, types: &[&str]) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": reference(dialect, name)}))).collect()
}

fn query(dialect: Dialect, name: &str, type_: &str, description: &str) -> Value {
    parameter(dialect, "query", name, type_, description)
}

fn parameter(dialect: Dialect, place: &str, name: &str, type_: &str, description: &str) -> Value {
    let mut out = json!({"in": place, "name": name, "description": description});
    match dialect {
        Dialect::V2 => {
            out["type"] = json!(type_);
            out["uniqueItems"] = json!(true);
        }
        Dialect::V3 => out["schema"] = json!({"type": type_, "uniqueItems": true}),
    }
    if place == "path" {
        out["required"] = json!(true);
    }
    out
}

/// The parameters that every operation of a path has.
pub(super) fn parameter_path(dialect: Dialect, path: &str) -> Vec<Value> {
    let mut out = Vec::new();
    if path.contains("{name}") {
        out.push(parameter(dialect, "path", "name", "string", "Name of the object"));
    }
    if path.contains("{namespace}") {
        out.push(parameter(dialect, "path", "namespace", "string", "Namespace of the object"));
    }
    out.push(query(dialect, "pretty", "string", "Indent the answer"));
    out
}
