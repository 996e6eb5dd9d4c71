//! Histories of objects over a store.

use serde_json::{Value, json};

use super::{Answer, CONFIG_MAPS, fixture};

/// Event, managers and changed places of each write that is told.
fn told(answer: &Answer) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let join = |list: &Value, name: &str| {
        list.as_array().unwrap().iter().map(|item| text(&item[name])).collect::<Vec<_>>().join(" ")
    };
    let items = answer.body["items"].as_array().unwrap().iter();
    items.map(|i| (text(&i["event"]), join(&i["managers"], "manager"), join(&i["changes"], "path"))).collect()
}

fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

#[tokio::test]
async fn an_object_is_made_changed_deleted_and_made_again() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/c");
    let body = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    f.post(&format!("{CONFIG_MAPS}?fieldManager=maker"), body(json!({"a": "1"}))).await.expect(201);
    let apply = format!("{one}?fieldManager=applier&force=true");
    f.patch("application/apply-patch+yaml", &apply, body(json!({"a": "2", "b": "1"}))).await.expect(200);
    let merge = format!("{one}?fieldManager=merger");
    let third = f.patch("application/merge-patch+json", &merge, json!({"data": {"b": "2"}})).await.revision();
    f.delete(&format!("{one}?fieldManager=deleter"), Value::Null).await.expect(200);
    // The history of what is not there any more.
    let all = f.get(&format!("{one}?view=history")).await.expect(200);
    let four = [
        ("Deleted", "deleter", ""),
        ("Modified", "merger", ".data.b"),
        ("Modified", "applier", ".data.a .data.b"),
        ("Created", "maker", ".data"),
    ];
    assert_eq!(told(&all), rows(&four));
    assert_eq!(
        (&all.body["kind"], &all.body["apiVersion"]),
        (&json!("ObjectHistory"), &json!("pagurus.io/v1alpha1"))
    );
    assert_eq!(all.body["items"][1]["changes"], json!([{"path": ".data.b", "old": "1", "new": "2"}]));
    f.post(&format!("{CONFIG_MAPS}?fieldManager=maker"), body(json!({}))).await.expect(201);
    // Others whose names begin alike are not told.
    f.post(CONFIG_MAPS, json!({"metadata": {"name": "c2"}})).await.expect(201);
    let all = f.get(&format!("{one}?view=history")).await.expect(200);
    assert_eq!(told(&all).len(), 5);
    assert_eq!(told(&all)[1..], rows(&four));
    let at = f.get(&format!("{one}?view=history&resourceVersion={third}&resourceVersionMatch=Exact")).await;
    assert_eq!(told(&at.expect(200)), rows(&four[1..]));
    // Page by page, also after a restart.
    let f = f.restart().await;
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let page = f.get(&format!("{one}?view=history&limit=2&continue={token}")).await.expect(200);
        assert!(page.body["items"].as_array().unwrap().len() <= 2);
        paged.extend(told(&page));
        match page.body["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, told(&all));
}

#[tokio::test]
async fn what_is_compacted_is_forgotten() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/c");
    f.config_map("c", json!({})).await;
    for at in 0..4 {
        f.merge(&one, json!({"data": {"a": at.to_string()}})).await.expect(200);
    }
    let upto = f.get(&one).await.revision() - 1;
    f.engine.store().compact(upto).await.unwrap();
    let left = f.get(&format!("{one}?view=history")).await.expect(200);
    let events: Vec<String> = told(&left).into_iter().map(|(event, ..)| event).collect();
    assert_eq!(events, ["Modified", "Retained"]);
    assert_eq!(
        (&left.body["forgottenWrites"], &left.body["compactedResourceVersion"]),
        (&json!(3), &json!(upto.to_string()))
    );
}

/// A deletion is told with its author: who marked the object, and who took away what held it; also after a restart.
#[tokio::test]
async fn deletions_have_authors() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/c");
    let held = json!({"metadata": {"name": "c", "finalizers": ["a.test/b"]}});
    f.post(CONFIG_MAPS, held).await.expect(201);
    f.with("DELETE", &one, &[("user-agent", "someone/v1 (x)")], "").await.expect(200);
    f.merge(&format!("{one}?fieldManager=finalizer"), json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    f.get(&one).await.error(404, "NotFound");
    let f = f.restart().await;
    let all = f.get(&format!("{one}?view=history")).await.expect(200);
    assert_eq!(told(&all)[0], ("Deleted".to_owned(), "finalizer".to_owned(), String::new()));
    assert_eq!(told(&all)[1].1, "someone");
    let user = all.body["items"][1]["managers"][0]["user"].as_str().unwrap_or_default().to_owned();
    assert!(!user.is_empty());
    for (at, operation) in [(0, "Update"), (1, "Delete")] {
        let item = &all.body["items"][at];
        assert_eq!(
            item["managers"],
            json!([{"manager": item["managers"][0]["manager"], "operation": operation, "user": user}])
        );
        assert!(item["time"].is_string(), "{item}");
    }
}

/// Any state that the store has not forgotten can be read, alone and in lists, whatever became of it; what is forgotten is gone.
#[tokio::test]
async fn every_kept_revision_can_be_read() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/c");
    let first = json!({"metadata": {"name": "c"}, "data": {"a": "0"}});
    let mut states = vec![f.post(CONFIG_MAPS, first).await.expect(201).revision()];
    for at in 1..5 {
        states.push(f.merge(&one, json!({"data": {"a": at.to_string()}})).await.expect(200).revision());
    }
    f.config_map("d", json!({})).await;
    f.delete(&one, Value::Null).await.expect(200);
    let f = f.restart().await;
    let exact = |path: &str, at: u64| format!("{path}?resourceVersionMatch=Exact&resourceVersion={at}");
    for (at, revision) in states.iter().enumerate() {
        let object = f.get(&exact(&one, *revision)).await.expect(200);
        assert_eq!((&object.body["data"]["a"], object.revision()), (&json!(at.to_string()), *revision));
        let list = f.get(&exact(CONFIG_MAPS, *revision)).await.expect(200);
        assert_eq!(list.body["metadata"]["resourceVersion"], json!(revision.to_string()));
        assert_eq!(list.body["items"].as_array().map(Vec::len), Some(1), "the other came later");
        assert_eq!(list.body["items"][0]["data"]["a"], json!(at.to_string()));
        let none = f.get(&format!("{}&fieldSelector=metadata.name%3Dd", exact(CONFIG_MAPS, *revision))).await;
        assert_eq!(none.expect(200).body["items"], json!([]));
    }
    let now = f.get(CONFIG_MAPS).await.revision();
    f.get(&exact(&one, now)).await.error(404, "NotFound");
    f.engine.store().compact(states[3]).await.unwrap();
    for path in [one.as_str(), CONFIG_MAPS] {
        let old = f.get(&exact(path, states[2])).await;
        let said = old.error(410, "Expired");
        assert!(said.contains("The resourceVersion for the provided list is too old."), "{path}: {said}");
        f.get(&exact(path, states[3])).await.expect(200);
        f.get(&exact(path, now + 1)).await.error(504, "Timeout");
    }
}

#[tokio::test]
async fn forms_and_refusals() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/c?view=history");
    f.get(&one).await.error(404, "NotFound");
    f.config_map("c", json!({})).await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let shown = f.with("GET", &one, &table, "").await.expect(200);
    assert_eq!(
        (&shown.body["kind"], &shown.body["rows"][0]["cells"][2]),
        (&json!("Table"), &json!("Created"))
    );
    assert_eq!(f.with("GET", &one, &[("accept", "application/yaml")], "").await.expect(200).code, 200);
    let metadata = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    f.with("GET", &one, &metadata, "").await.error(406, "NotAcceptable");
    let plain = f.get(&format!("{CONFIG_MAPS}/c?view=story")).await.expect(200);
    assert_eq!(plain.body["kind"], "ConfigMap", "what is not known in a query is passed over");
    f.get(&format!("{one}&limit=x")).await.error(400, "BadRequest");
    f.get(&format!("{one}&continue=x")).await.error(400, "BadRequest");
    f.get(&format!("{one}&resourceVersion=x")).await.error(400, "BadRequest");
    f.get(&format!("{one}&continue=1&resourceVersion=1")).await.error(400, "BadRequest");
    f.get(&format!("{one}&resourceVersion=99999")).await.error(504, "Timeout");
    f.get("/api/v1/namespaces/n/pods/p/status?view=history").await.error(400, "BadRequest");
}
