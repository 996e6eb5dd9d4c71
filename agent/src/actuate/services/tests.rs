//! The balancer over recorded maps: what is written, what happens when writing fails.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use pagurus_agent_core::services::plan::MapOp;
use pagurus_agent_core::services::plan::{Capacity, QUARANTINE};
use pagurus_agent_datapath::fake::Recorder;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::feeds::News;
use super::*;
use crate::config::ServiceConfig;
use crate::index::feed::{Change, Reader as _};

const ROOMY: Capacity = Capacity { services: 1000, slots: 1000, backends: 1000, numbers: 1000 };

fn balancer(capacity: Capacity) -> Mutex<Balancer<Recorder>> {
    let mut maps = Recorder::default();
    let table = Table::new(maps.observe().unwrap(), capacity, 0);
    Mutex::new(Balancer::new(maps, table, None, ServiceMetrics::default()))
}

fn config() -> ServiceConfig {
    let file = crate::config::ConfigFiles::default().proxy;
    ServiceConfig::new(crate::config::ServiceSettings::default(), &file).unwrap()
}

fn feeds() -> Feeds {
    // Nothing is ever asked of this client: the changes come from the test.
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    feeds_of(kube::Client::try_from(config).unwrap())
}

fn feeds_of(client: kube::Client) -> Feeds {
    let metrics = crate::process::metrics::Metrics::default();
    Feeds {
        services: Feed::reading::<Service>("Service", client.clone(), ServiceReader::default()),
        slices: Feed::reading::<EndpointSlice>("EndpointSlice", client, SliceReader::default()),
        sources: Sources {
            nodes: watch::channel(None).1,
            devices: watch::channel(Arc::default()).1,
            pods: watch::channel(None).1,
            dns: None,
            links: None,
        },
        node_name: "here".into(),
        told: Told::new(crate::report::events::channel(&metrics).0),
        services_complete: false,
        slices_complete: false,
        pod_uids: BTreeMap::new(),
        nodes_known: true,
        pods_known: true,
        node_port_addresses: std::collections::BTreeSet::new(),
        addresses_changed: false,
    }
}

fn service(name: &str, ip: &str) -> News {
    let object: Value = json!({
        "metadata": { "namespace": "ns", "name": name },
        "spec": { "clusterIPs": [ip], "ports": [{ "port": 80 }] }
    });
    let object = ServiceReader::default().read(serde_json::from_str(&object.to_string()).unwrap());
    News::Service(Box::new(Change::Set(object)))
}

fn slice(service: &str, ips: &[&str]) -> News {
    let endpoints: Vec<Value> = ips.iter().map(|ip| json!({ "addresses": [ip] })).collect();
    let object: Value = json!({
        "metadata": { "namespace": "ns", "name": format!("{service}-1"), "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": endpoints
    });
    let object = SliceReader::default().read(serde_json::from_str(&object.to_string()).unwrap());
    News::Slice(Box::new(Change::Set(object)))
}

fn tell(balancer: &Mutex<Balancer<Recorder>>, news: Vec<News>) {
    let mut feeds = feeds();
    for one in news {
        feeds.take(&mut balancer.lock().desired, &config(), one);
    }
    balancer.lock().write_dirty(Instant::now());
}

/// Lets the time pass after which nothing is left of what is no longer used.
fn pass(balancer: &Mutex<Balancer<Recorder>>) {
    balancer.lock().started -= Duration::from_millis(QUARANTINE);
    balancer.lock().wake();
    balancer.lock().write_dirty(Instant::now());
}

/// How many frontends, places and backends the maps hold.
fn held(balancer: &Mutex<Balancer<Recorder>>) -> (usize, usize, usize) {
    let memory = &balancer.lock().maps.memory;
    let slots = memory.slots.iter().filter(|id| **id != 0).count();
    (memory.services.len(), slots, memory.backends.iter().flatten().count())
}

#[test]
fn the_table_of_connections_begins_no_larger_than_it_may_be() {
    let check = |connections: u32, xdp: Early, gibibytes: u64, conntrack: u32, warm: u32| {
        let found = capacity(connections, xdp, gibibytes << 30);
        assert_eq!((found.conntrack, found.warm), (conntrack, warm), "{connections} {xdp:?} {gibibytes}");
    };
    check(1024, Early::Off, 16, 2048, 0);
    check(u32::MAX, Early::Off, 16, 262_144, 0);
    // XDP: as many flows at hand, within a share of the memory.
    check(1024, Early::Native, 16, 2048, 131_072);
    check(524_288, Early::Auto, 16, 262_144, 524_288);
    check(4 << 20, Early::Generic, 16, 262_144, 1 << 20);
    check(4 << 20, Early::Native, 1, 262_144, 131_072);
}

#[test]
fn events_are_about_objects_by_their_uids() {
    let pods = BTreeMap::from([(("ns".to_owned(), "web-0".to_owned()), "of-the-pod".to_owned())]);
    let check = |name: &ServiceName, kind: &str, object: &str, uid: Option<&str>| {
        let about = about(name, "of-the-service", &pods);
        assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some(kind), Some(object)));
        assert_eq!((about.namespace.as_deref(), about.uid.as_deref()), (Some("ns"), uid));
    };
    check(&ServiceName::new("ns", "web"), "Service", "web", Some("of-the-service"));
    let host_port = |pod: &str| ServiceName::of_host_port(&format!("ns/{pod} 8080/tcp 10.0.0.1 x@eth0"));
    check(&host_port("web-0"), "Pod", "web-0", Some("of-the-pod"));
    check(&host_port("web-1"), "Pod", "web-1", None);
}

#[tokio::test]
async fn events_become_map_operations() {
    let balancer = balancer(ROOMY);
    tell(&balancer, vec![service("web", "10.96.0.1"), slice("web", &["10.0.0.1", "10.0.0.2"])]);
    let ops = balancer.lock().maps.ops.len();
    assert_eq!(held(&balancer), (1, 2, 2));
    tell(&balancer, vec![slice("web", &["10.0.0.1", "10.0.0.2"])]);
    assert_eq!(balancer.lock().maps.ops.len(), ops, "nothing changed");
    tell(&balancer, vec![slice("web", &["10.0.0.1", "10.0.0.2", "10.0.0.3"])]);
    assert_eq!(balancer.lock().maps.ops.len(), ops + 3, "a backend, its places, the frontend");
    tell(&balancer, vec![News::Service(Box::new(Change::Gone(("ns".into(), "web".into()))))]);
    assert_eq!(held(&balancer), (0, 5, 3), "programs may still follow what they have read");
    pass(&balancer);
    pass(&balancer);
    assert_eq!(held(&balancer), (0, 0, 0));
    assert_eq!(balancer.lock().wake_at(), None);
}

#[tokio::test]
async fn a_failed_write_disturbs_no_other_service_and_is_repeated() {
    let balancer = balancer(ROOMY);
    balancer.lock().maps.fail_after = Some(2);
    tell(&balancer, vec![service("web", "10.96.0.1"), slice("web", &["10.0.0.1", "10.0.0.2"])]);
    assert!(balancer.lock().wake_at().is_some());
    assert_eq!(balancer.lock().maps.ops.len(), 2);
    balancer.lock().maps.fail_after = None;
    tell(&balancer, vec![service("api", "10.96.0.2"), slice("api", &["10.0.0.9"])]);
    assert_eq!(balancer.lock().maps.memory.services.len(), 1);
    balancer.lock().retry_at = Some(Instant::now());
    balancer.lock().wake();
    tell(&balancer, vec![]);
    assert!(balancer.lock().failed.is_empty());
    pass(&balancer);
    assert_eq!(held(&balancer), (2, 3, 3));
}

#[tokio::test]
async fn a_service_that_does_not_fit_waits_for_room() {
    let balancer = balancer(Capacity { slots: 3, ..ROOMY });
    tell(&balancer, vec![service("web", "10.96.0.1"), slice("web", &["10.0.0.1", "10.0.0.2"])]);
    tell(&balancer, vec![service("api", "10.96.0.2"), slice("api", &["10.0.0.8", "10.0.0.9"])]);
    assert_eq!(balancer.lock().failed.len(), 1);
    let state = balancer.lock().explain();
    assert_eq!(state["pending"][0], "ns/api: the slots map is full (3 entries)");
    tell(&balancer, vec![slice("web", &["10.0.0.1"])]);
    pass(&balancer);
    assert!(balancer.lock().failed.is_empty(), "there was room");
    assert_eq!(held(&balancer).0, 2);
}

#[tokio::test]
async fn the_first_pass_removes_what_is_left_over() {
    let first = balancer(ROOMY);
    tell(&first, vec![service("old", "10.96.0.9"), slice("old", &["10.0.0.1"])]);
    tell(&first, vec![service("web", "10.96.0.1"), slice("web", &["10.0.0.1", "10.0.0.2"])]);
    // The next agent, to which only one of them is told.
    let mut maps = first.into_inner().maps;
    let observed = maps.observe().unwrap();
    maps.ops.clear();
    let table = Table::new(observed, ROOMY, 0);
    let next = Mutex::new(Balancer::new(maps, table, None, ServiceMetrics::default()));
    let mut feeds = feeds();
    for news in [service("web", "10.96.0.1"), slice("web", &["10.0.0.1", "10.0.0.2"])] {
        feeds.take(&mut next.lock().desired, &config(), news);
    }
    next.lock().write_all();
    assert!(matches!(next.lock().maps.ops[..], [MapOp::DeleteService(_)]), "{:?}", next.lock().maps.ops);
    pass(&next);
    assert_eq!(held(&next), (1, 2, 2));
}
