//! Getting and listing: selectors, pages, revisions, formats and shapes.

use flate2::read::GzDecoder;
use pagurus_controlplane_schema::codec;
use pagurus_controlplane_schema::table::Table;
use serde_json::{Value, json};

use super::{Answer, CONFIG_MAPS, Fixture, fixture};

/// The two groups of events are the same objects, but call their fields otherwise.
#[tokio::test]
async fn events_are_selected_by_the_words_of_their_group() {
    let f = fixture().await;
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "action": "a", "reason": "r",
        "reportingController": "example.org/c", "reportingInstance": "i", "regarding": {"kind": "Pod", "namespace": "n", "name": "p"},
    });
    f.post("/apis/events.k8s.io/v1/namespaces/n/events", event).await.expect(201);
    let core = "/api/v1/namespaces/n/events";
    let grouped = "/apis/events.k8s.io/v1/namespaces/n/events";
    for (path, selector, found) in [
        (grouped, "reportingController=example.org/c,regarding.name=p", Some(1)),
        (grouped, "regarding.kind!=Pod", Some(0)),
        (grouped, "metadata.name=e,type=Normal", Some(1)),
        (grouped, "reportingComponent=example.org/c", None),
        (grouped, "source=x", None),
        (core, "reportingComponent=example.org/c,involvedObject.name=p", Some(1)),
        (core, "reportingController=example.org/c", None),
    ] {
        let answer = f.get(&format!("{path}?fieldSelector={selector}")).await;
        match found {
            Some(count) => assert_eq!(answer.expect(200).names().len(), count, "{path} {selector}"),
            None => {
                answer.error(400, "BadRequest");
            }
        }
    }
}

/// Five ConfigMaps c0 to c4, alternately labelled a and b.
async fn five() -> Fixture {
    let f = fixture().await;
    for i in 0..5 {
        f.config_map(
            &format!("c{i}"),
            json!({"app": if i % 2 == 0 { "a" } else { "b" }, "n": i.to_string()}),
        )
        .await;
    }
    f
}

#[tokio::test]
async fn selecting() {
    let f = five().await;
    f.post("/api/v1/namespaces/other/configmaps", json!({"metadata": {"name": "o", "labels": {"app": "a"}}}))
        .await
        .expect(201);
    let check = async |query: &str, expected: &[&str]| {
        let list = f.get(&format!("{CONFIG_MAPS}{query}")).await.expect(200);
        assert_eq!(list.names(), expected, "{query}");
    };
    check("", &["c0", "c1", "c2", "c3", "c4"]).await;
    check("?labelSelector=app%3Da", &["c0", "c2", "c4"]).await;
    check("?labelSelector=app!%3Da", &["c1", "c3"]).await;
    check("?labelSelector=n%20in%20(1,2)", &["c1", "c2"]).await;
    check("?labelSelector=!n", &[]).await;
    check("?fieldSelector=metadata.name%3Dc3", &["c3"]).await;
    check("?fieldSelector=metadata.name!%3Dc3,metadata.namespace=n", &["c0", "c1", "c2", "c4"]).await;
    let all = f.get("/api/v1/configmaps?labelSelector=app%3Da").await.expect(200);
    assert_eq!(all.names(), ["c0", "c2", "c4", "o"]);
    let bad = f.get(&format!("{CONFIG_MAPS}?labelSelector=app%20in")).await;
    assert_eq!(bad.error(400, "BadRequest"), "unable to parse requirement: found '' expected: '('");
    f.get(&format!("{CONFIG_MAPS}?fieldSelector=data%3Dx")).await.error(400, "BadRequest");
}

#[tokio::test]
async fn lists_are_made_of_the_stored_bytes() {
    let f = five().await;
    let list = f.get(CONFIG_MAPS).await.expect(200);
    assert_eq!((&list.body["kind"], &list.body["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    for item in list.body["items"].as_array().unwrap() {
        let name = item["metadata"]["name"].as_str().unwrap();
        let mut one = f.get(&format!("{CONFIG_MAPS}/{name}")).await.expect(200).body;
        assert_eq!((one["kind"].take(), one["apiVersion"].take()), (json!("ConfigMap"), json!("v1")));
        one.as_object_mut().unwrap().retain(|_, v| !v.is_null());
        assert_eq!(*item, one);
    }
}

#[tokio::test]
async fn paging_is_exact() {
    let f = five().await;
    let page = async |query: &str| f.get(&format!("{CONFIG_MAPS}?limit=2{query}")).await;
    let first = page("").await.expect(200);
    assert_eq!((first.names(), &first.body["metadata"]["remainingItemCount"]), (vec!["c0", "c1"], &json!(3)));
    let token = first.body["metadata"]["continue"].as_str().unwrap().to_owned();
    f.config_map("c11", json!({})).await;
    f.delete(&format!("{CONFIG_MAPS}/c2"), Value::Null).await.expect(200);
    let second = page(&format!("&continue={token}")).await.expect(200);
    assert_eq!(second.names(), ["c2", "c3"], "as it was when the first page was made");
    assert_eq!(second.revision(), first.revision());
    let token = second.body["metadata"]["continue"].as_str().unwrap().to_owned();
    // The other server process knows no snapshot and asks the store.
    let f = f.restart().await;
    let third = f.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!((third.names(), third.body["metadata"].get("continue")), (vec!["c4"], None));
    f.engine.store().compact(f.engine.store().revision().await.unwrap()).await.unwrap();
    let gone = f.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    gone.error(410, "Expired");
    let token = gone.body["metadata"]["continue"].as_str().unwrap();
    let rest = f.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await.expect(200);
    assert_eq!(rest.names(), ["c4"]);
    let both = f.get(&format!("{CONFIG_MAPS}?continue={token}&resourceVersion=1")).await;
    assert_eq!(
        both.error(400, "BadRequest"),
        "specifying resource version is not allowed when using continue"
    );
    let selected = f.get(&format!("{CONFIG_MAPS}?limit=1&labelSelector=app")).await.expect(200);
    assert_eq!(selected.body["metadata"].get("remainingItemCount"), None);
    f.get(&format!("{CONFIG_MAPS}?limit=abc")).await.error(400, "BadRequest");
    assert_eq!(f.get(&format!("{CONFIG_MAPS}?limit=-1")).await.expect(200).names().len(), 5);
}

#[tokio::test]
async fn revisions_of_lists() {
    let f = fixture().await;
    let first = f.config_map("c0", json!({})).await.revision();
    f.config_map("c1", json!({})).await;
    let check = async |query: &str, expected: &[&str]| {
        let list = f.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        assert_eq!(list.names(), expected, "{query}");
    };
    check("", &["c0", "c1"]).await;
    check("resourceVersion=0", &["c0", "c1"]).await;
    check(&format!("resourceVersion={first}"), &["c0", "c1"]).await;
    check(&format!("resourceVersion={first}&resourceVersionMatch=NotOlderThan"), &["c0", "c1"]).await;
    check(&format!("resourceVersion={first}&resourceVersionMatch=Exact"), &["c0"]).await;
    let future = f.get(&format!("{CONFIG_MAPS}?resourceVersion=99999")).await;
    assert!(
        future.error(504, "Timeout").starts_with("Timeout: Too large resource version: 99999, current: ")
    );
    f.get(&format!("{CONFIG_MAPS}?resourceVersion=abc")).await.error(400, "BadRequest");
    f.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await.error(422, "Invalid");
    f.get(&format!("{CONFIG_MAPS}?resourceVersion=0&resourceVersionMatch=Exact")).await.error(422, "Invalid");
    f.get(&format!("{CONFIG_MAPS}?sendInitialEvents=true")).await.error(422, "Invalid");
}

#[tokio::test]
async fn formats() {
    let f = five().await;
    let one = format!("{CONFIG_MAPS}/c0");
    let yaml = f.with("GET", &one, &[("accept", "application/yaml")], "").await.expect(200);
    assert!(yaml.bytes.starts_with(b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n"), "{:?}", yaml.bytes);
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let missing = f
        .with("GET", &format!("{CONFIG_MAPS}/none"), &[("accept", "application/yaml")], "")
        .await
        .expect(404);
    assert!(missing.bytes.starts_with(b"apiVersion: v1\ncode: 404\n"));
    let pretty = f.get(&format!("{one}?pretty=true")).await.expect(200);
    assert!(pretty.bytes.starts_with(b"{\n  \"apiVersion\": \"v1\",\n"));
    let best = f.with("GET", &one, &[("accept", "application/xml, application/json;q=0.1")], "").await;
    assert_eq!(best.expect(200).headers["content-type"], "application/json");
    f.with("GET", &one, &[("accept", "application/xml")], "").await.error(406, "NotAcceptable");
    f.with("GET", &one, &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v2")], "")
        .await
        .error(406, "NotAcceptable");
}

#[tokio::test]
async fn revisions_of_one() {
    let f = fixture().await;
    let first = f.config_map("c", json!({"k": "old"})).await.revision();
    let one = format!("{CONFIG_MAPS}/c");
    let second = f.merge(&one, json!({"metadata": {"labels": {"k": "new"}}})).await.expect(200).revision();
    f.delete(&one, Value::Null).await.expect(200);
    let at =
        |revision: u64, rule: &str| format!("{one}?resourceVersion={revision}&resourceVersionMatch={rule}");
    for (revision, data) in [(first, "old"), (second, "new")] {
        let found = f.get(&at(revision, "Exact")).await.expect(200);
        assert_eq!((&found.body["metadata"]["labels"]["k"], found.revision()), (&json!(data), revision));
    }
    for address in [one.clone(), at(first, "NotOlderThan"), format!("{one}?resourceVersion={first}")] {
        f.get(&address).await.error(404, "NotFound");
    }
    f.get(&at(first - 1, "Exact")).await.error(404, "NotFound");
    f.get(&format!("{one}?resourceVersion=abc")).await.error(400, "BadRequest");
    assert!(
        f.get(&format!("{one}?resourceVersion=99999"))
            .await
            .error(504, "Timeout")
            .contains("Too large resource version")
    );
    f.get(&format!("{one}?resourceVersionMatch=Exact&resourceVersion=")).await.error(404, "NotFound");
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn protobuf() {
    let f = five().await;
    let one = format!("{CONFIG_MAPS}/c0");
    let ask = async |address: &str, accept: &str| f.with("GET", address, &[("accept", accept)], "").await;
    let kind = |answer: &Answer| codec::protobuf::envelope(&answer.bytes).unwrap().kind;
    let plain = f.get(&one).await.expect(200).body;
    let table = Table::builtin();
    let id = table.kind_type("", "v1", "ConfigMap").unwrap();
    // As client-go asks, by default and when it takes nothing else.
    for accept in [PROTOBUF, "application/vnd.kubernetes.protobuf,application/json"] {
        let answer = ask(&one, accept).await.expect(200);
        assert_eq!(answer.headers["content-type"], PROTOBUF);
        assert_eq!(codec::protobuf::decode_as(table, id, &answer.bytes).unwrap().value, plain);
    }
    assert_eq!(kind(&ask(CONFIG_MAPS, PROTOBUF).await.expect(200)), "ConfigMapList");
    assert_eq!(kind(&ask(&format!("{CONFIG_MAPS}/none"), PROTOBUF).await.expect(404)), "Status");
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    assert_eq!(kind(&ask(CONFIG_MAPS, &metadata).await.expect(200)), "PartialObjectMetadataList");
    // Tables have no message.
    let tables = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(ask(CONFIG_MAPS, &tables).await.code, 406);
    let either = format!("{tables},application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(ask(CONFIG_MAPS, &either).await.expect(200).body["kind"], "Table");
}

#[tokio::test]
async fn shapes() {
    let f = five().await;
    let ask = async |address: &str, shape: &str| {
        let accept = format!("application/json;as={shape};g=meta.k8s.io;v=v1");
        f.with("GET", address, &[("accept", accept.as_str())], "").await
    };
    let table = ask(&format!("{CONFIG_MAPS}?limit=2"), "Table").await.expect(200).body;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][1]["cells"][0], "c1");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["continue"].is_string());
    let bare = ask(&format!("{CONFIG_MAPS}?includeObject=None"), "Table").await.expect(200).body;
    assert_eq!(bare["rows"][0]["object"], Value::Null);
    let full = ask(&format!("{CONFIG_MAPS}/c0?includeObject=Object"), "Table").await.expect(200).body;
    assert_eq!(full["rows"][0]["object"]["kind"], "ConfigMap");
    ask(&format!("{CONFIG_MAPS}?includeObject=Bogus"), "Table").await.error(400, "BadRequest");
    let one = ask(&format!("{CONFIG_MAPS}/c0"), "PartialObjectMetadata").await.expect(200).body;
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("c0")));
    let list = ask(CONFIG_MAPS, "PartialObjectMetadataList").await.expect(200).body;
    assert_eq!(
        (&list["kind"], list["items"].as_array().unwrap().len()),
        (&json!("PartialObjectMetadataList"), 5)
    );
    ask(CONFIG_MAPS, "PartialObjectMetadata").await.error(406, "NotAcceptable");
}

#[tokio::test]
async fn long_answers_are_compressed() {
    let f = fixture().await;
    for i in 0..40 {
        let data = json!({"metadata": {"name": format!("c{i:02}")}, "data": {"a": "x".repeat(10_000)}});
        f.post(CONFIG_MAPS, data).await.expect(201);
    }
    let plain = f.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(plain.names().len(), 40);
    assert!(plain.headers.get("content-encoding").is_none());
    let zipped = f.with("GET", CONFIG_MAPS, &[("accept-encoding", "gzip")], "").await.expect(200);
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.bytes.len() * 10 < plain.bytes.len());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(&zipped.bytes[..]), &mut text).unwrap();
    assert_eq!(text, plain.bytes);
}

#[tokio::test]
async fn resources_in_two_versions() {
    let f = fixture().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"},
        "reason": "R", "message": "m", "type": "Normal", "source": {"component": "c"}});
    f.post("/api/v1/namespaces/n/events", event).await.expect(201);
    let other = f.get("/apis/events.k8s.io/v1/namespaces/n/events/e").await.expect(200).body;
    assert_eq!((&other["apiVersion"], &other["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
    assert_eq!(other["regarding"]["name"], "p");
    let list = f.get("/apis/events.k8s.io/v1/namespaces/n/events").await.expect(200).body;
    assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("m")));
}

/// FlowSchemas stand in tables in the order in which requests meet them.
#[tokio::test]
async fn rows_in_an_order_of_their_own() {
    let f = fixture().await;
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    for (name, precedence) in [("a", 700), ("b", 600), ("c", 800), ("d", 600)] {
        let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": precedence});
        let kind = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name}, "spec": spec});
        f.post(schemas, kind).await.expect(201);
    }
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = f.with("GET", schemas, &table, "").await.expect(200).body;
    let rows = table["rows"].as_array().expect("rows");
    let names: Vec<&Value> = rows.iter().map(|row| &row["cells"][0]).collect();
    assert_eq!(names, ["b", "d", "a", "c"]);
}

/// Rows of pods that have ended say so, alone and in lists.
#[tokio::test]
async fn rows_of_what_has_ended() {
    let f = fixture().await;
    let pods = "/api/v1/namespaces/n/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}});
    f.post(pods, pod).await.expect(201);
    f.merge(&format!("{pods}/p/status"), json!({"status": {"phase": "Failed"}})).await.expect(200);
    for address in [pods.to_owned(), format!("{pods}/p")] {
        let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
        let table = f.with("GET", &address, &table, "").await.expect(200).body;
        let row = &table["rows"][0];
        assert_eq!(row["conditions"][0]["message"], "The pod failed.", "{address}");
        assert_eq!(row["object"]["metadata"]["name"], "p", "{address}");
    }
}
