//! CustomResourceDefinitions on their way: served, in each other's way, changed and deleted.

use std::time::Duration;

use super::*;
use crate::crd::Definitions;
use crate::engine_objects::EngineObjects;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.org")},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}],
        },
    })
}

/// The definition once a condition has a status.
async fn when(f: &Fixture, name: &str, type_: &str, status: &str) -> Value {
    for _ in 0..500 {
        let found = f.get(&format!("{DEFINITIONS}/{name}.example.org")).await.body;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == type_ && c["status"] == status) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} does not come to {type_}={status}");
}

/// Follows the definitions as the server does.
async fn follow(f: &Fixture) -> tokio::task::JoinHandle<()> {
    let objects = Arc::new(EngineObjects::new(&f.engine));
    let definitions = Definitions::start(f.engine.clone(), objects).await.unwrap();
    tokio::spawn(definitions.run(f.cancel.clone()))
}

/// The rest of a watch, once it has ended: the types of its events.
async fn events(watch: Response<Body>) -> Vec<String> {
    let whole = tokio::time::timeout(Duration::from_secs(10), watch.into_body().collect());
    let bytes = whole.await.expect("the watch ends").unwrap().to_bytes();
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_their_names_to_their_end() {
    let f = fixture().await;
    let work = follow(&f).await;
    let objects = "/apis/example.org/v1/namespaces/n/as";
    assert_eq!(f.get(objects).await.code, 404);
    assert_eq!(f.post(DEFINITIONS, definition("as", "A")).await.code, 201);
    when(&f, "as", "Established", "True").await;
    assert_eq!(f.post(DEFINITIONS, definition("bs", "A")).await.code, 201);
    let second = when(&f, "bs", "NamesAccepted", "False").await;
    assert_eq!(second["status"]["conditions"][0]["message"], "\"AList\" is already in use");
    assert_eq!(f.get("/apis/example.org/v1/namespaces/n/bs").await.code, 404);

    let one = json!({"apiVersion": "example.org/v1", "kind": "A", "metadata": {"name": "x"}});
    assert_eq!(f.post(objects, one).await.code, 201);
    // Another schema: watches begin anew.
    let watch = f.ask("GET", &format!("{objects}?watch=1"), &[], empty_body()).await;
    let columns = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    assert_eq!(f.merge(&format!("{DEFINITIONS}/as.example.org"), columns).await.code, 200);
    assert_eq!(events(watch).await, ["ADDED"]);
    // The end: what is left is deleted before the watches' eyes, and the names are free.
    let watch = f.ask("GET", &format!("{objects}?watch=1"), &[], empty_body()).await;
    let deleted = f.with("DELETE", &format!("{DEFINITIONS}/as.example.org"), &[], "").await;
    assert_eq!(deleted.code, 200);
    assert_eq!(events(watch).await, ["ADDED", "DELETED"]);
    when(&f, "bs", "Established", "True").await;
    assert_eq!(
        (f.get(objects).await.code, f.get("/apis/example.org/v1/namespaces/n/bs").await.code),
        (404, 200)
    );
    f.cancel.cancel();
    work.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_and_after_a_restart() {
    let f = fixture().await;
    let work = follow(&f).await;
    let made = (0..60).map(|n| f.post(DEFINITIONS, definition(&format!("p{n}"), &format!("K{n}"))));
    let codes: Vec<u16> = futures::future::join_all(made).await.iter().map(|made| made.code).collect();
    assert_eq!(codes, [201; 60]);
    for n in 0..60 {
        when(&f, &format!("p{n}"), "Established", "True").await;
        assert_eq!(f.get(&format!("/apis/example.org/v1/p{n}")).await.code, 200);
    }
    f.cancel.cancel();
    work.await.unwrap();
    let f = f.restart().await;
    let before = f.engine.store().revision().await.unwrap();
    let work = follow(&f).await;
    for n in 0..60 {
        assert_eq!(
            f.get(&format!("/apis/example.org/v1/p{n}")).await.code,
            200,
            "served before it is followed"
        );
    }
    assert_eq!(f.engine.store().revision().await.unwrap(), before, "nothing is written that is so already");
    f.cancel.cancel();
    work.await.unwrap();
}

/// What stands beside a version's schema is that version's alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_have_subresources_and_selectable_fields_of_their_own() {
    let f = fixture().await;
    let work = follow(&f).await;
    let mut wanted = definition("as", "A");
    let text = json!({"type": "string"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"color": text, "size": text}},
        "status": {"type": "object", "properties": {"phase": text}}}}});
    wanted["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": schema, "selectableFields": [{"jsonPath": ".spec.color"}]},
        {"name": "v2", "served": true, "storage": false, "schema": schema, "subresources": {"status": {}},
            "selectableFields": [{"jsonPath": ".spec.size"}]},
    ]);
    assert_eq!(f.post(DEFINITIONS, wanted).await.code, 201);
    when(&f, "as", "Established", "True").await;
    let address = |version: &str| format!("/apis/example.org/{version}/namespaces/n/as");
    let object = |version: &str, name: &str, phase: &str| {
        json!({"apiVersion": format!("example.org/{version}"), "kind": "A", "metadata": {"name": name},
            "spec": {"color": "red", "size": name}, "status": {"phase": phase}})
    };
    for (version, query, expected) in [
        ("v1", "spec.color=red", Ok(2)),
        ("v1", "spec.size=x", Err("field label not supported: spec.size")),
        ("v2", "spec.size=x", Ok(1)),
        ("v2", "spec.color=red", Err("field label not supported: spec.color")),
    ] {
        for (name, of) in [("x", "v1"), ("y", "v2")] {
            f.post(&address(of), object(of, name, "new")).await;
        }
        let answer = f.get(&format!("{}?fieldSelector={query}", address(version))).await;
        let found = answer.body["items"].as_array().map(Vec::len);
        assert_eq!(
            found.ok_or(answer.body["message"].as_str().unwrap_or_default()),
            expected,
            "{version} {query}"
        );
    }
    // Through v1 the status is a field like any other, through v2 it has a path of its own.
    let phase = |answer: &Answer| answer.body["status"]["phase"].as_str().map(str::to_owned);
    assert_eq!(phase(&f.get(&format!("{}/x", address("v1"))).await).as_deref(), Some("new"));
    assert_eq!(phase(&f.get(&format!("{}/y", address("v1"))).await), None);
    let status = json!({"status": {"phase": "next"}});
    let changed = f.merge(&format!("{}/x", address("v1")), status.clone()).await;
    assert_eq!(
        (phase(&changed).as_deref(), &changed.body["metadata"]["generation"]),
        (Some("next"), &json!(2))
    );
    let kept = f.merge(&format!("{}/x", address("v2")), json!({"status": {"phase": "other"}})).await;
    assert_eq!((phase(&kept).as_deref(), &kept.body["metadata"]["generation"]), (Some("next"), &json!(2)));
    assert_eq!(f.merge(&format!("{}/x/status", address("v1")), status.clone()).await.code, 404);
    let own = f.merge(&format!("{}/y/status", address("v2")), status).await;
    assert_eq!((phase(&own).as_deref(), &own.body["metadata"]["generation"]), (Some("next"), &json!(1)));
    f.cancel.cancel();
    work.await.unwrap();
}
