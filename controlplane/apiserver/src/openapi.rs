//! The OpenAPI documents: `/openapi/v2` and `/openapi/v3`, made when somebody asks and not kept.

pub(crate) mod descriptions;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::openapi::{self, V2_PROTOBUF, V2_PROTOBUF_ASKED};
use pagurus_controlplane_schema::table::Table;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::paths::GIT_VERSION;
use crate::reply;
use crate::request::{Body, Call};
use crate::response;

use descriptions::Descriptions;

/// What clients may keep for good: the address names the content.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, immutable");

/// The forms of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum V2Format {
    Json,
    Protobuf,
}

/// See the module's description.
#[derive(Debug)]
pub struct OpenApi {
    table: &'static Arc<Table>,
    /// The index of version 3, which is small and costly: it names the content of every document.
    index: OnceCell<Value>,
}

impl OpenApi {
    /// The documents of everything in the table.
    pub fn new(table: &'static Arc<Table>) -> Self {
        Self { table, index: OnceCell::new() }
    }

    /// Answers a path if there is such a document.
    pub async fn serve(&self, call: &Call) -> Option<Response<Body>> {
        match call.info.path.trim_end_matches('/') {
            "/openapi/v2" => Some(self.v2(call).await),
            "/openapi/v3" => Some(json(call, self.index().await.to_string().into())),
            path => self.v3(call, path.strip_prefix("/openapi/v3/")?).await,
        }
    }

    /// All document paths.
    pub async fn paths(&self) -> Vec<String> {
        let names = self.index().await.get("paths").and_then(Value::as_object).into_iter().flatten();
        names.map(|(name, _)| format!("/openapi/v3/{name}")).collect()
    }

    async fn index(&self) -> &Value {
        let table = self.table;
        let make = || async move {
            let made = tokio::task::spawn_blocking(move || openapi::v3_index(table)).await;
            made.unwrap_or_else(|error| {
                tracing::error!(%error, "the index of the OpenAPI documents could not be made");
                Value::Null
            })
        };
        self.index.get_or_init(make).await
    }

    async fn v2(&self, call: &Call) -> Response<Body> {
        let Some(format) = v2_format(&call.headers) else {
            return reply::error(&ApiError::not_acceptable(&["application/json", V2_PROTOBUF]));
        };
        let table = self.table;
        let made = made(move || {
            let document = openapi::v2(table, &Descriptions::all(), GIT_VERSION);
            Some(match format {
                V2Format::Json => document.to_string().into(),
                V2Format::Protobuf => openapi::encode_v2(&document).into(),
            })
        });
        match (made.await, format) {
            (Some(bytes), V2Format::Json) => json(call, bytes),
            (Some(bytes), V2Format::Protobuf) => response::whole(&call.headers, V2_PROTOBUF, 200, bytes),
            (None, _) => reply::error(&ApiError::internal("the OpenAPI document could not be made")),
        }
    }

    async fn v3(&self, call: &Call, name: &str) -> Option<Response<Body>> {
        let (group, version) = match name.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => (String::new(), (*version).to_owned()),
            ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
            _ => return None,
        };
        let address =
            self.index().await.pointer(&format!("/paths/{}/serverRelativeURL", name.replace('/', "~1")));
        let address = address.and_then(Value::as_str)?;
        let hash = address.split_once("hash=").map_or("", |(_, hash)| hash);
        let asked = call.query.get("hash").unwrap_or_default();
        if !asked.is_empty() && asked != hash {
            // The client has an old index; this is where the document is now.
            let mut response =
                reply::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", Bytes::new());
            response.headers_mut().insert(LOCATION, HeaderValue::from_str(address).ok()?);
            return Some(response);
        }
        let tag = HeaderValue::from_str(&format!("\"{hash}\"")).ok()?;
        let mut response = if call.headers.get(IF_NONE_MATCH) == Some(&tag) {
            reply::bytes(StatusCode::NOT_MODIFIED, "application/json", Bytes::new())
        } else {
            let table = self.table;
            let made = made(move || {
                let descriptions = Descriptions::of_version(&group, &version);
                let document = openapi::v3(table, &group, &version, &descriptions, GIT_VERSION)?;
                Some(document.to_string().into())
            });
            json(call, made.await?)
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, tag);
        headers.append(VARY, HeaderValue::from_static("Accept"));
        if !asked.is_empty() {
            headers.insert(CACHE_CONTROL, FOR_GOOD);
        }
        Some(response)
    }
}

/// The first of the accepted types that version 2 has.
fn v2_format(headers: &HeaderMap) -> Option<V2Format> {
    let accepted = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(',')).peekable();
    if ranges.peek().is_none() {
        return Some(V2Format::Json);
    }
    ranges.find_map(|range| match range.split(';').next().unwrap_or_default().trim() {
        "application/json" | "application/*" | "*/*" => Some(V2Format::Json),
        media if V2_PROTOBUF_ASKED.contains(&media) => Some(V2Format::Protobuf),
        _ => None,
    })
}

/// A document, compressed if it is large and the client can read that.
fn json(call: &Call, document: Bytes) -> Response<Body> {
    response::whole(&call.headers, "application/json", 200, document)
}

/// Makes a document where it holds nobody up: that takes a while.
async fn made(make: impl FnOnce() -> Option<Bytes> + Send + 'static) -> Option<Bytes> {
    tokio::task::spawn_blocking(make).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an OpenAPI document could not be made");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_version_2() {
        let rows = [
            ("", Some(V2Format::Json)),
            ("application/json, */*", Some(V2Format::Json)),
            (V2_PROTOBUF_ASKED[1], Some(V2Format::Protobuf)),
            (
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf,application/json",
                Some(V2Format::Protobuf),
            ),
            ("text/html", None),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(v2_format(&headers), want, "{accept}");
        }
    }
}
