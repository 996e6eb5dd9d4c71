//! Rows: a Service, its pods and the slices there are; then the writes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::desired;
use super::*;

fn service(spec: Value) -> Service {
    let value = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "S", "labels": {"app": "web"}}, "spec": spec});
    serde_json::from_value(value).unwrap()
}

fn plain() -> Service {
    service(json!({
        "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    }))
}

/// `name address ready|unready|dying|done [named-port]`
fn pod(text: &str) -> Arc<Pod> {
    let field: Vec<&str> = text.split_whitespace().collect();
    let mut pod = json!({
        "metadata": {"name": field[0], "namespace": "ns", "uid": field[0], "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {
            "phase": if field[2] == "done" { "Succeeded" } else { "Running" },
            "podIPs": field[1].split(',').map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": if field[2] == "unready" { "False" } else { "True" }}],
        },
    });
    if field[2] == "dying" {
        pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    }
    if let Some(port) = field.get(3) {
        let number: i32 = port.parse().unwrap();
        pod["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": number}]);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn zones() -> BTreeMap<String, Option<String>> {
    BTreeMap::from([("n1".to_owned(), Some("z1".to_owned()))])
}

fn run(service: &Service, pods: &[&str], existing: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    plan(service, desired::endpoints(service, &pods, &zones()), existing)
}

/// The slices as they would be after the actions.
fn after(existing: &[Arc<EndpointSlice>], actions: Vec<Action>) -> Vec<Arc<EndpointSlice>> {
    let mut slices = existing.to_vec();
    for (index, action) in actions.into_iter().enumerate() {
        match action {
            Action::Create(mut slice) => {
                slice.metadata.name = Some(format!("web-{}-{index}", slices.len()));
                slice.metadata.uid = slice.metadata.name.clone();
                slices.push(Arc::new(*slice));
            }
            Action::Update(slice) => {
                slices.retain(|s| s.metadata.name != slice.metadata.name);
                slices.push(Arc::new(*slice));
            }
            Action::Delete(slice) => slices.retain(|s| s.metadata.name != slice.metadata.name),
        }
    }
    slices
}

/// `family port: address/r(eady)s(erving)t(erminating) ...`
fn show(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let mut lines: Vec<String> = (slices.iter())
        .map(|slice| {
            let ports: Vec<String> =
                slice.ports.iter().flatten().map(|p| p.port.unwrap().to_string()).collect();
            let mut line = format!("{} {}:", slice.address_type, ports.join("+"));
            for endpoint in slice.endpoints.iter().flatten() {
                let c = endpoint.conditions.clone().unwrap();
                let flag = |on: Option<bool>, letter| if on == Some(true) { letter } else { "-" };
                line += &format!(
                    " {}/{}{}{}",
                    endpoint.addresses[0],
                    flag(c.ready, "r"),
                    flag(c.serving, "s"),
                    flag(c.terminating, "t")
                );
            }
            line
        })
        .collect();
    lines.sort();
    lines
}

fn check(service: &Service, pods: &[&str], expected: &[&str]) {
    let first = run(service, pods, &[]);
    let slices = after(&[], first);
    assert_eq!(show(&slices), expected, "{pods:?}");
    assert_eq!(run(service, pods, &slices), vec![], "a second pass must have nothing to do");
    for slice in &slices {
        assert_eq!(slice.metadata.labels.as_ref().unwrap()[SERVICE_NAME], "web");
        assert_eq!(slice.metadata.labels.as_ref().unwrap()["app"], "web");
        for endpoint in slice.endpoints.iter().flatten() {
            assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("z1")));
        }
    }
}

#[test]
fn conditions_of_endpoints() {
    check(&plain(), &[], &["IPv4 :"]);
    check(
        &plain(),
        &["a 10.1.0.1 ready", "b 10.1.0.2 unready", "c 10.1.0.3 dying", "d 10.1.0.4 done"],
        &["IPv4 8080: 10.1.0.1/rs- 10.1.0.2/--- 10.1.0.3/-st"],
    );
    let mut publish = plain();
    publish.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    check(&publish, &["b 10.1.0.2 unready", "c 10.1.0.3 dying"], &["IPv4 8080: 10.1.0.2/r-- 10.1.0.3/rst"]);
}

#[test]
fn two_families_make_two_slices() {
    let dual = service(json!({
        "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4", "IPv6"], "selector": {"app": "web"}, "ports": [{"port": 80}],
    }));
    check(
        &dual,
        &["a 10.1.0.1,fd00::1 ready", "b 10.1.0.2 ready"],
        &["IPv4 80: 10.1.0.1/rs- 10.1.0.2/rs-", "IPv6 80: fd00::1/rs-"],
    );
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let named = service(json!({
        "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}],
    }));
    check(
        &named,
        &["a 10.1.0.1 ready 8080", "b 10.1.0.2 ready 9090", "c 10.1.0.3 ready"],
        &["IPv4 8080: 10.1.0.1/rs-", "IPv4 9090: 10.1.0.2/rs-", "IPv4 : 10.1.0.3/rs-"],
    );
}

#[test]
fn one_change_is_one_write() {
    let service = plain();
    let three = ["a 10.1.0.1 ready", "b 10.1.0.2 ready", "c 10.1.0.3 ready"];
    let slices = after(&[], run(&service, &three, &[]));
    for (pods, line) in [
        (vec![three[0], three[1]], "IPv4 8080: 10.1.0.1/rs- 10.1.0.2/rs-"),
        (vec![three[0], "b 10.1.0.2 unready", three[2]], "IPv4 8080: 10.1.0.1/rs- 10.1.0.2/--- 10.1.0.3/rs-"),
        (vec![three[0], three[2], "d 10.1.0.4 ready"], "IPv4 8080: 10.1.0.1/rs- 10.1.0.3/rs- 10.1.0.4/rs-"),
        (vec![], "IPv4 :"),
    ] {
        let actions = run(&service, &pods, &slices);
        assert_eq!(actions.len(), 1, "{pods:?}");
        assert!(matches!(actions[0], Action::Update(_)));
        let then = after(&slices, actions);
        assert_eq!(show(&then), [line]);
        let back = run(&service, &three, &then);
        assert_eq!(back.len(), 1);
        assert_eq!(show(&after(&then, back)).len(), 1);
    }
}

#[test]
fn slices_hold_a_hundred_and_changes_stay_local() {
    let service = plain();
    let texts: Vec<String> =
        (0..250).map(|i| format!("p{i:03} 10.1.{}.{} ready", i / 250, i % 250)).collect();
    let pods: Vec<&str> = texts.iter().map(String::as_str).collect();
    let slices = after(&[], run(&service, &pods, &[]));
    let mut sizes: Vec<usize> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    // One gone: one write. One more: it fits into the slice that changed.
    assert_eq!(run(&service, &pods[1..], &slices).len(), 1);
    let mut swapped = pods[1..].to_vec();
    swapped.push("new 10.2.0.1 ready");
    assert_eq!(run(&service, &swapped, &slices).len(), 1);
    // Fewer than one slice: the emptied ones go.
    let few = after(&slices, run(&service, &pods[..10], &slices));
    assert_eq!(few.iter().map(|s| s.endpoints.as_ref().unwrap().len()).sum::<usize>(), 10);
    assert!(few.iter().all(|s| !s.endpoints.as_ref().unwrap().is_empty()));
}

#[test]
fn labels_follow_the_service() {
    let slices = after(&[], run(&plain(), &["a 10.1.0.1 ready"], &[]));
    let mut relabeled = plain();
    relabeled.metadata.labels = None;
    let actions = run(&relabeled, &["a 10.1.0.1 ready"], &slices);
    assert_eq!(actions.len(), 1);
    let mut headless = plain();
    headless.spec.as_mut().unwrap().cluster_ip = Some("None".to_owned());
    let slices = after(&[], run(&headless, &["a 10.1.0.1 ready"], &[]));
    assert!(slices[0].metadata.labels.as_ref().unwrap().contains_key(HEADLESS));
}
