//! Custom resources on an API server of their own: from the definition to its end, by kube-rs and kubectl, with versions that a webhook
//! in the test converts.

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use pagurus_tests::server::Server;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const GROUP: &str = "test.pagurus.dev";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program against a server, within the limit.
fn program<F: Future<Output = Result<()>>>(run: F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    runtime.block_on(async {
        tokio::time::timeout(LIMIT, run).await.context("the program did not end in time")?
    })
}

fn definition(versions: Value, conversion: Value) -> Result<CustomResourceDefinition> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "conversion": conversion,
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"], "categories": ["all"]},
            "versions": versions,
        },
    }))?)
}

fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, "Widget"), "widgets")
}

fn widget(version: &str, name: &str, spec: Value) -> Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/{version}"), "kind": "Widget", "metadata": {"name": name}, "spec": spec,
    }))?)
}

/// Creates the definition and waits until it says that it is established.
async fn establish(client: &Client, definition: &CustomResourceDefinition) -> Result<()> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    all.create(&PostParams::default(), definition).await?;
    let name = definition.metadata.name.clone().unwrap_or_default();
    await_condition(all, &name, conditions::is_crd_established()).await?;
    Ok(())
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

fn one_version() -> Value {
    json!([{
        "name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
        "schema": {"openAPIV3Schema": {"type": "object", "description": "A widget.", "properties": {
            "spec": {"type": "object", "required": ["color"], "properties": {
                "color": {"type": "string", "maxLength": 10, "description": "The color of the widget."},
                "size": {"type": "string", "default": "big"},
                "replicas": {"type": "integer"},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {
                        "port": {"type": "integer"}, "name": {"type": "string"}}}}}},
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
    }])
}

#[test]
fn from_the_definition_to_its_end() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    program(async {
        let client = server.client().await?;
        establish(&client, &definition(one_version(), json!({"strategy": "None"}))?).await?;
        let widgets: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource("v1"));
        // Whoever sees it established can use it at once.
        ensure!(widgets.list(&ListParams::default()).await?.items.is_empty());
        let mut watch = widgets.watch(&WatchParams::default(), "0").await?.boxed();
        let made = widgets
            .create(&PostParams::default(), &widget("v1", "a", json!({"color": "red", "unknown": 1}))?)
            .await?;
        assert_eq!(made.data["spec"], json!({"color": "red", "size": "big"}), "pruned and filled in");
        assert_eq!(made.metadata.generation, Some(1));
        match watch.try_next().await?.context("the watch ended")? {
            WatchEvent::Added(seen) => assert_eq!(seen.metadata.uid, made.metadata.uid),
            other => anyhow::bail!("expected an addition, got {other:?}"),
        }
        let refused = widgets
            .create(&PostParams::default(), &widget("v1", "b", json!({"color": "ultramarine"}))?)
            .await;
        let refused = refused.err().context("a color that is too long was taken")?;
        assert_eq!(code(&refused), 422, "{refused}");
        assert!(
            refused.to_string().contains("spec.color: Too long: may not be more than 10 bytes"),
            "{refused}"
        );
        applies_and_subresources(&widgets).await?;
        let red = widgets.list(&ListParams::default().fields("spec.color=red")).await?.items;
        let blue = widgets.list(&ListParams::default().fields("spec.color=blue")).await?.items;
        assert_eq!((red.len(), blue.len()), (1, 0));
        Ok(())
    })?;
    server.kill()?;
    server.restart()?;
    program(async {
        let client = server.client().await?;
        let widgets: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource("v1"));
        assert_eq!(
            widgets.get("a").await?.data["spec"]["color"],
            "red",
            "it is there from the first request on"
        );
        widgets
            .patch(
                "a",
                &PatchParams::default(),
                &Patch::Merge(json!({"metadata": {"finalizers": ["test.pagurus.dev/held"]}})),
            )
            .await?;
        let all: Api<CustomResourceDefinition> = Api::all(client.clone());
        let name = format!("widgets.{GROUP}");
        all.delete(&name, &DeleteParams::default()).await?;
        // Nothing new comes to what is going away; what came just before is deleted with the rest.
        let mut late = 0;
        let refused = loop {
            let object = widget("v1", &format!("late-{late}"), json!({"color": "red"}))?;
            match widgets.create(&PostParams::default(), &object).await {
                Ok(_) => late += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(code(&refused), 405, "{refused}");
        widgets
            .patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
            .await?;
        while all.get_opt(&name).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let gone = widgets.list(&ListParams::default()).await;
        assert_eq!(gone.err().map(|e| code(&e)), Some(404));
        Ok(())
    })
}

async fn applies_and_subresources(widgets: &Api<DynamicObject>) -> Result<()> {
    let apply = |manager: &str| PatchParams::apply(manager);
    let ports = |name: &str| -> Result<Patch<DynamicObject>> {
        Ok(Patch::Apply(widget("v1", "a", json!({"color": "red", "ports": [{"port": 80, "name": name}]}))?))
    };
    widgets.patch("a", &apply("one").force(), &ports("http")?).await?;
    let conflict = widgets.patch("a", &apply("two"), &ports("web")?).await;
    let conflict = conflict.err().context("two managers own one field")?;
    assert_eq!(code(&conflict), 409, "{conflict}");
    assert!(conflict.to_string().contains(".spec.ports[port=80].name"), "{conflict}");
    let status = json!({"status": {"replicas": 2}, "spec": {"color": "x"}});
    let told = widgets.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await?;
    assert_eq!((&told.data["status"]["replicas"], &told.data["spec"]["color"]), (&json!(2), &json!("red")));
    let generation = told.metadata.generation;
    widgets.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await?;
    let scaled = widgets
        .patch_scale("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await?;
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(3));
    let now = widgets.get("a").await?;
    assert_eq!(now.data["spec"]["replicas"], 3);
    assert_eq!(now.metadata.generation, generation.map(|g| g + 2));
    Ok(())
}

#[test]
fn kubectl_uses_custom_resources() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    program(async {
        establish(&server.client().await?, &definition(one_version(), json!({"strategy": "None"}))?).await
    })?;
    let directory = tempfile::tempdir()?;
    let kubectl = |words: &[&str]| -> Result<String> {
        let output = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .arg("--cache-dir")
            .arg(directory.path())
            .args(words)
            .output()
            .context("run kubectl")?;
        ensure!(output.status.success(), "kubectl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let manifest = directory.path().join("widget.json");
    std::fs::write(&manifest, serde_json::to_string(&widget("v1", "a", json!({"color": "green"}))?)?)?;
    let manifest = manifest.to_string_lossy().into_owned();
    assert!(
        kubectl(&["apply", "--server-side", "-f", &manifest])?
            .contains("widget.test.pagurus.dev/a serverside-applied")
    );
    assert!(kubectl(&["apply", "-f", &manifest])?.contains("widget.test.pagurus.dev/a"));
    let table = kubectl(&["get", "wd"])?;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["NAME", "COLOR", "a", "green"]);
    assert!(kubectl(&["get", "all"])?.contains("widget.test.pagurus.dev/a"), "by its category");
    assert!(
        kubectl(&["scale", "widget", "a", "--replicas=2"]).is_err(),
        "there are no replicas to begin with"
    );
    assert!(kubectl(&["api-resources", "--api-group=test.pagurus.dev"])?.contains("wd"));
    let explained = kubectl(&["explain", "widget.spec.color"])?;
    assert!(explained.contains("The color of the widget."), "{explained}");
    Ok(())
}

/// A webhook that knows two versions: what is `a` in one is `b` in the other. It takes each review that it is asked for.
async fn convert(listener: TcpListener, tls: TlsAcceptor, broken: Arc<std::sync::atomic::AtomicBool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, broken) = (tls.clone(), broken.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(move |request: hyper::Request<Incoming>| {
                let broken = broken.load(std::sync::atomic::Ordering::Relaxed);
                async move {
                    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap_or_default();
                    let mut objects = review["request"]["objects"].as_array().cloned().unwrap_or_default();
                    for object in &mut objects {
                        let (from, to) = if wanted.ends_with("v2") { ("a", "b") } else { ("b", "a") };
                        let value = object["spec"][from].take();
                        object["spec"] = json!({to: value});
                        object["apiVersion"] = wanted.into();
                    }
                    let result = if broken {
                        json!({"status": "Failure", "message": "not today"})
                    } else {
                        json!({"status": "Success"})
                    };
                    let response = json!({"uid": review["request"]["uid"], "result": result, "convertedObjects": objects});
                    let answer = json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response});
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(answer.to_string()))))
                }
            });
            // A client that goes away ends its connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

#[test]
fn versions_are_converted_by_a_webhook() -> Result<()> {
    let Some(server) = Server::start()? else { return Ok(()) };
    program(async {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        tokio::spawn(convert(listener, TlsAcceptor::from(Arc::new(config)), broken.clone()));
        let bundle = k8s_openapi::ByteString(made.cert.pem().into_bytes());
        let webhook = json!({"conversionReviewVersions": ["v1"], "clientConfig": {
            "url": format!("https://127.0.0.1:{port}/convert"), "caBundle": serde_json::to_value(bundle)?}});
        let version = |name: &str, field: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {field: {"type": "string", "minLength": 2}}}}}}})
        };
        let versions = json!([version("v1", "a", true), version("v2", "b", false)]);
        let client = server.client().await?;
        establish(&client, &definition(versions, json!({"strategy": "Webhook", "webhook": webhook}))?)
            .await?;
        let of = |version: &str| {
            Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource(version))
        };
        let (first, second) = (of("v1"), of("v2"));
        first.create(&PostParams::default(), &widget("v1", "x", json!({"a": "one"}))?).await?;
        assert_eq!(second.get("x").await?.data["spec"], json!({"b": "one"}));
        second.create(&PostParams::default(), &widget("v2", "y", json!({"b": "two"}))?).await?;
        assert_eq!(first.get("y").await?.data["spec"], json!({"a": "two"}));
        let listed: Vec<Value> = second
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .map(|o| o.data["spec"].clone())
            .collect();
        assert_eq!(listed, [json!({"b": "one"}), json!({"b": "two"})]);
        let refused = second.create(&PostParams::default(), &widget("v2", "z", json!({"b": "1"}))?).await;
        let refused = refused.err().context("a text that is too short was taken")?;
        assert!(refused.to_string().contains("spec.b in body should be at least 2 chars long"), "{refused}");
        let patched = second
            .patch("x", &PatchParams::default(), &Patch::Merge(json!({"spec": {"b": "three"}})))
            .await?;
        assert_eq!(patched.data["spec"], json!({"b": "three"}));
        broken.store(true, std::sync::atomic::Ordering::Relaxed);
        first.patch("x", &PatchParams::default(), &Patch::Merge(json!({"spec": {"a": "four"}}))).await?;
        let failed = second.get("x").await.err().context("a conversion that failed was answered")?;
        assert_eq!(code(&failed), 500);
        assert!(
            failed
                .to_string()
                .contains("conversion webhook for test.pagurus.dev/v1, Kind=Widget failed: not today"),
            "{failed}"
        );
        Ok(())
    })
}
