//! Creating, replacing, patching.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, fixture};

const X: &str = "/api/v1/namespaces/n/configmaps/x";

#[tokio::test]
async fn the_server_sets_metadata() {
    let f = fixture().await;
    let made = f
        .post(
            CONFIG_MAPS,
            json!({"metadata": {"name": "x", "uid": "mine", "creationTimestamp": "2000-01-01T00:00:00Z",
                "deletionTimestamp": "2000-01-01T00:00:00Z", "selfLink": "/x"}, "data": {"a": "b"}}),
        )
        .await
        .expect(201);
    let metadata = made.body["metadata"].as_object().unwrap();
    let keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["creationTimestamp", "managedFields", "name", "namespace", "resourceVersion", "uid"]);
    assert_ne!(metadata["uid"], "mine");
    assert_eq!((&made.body["apiVersion"], &made.body["kind"]), (&json!("v1"), &json!("ConfigMap")));
    let got = f.get(X).await.expect(200);
    assert_eq!(got.body, made.body);
    assert_eq!(
        f.post(CONFIG_MAPS, json!({"metadata": {"name": "x"}})).await.error(409, "AlreadyExists"),
        "configmaps \"x\" already exists"
    );
}

#[tokio::test]
async fn names_are_generated() {
    let f = fixture().await;
    let made = f.post(CONFIG_MAPS, json!({"metadata": {"generateName": "x-"}})).await.expect(201);
    let name = made.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    let none = f.post(CONFIG_MAPS, json!({"metadata": {}})).await;
    let expected =
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_eq!(none.error(422, "Invalid"), expected);
}

#[tokio::test]
async fn what_is_refused() {
    let f = fixture().await;
    let check = async |path: &str, body: &str, code: u16, expected: &str| {
        let answer = f.with("POST", path, &[], body).await;
        assert_eq!(answer.code, code, "{body}: {}", answer.body);
        assert_eq!(answer.body["message"], expected, "{body}");
    };
    let rows: &[(&str, u16, &str)] = &[
        (
            r#"{"metadata":{"name":"x","namespace":"other"}}"#,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            r#"{"metadata":{"name":"x","resourceVersion":"5"}}"#,
            500,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}"#,
            400,
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v9","metadata":{"name":"x"}}"#,
            400,
            "ConfigMap in version \"v9\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v9\" in scheme \"pkg/runtime/scheme.go:111\"",
        ),
        (
            "",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "{\"a\":",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"a\":)",
        ),
        (
            r#"{"metadata":{"name":"x"},"data":{"a":1}}"#,
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
    ];
    for (body, code, expected) in rows {
        check(CONFIG_MAPS, body, *code, expected).await;
    }
    check("/api/v1/configmaps", "{}", 405, "the server does not allow this method on the requested resource")
        .await;
    check("/api/v1/nopes", "{}", 404, "the server could not find the requested resource").await;
    check("/api/v1/namespaces/n/nodes", "{}", 404, "the server could not find the requested resource").await;
}

#[tokio::test]
async fn bodies_in_other_formats() {
    let f = fixture().await;
    let send =
        async |kind: &str, body: &str| f.with("POST", CONFIG_MAPS, &[("content-type", kind)], body).await;
    let yaml = send("application/yaml", "metadata: {name: why}\ndata:\n  a: b\n").await.expect(201);
    assert_eq!(yaml.body["data"], json!({"a": "b"}));
    send("application/json; charset=utf-8", r#"{"metadata":{"name":"c"}}"#).await.expect(201);
    send("Application/JSON", r#"{"metadata":{"name":"d"}}"#).await.expect(201);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset"] {
        let text = send(kind, "{}").await.error(415, "UnsupportedMediaType").to_owned();
        assert!(text.starts_with("the body of the request was in an unknown format"), "{text}");
    }
    let big = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"a":"{}"}}}}"#, "x".repeat(3 << 20));
    let large = send("application/json", &big).await;
    assert_eq!(large.error(413, "RequestEntityTooLarge"), "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn unknown_fields() {
    let f = fixture().await;
    let body = r#"{"metadata":{"name":"NAME","name":"NAME"},"nope":1}"#;
    let send = async |name: &str, query: &str| {
        f.with("POST", &format!("{CONFIG_MAPS}{query}"), &[], &body.replace("NAME", name)).await
    };
    let warned = send("w", "").await.expect(201);
    assert_eq!(warned.warnings, ["duplicate field \"metadata.name\"", "unknown field \"nope\""]);
    assert!(send("i", "?fieldValidation=Ignore").await.expect(201).warnings.is_empty());
    let strict = send("s", "?fieldValidation=Strict").await;
    let expected = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"metadata.name\", unknown field \"nope\"";
    assert_eq!(strict.error(400, "BadRequest"), expected);
    send("b", "?fieldValidation=Bogus").await.error(422, "Invalid");
}

#[tokio::test]
async fn replacing() {
    let f = fixture().await;
    let made = f.config_map("x", json!({})).await;
    let object = |revision: &str, data: &str| json!({"metadata": {"name": "x", "resourceVersion": revision}, "data": {"a": data}});
    let first = made.revision().to_string();
    let second = f.put(X, object(&first, "1")).await.expect(200);
    assert!(second.revision() > made.revision());
    let late = f.put(X, object(&first, "2")).await;
    let modified = "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(late.error(409, "Conflict"), modified);
    // Without a revision the last word counts.
    let third = f.put(X, object("", "3")).await.expect(200);
    assert_eq!(third.body["data"], json!({"a": "3"}));
    let same = f.put(X, object("", "3")).await.expect(200);
    assert_eq!(same.revision(), third.revision(), "nothing changed");
    let url = f.put(X, json!({"metadata": {"name": "y"}})).await;
    assert_eq!(
        url.error(400, "BadRequest"),
        "the name of the object (y) does not match the name on the URL (x)"
    );
    let none = f.put(&format!("{CONFIG_MAPS}/none"), json!({"metadata": {"name": "none"}})).await;
    assert_eq!(none.error(404, "NotFound"), "configmaps \"none\" not found");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/n/leases/l";
    f.put(lease, json!({"metadata": {"name": "l"}})).await.expect(201);
    let uid = f.put(X, json!({"metadata": {"name": "x", "uid": "other"}})).await;
    assert!(uid.error(409, "Conflict").contains("Precondition failed: UID in precondition: other"));
}

#[tokio::test]
async fn patching() {
    let f = fixture().await;
    f.config_map("x", json!({"l": "1"})).await;
    let merged = f
        .merge(X, json!({"data": {"a": "1", "b": "2"}, "metadata": {"labels": {"l": null}}}))
        .await
        .expect(200);
    assert_eq!(merged.body["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(merged.body["metadata"].get("labels"), None);
    let json_patch =
        json!([{"op": "remove", "path": "/data/a"}, {"op": "add", "path": "/data/c", "value": "3"}]);
    let patched = f.patch("application/json-patch+json", X, json_patch).await.expect(200);
    assert_eq!(patched.body["data"], json!({"b": "2", "c": "3"}));
    let same = f.merge(X, json!({"data": {"b": "2"}})).await.expect(200);
    assert_eq!(same.revision(), patched.revision());
    let failed = f
        .patch("application/json-patch+json", X, json!([{"op": "test", "path": "/data/b", "value": "9"}]))
        .await;
    failed.error(422, "Invalid");
    f.merge(X, json!({"metadata": {"resourceVersion": "1"}})).await.error(409, "Conflict");
    let other = f.merge(&format!("{CONFIG_MAPS}/none"), json!({})).await;
    other.error(404, "NotFound");
    f.patch("application/json", X, json!({})).await.error(415, "UnsupportedMediaType");
    let typed = f.merge(X, json!({"data": 1})).await;
    assert!(typed.error(422, "Invalid").contains("patch: Invalid value"), "{}", typed.body);
    assert_eq!(f.merge(X, json!({"nope": 1})).await.expect(200).warnings, ["unknown field \"nope\""]);
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let f = fixture().await;
    f.config_map("x", json!({})).await;
    let patches = (0..40).map(|i| {
        let f = &f;
        async move { f.merge(X, json!({"data": {format!("k{i}"): "v"}})).await.expect(200) }
    });
    futures::future::join_all(patches).await;
    assert_eq!(f.get(X).await.body["data"].as_object().unwrap().len(), 40);
}

#[tokio::test]
async fn applying() {
    let f = fixture().await;
    let apply = async |manager: &str, force: &str, data: Value| {
        let address = format!("{X}?fieldManager={manager}{force}");
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
        f.patch("application/apply-patch+yaml", &address, config).await
    };
    let made = apply("one", "", json!({"a": "1", "b": "1"})).await.expect(201);
    assert_eq!(made.body["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = apply("one", "", json!({"a": "1", "b": "1"})).await.expect(200);
    assert_eq!(again.revision(), made.revision());
    let conflict = apply("two", "", json!({"a": "2"})).await;
    assert_eq!(
        conflict.error(409, "Conflict"),
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    let forced = apply("two", "&force=true", json!({"a": "2"})).await.expect(200);
    assert_eq!(forced.body["data"], json!({"a": "2", "b": "1"}));
    let left = apply("one", "", json!({})).await.expect(200);
    assert_eq!(left.body["data"], json!({"a": "2"}));
    let nobody = f.patch("application/apply-patch+yaml", X, json!({})).await;
    assert!(
        nobody.error(422, "Invalid").contains("fieldManager: Required value: is required for apply patch")
    );
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let f = fixture().await;
    let made =
        f.post(&format!("{CONFIG_MAPS}?dryRun=All"), json!({"metadata": {"name": "x"}})).await.expect(201);
    assert_eq!(made.body["metadata"].get("resourceVersion"), None);
    f.get(X).await.error(404, "NotFound");
    let made = f.config_map("x", json!({})).await;
    let put = f
        .put(&format!("{X}?dryRun=All"), json!({"metadata": {"name": "x"}, "data": {"a": "1"}}))
        .await
        .expect(200);
    assert_eq!(put.body["data"], json!({"a": "1"}));
    f.delete(&format!("{X}?dryRun=All"), Value::Null).await.expect(200);
    let now = f.get(X).await.expect(200);
    assert_eq!((now.revision(), now.body.get("data")), (made.revision(), None));
    f.post(&format!("{CONFIG_MAPS}?dryRun=All"), json!({"metadata": {"name": "x"}}))
        .await
        .error(409, "AlreadyExists");
    f.post(&format!("{CONFIG_MAPS}?dryRun=Some"), json!({"metadata": {"name": "z"}}))
        .await
        .error(422, "Invalid");
}

#[tokio::test]
async fn generations_and_subresources() {
    let f = fixture().await;
    let all = "/apis/apps/v1/namespaces/n/deployments";
    let one = "/apis/apps/v1/namespaces/n/deployments/d";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = f
        .post(
            all,
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
            "template": template}, "status": {"replicas": 7}}),
        )
        .await
        .expect(201);
    let generation = |v: &Value| v["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&made.body), 1);
    assert_eq!(made.body["status"], json!({}));
    let labelled = f
        .merge(one, json!({"metadata": {"labels": {"x": "y"}}, "status": {"replicas": 7}}))
        .await
        .expect(200);
    assert_eq!((generation(&labelled.body), &labelled.body["status"]), (1, &json!({})));
    assert_eq!(generation(&f.merge(one, json!({"spec": {"replicas": 3}})).await.expect(200).body), 2);
    let status = f
        .merge(&format!("{one}/status"), json!({"status": {"replicas": 5}, "spec": {"replicas": 9}}))
        .await
        .expect(200);
    assert_eq!(
        (generation(&status.body), &status.body["status"]["replicas"], &status.body["spec"]["replicas"]),
        (2, &json!(5), &json!(3))
    );
    let scale = f.get(&format!("{one}/scale")).await.expect(200);
    assert_eq!(
        (&scale.body["kind"], &scale.body["spec"], &scale.body["status"]["replicas"]),
        (&json!("Scale"), &json!({"replicas": 3}), &json!(5))
    );
    let scaled = f
        .put(&format!("{one}/scale"), json!({"metadata": {"name": "d"}, "spec": {"replicas": 4}}))
        .await
        .expect(200);
    assert_eq!(scaled.body["spec"]["replicas"], 4);
    f.merge(&format!("{one}/scale"), json!({"spec": {"replicas": -1}})).await.error(422, "Invalid");
    assert_eq!(generation(&f.get(one).await.body), 3);
    f.get(&format!("{one}/nope")).await.error(404, "NotFound");
}

#[tokio::test]
async fn service_addresses_survive_restarts() {
    let f = fixture().await;
    let all = "/api/v1/namespaces/n/services";
    let service = |name: &str, extra: Value| {
        let mut spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let made = f.post(all, service("a", json!({"type": "NodePort"}))).await.expect(201);
    let (ip, port) =
        (made.body["spec"]["clusterIP"].clone(), made.body["spec"]["ports"][0]["nodePort"].clone());
    assert!(ip.as_str().unwrap().starts_with("10.96.") && port.as_i64().unwrap() >= 30000, "{ip} {port}");
    let f = f.restart().await;
    let taken = f.post(all, service("b", json!({"clusterIP": ip}))).await;
    assert!(taken.error(422, "Invalid").contains("provided IP is already allocated"), "{}", taken.body);
    let taken = f
        .post(all, service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]})))
        .await;
    assert!(taken.error(422, "Invalid").contains("provided port is already allocated"), "{}", taken.body);
    f.delete(&format!("{all}/a"), Value::Null).await.expect(200);
    f.post(all, service("b", json!({"clusterIP": ip}))).await.expect(201);
    // A dry run gives back what it took.
    f.post(&format!("{all}?dryRun=All"), service("c", json!({"clusterIP": "10.96.7.7"}))).await.expect(201);
    f.post(all, service("c", json!({"clusterIP": "10.96.7.7"}))).await.expect(201);
}

#[tokio::test]
async fn what_nests_too_deep_is_not_stored() {
    let f = fixture().await;
    let all = "/apis/apps/v1/namespaces/n/controllerrevisions";
    let nest = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let revision = |name: &str, data: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: ControllerRevision, metadata: {{name: {name}}}, revision: 1, data: {{a: {data}}}}}"
        )
    };
    let yaml = [("content-type", "application/yaml")];
    let refused = f.with("POST", all, &yaml, &revision("x", &nest(200))).await;
    assert!(refused.error(400, "BadRequest").contains("exceeded max depth"), "{}", refused.body);
    f.with("POST", all, &yaml, &revision("x", &nest(100))).await.expect(201);
    let one = format!("{all}/x");
    f.merge(&one, json!({"revision": 2})).await.expect(200);
    let f = f.restart().await;
    assert_eq!(f.get(&one).await.expect(200).body["revision"], 2);
}

#[tokio::test]
async fn requests_that_are_answered_while_the_engine_ends_see_what_they_wrote() {
    let f = fixture().await;
    f.cancel.cancel();
    let begun = std::time::Instant::now();
    f.config_map("a", json!({})).await;
    let one = format!("{CONFIG_MAPS}/a");
    f.merge(&one, json!({"data": {"b": "c"}})).await.expect(200);
    assert_eq!(f.get(&one).await.expect(200).body["data"]["b"], "c");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_an_object_is_cannot_be_patched() {
    let f = fixture().await;
    f.config_map("x", json!({})).await;
    let one = X.to_owned();
    let patch = json!({"kind": "Secret", "apiVersion": "v2", "data": {"a": "b"}});
    let kind = "application/strategic-merge-patch+json";
    let patched = f.patch(kind, &one, patch.clone()).await.expect(200).body;
    assert_eq!((&patched["kind"], &patched["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!((&patched["data"]["a"], &f.get(&one).await.expect(200).body), (&json!("b"), &patched));
    f.merge(&one, patch).await.error(422, "Invalid");
    // Patches that say nothing.
    for (kind, code) in
        [(kind, 200), ("application/json-patch+json", 200), ("application/merge-patch+json", 400)]
    {
        f.patch(kind, &one, Value::Null).await.expect(code);
    }
}

#[tokio::test]
async fn finalizers_say_whose_they_are() {
    let f = fixture().await;
    let mut map = json!({"metadata": {"name": "x", "finalizers": ["mine"]}});
    let error = f.post(CONFIG_MAPS, map.clone()).await;
    assert_eq!(
        error.error(422, "Invalid"),
        "ConfigMap \"x\" is invalid: metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
    );
    map["metadata"]["finalizers"] = json!(["orphan", "example.org/mine"]);
    f.post(CONFIG_MAPS, map).await.expect(201);
    let lease = json!({"metadata": {"name": "x", "finalizers": ["mine"]}});
    f.post("/apis/coordination.k8s.io/v1/namespaces/n/leases", lease).await.expect(201);
    let namespace = json!({"metadata": {"name": "new"}, "spec": {"finalizers": ["mine"]}});
    let error = f.post("/api/v1/namespaces", namespace).await;
    assert!(
        error.error(422, "Invalid").contains("spec.finalizers: Invalid value: \"mine\": name is neither")
    );
}

/// What is filled in again where a list is applied as a whole is no change.
#[tokio::test]
async fn what_is_applied_again_is_not_written() {
    let f = fixture().await;
    let range = "/api/v1/namespaces/n/limitranges/x";
    let limits = |cpu: &str| {
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "x"},
            "spec": {"limits": [{"type": "Container", "max": {"cpu": cpu}}]}})
    };
    let address = format!("{range}?fieldManager=one");
    let apply = async |cpu: &str| f.patch("application/apply-patch+yaml", &address, limits(cpu)).await;
    let mut made = apply("4").await.expect(201).body;
    // As if it had been applied long ago.
    let long_ago = "2020-01-01T00:00:00Z";
    made["metadata"]["managedFields"][0]["time"] = long_ago.into();
    let stored = f.put(&format!("{range}?fieldManager=one"), made).await.expect(200);
    let times = |body: &Value| body.pointer("/metadata/managedFields/0/time").cloned();
    assert_eq!(times(&stored.body), Some(long_ago.into()));
    let again = apply("4").await.expect(200);
    assert_eq!((again.revision(), times(&again.body)), (stored.revision(), Some(long_ago.into())));
    let changed = apply("5").await.expect(200);
    assert!(changed.revision() > stored.revision() && times(&changed.body) != times(&stored.body));
}
