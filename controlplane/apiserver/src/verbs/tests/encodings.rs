//! CBOR both ways, and streams in the formats that have them.

use pagurus_controlplane_schema::codec::cbor;
use pagurus_controlplane_schema::table::Table;

use super::*;

const CBOR: &str = "application/cbor";

fn encoded(value: &Value) -> Bytes {
    cbor::document(Table::builtin(), value).into()
}

/// Sends CBOR and asks for it; the code, the type and the document of the answer.
async fn send(f: &Fixture, method: &str, address: &str, kind: &str, body: Bytes) -> (u16, String, Value) {
    let headers = [("content-type", kind), ("accept", CBOR)];
    let response = f.ask(method, address, &headers, full_body(body)).await;
    let code = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.starts_with(cbor::MAGIC), "{bytes:?}");
    (code, kind, cbor::decode(&bytes).unwrap().value)
}

#[tokio::test]
async fn objects_in_cbor() {
    let f = fixture().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "binaryData": {"b": "AQID"}});
    let (code, kind, made) = send(&f, "POST", CONFIG_MAPS, CBOR, encoded(&map)).await;
    assert_eq!((code, kind.as_str()), (201, CBOR), "{made}");
    let one = format!("{CONFIG_MAPS}/x");
    assert_eq!(f.get(&one).await.expect(200).body, made);
    let (code, _, list) = send(&f, "GET", CONFIG_MAPS, "", Bytes::new()).await;
    assert_eq!(
        (code, &list["kind"], &list["items"][0]["binaryData"]),
        (200, &json!("ConfigMapList"), &map["binaryData"])
    );
    // What is twice in a map is an error, not a warning.
    let (code, kind, status) =
        send(&f, "PUT", &one, CBOR, Bytes::from_static(b"\xa2\x41a\x01\x41a\x01")).await;
    assert_eq!((code, kind.as_str(), &status["kind"]), (400, CBOR, &json!("Status")));
    assert_eq!(
        status["message"],
        "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: cbor: found duplicate map key \"a\" at map element index 1 (a2416101416101)"
    );
    let wrong = encoded(&json!({"metadata": {"name": "x"}, "data": {"a": 1}}));
    let (code, _, status) = send(&f, "PUT", &one, CBOR, wrong).await;
    assert_eq!(code, 400);
    assert!(
        status["message"].as_str().unwrap().contains("cbor: cannot unmarshal number into Go struct field")
    );
}

#[tokio::test]
async fn an_apply_in_cbor() {
    let f = fixture().await;
    let address = format!("{CONFIG_MAPS}/x?fieldManager=m");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
    let (code, _, made) = send(&f, "PATCH", &address, "application/apply-patch+cbor", encoded(&map)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let (code, _, status) =
        send(&f, "PATCH", &address, "application/apply-patch+cbor", Bytes::from_static(b"\xff")).await;
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("error decoding CBOR: cbor: unexpected \"break\" code"))
    );
}

#[tokio::test]
async fn a_watch_in_cbor() {
    let f = fixture().await;
    f.config_map("a", json!({"k": "v"})).await;
    let response = f
        .ask("GET", &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), &[("accept", CBOR)], empty_body())
        .await;
    assert_eq!(response.headers()["content-type"], "application/cbor-seq");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let event = cbor::decode(&bytes).unwrap().value;
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn no_watch_in_yaml() {
    let f = fixture().await;
    let answer = f
        .with("GET", &format!("{CONFIG_MAPS}?watch=1"), &[("accept", "application/yaml")], "")
        .await
        .expect(406);
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(
        text.contains("only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"),
        "{text}"
    );
}

#[tokio::test]
async fn an_apply_on_scale() {
    let f = fixture().await;
    let deployments = "/apis/apps/v1/namespaces/n/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    f.post(&format!("{deployments}?fieldManager=maker"), body).await.expect(201);
    let apply = async |query: &str, replicas: u64| {
        let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
        f.patch(
            "application/apply-patch+yaml",
            &format!("{deployments}/d/scale?fieldManager=hpa{query}"),
            scale,
        )
        .await
    };
    let refused = apply("", 5).await;
    assert_eq!(
        refused.error(409, "Conflict"),
        "Apply failed with 1 conflict: conflict with \"maker\" using autoscaling/v1: .spec.replicas"
    );
    assert_eq!(apply("&force=true", 5).await.expect(200).body["spec"]["replicas"], 5);
    let deployment = f.get(&format!("{deployments}/d")).await.expect(200).body;
    assert_eq!(deployment["spec"]["replicas"], 5);
    let managers = deployment["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(
        managers[0],
        json!({"manager": "hpa", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    );
    assert_eq!(managers[1]["manager"], "maker");
    assert!(managers[1]["fieldsV1"]["f:spec"].get("f:replicas").is_none());
}

#[tokio::test]
async fn a_watch_over_a_websocket() {
    use futures::StreamExt as _;
    use tokio_tungstenite::tungstenite::protocol::Message;

    let f = fixture().await;
    f.config_map("a", json!({})).await;
    f.config_map("b", json!({})).await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let engine = f.engine.clone();
    let serve = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let engine = engine.clone();
        async move {
            let mut asked = call("GET", &request.uri().to_string(), &[]);
            asked.extensions.insert(hyper::upgrade::on(&mut request));
            asked.headers = request.headers().clone();
            Ok::<_, std::convert::Infallible>(engine.serve(asked, empty_body()).await)
        }
    });
    let server = hyper::server::conn::http1::Builder::new();
    tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(far), serve).with_upgrades());
    let address = format!("ws://server{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let (socket, _) = tokio_tungstenite::client_async(address, near).await.unwrap();
    let messages: Vec<Message> = socket.map(Result::unwrap).collect().await;
    let names: Vec<Value> = messages[..2]
        .iter()
        .map(|message| serde_json::from_str::<Value>(message.to_text().unwrap()).unwrap())
        .map(|event| event["object"]["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, [json!("a"), json!("b")]);
    assert!(
        matches!(&messages[2], Message::Close(Some(frame)) if u16::from(frame.code) == 1000),
        "{messages:?}"
    );
}
