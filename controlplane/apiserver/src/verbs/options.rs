//! The options of writes, from the query and, for deletions, the body; checked as the API checks them.

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use crate::request::Call;

/// What to do about fields that the type does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and tell.
    #[default]
    Warn,
    /// Refuse.
    Strict,
}

/// How to write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// The manager that owns what is set.
    pub manager: String,
    /// Take fields from other managers (apply).
    pub force: bool,
    /// What to do about unknown fields.
    pub validation: FieldValidation,
    /// The options as an object, for admission.
    pub object: Value,
}

impl WriteOptions {
    /// Those of the server's own writes.
    pub(super) fn internal() -> Self {
        Self { manager: "kube-apiserver".to_owned(), validation: FieldValidation::Ignore, ..Self::default() }
    }

    /// Reads the query. `kind` names the options in messages: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(super) fn read(call: &Call, kind: &str, apply: bool) -> Result<Self, ApiError> {
        let mut errors = dry_run_errors(call.query.all("dryRun"));
        let manager = call.query.get("fieldManager").unwrap_or_default();
        let force = call.query.get("force").map(|f| !matches!(f, "0" | "false"));
        if kind == "PatchOptions" {
            if apply {
                if manager.is_empty() {
                    errors.push(FieldError::required("fieldManager", "is required for apply patch"));
                }
            } else if force.is_some() {
                errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
        }
        errors.extend(manager_errors(manager));
        let validation = match call.query.get("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &supported));
                FieldValidation::Warn
            }
        };
        refuse(kind, errors)?;
        let dry_run = call.query.get("dryRun").is_some_and(|v| !v.is_empty());
        let mut object = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if dry_run {
            object["dryRun"] = json!(["All"]);
        }
        for name in ["fieldManager", "fieldValidation"] {
            if let Some(value) = call.query.get(name) {
                object[name] = value.into();
            }
        }
        Ok(Self { dry_run, manager: call.field_manager(), force: force.unwrap_or(false), validation, object })
    }
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind, "", errors)) }
}

fn dry_run_errors<'a>(values: impl Iterator<Item = &'a str>) -> Vec<FieldError> {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().all(|v| *v == "All") {
        return Vec::new();
    }
    vec![FieldError::not_supported("dryRun", json!(values), &["All"])]
}

fn manager_errors(manager: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > 128 {
        errors.push(FieldError::too_long("fieldManager", 128));
    }
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control() || *c == '\u{fffd}') {
        let detail = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid("fieldManager", manager, detail));
    }
    errors
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// The option to delete what cannot be read, in the query and in the body.
pub(super) const IGNORE_READ_ERROR: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Deleting unread cannot heed what else is asked for.
fn unread_errors(options: &Value) -> Vec<FieldError> {
    let others = ["dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"];
    let given = others.iter().filter(|name| match &options[**name] {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
    given
        .map(|name| {
            FieldError::invalid(IGNORE_READ_ERROR, true, format!("cannot be set together with .{name}"))
        })
        .collect()
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub(super) struct DeleteOptions {
    /// What cannot be read is meant.
    pub(super) unread: bool,
    pub(super) dry_run: bool,
    pub(super) grace: Option<i64>,
    pub(super) propagation: Option<Propagation>,
    pub(super) orphan_dependents: Option<bool>,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) object: Value,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` object; null is one without fields.
    pub(super) fn read(options: &Value) -> Result<Self, ApiError> {
        let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let dry_run = options.get("dryRun").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut errors = dry_run_errors(dry_run.iter().filter_map(Value::as_str));
        let policy = text("/propagationPolicy");
        let orphan_dependents = options.get("orphanDependents").and_then(Value::as_bool);
        if let (Some(policy), Some(_)) = (&policy, orphan_dependents) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", policy.as_str(), detail));
        }
        let propagation = match policy.as_deref() {
            None => orphan_dependents.map(|o| if o { Propagation::Orphan } else { Propagation::Background }),
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let mut error = FieldError::not_supported("propagationPolicy", other, &[]);
                // The order is that of the API, not the alphabet's.
                error.detail =
                    "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".to_owned();
                errors.push(error);
                None
            }
        };
        let unread = options[IGNORE_READ_ERROR] == true;
        if unread {
            errors.extend(unread_errors(options));
        }
        refuse("DeleteOptions", errors)?;
        Ok(Self {
            unread,
            dry_run: !dry_run.is_empty(),
            // A negative grace period means the shortest one.
            grace: options
                .get("gracePeriodSeconds")
                .and_then(Value::as_i64)
                .map(|s| if s < 0 { 1 } else { s }),
            propagation,
            orphan_dependents,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            object: options.clone(),
        })
    }

    /// The options that a query gives.
    pub(super) fn of_query(call: &Call) -> Result<Value, ApiError> {
        let mut out = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let dry_run: Vec<&str> = call.query.all("dryRun").filter(|v| !v.is_empty()).collect();
        if !dry_run.is_empty() {
            out["dryRun"] = dry_run.into();
        }
        if let Some(seconds) = call.query.get("gracePeriodSeconds") {
            let number: i64 = seconds.parse().map_err(|_| bad_integer(seconds))?;
            out["gracePeriodSeconds"] = number.into();
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            out["propagationPolicy"] = policy.into();
        }
        if call.query.flag(IGNORE_READ_ERROR) {
            out[IGNORE_READ_ERROR] = true.into();
        }
        if call.query.get("orphanDependents").is_some() {
            out["orphanDependents"] = call.query.flag("orphanDependents").into();
        }
        Ok(out)
    }
}

/// 400 for a query parameter that is not a number.
pub(super) fn bad_integer(text: &str) -> ApiError {
    let text = pagurus_controlplane_api::go::quote(text);
    ApiError::bad_request(format!("strconv.ParseInt: parsing {text}: invalid syntax"))
}
