//! Which groups, versions and resources there are, in the form the client asks for. The documents are the schema's, and the parts
//! of each group are kept with the group.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_schema::codec;
use pagurus_controlplane_schema::discovery;
use pagurus_controlplane_schema::table::Table;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha512};

use crate::engine::{Engine, Registry};
use crate::reply;
use crate::request::{Body, Call};
use crate::response::{self, Format, Output};

const AGGREGATED_PROTOBUF: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
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
        let wanted = wanted(&call.headers);
        let aggregated = wanted.is_some_and(|(form, _)| form == Form::Aggregated);
        let format = wanted.map(|(_, format)| format);
        let document = |value: &Value| plain(call, format, value.to_string().into());
        let list = |group: &str, version: &str| {
            Some(plain(call, format, registry.group(group)?.version(version)?.resource_list(group)))
        };
        match parts.as_slice() {
            ["api"] | ["apis"] if aggregated => {
                let is_protobuf = format == Some(Format::Protobuf);
                Some(self.aggregated(&registry, parts == ["api"], &call.headers, is_protobuf))
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

    fn aggregated(
        &self,
        registry: &Registry,
        core: bool,
        headers: &HeaderMap,
        is_protobuf: bool,
    ) -> Response<Body> {
        let document = self.aggregated_document(registry, core);
        let content_type = if is_protobuf { AGGREGATED_PROTOBUF } else { AGGREGATED_TYPE };
        let unchanged = headers.get(IF_NONE_MATCH) == Some(&document.tag);
        let mut response = if unchanged {
            reply::bytes(StatusCode::NOT_MODIFIED, content_type, Bytes::new())
        } else if is_protobuf {
            reply::bytes(StatusCode::OK, content_type, in_protobuf(&document.bytes))
        } else {
            reply::bytes(StatusCode::OK, content_type, document.bytes)
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

/// A document in the format that the client takes, if there is one.
fn plain(call: &Call, format: Option<Format>, bytes: Bytes) -> Response<Body> {
    let (content_type, bytes) = match format {
        None => return reply::error(&response::nothing_fits()),
        Some(Format::Json) => ("application/json", bytes),
        Some(Format::Protobuf) => ("application/vnd.kubernetes.protobuf", in_protobuf(&bytes)),
        Some(format) => {
            let output = Output { format, ..Output::PLAIN };
            response::encode(&output, &serde_json::from_slice(&bytes).unwrap_or_default())
        }
    };
    let mut response = response::whole(&call.headers, content_type, 200, bytes);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// A document in protobuf. The core's say no version of their own in JSON.
fn in_protobuf(json: &Bytes) -> Bytes {
    let mut value: Value = serde_json::from_slice(json).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| "v1".into());
    }
    codec::protobuf::document(Table::builtin(), &value).unwrap_or_default().into()
}

/// The first of the accepted types that discovery has; none if nothing fits.
fn wanted(headers: &HeaderMap) -> Option<(Form, Format)> {
    let accepted = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut plain_before = None;
    let mut any = false;
    for range in accepted.flat_map(|value| value.split(',')) {
        any = true;
        let mut parts = range.split(';').map(str::trim);
        let Some(format) = response::format(parts.next().unwrap_or_default()) else { continue };
        let parameter = |wanted: &str| {
            parts
                .clone()
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| *name == wanted)
                .map(|(_, v)| v)
        };
        match (parameter("as"), parameter("g"), parameter("v"), format) {
            (None, ..) => return Some((Form::Plain, format)),
            (
                Some("APIGroupDiscoveryList"),
                Some("apidiscovery.k8s.io"),
                Some("v2"),
                Format::Json | Format::Protobuf,
            ) => return Some((Form::Aggregated, format)),
            // Whoever asks for another form of a format reads the plain one too.
            _ => plain_before = plain_before.or(Some((Form::Plain, format))),
        }
    }
    if any { plain_before } else { Some((Form::Plain, Format::Json)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn forms() {
        let rows = [
            ("", Some((Form::Plain, Format::Json))),
            ("application/json", Some((Form::Plain, Format::Json))),
            ("application/yaml", Some((Form::Plain, Format::Yaml))),
            ("application/vnd.kubernetes.protobuf", Some((Form::Plain, Format::Protobuf))),
            ("text/html", None),
            ("*/*", Some((Form::Plain, Format::Json))),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some((Form::Aggregated, Format::Json)),
            ),
            (
                "application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                Some((Form::Plain, Format::Json)),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Some((Form::Plain, Format::Json)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io,application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
                Some((Form::Aggregated, Format::Protobuf)),
            ),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wanted(&headers), want, "{accept}");
        }
    }

    #[test]
    fn documents_have_messages() {
        let table = Table::builtin();
        let resources = table.resources().iter().filter(|r| r.group.is_empty()).map(|r| &**r);
        let list = discovery::api_resource_list("", "v1", resources);
        let groups = discovery::api_groups([("apps", vec!["v1"])].into_iter());
        for (kind, document) in [("APIResourceList", list), ("APIGroupList", groups)] {
            let bytes = in_protobuf(&document.to_string().into());
            let id = table.kind_type("", "v1", kind).unwrap();
            let mut back = codec::protobuf::decode_as(table, id, &bytes).unwrap().value;
            let mut wanted = document;
            for side in [&mut back, &mut wanted] {
                pagurus_controlplane_schema::normalize(table, id, side);
                side["apiVersion"] = "v1".into();
            }
            assert_eq!(back, wanted);
        }
    }
}
