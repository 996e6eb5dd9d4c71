//! The API's own error: what becomes a `Status` object on the wire. Codes, reasons and texts are those of
//! kube-apiserver. Knows nothing of how a request is read or written.

use serde_json::{Map, Value, json};

use crate::field::{FieldError, aggregate};
use crate::go;
use crate::key::qualified;

/// Why a request failed, in one word that clients branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own words")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The word on the wire; empty when there is none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::StoreReadError => "StorageReadError",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause among a Status's details.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusCause {
    /// The machine-readable reason.
    pub reason: String,
    /// The text.
    pub message: String,
    /// The field it is about, if any.
    pub field: String,
}

/// What a Status is about. Empty fields are left out on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusDetails {
    /// The object's name.
    pub name: String,
    /// The group of `kind`.
    pub group: String,
    /// The resource or kind.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// The causes.
    pub causes: Vec<StatusCause>,
    /// When to try again; 0 for no advice.
    pub retry_after_seconds: u32,
}

impl StatusDetails {
    fn of(group: &str, kind: &str, name: &str) -> Self {
        Self { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned(), ..Self::default() }
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".to_owned(), self.causes.iter().map(StatusCause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

impl StatusCause {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        Value::Object(out)
    }
}

/// An error as the API's clients see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    /// The reason.
    pub reason: Reason,
    /// The text.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<StatusDetails>>,
}

impl ApiError {
    /// Any error without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// With the advice to try again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// With one more cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause =
            StatusCause { reason: reason.to_owned(), message: message.into(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404: no such object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(resource, group), go::quote(name));
        Self::new(404, Reason::NotFound, message).about(StatusDetails::of(group, resource, name))
    }

    /// 404: no such resource or subresource.
    pub fn no_such_resource() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .about(StatusDetails::default())
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} already exists", qualified(resource, group), go::quote(name));
        Self::new(409, Reason::AlreadyExists, message).about(StatusDetails::of(group, resource, name))
    }

    /// 409: the object is not as the client thought.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            qualified(resource, group),
            go::quote(name)
        );
        Self::new(409, Reason::Conflict, message).about(StatusDetails::of(group, resource, name))
    }

    /// 409: the object changed since it was read.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 422: the object breaks its kind's rules.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let mut message = format!("{} {} is invalid", qualified(kind, group), go::quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&aggregate(&errors));
        }
        let causes = errors
            .into_iter()
            .map(|e| StatusCause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.path })
            .collect();
        let details = StatusDetails { causes, ..StatusDetails::of(group, kind, name) };
        Self::new(422, Reason::Invalid, message).about(details)
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 401: nobody knows who is asking.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: not allowed; `resource` and `name` may be empty.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = match (resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{} is forbidden: {why}", qualified(resource, group)),
            _ => format!("{} {} is forbidden: {why}", qualified(resource, group), go::quote(name)),
        };
        Self::new(403, Reason::Forbidden, message).about(StatusDetails::of(group, resource, name))
    }

    /// 405: the path does not know this method.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, Reason::MethodNotAllowed, message).about(StatusDetails::default())
    }

    /// 405: the resource does not know this verb.
    pub fn method_not_supported(group: &str, resource: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            go::quote(&qualified(resource, group))
        );
        Self::new(405, Reason::MethodNotAllowed, message).about(StatusDetails::of(group, resource, ""))
    }

    /// 410: it was there and is no more.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 429: come back later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::new(429, Reason::TooManyRequests, message).about(details)
    }

    /// 500: the server's own fault.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {text}")).cause("", text, "")
    }

    /// 500 without a reason: an error that no one gave a better shape.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, Reason::Unknown, message)
    }

    /// 406: none of the representations asked for is there.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 415: the body's media type is unknown here.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: the body is too large.
    pub fn request_entity_too_large(why: &str) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 504: it took too long.
    pub fn timeout(why: &str, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::new(504, Reason::Timeout, format!("Timeout: {why}")).about(details)
    }

    /// 504: the revision asked for is still to come.
    pub fn too_large_resource_version(asked: u64, current: u64, retry_after_seconds: u32) -> Self {
        let why = format!("Too large resource version: {asked}, current: {current}");
        Self::timeout(&why, retry_after_seconds).cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }

    /// 503: not able to answer now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut out = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            out["reason"] = self.reason.as_str().into();
        }
        if let Some(details) = &self.details {
            out["details"] = details.to_value();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (error, expected) in [
            (
                ApiError::not_found("apps", "deployments", "x"),
                json!({"code": 404, "reason": "NotFound", "message": "deployments.apps \"x\" not found",
                       "details": {"group": "apps", "kind": "deployments", "name": "x"}}),
            ),
            (
                ApiError::invalid("", "Pod", "x", vec![FieldError::required("spec.containers", "")]),
                json!({"code": 422, "reason": "Invalid",
                       "message": "Pod \"x\" is invalid: spec.containers: Required value",
                       "details": {"kind": "Pod", "name": "x", "causes": [
                           {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}]}}),
            ),
            (
                ApiError::forbidden("", "pods", "", "no"),
                json!({"code": 403, "reason": "Forbidden", "message": "pods is forbidden: no",
                       "details": {"kind": "pods"}}),
            ),
            (
                ApiError::unknown("resourceVersion should not be set"),
                json!({"code": 500, "message": "resourceVersion should not be set"}),
            ),
            (
                ApiError::timeout("slow", 1),
                json!({"code": 504, "reason": "Timeout", "message": "Timeout: slow",
                       "details": {"retryAfterSeconds": 1}}),
            ),
        ] {
            let mut expected = expected;
            for (key, value) in [
                ("kind", json!("Status")),
                ("apiVersion", json!("v1")),
                ("metadata", json!({})),
                ("status", json!("Failure")),
            ] {
                expected[key] = value;
            }
            assert_eq!(error.to_status(), expected);
        }
    }
}
