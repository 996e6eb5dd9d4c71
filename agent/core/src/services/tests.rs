//! Compiling Services: rows of Service and slices, and the pools they make.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn endpoint(ip: &str, state: &str) -> Endpoint {
    Endpoint {
        ip: ip.parse().unwrap(),
        ready: state.contains('r'),
        serving: state.contains('r') || state.contains('s'),
        terminating: state.contains('t'),
        local: state.contains('l'),
    }
}

fn slice(service: &str, port: u16, endpoints: &[(&str, &str)]) -> Slice {
    let endpoints: Vec<Endpoint> = endpoints.iter().map(|(ip, state)| endpoint(ip, state)).collect();
    Slice {
        service: ServiceName::new("ns", service),
        family: endpoints.first().map_or(Family::V4, |e| Family::of(&e.ip)),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints,
    }
}

fn service(ips: &[&str], node_port: Option<u16>, internal_local: bool) -> Service {
    Service {
        name: ServiceName::new("ns", "web"),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port }],
        internal_local,
        affinity: 0,
    }
}

/// Pools as text: "frontend,frontend -> backend,backend".
fn check(service: Service, slices: &[Slice], expected: &[&str]) {
    let name = service.name.clone();
    let mut desired = Desired::default();
    desired.set_service(service);
    for (index, slice) in slices.iter().enumerate() {
        desired.set_slice(&format!("s{index}"), slice.clone());
    }
    let join = |items: Vec<String>| items.join(",");
    let pools: Vec<String> = desired
        .compile(&name)
        .iter()
        .map(|pool| {
            let frontends = join(pool.frontends.iter().map(ToString::to_string).collect());
            let backends = join(pool.backends.iter().map(ToString::to_string).collect());
            format!("{frontends} -> {backends}")
        })
        .collect();
    assert_eq!(pools, expected);
    assert_eq!(desired.take_dirty().into_iter().collect::<Vec<_>>(), [name]);
}

#[test]
fn pools_of_services() {
    check(service(&["10.96.0.1"], None, false), &[], &["10.96.0.1:80/TCP -> "]);
    check(
        service(&["10.96.0.1"], None, false),
        &[slice("web", 8080, &[("10.0.0.2", "r"), ("10.0.0.1", "r"), ("10.0.0.3", "")])],
        &["10.96.0.1:80/TCP -> 10.0.0.1:8080/TCP,10.0.0.2:8080/TCP"],
    );
    // Both families, each with its own slices; a NodePort shares the pool.
    check(
        service(&["10.96.0.1", "fd00::1"], Some(30_080), false),
        &[slice("web", 8080, &[("10.0.0.1", "r")]), slice("web", 8080, &[("fd01::1", "r")])],
        &[
            "10.96.0.1:80/TCP,nodes(v4):30080/TCP -> 10.0.0.1:8080/TCP",
            "[fd00::1]:80/TCP,nodes(v6):30080/TCP -> [fd01::1]:8080/TCP",
        ],
    );
    // The same endpoint in two slices counts once; different target ports count twice.
    check(
        service(&["10.96.0.1"], None, false),
        &[
            slice("web", 8080, &[("10.0.0.1", "r")]),
            slice("web", 8080, &[("10.0.0.1", "r")]),
            slice("web", 9090, &[("10.0.0.1", "r")]),
        ],
        &["10.96.0.1:80/TCP -> 10.0.0.1:8080/TCP,10.0.0.1:9090/TCP"],
    );
}

#[test]
fn terminating_endpoints_serve_only_if_nobody_is_ready() {
    check(
        service(&["10.96.0.1"], None, false),
        &[slice("web", 80, &[("10.0.0.1", "st"), ("10.0.0.2", "r")])],
        &["10.96.0.1:80/TCP -> 10.0.0.2:80/TCP"],
    );
    check(
        service(&["10.96.0.1"], None, false),
        &[slice("web", 80, &[("10.0.0.1", "st"), ("10.0.0.2", "t"), ("10.0.0.3", "s")])],
        &["10.96.0.1:80/TCP -> 10.0.0.1:80/TCP"],
    );
}

#[test]
fn internal_policy_local_splits_the_pool() {
    check(
        service(&["10.96.0.1"], Some(30_080), true),
        &[slice("web", 80, &[("10.0.0.1", "rl"), ("10.0.0.2", "r")])],
        &["10.96.0.1:80/TCP -> 10.0.0.1:80/TCP", "nodes(v4):30080/TCP -> 10.0.0.1:80/TCP,10.0.0.2:80/TCP"],
    );
}

#[test]
fn a_slice_that_changes_service_leaves_the_old_one() {
    let mut desired = Desired::default();
    let web = ServiceName::new("ns", "web");
    desired.set_service(service(&["10.96.0.1"], None, false));
    desired.set_slice("s", slice("web", 80, &[("10.0.0.1", "r")]));
    desired.take_dirty();
    desired.set_slice("s", slice("other", 80, &[("10.0.0.1", "r")]));
    assert!(desired.take_dirty().contains(&web));
    assert!(desired.compile(&web)[0].backends.is_empty());
    desired.remove_slice("ns", "s");
    assert_eq!(desired.slice_names().count(), 0);
}

#[test]
fn nothing_new_is_not_dirty() {
    let mut desired = Desired::default();
    let one = slice("web", 80, &[("10.0.0.1", "r")]);
    desired.set_service(service(&["10.96.0.1"], None, false));
    desired.set_slice("s", one.clone());
    desired.take_dirty();
    desired.set_service(service(&["10.96.0.1"], None, false));
    desired.set_slice("s", one);
    assert!(desired.take_dirty().is_empty());
}
