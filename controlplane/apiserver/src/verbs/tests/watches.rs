//! Watching: what is told, in which order, to whom.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, Fixture, fixture};
use crate::request::{Body, empty_body};

/// The lines of a watch.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await;
            let frame = frame.expect("a line within ten seconds")?;
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// The next lines as `TYPE name`.
    async fn told(&mut self, count: usize) -> Vec<String> {
        let mut out = Vec::new();
        while out.len() < count {
            let line = self.next().await.unwrap();
            let name = line["object"]["metadata"]["name"].as_str().unwrap_or_default();
            out.push(format!("{} {name}", line["type"].as_str().unwrap()));
        }
        out
    }
}

async fn watch(f: &Fixture, query: &str) -> Lines {
    let response = f.ask("GET", &format!("{CONFIG_MAPS}?watch=1{query}"), &[], empty_body()).await;
    assert_eq!(response.status(), 200);
    Lines { body: response.into_body(), rest: Vec::new() }
}

#[tokio::test]
async fn state_then_changes() {
    let f = fixture().await;
    f.config_map("a", json!({})).await;
    let first = f.config_map("b", json!({})).await.revision();
    let mut all = watch(&f, "").await;
    let mut later = watch(&f, &format!("&resourceVersion={first}")).await;
    assert_eq!(all.told(2).await, ["ADDED a", "ADDED b"]);
    f.config_map("c", json!({})).await;
    let changed = f.merge(&format!("{CONFIG_MAPS}/a"), json!({"data": {"k": "v"}})).await.expect(200);
    f.delete(&format!("{CONFIG_MAPS}/b"), Value::Null).await.expect(200);
    for lines in [&mut all, &mut later] {
        assert_eq!(lines.told(1).await, ["ADDED c"]);
        let line = lines.next().await.unwrap();
        assert_eq!((&line["type"], &line["object"]), (&json!("MODIFIED"), &changed.body));
        let gone = lines.next().await.unwrap();
        assert_eq!(gone["type"], "DELETED");
        let revision: u64 = gone["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert_eq!(revision, changed.revision() + 1, "the deletion's own revision");
    }
}

#[tokio::test]
async fn selections_are_entered_and_left() {
    let f = fixture().await;
    let one = format!("{CONFIG_MAPS}/x");
    f.config_map("x", json!({"app": "a"})).await;
    let mut lines = watch(&f, "&labelSelector=app%3Da").await;
    let mut named = watch(&f, "&fieldSelector=metadata.name%3Dother").await;
    assert_eq!(lines.told(1).await, ["ADDED x"]);
    f.merge(&one, json!({"data": {"k": "1"}})).await.expect(200);
    let left = f.merge(&one, json!({"metadata": {"labels": {"app": "b"}}})).await.expect(200);
    f.merge(&one, json!({"data": {"k": "2"}})).await.expect(200);
    f.merge(&one, json!({"metadata": {"labels": {"app": "a"}}})).await.expect(200);
    f.merge(&one, json!({"data": {"k": "3"}})).await.expect(200);
    assert_eq!(lines.told(1).await, ["MODIFIED x"]);
    let line = lines.next().await.unwrap();
    assert_eq!(line["type"], "DELETED");
    assert_eq!(line["object"]["metadata"]["labels"]["app"], "a", "its last state in the selection");
    assert_eq!(line["object"]["metadata"]["resourceVersion"], left.body["metadata"]["resourceVersion"]);
    assert_eq!(lines.told(2).await, ["ADDED x", "MODIFIED x"]);
    f.config_map("other", json!({})).await;
    assert_eq!(named.told(1).await, ["ADDED other"]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let f = fixture().await;
    f.config_map("a", json!({})).await;
    let now = f.config_map("b", json!({})).await.revision();
    let query = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut lines = watch(&f, query).await;
    assert_eq!(lines.told(2).await, ["ADDED a", "ADDED b"]);
    let mark = lines.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let revision: u64 = mark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(revision >= now);
    f.config_map("c", json!({})).await;
    assert_eq!(lines.told(1).await, ["ADDED c"]);
    let answer = f.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    answer.error(422, "Invalid");
}

#[tokio::test]
async fn bookmarks_and_ends() {
    let f = fixture().await;
    let revision = f.config_map("a", json!({})).await.revision();
    // Something else moves the store on.
    f.post("/api/v1/namespaces/n/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
    let query = format!("&resourceVersion={revision}&allowWatchBookmarks=true&timeoutSeconds=1");
    let mut lines = watch(&f, &query).await;
    let mark = lines.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], (revision + 1).to_string());
    assert_eq!(lines.next().await, None, "the time is over");
    let mut open = watch(&f, &format!("&resourceVersion={revision}")).await;
    f.cancel.cancel();
    assert_eq!(open.next().await, None, "the server ends");
}

#[tokio::test]
async fn watches_go_on_after_a_restart() {
    let f = fixture().await;
    let first = f.config_map("a", json!({})).await.revision();
    f.config_map("b", json!({})).await;
    f.delete(&format!("{CONFIG_MAPS}/a"), Value::Null).await.expect(200);
    let f = f.restart().await;
    let mut lines = watch(&f, &format!("&resourceVersion={first}")).await;
    assert_eq!(lines.told(2).await, ["ADDED b", "DELETED a"]);
    f.config_map("c", json!({})).await;
    assert_eq!(lines.told(1).await, ["ADDED c"]);
}

#[tokio::test]
async fn old_revisions_are_gone() {
    let f = fixture().await;
    let first = f.config_map("a", json!({})).await.revision();
    let second = f.config_map("b", json!({})).await.revision();
    f.engine.store().compact(second).await.unwrap();
    let f = f.restart().await;
    let mut lines = watch(&f, &format!("&resourceVersion={first}")).await;
    let line = lines.next().await.unwrap();
    let (code, reason) = (&line["object"]["code"], &line["object"]["reason"]);
    assert_eq!((&line["type"], code, reason), (&json!("ERROR"), &json!(410), &json!("Expired")));
    let message = line["object"]["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("too old resource version: {first} (")), "{message}");
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn tables_tell_their_columns_once() {
    let f = fixture().await;
    f.config_map("a", json!({})).await;
    f.config_map("b", json!({})).await;
    let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let response = f.ask("GET", &format!("{CONFIG_MAPS}?watch=1"), &accept, empty_body()).await;
    let mut lines = Lines { body: response.into_body(), rest: Vec::new() };
    let (first, second) = (lines.next().await.unwrap(), lines.next().await.unwrap());
    assert!(first["object"]["columnDefinitions"].is_array());
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    f.config_map("c", json!({})).await;
    let third = lines.next().await.unwrap();
    assert_eq!(
        (&third["object"]["kind"], &third["object"]["rows"][0]["cells"][0]),
        (&json!("Table"), &json!("c"))
    );
}

/// Each frame has its length before it, and the object in its envelope inside.
#[tokio::test]
async fn frames_in_protobuf() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let f = fixture().await;
    f.config_map("a", json!({"k": "v"})).await;
    let headers = [("accept", "application/vnd.kubernetes.protobuf")];
    let address = format!(
        "{CONFIG_MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let response = f.ask("GET", &address, &headers, empty_body()).await;
    assert_eq!(response.headers()["content-type"], format!("{PROTOBUF};stream=watch"));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let (mut rest, mut kinds) = (&bytes[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (event, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        // `WatchEvent`: a text in field 1, then field 2.
        assert_eq!(event[0], 1 << 3 | 2);
        kinds.push(String::from_utf8_lossy(&event[2..2 + usize::from(event[1])]).into_owned());
        assert!(event.windows(4).any(|four| four == b"k8s\0"));
        rest = more;
    }
    assert!(rest.is_empty());
    assert_eq!(kinds[..2], ["ADDED", "BOOKMARK"], "{kinds:?}");
}
