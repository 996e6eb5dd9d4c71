//! Who gets which endpoint: clients that stay, policies inside the cluster.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::services::Service;
use pagurus_tests::topology::Host;

use super::outside::{frontends, published, route_through};
use super::{CLUSTER_IPS, Ground, PORTS, ask, ask_all, silent, web};

/// Asks many times at these ports; the only server that answered.
fn only_one(host: &Host, ip: IpAddr, ports: &[super::Port], node_ports: bool) -> Result<String> {
    let mut only: Option<String> = None;
    for _ in 0..6 {
        for (_, protocol, port, node_port, _) in ports {
            let to = SocketAddr::new(ip, if node_ports { *node_port } else { *port });
            let server = ask(host, *protocol, to).with_context(|| format!("{protocol} to {to}"))?.server;
            let first = only.get_or_insert_with(|| server.clone());
            ensure!(*first == server, "{protocol} to {to} from {host:?}: {first} and {server}");
        }
    }
    only.context("nobody answered")
}

pub(super) fn clients_stay_with_their_endpoint(ground: &mut Ground) -> Result<()> {
    let service = Service { affinity: 10_800, ..web() };
    ground.serve(&service, &[0, 1, 2])?;
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        // At every port of the Service. What the socket programs do not see is SCTP, and they know a pod by another name.
        only_one(&ground.client.host, ip, &PORTS[..2], false)?;
        only_one(&ground.client.host, ip, &PORTS[2..], false)?;
        only_one(&ground.client.host.unhooked(), ip, &PORTS, false)?;
    }
    for ip in ground.node(1).ips.both() {
        let kept = only_one(&ground.cluster.topology.client, ip, &PORTS, true)?;
        // Another node leads the client to the same one.
        let other = ground.node(2).ips.like(ip);
        let elsewhere = only_one(&ground.cluster.topology.client, other, &PORTS, true)?;
        ensure!(kept == elsewhere, "{kept} at node 2, {elsewhere} at node 3");
    }
    Ok(())
}

/// How long clients of this Service stay: the shortest time there is.
const STAY: Duration = Duration::from_secs(1);

/// Asks the first node at every port and address of the Service, as quickly as it goes; the servers that answered. None if a pause was too
/// long to say whether the client had to stay.
fn ask_quickly(ground: &Ground, v6: bool) -> Result<Option<BTreeSet<String>>> {
    let (mut seen, mut last) = (BTreeSet::new(), Instant::now());
    for (protocol, to) in frontends(ground, 0)?.into_iter().filter(|(_, to)| to.is_ipv6() == v6) {
        seen.insert(ask(&ground.cluster.topology.client, protocol, to)?.server);
        if last.elapsed() > STAY / 2 {
            return Ok(None);
        }
        last = Instant::now();
    }
    Ok(Some(seen))
}

/// A client from outside has one endpoint at all ports, NodePorts and addresses of a Service, also when it would be given another one; and
/// is given that one when it was silent for the time of the Service.
pub(super) fn clients_stay_for_a_time(ground: &mut Ground) -> Result<()> {
    let service = Service { affinity: STAY.as_secs() as u32, ..published()? };
    route_through(ground, 0)?;
    for v6 in [false, true] {
        let stayed = (0..10).find_map(|_| stay(ground, &service, v6).transpose());
        stayed.with_context(|| format!("IPv6: {v6}: this machine is too busy to ask in time"))??;
    }
    Ok(())
}

/// Tries it in one family; none if this machine was too slow.
fn stay(ground: &mut Ground, service: &Service, v6: bool) -> Result<Option<()>> {
    ground.serve(service, &[0, 1, 2])?;
    let Some(seen) = ask_quickly(ground, v6)? else { return Ok(None) };
    ensure!(seen.len() == 1, "not one of them alone: {seen:?}");
    // It is led to another one, which it keeps.
    let other = (0..3).find(|node| !seen.contains(ground.server(*node))).context("three servers")?;
    ground.serve(service, &[other])?;
    let Some(only) = ask_quickly(ground, v6)? else { return Ok(None) };
    let kept = BTreeSet::from([ground.server(other).to_owned()]);
    ensure!(only == kept, "{only:?} answered, not {kept:?}");
    let begun = Instant::now();
    ground.serve(service, &[0, 1, 2])?;
    let again = ask_quickly(ground, v6)?;
    if begun.elapsed() > STAY || again.is_none() {
        return Ok(None);
    }
    ensure!(again.as_ref() == Some(&kept), "{again:?} answered, not {kept:?}");
    // Each connection begins the time anew: only silence ends it.
    std::thread::sleep(STAY + STAY / 10);
    let Some(later) = ask_quickly(ground, v6)? else { return Ok(None) };
    ensure!(later == seen, "the time is over, and {later:?} answered, as before it {seen:?}");
    Ok(Some(()))
}

pub(super) fn internal_local_policy(ground: &mut Ground) -> Result<()> {
    let service = Service { internal_local: true, ..web() };
    ground.serve(&service, &[0, 1, 2])?;
    let client = ground.client.host.clone();
    let own = [ground.server(0).to_owned()];
    let own = [own[0].as_str()];
    let all: Vec<String> = (0..3).map(|node| ground.server(node).to_owned()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        for (_, protocol, port, node_port, _) in PORTS {
            for place in [client.clone(), client.unhooked()] {
                for _ in 0..10 {
                    ask_all(&place, protocol, SocketAddr::new(ip, port), &own)?;
                }
                // NodePorts have a policy of their own.
                let node = SocketAddr::new(ground.node(0).ips.like(ip), node_port);
                ask_all(&place, protocol, node, &all)?;
            }
        }
    }
    // Without an endpoint here there is none, and it is not refused: there are some elsewhere.
    ground.serve(&service, &[1])?;
    for ip in CLUSTER_IPS {
        let to = SocketAddr::new(ip.parse()?, PORTS[0].2);
        silent(&client.unhooked(), PORTS[0].1, to)?;
    }
    Ok(())
}
