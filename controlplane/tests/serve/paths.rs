//! What clients hear on paths and from the steps before any object is looked at: codes, types, texts and headers. It must not know kinds.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http_body_util::BodyExt as _;
use kube::Client;

use crate::process::ControlPlane;

struct Answer {
    code: u16,
    kind: String,
    headers: http::HeaderMap,
    text: String,
}

async fn ask(client: &Client, method: &str, path: &str, headers: &[(http::HeaderName, &str)]) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let kind = head.headers.get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap()).to_owned();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer { code: head.status.as_u16(), kind, headers: head.headers, text }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn paths_and_what_is_wrong_with_them() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    // Method, path, what is accepted; code, type, what the text has.
    let rows = [
        ("GET", "/version", "", 200, JSON, "gitVersion"),
        ("GET", "/version/", JSON, 200, JSON, "gitVersion"),
        (
            "GET",
            "/version",
            "application/yaml",
            406,
            "application/yaml",
            "representations: application/json\n",
        ),
        ("GET", "/version", "application/*", 406, JSON, "representations: application/json\""),
        ("POST", "/version", "", 405, JSON, "the server does not allow this method"),
        ("HEAD", "/version", "", 405, JSON, ""),
        ("GET", "/version/x", "", 404, JSON, "the server could not find the requested resource"),
        ("GET", "/openid/v1/jwks", JSON, 406, JSON, "representations: application/jwk-set+json"),
        ("DELETE", "/api", "", 405, JSON, "the server does not allow this method"),
        ("GET", "/api/v2", "", 404, JSON, "the server could not find the requested resource"),
        ("GET", "/apis/apps/v9", "", 404, JSON, "the server could not find the requested resource"),
        ("GET", "/apis/apps", "application/yaml", 200, "application/yaml", "kind: APIGroup\n"),
        ("GET", "/apis/example.org/v1", "", 404, TEXT, "404 page not found"),
        ("GET", "/nope", "", 404, TEXT, "404 page not found"),
        ("GET", "/livez/", "", 404, TEXT, "404 page not found"),
        ("POST", "/livez/ping", "", 200, TEXT, "ok"),
        ("GET", "/api/v1/watch", "", 500, TEXT, "Internal Server Error: \"/api/v1/watch\": failed to create"),
        ("GET", "/openapi/v3/apis/nope/v1", "", 404, "", ""),
        ("GET", "/openapi/v2", "text/html", 406, "", ""),
        ("GET", "/openapi/v3/api/v1", "text/html", 406, "", ""),
        ("GET", "/openapi/v3/api/v1?hash=0", "", 301, JSON, ""),
        (
            "GET",
            "/api/v1/pods",
            "application/*",
            406,
            JSON,
            "protobuf, application/json;stream=watch, application",
        ),
        ("GET", "/api/v1/nodes/x", "application/xml", 406, JSON, "vnd.kubernetes.protobuf\""),
        ("POST", "/api/v1/nodes", "application/xml", 415, JSON, "415: Unsupported Media Type\\n\\nAvailable"),
        ("GET", "/api/v1/pods", "application/json;stream=x", 406, JSON, "only the following media types are"),
        ("GET", "/api/v1/pods", "*/*,application/yaml", 200, "application/yaml", "kind: PodList"),
    ];
    for (method, path, accept, code, kind, text) in rows {
        let accepted = [(ACCEPT, accept)];
        let got = ask(&admin, method, path, if accept.is_empty() { &[] } else { &accepted }).await;
        assert_eq!((got.code, got.kind.as_str()), (code, kind), "{method} {path} {accept}: {}", got.text);
        assert!(got.text.contains(text), "{method} {path} {accept}: {}", got.text);
    }
}

#[tokio::test]
async fn refusals_in_the_format_that_is_asked_for() {
    let plane = ControlPlane::start().await;
    let anonymous = plane.client(|_| {}).await;
    let stranger = plane.client(|auth| auth.token = Some("nope".to_owned().into())).await;
    let rows = [
        ("", JSON, "{\"apiVersion\""),
        ("application/yaml", "application/yaml", "\nkind: Status\n"),
        ("application/vnd.kubernetes.protobuf,*/*", "application/vnd.kubernetes.protobuf", "k8s\0"),
        ("application/cbor", "application/cbor", "Failure"),
        ("application/json;as=Table;g=meta.k8s.io;v=v1", JSON, "{\n  \"apiVersion\""),
        ("application/xml", JSON, "{\n  \"apiVersion\""),
    ];
    for (accept, kind, text) in rows {
        let accepted = [(ACCEPT, accept)];
        let headers: &[_] = if accept.is_empty() { &[] } else { &accepted };
        let forbidden = ask(&anonymous, "GET", "/api/v1/pods", headers).await;
        assert_eq!((forbidden.code, forbidden.kind.as_str()), (403, kind), "{accept}");
        assert!(forbidden.text.contains(text), "{accept}: {}", forbidden.text);
        assert_eq!(forbidden.headers["x-content-type-options"], "nosniff");
        let unknown = ask(&stranger, "GET", "/metrics", headers).await;
        assert_eq!((unknown.code, unknown.kind.as_str()), (401, kind), "{accept}");
        assert!(unknown.text.contains(text), "{accept}: {}", unknown.text);
    }
}

#[tokio::test]
async fn documents_that_clients_keep() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, accept, kept) in [
        ("/apis", aggregated, "public"),
        ("/api", aggregated, "public"),
        ("/openapi/v2", JSON, "no-cache, private"),
        ("/openapi/v3/apis/apps/v1", JSON, "no-cache, private"),
    ] {
        let first = ask(&admin, "GET", path, &[(ACCEPT, accept)]).await;
        assert_eq!((first.code, first.headers[CACHE_CONTROL].to_str().unwrap()), (200, kept), "{path}");
        let tag = first.headers[ETAG].to_str().unwrap();
        let second = ask(&admin, "GET", path, &[(ACCEPT, accept), (IF_NONE_MATCH, tag)]).await;
        assert_eq!((second.code, &*second.text, &second.headers[ETAG]), (304, "", &first.headers[ETAG]));
        let other = ask(&admin, "GET", path, &[(ACCEPT, accept), (IF_NONE_MATCH, "\"other\"")]).await;
        assert_eq!((other.code, other.text.len()), (200, first.text.len()), "{path}");
    }
    let index: serde_json::Value =
        serde_json::from_str(&ask(&admin, "GET", "/openapi/v3", &[]).await.text).unwrap();
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let named = ask(&admin, "GET", address, &[]).await;
    assert_eq!((named.code, &named.headers[CACHE_CONTROL]), (200, &"public, immutable".parse().unwrap()));
    assert!(named.headers["expires"].to_str().unwrap().ends_with(" GMT"));
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert_eq!(ask(&admin, "GET", path, &[]).await.headers[CACHE_CONTROL], "public, max-age=3600");
    }
}
