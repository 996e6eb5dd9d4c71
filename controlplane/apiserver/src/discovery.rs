//! Which groups, versions and resources there are, in the form the client asks for. The documents are the schema's, and the parts
//! of each group are kept with the group.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_schema::discovery;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha512};

use crate::engine::{Engine, Registry};
use crate::reply;
use crate::request::{Body, Call};

const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The discovery documents, made on first use.
#[derive(Debug)]
pub struct Discovery {
    engine: Weak<Engine>,
    address: String,
    /// Aggregated discovery of `/api` and `/apis`, and of which registry they are.
    aggregated: Mutex<[Option<(u64, Document)>; 2]>,
}

#[derive(Debug, Clone)]
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
    /// Discovery of everything an engine serves, on a server that clients reach at `address`.
    pub fn new(engine: &Arc<Engine>, address: String) -> Self {
        Self { engine: Arc::downgrade(engine), address, aggregated: Mutex::default() }
    }

    /// Answers a path if there is such a group or version.
    pub fn serve(&self, call: &Call) -> Option<Response<Body>> {
        let registry = self.engine.upgrade()?.registry();
        let parts: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
        let aggregated = form(&call.headers) == Form::Aggregated;
        let list = |group: &str, version: &str| {
            Some(plain(registry.group(group)?.version(version)?.resource_list(group)))
        };
        match parts.as_slice() {
            ["api"] | ["apis"] if aggregated => {
                Some(self.aggregated(&registry, parts == ["api"], &call.headers))
            }
            ["api"] => {
                let core = registry.group("")?;
                Some(document(&discovery::api_versions(&core.version_names(), &self.address)))
            }
            ["apis"] => {
                let groups = registry.groups().into_iter().filter(|group| !group.name.is_empty());
                let groups = groups.map(|group| (&*group.name, group.version_names()));
                Some(document(&discovery::api_groups(groups)))
            }
            ["api", version] => list("", version),
            ["apis", group] => {
                let versions = registry.group(group).filter(|g| !g.name.is_empty())?.version_names();
                Some(document(&discovery::api_group(group, &versions)))
            }
            ["apis", group, version] if !group.is_empty() => list(group, version),
            _ => None,
        }
    }

    /// All discovery paths.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        let registry = self.engine.upgrade().map(|engine| engine.registry()).unwrap_or_default();
        for group in registry.groups() {
            let (name, versions) = (&group.name, group.version_names().into_iter());
            if name.is_empty() {
                paths.extend(versions.map(|version| format!("/api/{version}")));
            } else {
                paths.push(format!("/apis/{name}"));
                paths.extend(versions.map(|version| format!("/apis/{name}/{version}")));
            }
        }
        paths
    }

    fn aggregated(&self, registry: &Registry, core: bool, headers: &HeaderMap) -> Response<Body> {
        let document = self.aggregated_document(registry, core);
        let unchanged = headers.get(IF_NONE_MATCH) == Some(&document.tag);
        let mut response = if unchanged {
            reply::bytes(StatusCode::NOT_MODIFIED, AGGREGATED_TYPE, Bytes::new())
        } else {
            reply::bytes(StatusCode::OK, AGGREGATED_TYPE, document.bytes)
        };
        response.headers_mut().insert(ETAG, document.tag);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        response
    }

    fn aggregated_document(&self, registry: &Registry, core: bool) -> Document {
        let place = usize::from(core);
        let made = self.aggregated.lock()[place].clone();
        if let Some((_, document)) = made.filter(|(of, _)| *of == registry.generation()) {
            return document;
        }
        let groups = registry.groups().into_iter().filter(|group| group.name.is_empty() == core);
        let bytes = Bytes::from(discovery::aggregated(groups.map(|group| group.entry()), "v2"));
        let digest: String = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{digest}\""));
        let document = Document { bytes, tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")) };
        self.aggregated.lock()[place] = Some((registry.generation(), document.clone()));
        document
    }
}

fn document(value: &Value) -> Response<Body> {
    plain(value.to_string().into())
}

fn plain(bytes: Bytes) -> Response<Body> {
    let mut response = reply::bytes(StatusCode::OK, "application/json", bytes);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
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
