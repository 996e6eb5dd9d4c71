//! Requests before anybody has been asked: paths, query strings, `Accept` headers.

use http::{HeaderMap, HeaderValue, Method, Uri};
use pagurus_controlplane_apiserver::request::{Call, Query, RequestInfo, UserInfo, Warnings};
use pagurus_controlplane_apiserver::response::{Offer, Output};

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

fn call(uri: &Uri, headers: HeaderMap) -> Option<Call> {
    Some(Call {
        info: RequestInfo::parse(&Method::GET, uri).ok()?,
        user: UserInfo::anonymous(),
        query: Query::parse(uri.query().unwrap_or_default()),
        headers,
        method: Method::GET,
        uri: uri.clone(),
        extensions: http::Extensions::new(),
        warnings: Warnings::default(),
    })
}

/// Method (the first byte) and address.
pub(crate) fn request(data: &[u8]) {
    let Some((method, rest)) = data.split_first() else { return };
    let Ok(uri) = Uri::try_from(rest) else { return };
    let method = &METHODS[usize::from(*method) % METHODS.len()];
    let Ok(info) = RequestInfo::parse(method, &uri) else { return };
    assert!(info.is_resource || (info.resource.is_empty() && info.name.is_none()), "{uri} is no resource");
    // A name may be left out only where the path does so too, and nothing is served there.
    let empty = uri.path().contains("//");
    assert!(
        info.subresource.is_none() || info.name.is_some() || empty,
        "{uri}: a subresource is of an object"
    );
    assert!(
        !info.resource_path().contains('/') || info.subresource.is_some() || info.resource.contains('/'),
        "{uri}"
    );
    let query = Query::parse(uri.query().unwrap_or_default());
    for (name, _) in query.pairs() {
        assert!(query.get(name).is_some() && query.all(name).count() > 0, "{uri}: {name}");
    }
}

/// An `Accept` header; a zero byte, and the query string.
pub(crate) fn accept(data: &[u8]) {
    let (header, query) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let Ok(header) = HeaderValue::from_bytes(header) else { return };
    let mut address = b"/api/v1/pods?".to_vec();
    address.extend_from_slice(query);
    let Ok(uri) = Uri::try_from(address) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, header);
    let Some(call) = call(&uri, headers) else { return };
    for (messages, views, routed) in [(true, true, true), (true, false, true), (false, true, false)] {
        if let Err(error) = Output::negotiate(&call, Offer { messages, views, routed }) {
            assert!((400..500).contains(&error.code), "{}: it is the client's fault", error.message);
        }
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let addresses = [
        "\0/api/v1/namespaces/ns/pods/p/log?container=a&follow=true",
        "\0/apis/apps/v1/deployments?watch=1&fieldSelector=metadata.name%3Da,metadata.namespace=b",
        "\x03/api/v1/namespaces/ns/services/https:s:80/proxy/a/b%2Fc?x=y",
        "\0/api/v1/watch/namespaces/a/pods/b",
        "\x04/api/v1/proxy/nodes/n/x",
        "\0http://h:1/apis/g/v1//r?&&=&a+b=%zz",
        "\0/openapi/v3/apis/apps/v1?hash=A",
    ];
    addresses.map(|address| address.as_bytes().to_vec()).to_vec()
}

pub(crate) fn accept_seeds() -> Vec<Vec<u8>> {
    let headers = [
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json\0includeObject=None",
        "application/vnd.kubernetes.protobuf;q=0.5, application/yaml; q=1.0",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1",
        "*/*;q=0.0001,text/html",
        "application/json;stream=watch\0pretty=true&watch=true",
    ];
    headers.map(|header| header.as_bytes().to_vec()).to_vec()
}
