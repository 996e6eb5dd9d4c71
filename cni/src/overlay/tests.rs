//! Plans as tables, and against a kernel in memory.

use super::*;
use crate::netlink::fake::Fake;
use crate::netlink::{ROUTE_PROTOCOL, Veth};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn node(name: &str, ips: &[&str], ranges: &[&str]) -> Node {
    Node {
        name: name.into(),
        ips: ips.iter().map(|text| ip(text)).collect(),
        ranges: ranges.iter().map(|range| range.parse().expect("a range")).collect(),
    }
}

fn own() -> Node {
    node("a", &["192.168.0.1", "fd77::1"], &["10.244.0.0/24", "fd00:0::/64"])
}

fn near() -> Node {
    node("b", &["192.168.0.2", "fd77::2"], &["10.244.1.0/24", "fd00:1::/64"])
}

fn far() -> Node {
    node("c", &["192.168.9.3", "fd99::3"], &["10.244.2.0/24", "fd00:2::/64"])
}

fn link_route(destination: &str) -> Route {
    Route {
        destination: destination.parse().expect("a range"),
        gateway: None,
        device: Some(2),
        source: None,
        protocol: 2,
        onlink: false,
    }
}

/// A node's namespace with an uplink.
fn machine() -> Fake {
    let (mut host, _) = Fake::pair();
    let file = std::fs::File::open("/dev/null").expect("any file");
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let (name, peer) = ("eth0", "other");
    let peer_netns = std::os::fd::AsFd::as_fd(&file);
    host.add_veth(&Veth { name, mac, peer, peer_mac: mac, peer_netns, mtu: 1500 }).expect("an uplink");
    let index = host.link(name).expect("look").expect("there").index;
    for address in ["192.168.0.1/24", "fd77::1/64"] {
        host.add_address(index, address.parse().expect("an address")).expect("add");
    }
    host.state().routes = vec![link_route("192.168.0.0/24"), link_route("fd77::/64")];
    host
}

fn options(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

/// How ranges of others are reached, as `ip route` would show it.
fn shown(host: &Fake) -> Vec<String> {
    let state = host.state();
    let mut routes: Vec<String> = state
        .routes
        .iter()
        .filter(|route| route.protocol == ROUTE_PROTOCOL)
        .map(|route| {
            let gateway = route.gateway.expect("a next hop");
            let device = state.links.values().find(|link| Some(link.index) == route.device);
            match device {
                Some(link) => format!("{} via {gateway} dev {}", route.destination, link.name),
                None => format!("{} via {gateway}", route.destination),
            }
        })
        .collect();
    routes.sort();
    routes
}

fn reconciled(host: &mut Fake, mode: Mode, others: &[Node]) -> Outcome {
    let outcome = reconcile(host, &options(mode), &own(), others).expect("the fake answers");
    let state = host.state().clone();
    let again = reconcile(host, &options(mode), &own(), others).expect("the fake answers");
    assert_eq!(*host.state(), state, "the second pass changed something");
    assert_eq!((again.problems.clone(), again.mtu), (outcome.problems.clone(), outcome.mtu));
    let plan = plan(&options(mode), &own(), others, &observe(host, &own().ips).expect("observe"));
    assert_eq!(plan.actions, [], "nothing is left to do");
    outcome
}

#[test]
fn ways_by_mode() {
    let check = |mode, others: &[Node], routes: &[&str], mtu| {
        let mut host = machine();
        let outcome = reconciled(&mut host, mode, others);
        assert_eq!(shown(&host), routes, "{mode:?}");
        assert_eq!(outcome.problems, [""; 0]);
        assert_eq!(outcome.mtu, mtu);
        assert_eq!(
            host.state().links.contains_key(DEVICE),
            routes.iter().any(|route| route.ends_with(DEVICE))
        );
    };
    let (hop_b, hop_c) = (near().hop(&near().ranges[1]), far().hop(&far().ranges[1]));
    let direct_b = ["10.244.1.0/24 via 192.168.0.2", "fd00:1::/64 via fd77::2"];
    let overlaid_b =
        ["10.244.1.0/24 via 10.244.1.0 dev pgr_vxlan", &format!("fd00:1::/64 via {hop_b} dev pgr_vxlan")];
    let overlaid_c =
        ["10.244.2.0/24 via 10.244.2.0 dev pgr_vxlan", &format!("fd00:2::/64 via {hop_c} dev pgr_vxlan")];
    check(Mode::Direct, &[], &[], 1500);
    check(Mode::Vxlan, &[], &[], 1500);
    check(Mode::Direct, &[near()], &direct_b, 1500);
    check(Mode::Vxlan, &[near()], &overlaid_b, 1450);
    check(Mode::Auto, &[near()], &direct_b, 1500);
    check(Mode::Auto, &[far()], &overlaid_c, 1450);
    check(Mode::Auto, &[near(), far()], &[direct_b[0], overlaid_c[0], direct_b[1], overlaid_c[1]], 1450);
    // Nodes with one family only: pods of the other travel through the overlay, or not at all.
    let single = node("d", &["192.168.0.4"], &["10.244.3.0/24", "fd00:3::/64"]);
    check(Mode::Direct, std::slice::from_ref(&single), &["10.244.3.0/24 via 192.168.0.4"], 1500);
    let hop = single.hop(&single.ranges[1]);
    check(
        Mode::Auto,
        &[single],
        &["10.244.3.0/24 via 192.168.0.4", &format!("fd00:3::/64 via {hop} dev pgr_vxlan")],
        1450,
    );
}

#[test]
fn modes_are_switched_and_nodes_come_and_go() {
    let mut host = machine();
    reconciled(&mut host, Mode::Vxlan, &[near(), far()]);
    {
        let state = host.state();
        let link = &state.links[DEVICE];
        assert_eq!(
            link.tunnel,
            Some(Tunnel { id: DEFAULT_ID, port: DEFAULT_PORT, local: ip("192.168.0.1") })
        );
        assert!(link.up && link.mac == Some(own().mac()));
        let addresses: Vec<String> = state.addresses[&link.index].iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.0.0/32", "fd00::/128"]);
        assert_eq!(state.forwarding[&(link.index, near().mac())], ip("192.168.0.2"));
        assert_eq!(state.forwarding.len(), 2);
        assert_eq!(state.neighbours.len(), 4);
    }
    // One gets another address, and leaves.
    let moved = Node { ips: vec![ip("192.168.9.33")], ..far() };
    reconciled(&mut host, Mode::Vxlan, &[near(), moved]);
    assert!(host.state().forwarding.values().any(|remote| *remote == ip("192.168.9.33")));
    reconciled(&mut host, Mode::Vxlan, &[near()]);
    let state = host.state().clone();
    assert_eq!((state.forwarding.len(), state.neighbours.len()), (1, 2));
    assert_eq!(shown(&host).len(), 2);
    // A smaller uplink: the device stays.
    let index = host.state().links[DEVICE].index;
    host.state().links.get_mut("eth0").expect("the uplink").mtu = 1400;
    assert_eq!(reconciled(&mut host, Mode::Vxlan, &[near()]).mtu, 1350);
    let link = host.state().links[DEVICE].clone();
    assert_eq!((link.mtu, link.index), (1350, index));
    // Somebody has changed it: it is made anew.
    host.state().links.get_mut(DEVICE).expect("the overlay").tunnel = None;
    reconciled(&mut host, Mode::Vxlan, &[near()]);
    assert_eq!(shown(&host).len(), 2);
    reconciled(&mut host, Mode::Direct, &[near()]);
    assert_eq!(shown(&host), ["10.244.1.0/24 via 192.168.0.2", "fd00:1::/64 via fd77::2"]);
    assert!(!host.state().links.contains_key(DEVICE));
    reconciled(&mut host, Mode::Vxlan, &[near()]);
    assert!(shown(&host).iter().all(|route| route.ends_with(DEVICE)));
}

#[test]
fn what_cannot_be_reached_is_said() {
    let check = |own: Node, others: &[Node], problem: &str, routes: usize| {
        let mut host = machine();
        let outcome = reconcile(&mut host, &options(Mode::Vxlan), &own, others).expect("the fake answers");
        assert!(outcome.problems.iter().any(|told| told.contains(problem)), "{:?}", outcome.problems);
        assert_eq!(shown(&host).len(), routes);
    };
    check(Node { ips: Vec::new(), ..own() }, &[near()], "has no address for the overlay", 0);
    let only_v6 = Node { ips: vec![ip("fd77::2")], ..near() };
    check(own(), &[only_v6, far()], "needs an address of the family of 192.168.0.1", 2);
    // The same name twice cannot be; two names with one hash could.
    check(own(), &[Node { name: own().name, ..near() }], "gives the same hardware address", 0);
}

#[test]
fn ends_are_the_same_everywhere() {
    assert_eq!(near().mac(), node("b", &[], &[]).mac());
    assert_ne!(near().mac(), far().mac());
    assert_eq!(near().mac().0[0], 0x02);
    // As the kernel makes it of the hardware address.
    let Mac([_, b, c, d, e, f]) = near().mac();
    let expected = format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        u16::from(b),
        u16::from_be_bytes([c, 0xff]),
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f])
    );
    assert_eq!(near().hop(&near().ranges[1]), ip(&expected));
}

#[test]
fn sizes() {
    assert_eq!(overlay_mtu(1500, &ip("192.168.0.1")), 1450);
    assert_eq!(overlay_mtu(1500, &ip("fd77::1")), 1430);
    let mut host = machine();
    host.state().links.get_mut("eth0").expect("the uplink").mtu = 1300;
    let outcome = reconcile(&mut host, &options(Mode::Vxlan), &own(), &[near()]).expect("the fake answers");
    assert!(outcome.problems[0].contains("too small for IPv6"), "{:?}", outcome.problems);
}
