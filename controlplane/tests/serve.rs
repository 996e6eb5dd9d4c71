//! The whole process on a socket of this machine: who gets in, what passes through, how it ends and starts again.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "serve/full_disk.rs"]
mod full_disk;
#[path = "serve/node.rs"]
mod node;
#[path = "serve/paths.rs"]
mod paths;
#[path = "serve/process.rs"]
mod process;

use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt as _};
use process::ControlPlane;
use serde_json::{Value, json};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

async fn get(client: &Client, path: &str) -> Result<String, kube::Error> {
    client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await
}

/// Whom the server takes the client for.
async fn whoami(client: &Client) -> Result<Vec<String>, kube::Error> {
    let review = SelfSubjectReview::default();
    let answer: SelfSubjectReview = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    let user = answer.status.unwrap().user_info.unwrap();
    Ok([user.username.unwrap()].into_iter().chain(user.groups.unwrap()).collect())
}

#[tokio::test]
async fn who_gets_in() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    assert_eq!(whoami(&admin).await.unwrap(), ["kubernetes-admin", "system:masters", "system:authenticated"]);

    let anonymous = plane.client(|_| {}).await;
    assert_eq!(get(&anonymous, "/readyz").await.unwrap(), "ok");
    assert_eq!(code(&get(&anonymous, "/api/v1/pods").await.unwrap_err()), 403);
    let error = get(&anonymous, "/metrics").await.unwrap_err();
    assert!(
        error.to_string().contains("User \\\"system:anonymous\\\" cannot get path") || code(&error) == 403
    );

    let bad_token = plane.client(|auth| auth.token = Some("nope".to_owned().into())).await;
    assert_eq!(code(&get(&bad_token, "/api/v1/pods").await.unwrap_err()), 401);

    let node = plane.identity("system:node:n1", "system:nodes").await;
    assert_eq!(whoami(&node).await.unwrap(), ["system:node:n1", "system:nodes", "system:authenticated"]);
    Api::<Node>::all(node.clone()).list(&ListParams::default()).await.unwrap();

    // A certificate of another cluster's CA is nobody's.
    let other = ControlPlane::start().await;
    let stranger = plane.client_with(&other.kubeconfig("kubernetes-admin", "system:masters")).await;
    assert_eq!(code(&get(&stranger, "/api/v1/pods").await.unwrap_err()), 401);
}

#[tokio::test]
async fn tokens_live_as_long_as_their_account() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "robot"}}))).await.unwrap();
    let request: TokenRequest = from(json!({"metadata": {}, "spec": {"audiences": []}}));
    let answer = accounts.create_token_request("robot", &PostParams::default(), &request).await.unwrap();
    let token = answer.status.unwrap().token;

    let robot = plane.client(|auth| auth.token = Some(token.unwrap().into())).await;
    assert_eq!(whoami(&robot).await.unwrap()[0], "system:serviceaccount:default:robot");
    assert_eq!(code(&get(&robot, "/api/v1/namespaces/default/pods").await.unwrap_err()), 403);

    let role: ClusterRole = from(json!({"metadata": {"name": "pods"}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}));
    Api::all(admin.clone()).create(&PostParams::default(), &role).await.unwrap();
    let binding: ClusterRoleBinding = from(json!({
        "metadata": {"name": "robot-pods"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pods"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "robot"}]}));
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    process::eventually(async || get(&robot, "/api/v1/namespaces/default/pods").await.is_ok()).await;

    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    process::eventually(async || matches!(whoami(&robot).await, Err(e) if code(&e) == 401)).await;
}

/// Whoever has written a FlowSchema reads its condition, however busy the server is.
#[tokio::test]
async fn flow_schemas_have_their_condition_when_they_are_read() {
    const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let ask = async |request: http::request::Builder, body: Value| {
        let request = request.header("content-type", "application/json").body(body.to_string().into_bytes());
        admin.request::<Value>(request.unwrap()).await.unwrap()
    };
    let one = async |at: usize| {
        let name = format!("s{at}");
        let (level, dangling) =
            if at.is_multiple_of(2) { ("global-default", "False") } else { ("nobody", "True") };
        let mut schema = json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": 900, "priorityLevelConfiguration": {"name": level}}});
        let made = ask(http::Request::post(SCHEMAS), schema.clone()).await;
        assert_eq!(made["status"], json!({}), "the answer is the object as it was stored");
        let path = format!("{SCHEMAS}/{name}");
        let read = async || serde_json::from_str::<Value>(&get(&admin, &path).await.unwrap()).unwrap();
        let now = read().await;
        let condition = &now["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("Dangling"), &json!(dangling)),
            "{now}"
        );
        schema["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        schema["spec"]["priorityLevelConfiguration"]["name"] = json!("another");
        ask(http::Request::put(&path), schema).await;
        let said = read().await["status"]["conditions"][0]["message"].to_string();
        assert!(said.contains("another"), "{said}");
    };
    futures::future::join_all((0..12).map(one)).await;
}

#[tokio::test]
async fn admission_of_pods() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let pods: Api<Pod> = Api::default_namespaced(admin.clone());
    let pod: Pod =
        from(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}));
    let error = pods.create(&PostParams::default(), &pod).await.unwrap_err();
    assert!(error.to_string().contains("serviceaccount \"default\" not found"), "{error}");

    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap().spec.unwrap();
    assert!(made.volumes.unwrap()[0].name.starts_with("kube-api-access-"));
    assert_eq!(made.tolerations.unwrap().len(), 2);
    assert_eq!((made.priority, made.service_account_name.as_deref()), (Some(0), Some("default")));

    let elsewhere: Api<ConfigMap> = Api::namespaced(admin.clone(), "nowhere");
    let error = elsewhere
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}})))
        .await
        .unwrap_err();
    assert_eq!(code(&error), 404);
    let namespaces: Api<Namespace> = Api::all(admin);
    let error = namespaces.delete("kube-system", &DeleteParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 403);
}

#[tokio::test]
async fn streams_of_pods_pass_through() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let fake = node::FakeNode::start().await;
    let address = json!({"type": "InternalIP", "address": "127.0.0.1"});
    let nodes: Api<Node> = Api::all(admin.clone());
    nodes.create(&PostParams::default(), &from(json!({"metadata": {"name": "n1"}}))).await.unwrap();
    let status = json!({"status": {
        "addresses": [address],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": fake.port}},
    }});
    let patch = kube::api::Patch::Merge(&status);
    nodes.patch_status("n1", &kube::api::PatchParams::default(), &patch).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(admin.clone());
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}});
    pods.create(&PostParams::default(), &from(pod)).await.unwrap();

    let log = pods.logs("p", &LogParams { tail_lines: Some(5), ..LogParams::default() }).await.unwrap();
    assert_eq!(log, "kube-apiserver-kubelet-client asks for /containerLogs/default/p/c?tailLines=5\n");
    let error = pods
        .logs("p", &LogParams { container: Some("d".to_owned()), ..LogParams::default() })
        .await
        .unwrap_err();
    assert_eq!(code(&error), 400);

    let mut lines =
        pods.log_stream("p", &LogParams { follow: true, ..LogParams::default() }).await.unwrap().lines();
    assert!(lines.next().await.unwrap().unwrap().ends_with("?follow=true"));

    let parameters = AttachParams::default().stdout(true).stderr(false);
    let mut shell = pods.exec("p", ["echo", "hi"], &parameters).await.unwrap();
    let mut output = String::new();
    use tokio::io::AsyncReadExt as _;
    shell.stdout().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "/exec/default/p/c?output=1&command=echo&command=hi");
}

#[tokio::test]
async fn survives_a_kill() {
    let mut plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin);
    let made =
        maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "kept"}}))).await.unwrap();
    plane.kill();
    plane.restart().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.admin().await);
    let kept = maps.get("kept").await.unwrap();
    assert_eq!((kept.uid(), kept.resource_version()), (made.uid(), made.resource_version()));
}

#[tokio::test]
async fn ends_while_a_watch_is_open() {
    let mut plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    let mut events = Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap());
    maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}}))).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Added(map) if map.name_any() == "x"));
    plane.terminate();
    let status = plane.wait(Duration::from_secs(8)).await;
    assert!(status.success(), "{status}");
    while events.next().await.is_some_and(|event| event.is_ok()) {}
}

#[tokio::test]
async fn one_directory_one_process() {
    let plane = ControlPlane::start().await;
    let output = plane.second(&["--secure-port", "0"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("error: data directory") && said.contains("is in use by another"), "{said}");
    let output = plane.second(&["--secure-port", &plane.port().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is taken"), "{said}");
}

/// Sends a request and gives status, headers and body.
async fn send(client: &Client, path: &str, headers: &[(&str, &str)]) -> (u16, http::HeaderMap, String) {
    let mut request = http::Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn documents() {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (code, headers, body) = send(&admin, "/apis", &[("accept", aggregated)]).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, aggregated));
    assert!(body.contains("\"APIGroupDiscoveryList\"") && body.contains("\"deployments\""));
    let tag = headers["etag"].to_str().unwrap();
    let (code, _, body) = send(&admin, "/apis", &[("accept", aggregated), ("if-none-match", tag)]).await;
    assert_eq!((code, body.as_str()), (304, ""));

    let rows: [(&str, u16, &str); 10] = [
        ("/api", 200, "\"APIVersions\""),
        ("/apis/apps/v1", 200, "\"deployments/scale\""),
        ("/apis/nope", 404, "404 page not found\n"),
        ("/version", 200, "\n  \"gitVersion\": \"v1.37.1+pagurus\","),
        ("/openapi/v3", 200, "openapi/v3/apis/apps/v1?hash="),
        ("/openapi/v3/apis/apps/v1", 200, "Deployment enables declarative updates"),
        ("/openapi/v2", 200, "io.k8s.api.core.v1.Pod"),
        ("/openid/v1/jwks", 200, "\"P-256\""),
        ("/readyz?verbose", 200, "[+]poststarthook/rbac/bootstrap-roles ok"),
        ("/metrics", 200, "# TYPE apiserver_request_total counter\napiserver_request_total{"),
    ];
    get(&admin, "/api/v1/pods").await.unwrap();
    for (path, want, part) in rows {
        let (code, headers, body) = send(&admin, path, &[]).await;
        assert!(code == want && body.contains(part), "{path}: {code} {}", &body[..body.len().min(300)]);
        assert!(headers.contains_key("audit-id"), "{path}");
    }
    let (code, headers, _) = send(&admin, "/openapi/v3/api/v1?hash=old", &[]).await;
    assert_eq!(code, 301);
    let (code, headers, _) = send(&admin, headers["location"].to_str().unwrap(), &[]).await;
    assert_eq!((code, headers["cache-control"].to_str().unwrap()), (200, "public, immutable"));
}

#[tokio::test]
async fn sockets_can_be_handed_over() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let plane = ControlPlane::start_with(Some(&listener)).await;
    let client = plane.client_at(port).await;
    assert_eq!(get(&client, "/readyz").await.unwrap(), "ok");
}

#[tokio::test]
async fn components_apart() {
    let plane = ControlPlane::start().await;
    let mut apart = plane.components("scheduler,controllers");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(plane.admin().await);
    process::eventually(async || accounts.get("default").await.is_ok()).await;
    apart.terminate();
    assert!(apart.wait(Duration::from_secs(8)).await.success());
}
