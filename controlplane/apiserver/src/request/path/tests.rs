//! Paths and what they mean.

use super::*;

/// `verb group/version resource/subresource namespace name rest`, with `-` for what is absent.
fn summary(method: &str, uri: &str) -> String {
    let method = Method::from_bytes(method.as_bytes()).expect("method");
    let info = match RequestInfo::parse(&method, &uri.parse().expect("uri")) {
        Ok(info) => info,
        Err(e) => return e.to_string(),
    };
    if !info.is_resource {
        return format!("{} path", info.verb);
    }
    let or_dash = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{} {}/{} {} {} {} {}",
        info.verb,
        info.group,
        info.version,
        info.resource_path(),
        or_dash(&info.namespace),
        or_dash(&info.name),
        info.rest.join("/")
    )
    .trim_end()
    .to_owned()
}

#[test]
fn paths() {
    let rows = [
        ("GET", "/", "get path"),
        ("GET", "/healthz", "get path"),
        ("POST", "/version", "post path"),
        ("GET", "/api", "get path"),
        ("GET", "/api/v1", "get path"),
        ("GET", "/api/v1/", "get path"),
        ("GET", "/apis/apps", "get path"),
        ("GET", "/apis/apps/v1", "get path"),
        ("GET", "/openapi/v3/apis/apps/v1", "get path"),
        ("GET", "/api/v1/pods", "list /v1 pods - -"),
        ("HEAD", "/api/v1/pods", "list /v1 pods - -"),
        ("GET", "/api/v1/pods?watch=true", "watch /v1 pods - -"),
        ("GET", "/api/v1/pods?watch=0", "list /v1 pods - -"),
        ("GET", "/api/v1/watch/pods", "watch /v1 pods - -"),
        ("GET", "/api/v1/watch", "unable to determine kind and namespace from url, /api/v1/watch"),
        ("GET", "/api/v1/watch/namespaces/n/pods/p", "watch /v1 pods n p"),
        ("GET", "/api/v1/namespaces", "list /v1 namespaces - -"),
        ("GET", "/api/v1/namespaces/n", "get /v1 namespaces n n"),
        ("PUT", "/api/v1/namespaces/n/status", "update /v1 namespaces/status n n"),
        ("PUT", "/api/v1/namespaces/n/finalize", "update /v1 namespaces/finalize n n"),
        ("GET", "/api/v1/namespaces/n/pods", "list /v1 pods n -"),
        ("POST", "/api/v1/namespaces/n/pods", "create /v1 pods n -"),
        ("DELETE", "/api/v1/namespaces/n/pods", "deletecollection /v1 pods n -"),
        ("DELETE", "/api/v1/namespaces/n/pods/p", "delete /v1 pods n p"),
        ("PATCH", "/apis/apps/v1/namespaces/n/deployments/d/scale", "patch apps/v1 deployments/scale n d"),
        ("GET", "/api/v1/namespaces/n/pods/p/proxy/a/b", "get /v1 pods/proxy n p a/b"),
        ("GET", "/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp", "list /v1 pods n p"),
        ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name==p,spec.x=y", "watch /v1 pods - p"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!=p", "list /v1 pods - -"),
        ("FOO", "/api/v1/pods", " /v1 pods - -"),
        (
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 clusterroles - system:node",
        ),
    ];
    for (method, uri, want) in rows {
        assert_eq!(summary(method, uri), want.trim_end(), "{method} {uri}");
    }
}

proptest::proptest! {
    #[test]
    fn any_path_is_read_or_refused(path in "(/|api|apis|v1|watch|proxy|namespaces|pods|%2f|%ff|%|\\.\\.|[a-z?&=+]){0,12}") {
        let Ok(uri) = format!("/{path}").parse::<http::Uri>() else { return Ok(()) };
        for method in [Method::GET, Method::DELETE, Method::POST] {
            // What it says is another test's business.
            let _ = RequestInfo::parse(&method, &uri);
        }
    }
}
