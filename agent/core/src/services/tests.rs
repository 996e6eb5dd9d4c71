//! Compiling Services: rows of Service and slices, and where their frontends lead.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::services::plan::Flags;

fn endpoint(text: &str) -> Endpoint {
    let (ip, rest) = text.split_once(' ').unwrap_or((text, "r"));
    let mut words = rest.split(' ');
    let state = words.next().unwrap_or_default().to_owned();
    let hints = |letter: char| {
        let names = rest.split(' ').filter_map(move |word| word.strip_prefix(letter)?.strip_prefix('='));
        names.map(Arc::from).collect::<Vec<Arc<str>>>().into()
    };
    Endpoint {
        ip: ip.parse().unwrap(),
        ready: state.contains('r'),
        serving: state.contains('r') || state.contains('s'),
        terminating: state.contains('t'),
        local: state.contains('l'),
        for_zones: hints('z'),
        for_nodes: hints('n'),
    }
}

fn slice(service: &str, port: u16, endpoints: &[&str]) -> Slice {
    let endpoints: Vec<Endpoint> = endpoints.iter().map(|text| endpoint(text)).collect();
    Slice {
        service: ServiceName::new("ns", service),
        family: endpoints.first().map_or(Family::V4, |e| Family::of(&e.ip)),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints,
    }
}

fn service(ips: &[&str], node_port: Option<u16>) -> Service {
    Service {
        name: ServiceName::new("ns", "web"),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port }],
        internal_local: false,
        external_local: false,
        affinity: 0,
        health_check_node_port: None,
        algorithm: Algorithm::Maglev,
        forwarding: Forwarding::Snat,
        created: Created::default(),
    }
}

/// Frontends as text: "frontend -> inside", with "| outside" where that differs.
fn routes(desired: &Desired, name: &ServiceName) -> Vec<String> {
    let compiled = desired.compile(name);
    let list = |list| {
        let backends: Vec<String> = compiled.backends(list).map(|backend| backend.to_string()).collect();
        backends.join(",")
    };
    let text = |route: &Route| {
        let outside = match list(route.outside) {
            outside if route.outside != route.inside => format!(" | {outside}"),
            _ => String::new(),
        };
        format!("{} -> {}{outside}", route.frontend, list(route.inside))
    };
    compiled.routes.iter().map(text).collect()
}

fn desired(service: Service, slices: &[Slice]) -> Desired {
    let mut desired = Desired::default();
    desired.set_node("here", Some("a"));
    desired.set_service(service);
    for (index, slice) in slices.iter().enumerate() {
        desired.set_slice(&format!("s{index}"), slice.clone());
    }
    desired
}

fn check(service: Service, slices: &[Slice], expected: &[&str]) {
    let name = service.name.clone();
    let mut desired = desired(service, slices);
    assert_eq!(routes(&desired, &name), expected);
    assert_eq!(desired.take_dirty(), [name]);
}

#[test]
fn routes_of_services() {
    let plain = service(&["10.96.0.1"], None);
    check(plain.clone(), &[], &["10.96.0.1:80/TCP -> "]);
    check(
        plain.clone(),
        &[slice("web", 8080, &["10.0.0.2", "10.0.0.1", "10.0.0.3 -"])],
        &["10.96.0.1:80/TCP -> 10.0.0.1:8080/TCP,10.0.0.2:8080/TCP"],
    );
    // Both families, each with its own slices.
    check(
        service(&["10.96.0.1", "fd00::1"], Some(30_080)),
        &[slice("web", 8080, &["10.0.0.1"]), slice("web", 8080, &["fd01::1"])],
        &[
            "10.96.0.1:80/TCP -> 10.0.0.1:8080/TCP",
            "nodes(v4):30080/TCP -> 10.0.0.1:8080/TCP",
            "[fd00::1]:80/TCP -> [fd01::1]:8080/TCP",
            "nodes(v6):30080/TCP -> [fd01::1]:8080/TCP",
        ],
    );
    // The same endpoint in two slices counts once; different target ports count twice.
    check(
        plain,
        &[
            slice("web", 8080, &["10.0.0.1"]),
            slice("web", 8080, &["10.0.0.1"]),
            slice("web", 9090, &["10.0.0.1"]),
        ],
        &["10.96.0.1:80/TCP -> 10.0.0.1:8080/TCP,10.0.0.1:9090/TCP"],
    );
}

#[test]
fn terminating_endpoints_serve_only_if_nobody_is_ready() {
    let plain = service(&["10.96.0.1"], None);
    check(
        plain.clone(),
        &[slice("web", 80, &["10.0.0.1 st", "10.0.0.2"])],
        &["10.96.0.1:80/TCP -> 10.0.0.2:80/TCP"],
    );
    check(
        plain,
        &[slice("web", 80, &["10.0.0.1 st", "10.0.0.2 t", "10.0.0.3 s"])],
        &["10.96.0.1:80/TCP -> 10.0.0.1:80/TCP"],
    );
}

#[test]
fn policies() {
    let endpoints = [slice("web", 80, &["10.0.0.1 rl", "10.0.0.2"])];
    check(
        Service { internal_local: true, ..service(&["10.96.0.1"], Some(30_080)) },
        &endpoints,
        &["10.96.0.1:80/TCP -> 10.0.0.1:80/TCP", "nodes(v4):30080/TCP -> 10.0.0.1:80/TCP,10.0.0.2:80/TCP"],
    );
    let external = Service {
        external_local: true,
        external_ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        load_balancer_ips: vec!["192.0.2.2".parse().unwrap()],
        ..service(&["10.96.0.1"], Some(30_080))
    };
    let all = "10.0.0.1:80/TCP,10.0.0.2:80/TCP";
    check(
        external,
        &endpoints,
        &[
            &format!("10.96.0.1:80/TCP -> {all}"),
            &format!("nodes(v4):30080/TCP -> {all} | 10.0.0.1:80/TCP"),
            &format!("192.0.2.1:80/TCP -> {all} | 10.0.0.1:80/TCP"),
            &format!("192.0.2.2:80/TCP -> {all} | 10.0.0.1:80/TCP"),
        ],
    );
}

#[test]
fn hints() {
    let plain = service(&["10.96.0.1"], None);
    let row = |endpoints: &[&str], expected: &str| {
        let expected = format!("10.96.0.1:80/TCP -> {expected}");
        check(plain.clone(), &[slice("web", 1, endpoints)], &[&expected]);
    };
    row(&["10.0.0.1 r z=a", "10.0.0.2 r z=b"], "10.0.0.1:1/TCP");
    // One has none; none is for this zone; one that is not ready does not count.
    row(&["10.0.0.1 r z=a", "10.0.0.2 r"], "10.0.0.1:1/TCP,10.0.0.2:1/TCP");
    row(&["10.0.0.1 r z=c", "10.0.0.2 r z=b"], "10.0.0.1:1/TCP,10.0.0.2:1/TCP");
    row(&["10.0.0.1 r z=a", "10.0.0.2 -", "10.0.0.3 r z=b"], "10.0.0.1:1/TCP");
    // Those for nodes come first.
    row(&["10.0.0.1 r z=a n=there", "10.0.0.2 r z=b n=here"], "10.0.0.2:1/TCP");
    row(&["10.0.0.1 r z=a n=there", "10.0.0.2 r z=b n=other"], "10.0.0.1:1/TCP");
}

#[test]
fn flags_of_frontends() {
    let flags = |service: Service, endpoints: &[&str]| -> Vec<Flags> {
        let name = service.name.clone();
        let compiled = desired(service, &[slice("web", 80, endpoints)]).compile(&name);
        compiled.routes.iter().map(|route| route.flags).collect()
    };
    let all = Service {
        internal_local: true,
        affinity: 5,
        load_balancer_ips: vec!["192.0.2.2".parse().unwrap()],
        source_ranges: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        forwarding: Forwarding::Dsr,
        ..service(&["10.96.0.1"], Some(30_080))
    };
    let both = Flags::AFFINITY | Flags::HAS_ENDPOINTS;
    assert_eq!(
        flags(all.clone(), &["10.0.0.1"]),
        [
            both | Flags::INSIDE_LOCAL,
            both | Flags::EXTERNAL | Flags::DSR,
            both | Flags::EXTERNAL | Flags::DSR | Flags::SOURCE_RANGES,
        ]
    );
    // Without endpoints; kept out is nobody; only ranges of the other family.
    assert_eq!(flags(service(&["10.96.0.1"], None), &["10.0.0.1 -"]), [Flags::NONE]);
    for ranges in [vec!["0.0.0.0/0"], vec!["fd00::/8"]] {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let one = Service { source_ranges: ranges, ..all.clone() };
        assert!(!flags(one, &["10.0.0.1"])[2].has(Flags::SOURCE_RANGES));
    }
    // Direct answers need a table that all nodes have, and never hold for `Local`.
    for one in
        [Service { algorithm: Algorithm::Random, ..all.clone() }, Service { external_local: true, ..all }]
    {
        assert!(flags(one, &["10.0.0.1"]).iter().all(|flags| !flags.has(Flags::DSR)));
    }
}

#[test]
fn host_ports_and_local_dns() {
    let mut desired = desired(service(&["10.96.0.10"], None), &[slice("web", 53, &["10.0.0.1"])]);
    let node = |local| NodeAddress { local, node_ports: true };
    let own: IpAddr = "192.168.0.1".parse().unwrap();
    desired.set_addresses(BTreeMap::from([(own, node(true)), ("192.168.0.2".parse().unwrap(), node(false))]));
    let host_port = HostPort {
        ip: None,
        port: 8080,
        protocol: Protocol::Tcp,
        target_ip: "10.0.0.5".parse().unwrap(),
        target_port: 80,
    };
    desired.set_host_port("one", host_port);
    let name = ServiceName::of_host_port("one");
    assert_eq!(routes(&desired, &name), ["192.168.0.1:8080/TCP -> 10.0.0.5:80/TCP"]);
    assert!(desired.take_dirty().contains(&name));
    desired.set_addresses(BTreeMap::from([("192.168.0.3".parse().unwrap(), node(true))]));
    assert_eq!(routes(&desired, &name), ["192.168.0.3:8080/TCP -> 10.0.0.5:80/TCP"]);
    desired.remove_host_port("one");
    assert!(routes(&desired, &name).is_empty());
    // The port of DNS leads to this node, the others where they led.
    let mut dns = service(&["10.96.0.10"], None);
    dns.ports.push(ServicePort { port: 53, ..dns.ports[0].clone() });
    let name = dns.name.clone();
    desired.set_service(dns);
    desired
        .set_local_dns(Some(LocalDns { service: name.clone(), ips: vec!["169.254.53.53".parse().unwrap()] }));
    assert_eq!(
        routes(&desired, &name),
        ["10.96.0.10:80/TCP -> 10.0.0.1:53/TCP", "10.96.0.10:53/TCP -> 169.254.53.53:53/TCP"]
    );
    desired.set_local_dns(None);
    assert_eq!(routes(&desired, &name)[1], "10.96.0.10:53/TCP -> 10.0.0.1:53/TCP");
}

#[test]
fn the_older_service_has_a_contested_address() {
    let one = |name: &str, cluster_ip: &str, seconds| Service {
        name: ServiceName::new("ns", name),
        external_ips: vec!["192.0.2.1".parse().unwrap()],
        created: Created { seconds, uid: name.into() },
        ..service(&[cluster_ip], Some(30_080))
    };
    let (old, young) = (one("young", "10.96.0.2", 7), one("old", "10.96.0.1", 3));
    let (old, young) = (young, old);
    let mut desired = Desired::default();
    desired.set_service(young.clone());
    assert_eq!(routes(&desired, &young.name).len(), 3);
    desired.take_dirty();
    desired.set_service(old.clone());
    // The one that gains is written first.
    assert_eq!(desired.take_dirty(), [old.name.clone(), young.name.clone()]);
    assert_eq!(routes(&desired, &old.name).len(), 3);
    assert_eq!(routes(&desired, &young.name), ["10.96.0.2:80/TCP -> "]);
    assert_eq!(desired.claims().lost(&young.name).len(), 2);
    assert_eq!(desired.claims().contested().count(), 2);
    desired.remove_service(&old.name);
    assert_eq!(desired.take_dirty(), [young.name.clone(), old.name]);
    assert_eq!(routes(&desired, &young.name).len(), 3);
    assert_eq!(desired.claims().contested().count(), 0);
    // Nobody takes a cluster IP from the Service it was given to, however old.
    let thief = Service { external_ips: vec!["10.96.0.2".parse().unwrap()], ..one("thief", "10.96.0.3", 0) };
    desired.set_service(thief);
    assert_eq!(routes(&desired, &young.name)[0], "10.96.0.2:80/TCP -> ");
}

#[test]
fn a_slice_that_changes_service_leaves_the_old_one() {
    let mut desired = Desired::default();
    let web = ServiceName::new("ns", "web");
    desired.set_service(service(&["10.96.0.1"], None));
    desired.set_slice("s", slice("web", 80, &["10.0.0.1"]));
    desired.take_dirty();
    desired.set_slice("s", slice("other", 80, &["10.0.0.1"]));
    assert!(desired.take_dirty().contains(&web));
    assert_eq!(routes(&desired, &web), ["10.96.0.1:80/TCP -> "]);
    desired.remove_slice("ns", "s");
    assert_eq!(desired.slice_names().count(), 0);
}

#[test]
fn nothing_new_is_not_dirty() {
    let mut desired = Desired::default();
    let one = slice("web", 80, &["10.0.0.1 r z=a"]);
    desired.set_service(service(&["10.96.0.1"], None));
    desired.set_slice("s", one.clone());
    desired.take_dirty();
    desired.set_service(service(&["10.96.0.1"], None));
    desired.set_slice("s", one);
    assert!(desired.take_dirty().is_empty());
    // The zone matters to Services with hints only.
    desired.set_node("here", Some("b"));
    assert_eq!(desired.take_dirty().len(), 1);
    desired.set_slice("s", slice("web", 80, &["10.0.0.1"]));
    desired.take_dirty();
    desired.set_node("here", Some("a"));
    assert!(desired.take_dirty().is_empty());
}
