//! Which groups, versions and resources there are, in the form the client asks for. The documents are the schema's, and the parts
//! of each group are kept with the group.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response};
use pagurus_controlplane_api::status::ApiError;
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

/// What aggregated discovery is asked for by, after the media type.
const AGGREGATED: (&str, &str, &str) = ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");

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

impl Discovery {
    /// Discovery of everything an engine serves, on a server that clients reach at `address`.
    pub fn new(engine: &Arc<Engine>, address: String) -> Self {
        Self { engine: Arc::downgrade(engine), address, aggregated: Mutex::default() }
    }

    /// Whether the path belongs to what ships with the server, where a router says what is wrong with a request.
    pub fn is_routed(&self, path: &str) -> bool {
        let mut parts = path.trim_matches('/').split('/');
        match (parts.next(), parts.next()) {
            (Some("api"), _) => true,
            (Some("apis"), Some(group)) => {
                let registry = self.engine.upgrade().map(|engine| engine.registry()).unwrap_or_default();
                let versions = registry.group(group).map(|group| group.versions()).unwrap_or_default();
                versions.iter().any(|v| v.resources().iter().any(|served| !served.is_custom()))
            }
            _ => false,
        }
    }

    /// Answers a path if there is such a group or version.
    pub fn serve(&self, call: &Call) -> Option<Result<Response<Body>, ApiError>> {
        let registry = self.engine.upgrade()?.registry();
        let parts: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
        let document = |value: &Value| plain(call, value.to_string().into());
        let list = |group: &str, version: &str| {
            Some(plain(call, registry.group(group)?.version(version)?.resource_list(group)))
        };
        if let (["api"] | ["apis"], Some(format)) = (parts.as_slice(), aggregated(&call.headers)) {
            return Some(Ok(self.aggregated(&registry, parts == ["api"], call, format)));
        }
        match parts.as_slice() {
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

    fn aggregated(&self, registry: &Registry, core: bool, call: &Call, format: Format) -> Response<Body> {
        let document = self.aggregated_document(registry, core);
        let mut response = if call.headers.get(IF_NONE_MATCH) == Some(&document.tag) {
            reply::not_modified()
        } else {
            let output = Output { format, ..Output::for_errors(call.into()) };
            let (_, bytes) = in_format(&output, document.bytes);
            response::whole(&call.headers, aggregated_type(format), 200, bytes)
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, document.tag);
        headers.append(VARY, HeaderValue::from_static("Accept"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
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

/// A document in the format that the client takes.
///
/// # Errors
/// 406: there is no such format.
fn plain(call: &Call, bytes: Bytes) -> Result<Response<Body>, ApiError> {
    let output =
        Output::unshaped(call.into()).ok_or_else(|| ApiError::not_acceptable(&response::ACCEPTED))?;
    let (content_type, bytes) = in_format(&output, bytes);
    let mut response = response::whole(&call.headers, content_type, 200, bytes);
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// A document's JSON in another format.
fn in_format(output: &Output, json: Bytes) -> (&'static str, Bytes) {
    match output.format {
        Format::Json if !output.pretty => (output.content_type(), json),
        Format::Protobuf => (output.content_type(), in_protobuf(&json)),
        _ => response::encode(output, &serde_json::from_slice(&json).unwrap_or_default()),
    }
}

fn aggregated_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Format::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Format::Cbor => "application/cbor;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Format::Protobuf => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
    }
}

/// A document in protobuf. The core's say no version of their own in JSON.
fn in_protobuf(json: &Bytes) -> Bytes {
    let mut value: Value = serde_json::from_slice(json).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| "v1".into());
    }
    codec::protobuf::document(Table::builtin(), &value).unwrap_or_default().into()
}

/// The format in which all is asked for at once, if that is what the client would rather have.
fn aggregated(headers: &HeaderMap) -> Option<Format> {
    let header = response::accept(headers);
    let chosen = response::clauses(&header).into_iter().find_map(|clause| {
        let transform = clause.transform();
        let fits = transform.is_none_or(|wanted| wanted == AGGREGATED);
        clause.formats().next().filter(|_| fits).map(|format| (format, transform.is_some()))
    });
    chosen.and_then(|(format, at_once)| at_once.then_some(format))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn all_at_once() {
        let json = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let protobuf =
            "application/vnd.kubernetes.protobuf;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";
        let rows = [
            (String::new(), None),
            ("application/json".to_owned(), None),
            ("*/*".to_owned(), None),
            (format!("{json},application/json"), Some(Format::Json)),
            (format!("application/json, {json}"), None),
            (format!("{json};q=0.5, application/yaml"), None),
            (format!("{beta},application/json"), None),
            (format!("{beta},{json}"), Some(Format::Json)),
            (format!("{protobuf},{json}"), Some(Format::Protobuf)),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, HeaderValue::from_str(&accept).unwrap());
            }
            assert_eq!(aggregated(&headers), want, "{accept}");
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
