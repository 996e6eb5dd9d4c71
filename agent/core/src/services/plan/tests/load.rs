//! How long it takes, and how much memory: run by hand with `--ignored --nocapture`.

use std::time::Instant;

use crate::addr::{Family, Protocol};
use crate::services::plan::{Capacity, Observed, Table};
use crate::services::{
    Algorithm, Created, Desired, Endpoint, Forwarding, Service, ServiceName, ServicePort, Slice, SlicePort,
};

fn name(number: u32) -> ServiceName {
    ServiceName::new(&format!("team-{}", number % 100), &format!("service-{number}"))
}

fn service(number: u32) -> Service {
    Service {
        name: name(number),
        cluster_ips: vec![std::net::IpAddr::from((0x0a60_0000 + number).to_be_bytes())],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        internal_local: false,
        external_local: false,
        affinity: 0,
        health_check_node_port: None,
        algorithm: Algorithm::Maglev,
        forwarding: Forwarding::Snat,
        created: Created { seconds: 1_700_000_000, uid: format!("0000-1111-{number}").into() },
    }
}

fn slice(number: u32, endpoints: u32, turn: u32) -> Slice {
    let ip = |endpoint: u32| 0x0b00_0000 + number * 16 + (endpoint + turn) % 16;
    Slice {
        service: name(number),
        family: Family::V4,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..endpoints)
            .map(|endpoint| Endpoint {
                ip: std::net::IpAddr::from(ip(endpoint).to_be_bytes()),
                ready: true,
                serving: true,
                terminating: false,
                local: endpoint == 0,
                for_zones: Box::default(),
                for_nodes: Box::default(),
            })
            .collect(),
    }
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4 / 1024
}

fn fill(desired: &mut Desired, services: u32, endpoints: u32) {
    for number in 0..services {
        desired.set_service(service(number));
        desired.set_slice(&format!("service-{number}-abcde"), slice(number, endpoints, 0));
    }
}

#[test]
#[ignore = "a measurement"]
fn many_services() {
    let limits = Capacity { services: 1 << 20, slots: 1 << 24, backends: 1 << 22, numbers: 1 << 20 };
    for (services, endpoints) in [(30_000, 4), (50_000, 5)] {
        let before = resident();
        let mut desired = Desired::default();
        let start = Instant::now();
        fill(&mut desired, services, endpoints);
        let told = start.elapsed();
        let mut table = Table::new(Observed::default(), limits, 0);
        let start = Instant::now();
        let mut count = 0;
        for names in desired.take_dirty().chunks(1024) {
            let mut ops = Vec::new();
            for name in names {
                ops.extend(table.plan(name, &desired.compile(name), desired.claims()).unwrap());
            }
            count += ops.len();
            table.commit(&ops, ops.len(), 0);
        }
        let planned = start.elapsed();
        let ops = table.sweep();
        table.commit(&ops, ops.len(), 0);
        println!(
            "{services} Services x {endpoints}: told in {told:?}, planned in {planned:?}, {count} operations, {} MiB",
            resident() - before
        );
        let mut times = Vec::new();
        for change in 0..10_000u32 {
            let start = Instant::now();
            let number = change * 7919 % services;
            desired.set_slice(&format!("service-{number}-abcde"), slice(number, endpoints, 1 + change % 7));
            for name in desired.take_dirty() {
                let ops = table.plan(&name, &desired.compile(&name), desired.claims()).unwrap();
                table.commit(&ops, ops.len(), u64::from(change));
            }
            let ops = table.release(u64::from(change));
            table.commit(&ops, ops.len(), u64::from(change));
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!("one change: p50 {:?}, p99 {:?}, most {:?}", times[5000], times[9900], times[9999]);
    }
}
