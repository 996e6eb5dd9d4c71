//! Answers of the node API: bodies and their kinds. Errors are a line of text, as the API server expects of a node.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use pagurus_controlplane_api::status::{ApiError, Reason};

/// A body that ends well or breaks off.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A refusal with its status and text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Something on this node failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// For a client that wanted to upgrade: it reads the answer as an object if it can, and one of the lines with `: ` in
    /// them that errors are made of is an object to it (YAML), without a message. Such a line goes as a `Status`.
    pub(super) fn into_upgrading(self) -> Self {
        if !self.message.contains(": ") {
            return self;
        }
        let reason = match self.status {
            StatusCode::BAD_REQUEST => Reason::BadRequest,
            StatusCode::NOT_FOUND => Reason::NotFound,
            StatusCode::INTERNAL_SERVER_ERROR => Reason::InternalError,
            _ => Reason::Unknown,
        };
        let status = ApiError::new(self.status.as_u16(), reason, self.message).to_status();
        Self { message: status.to_string(), ..self }
    }

    pub(super) fn response(self) -> Response<Body> {
        let mut response = text(self.message);
        *response.status_mut() = self.status;
        response
    }
}

pub(super) fn empty() -> Body {
    full(Bytes::new())
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn text(text: impl Into<Bytes>) -> Response<Body> {
    with_type(text, HeaderValue::from_static("text/plain; charset=utf-8"))
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    with_type(value.to_string(), HeaderValue::from_static("application/json"))
}

pub(super) fn with_type(bytes: impl Into<Bytes>, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_upgrade_can_read_every_refusal() {
        let plain = Refusal::internal("container not found (\"c\")").into_upgrading();
        assert_eq!(plain.message, "container not found (\"c\")");
        let status = Refusal::bad_request("cannot attach: no terminal").into_upgrading();
        let object: serde_json::Value = serde_json::from_str(&status.message).expect("a Status");
        assert_eq!(
            (&object["message"], &object["reason"], &object["code"]),
            (&"cannot attach: no terminal".into(), &"BadRequest".into(), &400.into())
        );
    }
}
