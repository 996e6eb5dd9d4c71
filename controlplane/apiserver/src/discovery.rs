//! Which groups, versions and resources there are, in the form the client asks for. The documents are the schema's.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_schema::discovery;
use pagurus_controlplane_schema::table::Table;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha512};

use crate::reply;
use crate::request::{Body, Call};

const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The discovery documents, made on first use.
#[derive(Debug)]
pub struct Discovery {
    table: &'static Table,
    address: String,
    aggregated: [OnceLock<Document>; 2],
    plain: Mutex<HashMap<String, Bytes>>,
}

#[derive(Debug)]
struct Document {
    bytes: Bytes,
    tag: HeaderValue,
}

/// What the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Aggregated,
}

impl Discovery {
    /// Discovery of everything in the table, on a server that clients reach at `address`.
    pub fn new(table: &'static Table, address: String) -> Self {
        Self { table, address, aggregated: Default::default(), plain: Mutex::default() }
    }

    /// Answers a path if there is such a group or version.
    pub fn serve(&self, call: &Call) -> Option<Response<Body>> {
        let parts: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
        let form = form(&call.headers);
        match parts.as_slice() {
            ["api"] | ["apis"] if form == Form::Aggregated => {
                Some(self.aggregated(parts == ["api"], &call.headers))
            }
            ["api"] => Some(self.plain("api", || Some(discovery::api_versions(self.table, &self.address)))?),
            ["apis"] => self.plain("apis", || Some(discovery::api_groups(self.table))),
            ["api", version] => {
                self.plain(&parts.join("/"), || discovery::api_resource_list(self.table, "", version))
            }
            ["apis", group] => self.plain(&parts.join("/"), || discovery::api_group(self.table, group)),
            ["apis", group, version] => {
                self.plain(&parts.join("/"), || discovery::api_resource_list(self.table, group, version))
            }
            _ => None,
        }
    }

    /// All discovery paths.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        for group in self.table.groups() {
            let versions = self.table.versions(group);
            if group.is_empty() {
                paths.extend(versions.map(|version| format!("/api/{version}")));
            } else {
                paths.push(format!("/apis/{group}"));
                paths.extend(versions.map(|version| format!("/apis/{group}/{version}")));
            }
        }
        paths
    }

    fn plain(&self, key: &str, make: impl FnOnce() -> Option<Value>) -> Option<Response<Body>> {
        let mut known = self.plain.lock();
        let bytes = match known.get(key) {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = Bytes::from(make()?.to_string());
                known.insert(key.to_owned(), bytes.clone());
                bytes
            }
        };
        let mut response = reply::bytes(StatusCode::OK, "application/json", bytes);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        Some(response)
    }

    fn aggregated(&self, core: bool, headers: &HeaderMap) -> Response<Body> {
        let document = self.aggregated[usize::from(core)].get_or_init(|| {
            let bytes = Bytes::from(discovery::aggregated(self.table, core, "v2").to_string());
            let digest: String = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
            let tag = HeaderValue::from_str(&format!("\"{digest}\""));
            Document { bytes, tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")) }
        });
        let unchanged = headers.get(IF_NONE_MATCH) == Some(&document.tag);
        let mut response = if unchanged {
            reply::bytes(StatusCode::NOT_MODIFIED, AGGREGATED_TYPE, Bytes::new())
        } else {
            reply::bytes(StatusCode::OK, AGGREGATED_TYPE, document.bytes.clone())
        };
        response.headers_mut().insert(ETAG, document.tag.clone());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// The first of the accepted types that discovery has.
fn form(headers: &HeaderMap) -> Form {
    let accepted = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameter = |wanted: &str| {
            parts
                .clone()
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| *name == wanted)
                .map(|(_, v)| v)
        };
        match (parameter("as"), parameter("g"), parameter("v")) {
            (None, _, _) => return Form::Plain,
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Form::Aggregated;
            }
            _ => {}
        }
    }
    Form::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let rows = [
            ("", Form::Plain),
            ("application/json", Form::Plain),
            ("*/*", Form::Plain),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Form::Aggregated,
            ),
            (
                "application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                Form::Plain,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Form::Plain,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io,application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
                Form::Aggregated,
            ),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(form(&headers), want, "{accept}");
        }
    }
}
