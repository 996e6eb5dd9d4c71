//! Deleting: at once, marked, gracefully, many.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, fixture};

const X: &str = "/api/v1/namespaces/n/configmaps/x";
const PODS: &str = "/api/v1/namespaces/n/pods";

#[tokio::test]
async fn at_once() {
    let f = fixture().await;
    let made = f.config_map("x", json!({})).await;
    let gone = f.delete(X, Value::Null).await.expect(200).body;
    let uid = &made.body["metadata"]["uid"];
    let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "x", "kind": "configmaps", "uid": uid}});
    assert_eq!(gone, expected);
    assert_eq!(f.delete(X, Value::Null).await.error(404, "NotFound"), "configmaps \"x\" not found");
}

#[tokio::test]
async fn finalizers_hold() {
    let f = fixture().await;
    f.post(CONFIG_MAPS, json!({"metadata": {"name": "x", "finalizers": ["example.org/f"]}}))
        .await
        .expect(201);
    let marked = f.delete(X, Value::Null).await.expect(200).body;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = f.delete(X, Value::Null).await.expect(200).body;
    assert_eq!(again, marked, "nothing changes by deleting twice");
    let more = f.merge(X, json!({"metadata": {"finalizers": ["example.org/f", "example.org/g"]}})).await;
    assert!(
        more.error(422, "Invalid").contains("no new finalizers can be added if the object is being deleted")
    );
    f.merge(X, json!({"data": {"a": "1"}})).await.expect(200);
    let last = f.merge(X, json!({"metadata": {"finalizers": []}})).await.expect(200).body;
    assert_eq!(last["data"], json!({"a": "1"}));
    f.get(X).await.error(404, "NotFound");
}

#[tokio::test]
async fn propagation() {
    let f = fixture().await;
    for (policy, finalizers) in
        [("Foreground", Some("foregroundDeletion")), ("Orphan", Some("orphan")), ("Background", None)]
    {
        f.config_map("x", json!({})).await;
        let answer = f.delete(X, json!({"propagationPolicy": policy})).await.expect(200).body;
        match finalizers {
            Some(finalizer) => {
                assert_eq!(answer["metadata"]["finalizers"], json!([finalizer]), "{policy}");
                f.merge(X, json!({"metadata": {"finalizers": null}})).await.expect(200);
            }
            None => assert_eq!(answer["status"], "Success"),
        }
        f.get(X).await.error(404, "NotFound");
    }
    f.config_map("x", json!({})).await;
    f.delete(&format!("{X}?propagationPolicy=Nope"), Value::Null).await.error(422, "Invalid");
    f.delete(X, json!({"propagationPolicy": "Orphan", "orphanDependents": true})).await.error(422, "Invalid");
}

#[tokio::test]
async fn preconditions() {
    let f = fixture().await;
    let made = f.config_map("x", json!({})).await;
    let refused = f.delete(X, json!({"preconditions": {"uid": "other"}})).await;
    assert!(
        refused
            .error(409, "Conflict")
            .contains("the UID in the precondition (other) does not match the UID in record")
    );
    f.delete(X, json!({"preconditions": {"resourceVersion": "1"}})).await.error(409, "Conflict");
    let right = json!({"preconditions": {"uid": made.body["metadata"]["uid"], "resourceVersion": made.revision().to_string()}});
    f.delete(X, right).await.expect(200);
}

#[tokio::test]
async fn pods_end_gracefully() {
    let f = fixture().await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}]}});
    f.post(PODS, pod("p")).await.expect(201);
    let one = format!("{PODS}/p");
    let grace = |v: &Value| v["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap();
    let marked = f.delete(&one, Value::Null).await.expect(200).body;
    assert_eq!((grace(&marked), marked["metadata"]["generation"].as_i64()), (30, Some(2)));
    let longer = f.delete(&one, json!({"gracePeriodSeconds": 60})).await.expect(200).body;
    assert_eq!(longer, marked);
    let shorter = f.delete(&one, json!({"gracePeriodSeconds": 5})).await.expect(200).body;
    assert_eq!(grace(&shorter), 5);
    f.get(&one).await.expect(200);
    let ended = f.delete(&one, json!({"gracePeriodSeconds": 0})).await.expect(200).body;
    assert_eq!((&ended["kind"], grace(&ended)), (&json!("Pod"), 0));
    f.get(&one).await.error(404, "NotFound");
    f.post(PODS, pod("q")).await.expect(201);
    f.delete(&format!("{PODS}/q?gracePeriodSeconds=0"), Value::Null).await.expect(200);
    f.get(&format!("{PODS}/q")).await.error(404, "NotFound");
}

#[tokio::test]
async fn many_at_once() {
    let f = fixture().await;
    for i in 0..5 {
        f.config_map(&format!("c{i}"), json!({"app": if i % 2 == 0 { "a" } else { "b" }})).await;
    }
    let deleted = f.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Da"), Value::Null).await.expect(200);
    assert_eq!((&deleted.body["kind"], deleted.names()), (&json!("ConfigMapList"), vec!["c0", "c2", "c4"]));
    assert_eq!(f.get(CONFIG_MAPS).await.names(), ["c1", "c3"]);
    f.delete("/api/v1/configmaps", Value::Null).await.error(405, "MethodNotAllowed");
}

#[tokio::test]
async fn namespaces_wait_for_their_own_finalizers() {
    let f = fixture().await;
    f.post("/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await.expect(201);
    let one = "/api/v1/namespaces/ns";
    let marked = f.delete(one, Value::Null).await.expect(200).body;
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(marked["metadata"].get("deletionGracePeriodSeconds").is_none());
    let finalized = f
        .put(&format!("{one}/finalize"), json!({"metadata": {"name": "ns"}, "spec": {"finalizers": []}}))
        .await;
    finalized.expect(200);
    f.get(one).await.error(404, "NotFound");
}

#[tokio::test]
async fn events_expire() {
    let f = fixture().await;
    let events = "/api/v1/namespaces/n/events";
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}});
    f.post(events, event("a")).await.expect(201);
    let before = f.post(events, event("b")).await.expect(201).revision();
    f.post(events, event("c")).await.expect(201);
    f.merge(&format!("{events}/a"), json!({"count": 2})).await.expect(200);
    f.engine.cache("", "events").unwrap().current().await.unwrap();
    f.engine.expire("", "events", before).await;
    assert_eq!(f.get(events).await.names(), ["a", "c"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_deleted_unread() {
    use pagurus_controlplane_store::Txn;

    const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential=true";
    let f = fixture().await;
    f.config_map("good", json!({})).await;
    let (good, bad) = (format!("{CONFIG_MAPS}/good"), format!("{CONFIG_MAPS}/bad"));
    let refused = f.delete(&format!("{good}?{OPTION}"), Value::Null).await;
    assert!(refused.error(422, "Invalid").contains("is exclusively used to delete corrupt object(s)"));
    let refused = f.delete(&format!("{bad}?{OPTION}&gracePeriodSeconds=0"), Value::Null).await;
    assert!(refused.error(422, "Invalid").contains("cannot be set together with .gracePeriodSeconds"));
    f.delete(&format!("{bad}?{OPTION}"), Value::Null).await.error(404, "NotFound");
    let cache = f.engine.cache("", "configmaps").unwrap();
    let key = format!("{}n/bad", cache.prefix());
    f.engine.store().txn(Txn::put_if(key.clone(), 0, bytes::Bytes::from_static(b"{broken"))).await.unwrap();
    f.get(&bad).await.error(404, "NotFound");
    assert_eq!(f.delete(&format!("{bad}?{OPTION}"), Value::Null).await.expect(200).body["status"], "Success");
    assert!(f.engine.store().get(&key, None).await.unwrap().is_none());
}
