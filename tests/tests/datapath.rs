//! The socket programs with real sockets: each test in its own network namespace and cgroup.

mod conntrack;
mod fill;
mod growth;
mod kills;
mod opening;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::{Backend, Family, Frontend, Protocol, ServiceIp};
use pagurus_agent_core::services::claims::Claims;
use pagurus_agent_core::services::plan::{Flags, Table};
use pagurus_agent_core::services::{Compiled, Member, NodeAddress, Route, ServiceName};
use pagurus_agent_datapath::attach::{self, Attached};
use pagurus_agent_datapath::{Config, Datapath, LIMITS, ServiceMaps as _};
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::{Sandbox, ip, isolated};
use pagurus_tests::pace::{patience, repetitions};

const V4: &str = "10.96.0.10";
const V6: &str = "fd00:96::10";

/// A loaded and attached datapath with the mirror of its maps.
struct Node {
    datapath: Datapath,
    table: Table,
    /// Seconds for which clients of Services served from now on stay with their backend.
    affinity: u32,
    started: Instant,
}

impl Node {
    fn config(sandbox: &Sandbox) -> Config {
        pagurus_tests::dataplane::config(&sandbox.cgroup, &sandbox.bpffs)
    }

    fn start(config: &Config) -> Result<(Self, Attached)> {
        let mut datapath = Datapath::load(config)?;
        let table = Table::new(datapath.services().observe()?, LIMITS, 0);
        let attached = datapath.attach()?;
        Ok((Self { datapath, table, affinity: 0, started: Instant::now() }, attached))
    }

    /// Makes a Service lead to these backends.
    fn serve(&mut self, frontends: &[Frontend], backends: &[SocketAddr]) -> Result<usize> {
        let first = frontends[0];
        let mut backends: Vec<Backend> = backends
            .iter()
            .map(|at| Backend { ip: at.ip(), port: at.port(), protocol: first.protocol })
            .collect();
        backends.sort_unstable();
        let flags = if self.affinity > 0 { Flags::AFFINITY } else { Flags::NONE };
        let route = |frontend: &Frontend| Route {
            frontend: *frontend,
            flags,
            affinity: self.affinity,
            inside: 0,
            outside: 0,
            maglev: false,
        };
        let compiled = Compiled {
            lists: vec![(0..u32::try_from(backends.len())?).collect()],
            members: backends
                .into_iter()
                .map(|backend| Member { backend, local: true, draining: false })
                .collect(),
            routes: frontends.iter().map(route).collect(),
            ranges: Vec::new(),
        };
        self.write(&ServiceName::new("test", &first.to_string()), &compiled)
    }

    /// Removes the Service of this frontend.
    fn remove(&mut self, first: &Frontend) -> Result<usize> {
        self.write(&ServiceName::new("test", &first.to_string()), &Compiled::default())
    }

    fn write(&mut self, name: &ServiceName, compiled: &Compiled) -> Result<usize> {
        let now = u64::try_from(self.started.elapsed().as_millis())?;
        let free = self.table.release(now);
        self.datapath.apply(&free)?;
        self.table.commit(&free, free.len(), now);
        let ops = self.table.plan(name, compiled, &Claims::default())?;
        self.datapath.apply(&ops)?;
        self.table.commit(&ops, ops.len(), now);
        Ok(ops.len())
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let counters: BTreeMap<_, _> = self.datapath.counters()?.into_iter().collect();
        counters.get(name).copied().with_context(|| format!("no counter {name}"))
    }
}

fn frontend(ip: &str, port: u16, protocol: Protocol) -> Result<Frontend> {
    Ok(Frontend { ip: ServiceIp::Own(ip.parse()?), port, protocol })
}

/// Runs a body with a fresh node; skipped if this build has no programs.
fn with_node(name: &str, body: impl FnOnce(&Sandbox, &Config, Node) -> Result<()>) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated(name, |sandbox| {
        let config = Node::config(sandbox);
        let (node, attached) = Node::start(&config)?;
        ensure!(attached == Attached { created: 8, replaced: 0 }, "{attached:?}");
        body(sandbox, &config, node)
    });
}

/// TCP servers that answer with their own address and then echo; they live as long as the process.
fn tcp_servers(ips: &[&str]) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for ip in ips {
        let listener = TcpListener::bind(SocketAddr::new(ip.parse()?, 0))?;
        let address = listener.local_addr()?;
        addresses.push(address);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve_tcp(stream, address));
            }
        });
    }
    Ok(addresses)
}

fn serve_tcp(mut stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    writeln!(stream, "{address}")?;
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// UDP servers that answer every datagram with their own address.
fn udp_servers(ips: &[&str]) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for ip in ips {
        let socket = UdpSocket::bind(SocketAddr::new(ip.parse()?, 0))?;
        let address = socket.local_addr()?;
        addresses.push(address);
        thread::spawn(move || -> std::io::Result<()> {
            let mut buffer = [0; 1024];
            loop {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(address.to_string().as_bytes(), from)?;
            }
        });
    }
    Ok(addresses)
}

/// The line a TCP server answers with.
fn greeting(stream: &mut TcpStream) -> Result<SocketAddr> {
    stream.set_read_timeout(Some(patience(Duration::from_secs(5))))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?.trim().parse()?)
}

/// Connects many times; how often each backend answered.
fn spread(to: SocketAddr, times: usize) -> Result<BTreeMap<SocketAddr, usize>> {
    let mut seen = BTreeMap::new();
    for nth in 0..times {
        let mut stream =
            TcpStream::connect(to).with_context(|| format!("connect to {to}, time {nth}, seen {seen:?}"))?;
        ensure!(stream.peer_addr()? == to, "peer is {} and not {to}", stream.peer_addr()?);
        *seen.entry(greeting(&mut stream)?).or_default() += 1;
    }
    Ok(seen)
}

fn check_spread(seen: &BTreeMap<SocketAddr, usize>, backends: &[SocketAddr], times: usize) -> Result<()> {
    let all: BTreeSet<_> = backends.iter().copied().collect();
    ensure!(seen.keys().copied().collect::<BTreeSet<_>>() == all, "not every backend answered: {seen:?}");
    let fair = times / backends.len();
    ensure!(seen.values().all(|count| *count > fair / 2 && *count < fair * 2), "uneven: {seen:?}");
    Ok(())
}

fn v6_addresses(count: usize) -> Result<Vec<String>> {
    let addresses: Vec<String> = (1..=count).map(|host| format!("fd00:1::{host:x}")).collect();
    for address in &addresses {
        ip(&["addr", "add", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    }
    // The kernel installs the route of an address some time after it.
    eventually("the new addresses are local", Duration::from_secs(5), || {
        let routes = ip(&["-6", "route", "show", "table", "local"])?;
        Ok(addresses.iter().all(|address| routes.contains(&format!("local {address} "))).then_some(()))
    })?;
    Ok(addresses)
}

#[test]
fn tcp_spreads_over_the_backends() {
    with_node("datapath::tcp_spreads_over_the_backends", |_, _, mut node| {
        let backends = tcp_servers(&["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"])?;
        node.serve(&[frontend(V4, 80, Protocol::Tcp)?], &backends)?;
        let seen = spread(format!("{V4}:80").parse()?, 400)?;
        check_spread(&seen, &backends, 400)?;
        ensure!(node.counter("connect_tcp")? == 400 && node.counter("peername")? == 400);
        // Another port of the address is no Service, and other addresses are left alone.
        let mut direct = TcpStream::connect(backends[2])?;
        ensure!(greeting(&mut direct)? == backends[2] && direct.peer_addr()? == backends[2]);
        ensure!(node.counter("connect_tcp")? == 400);
        Ok(())
    });
}

#[test]
fn tcp_over_ipv6() {
    with_node("datapath::tcp_over_ipv6", |_, _, mut node| {
        let addresses = v6_addresses(3)?;
        let backends = tcp_servers(&addresses.iter().map(String::as_str).collect::<Vec<_>>())?;
        node.serve(&[frontend(V6, 80, Protocol::Tcp)?], &backends)?;
        let seen = spread(format!("[{V6}]:80").parse()?, 300)?;
        check_spread(&seen, &backends, 300)
    });
}

#[test]
fn ipv6_sockets_reach_ipv4_services() {
    with_node("datapath::ipv6_sockets_reach_ipv4_services", |_, _, mut node| {
        let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
        node.serve(&[frontend(V4, 80, Protocol::Tcp)?], &backends)?;
        let seen = spread(format!("[::ffff:{V4}]:80").parse()?, 100)?;
        check_spread(&seen, &backends, 100)?;
        let echoes = udp_servers(&["127.0.1.1", "127.0.1.2"])?;
        node.serve(&[frontend(V4, 53, Protocol::Udp)?], &echoes)?;
        let vip: SocketAddr = format!("[::ffff:{V4}]:53").parse()?;
        let socket = UdpSocket::bind("[::]:0")?;
        ask(&socket, vip).map(drop)?;
        socket.connect(vip)?;
        socket.send(b"?")?;
        let (_, from) = answer(&socket)?;
        ensure!(from == vip && socket.peer_addr()? == vip, "answer from {from}");
        Ok(())
    });
}

fn answer(socket: &UdpSocket) -> Result<(SocketAddr, SocketAddr)> {
    socket.set_read_timeout(Some(patience(Duration::from_secs(5))))?;
    let mut buffer = [0; 128];
    let (length, from) = socket.recv_from(&mut buffer).context("no answer")?;
    Ok((std::str::from_utf8(&buffer[..length])?.parse()?, from))
}

/// Sends a datagram to a Service and returns who answered; the answer must come from the Service.
fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<SocketAddr> {
    socket.send_to(b"?", to).with_context(|| format!("send to {to}"))?;
    let (who, from) = answer(socket)?;
    ensure!(from == to, "answer from {from} and not from {to}");
    Ok(who)
}

#[test]
fn udp_connected_and_unconnected() {
    with_node("datapath::udp_connected_and_unconnected", |_, _, mut node| {
        let addresses = v6_addresses(3)?;
        let v6: Vec<&str> = addresses.iter().map(String::as_str).collect();
        for (vip, any, ips) in
            [(V4, "127.0.0.1", vec!["127.0.1.1", "127.0.1.2", "127.0.1.3"]), (V6, "fd00:1::1", v6)]
        {
            let backends = udp_servers(&ips)?;
            let service = frontend(vip, 53, Protocol::Udp)?;
            node.serve(&[service], &backends)?;
            let vip = SocketAddr::new(vip.parse()?, 53);
            let any = SocketAddr::new(any.parse()?, 0);
            let mut seen = BTreeSet::new();
            for _ in 0..60 {
                let socket = UdpSocket::bind(any)?;
                let first = ask(&socket, vip)?;
                // The same socket stays with its backend.
                ensure!(ask(&socket, vip)? == first && ask(&socket, vip)? == first);
                seen.insert(first);
                let socket = UdpSocket::bind(any)?;
                socket.connect(vip)?;
                ensure!(socket.peer_addr()? == vip);
                socket.send(b"?")?;
                let (_, from) = answer(&socket)?;
                ensure!(from == vip, "connected: answer from {from}");
            }
            ensure!(seen.len() == 3, "only {seen:?} answered");
            // A socket whose backend leaves goes to another one.
            let socket = UdpSocket::bind(any)?;
            let first = ask(&socket, vip)?;
            let rest: Vec<SocketAddr> = backends.into_iter().filter(|backend| *backend != first).collect();
            node.serve(&[service], &rest)?;
            ensure!(rest.contains(&ask(&socket, vip)?));
            // Connected to a backend by its own address, the socket no longer means the Service.
            socket.connect(vip)?;
            for backend in &rest {
                socket.connect(*backend)?;
                ensure!(socket.peer_addr()? == *backend, "peer is {}", socket.peer_addr()?);
            }
        }
        ensure!(node.counter("send_udp")? == 2 * (60 * 3 + 2));
        Ok(())
    });
}

#[test]
fn clients_stay_with_their_backend() {
    with_node("datapath::clients_stay_with_their_backend", |_, _, mut node| {
        let ips: Vec<String> = (1..=8).map(|host| format!("127.0.1.{host}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        let backends = tcp_servers(&ips)?;
        let service = frontend(V4, 80, Protocol::Tcp)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        node.affinity = 60;
        node.serve(&[service], &backends)?;
        let one = |times| -> Result<SocketAddr> {
            let seen = spread(vip, times)?;
            ensure!(seen.len() == 1, "more than one answered: {seen:?}");
            seen.into_keys().next().context("nobody answered")
        };
        let kept = one(40)?;
        // Others leave, and what was in the last slot moves into theirs: the client stays all the same.
        let mut rest = backends.clone();
        while rest.len() > 1 {
            let other = rest.iter().position(|backend| *backend != kept).context("another backend")?;
            rest.remove(other);
            node.serve(&[service], &rest)?;
            ensure!(one(10)? == kept);
        }
        node.serve(&[service], &backends)?;
        ensure!(one(10)? == kept);
        // Its backend leaves: another one, and that from then on.
        let others: Vec<SocketAddr> = backends.iter().copied().filter(|backend| *backend != kept).collect();
        node.serve(&[service], &others)?;
        let next = one(40)?;
        ensure!(next != kept);
        node.serve(&[service], &backends)?;
        ensure!(one(20)? == next);
        // A datagram's client, too.
        let answering = udp_servers(&["127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4"])?;
        node.serve(&[frontend(V4, 53, Protocol::Udp)?], &answering)?;
        let asked: Result<BTreeSet<SocketAddr>> =
            (0..20).map(|_| ask(&UdpSocket::bind("127.0.0.1:0")?, format!("{V4}:53").parse()?)).collect();
        ensure!(asked?.len() == 1);
        // The time is over: any of them again.
        node.affinity = 1;
        node.serve(&[service], &backends)?;
        let first = one(3)?;
        eventually("the client is given another backend", Duration::from_secs(60), || {
            // Every connection begins the time anew: only silence ends it.
            thread::sleep(Duration::from_millis(1200));
            Ok((one(1)? != first).then_some(()))
        })?;
        node.affinity = 0;
        node.serve(&[service], &backends)?;
        ensure!(spread(vip, 100)?.len() > 1);
        Ok(())
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    with_node("datapath::a_service_without_endpoints_refuses_at_once", |_, _, mut node| {
        for vip in [V4, V6] {
            let tcp = frontend(vip, 80, Protocol::Tcp)?;
            node.serve(&[tcp], &[])?;
            node.serve(&[frontend(vip, 53, Protocol::Udp)?], &[])?;
            let ip: IpAddr = vip.parse()?;
            let start = Instant::now();
            let refused = TcpStream::connect(SocketAddr::new(ip, 80)).expect_err("no endpoint");
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
            let socket = UdpSocket::bind(if ip.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" })?;
            let refused = socket.send_to(b"?", SocketAddr::new(ip, 53)).expect_err("no endpoint");
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
            let refused = socket.connect(SocketAddr::new(ip, 53)).expect_err("no endpoint");
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
            ensure!(start.elapsed() < patience(Duration::from_secs(1)));
            // The first endpoint makes it work.
            let backends = tcp_servers(&[if ip.is_ipv4() { "127.0.1.1" } else { "::1" }])?;
            node.serve(&[tcp], &backends)?;
            spread(SocketAddr::new(ip, 80), 1)?;
        }
        ensure!(node.counter("no_backend")? == 6);
        Ok(())
    });
}

#[test]
fn node_ports_answer_at_node_addresses_only() {
    with_node("datapath::node_ports_answer_at_node_addresses_only", |_, _, mut node| {
        let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
        let nodes = Frontend { ip: ServiceIp::Nodes(Family::V4), port: 30_080, protocol: Protocol::Tcp };
        node.serve(&[frontend(V4, 80, Protocol::Tcp)?, nodes], &backends)?;
        let address = |local| NodeAddress { local, node_ports: true };
        let addresses = BTreeMap::from([
            ("192.168.7.1".parse()?, address(true)),
            ("192.168.7.2".parse()?, address(false)),
        ]);
        let ops = node.table.plan_nodes(&addresses);
        node.datapath.apply(&ops)?;
        node.table.commit(&ops, ops.len(), 0);
        for address in addresses.keys() {
            let seen = spread(SocketAddr::new(*address, 30_080), 60)?;
            check_spread(&seen, &backends, 60)?;
        }
        let elsewhere = TcpStream::connect("127.0.0.1:30080").expect_err("nobody listens");
        ensure!(elsewhere.kind() == ErrorKind::ConnectionRefused);
        ensure!(node.counter("no_backend")? == 0);
        Ok(())
    });
}

#[test]
fn a_restart_loses_no_connection_and_no_entry() {
    with_node("datapath::a_restart_loses_no_connection_and_no_entry", |_, config, mut node| {
        let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
        let service = frontend(V4, 80, Protocol::Tcp)?;
        node.serve(&[service], &backends)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        let mut old = TcpStream::connect(vip)?;
        greeting(&mut old)?;
        let stop = Arc::new(AtomicBool::new(false));
        let connected = Arc::new(AtomicUsize::new(0));
        let client = {
            let (stop, connected) = (stop.clone(), connected.clone());
            thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    spread(vip, 1)?;
                    connected.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        for _ in 0..5 {
            let before = node.datapath.observe()?;
            drop(node);
            let served = connected.load(Ordering::Relaxed);
            while connected.load(Ordering::Relaxed) < served + 20 && !client.is_finished() {
                thread::yield_now();
            }
            let (again, attached) = Node::start(config)?;
            node = again;
            ensure!(attached == Attached { created: 0, replaced: 8 }, "{attached:?}");
            ensure!(node.serve(&[service], &backends)? == 0, "a restart wrote something");
            ensure!(node.datapath.observe()? == before, "entries changed");
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the client does not panic")?;
        // The connection from before all of it.
        ensure!(old.peer_addr()? == vip);
        old.write_all(b"still here")?;
        let mut buffer = [0; 10];
        old.read_exact(&mut buffer)?;
        ensure!(&buffer == b"still here");
        Ok(())
    });
}

#[test]
fn removal_leaves_nothing() {
    with_node("datapath::removal_leaves_nothing", |sandbox, config, mut node| {
        let backends = tcp_servers(&["127.0.1.1"])?;
        node.serve(&[frontend("127.96.0.10", 80, Protocol::Tcp)?], &backends)?;
        spread("127.96.0.10:80".parse()?, 1)?;
        drop(node);
        ensure!(attach::is_attached(&config.bpffs));
        attach::remove(config)?;
        ensure!(!attach::is_attached(&config.bpffs));
        attach::remove(config)?;
        ensure!(!sandbox.bpffs.join("pagurus").exists());
        // The kernel lets go of a link some time after its last name.
        eventually("the programs are detached", Duration::from_secs(5), || {
            let result = TcpStream::connect("127.96.0.10:80");
            Ok(result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(()))
        })
    });
}

#[test]
fn many_backends_and_the_size_of_the_programs() {
    with_node("datapath::many_backends_and_the_size_of_the_programs", |_, _, mut node| {
        for (program, instructions) in node.datapath.verified_instructions()? {
            let instructions = instructions.context("the kernel does not tell")?;
            println!("{program}: {instructions} instructions verified");
            ensure!(instructions < 200_000, "{program} is too near to the verifier's limit");
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let backends: Vec<SocketAddr> = (0..10_000u32)
            .map(|host| SocketAddr::new(IpAddr::from((0x7f01_0000 + host).to_be_bytes()), port))
            .collect();
        // One listener on every address of the loopback network.
        drop(listener);
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(address) = stream.local_addr() {
                    thread::spawn(move || serve_tcp(stream, address));
                }
            }
        });
        let service = frontend(V4, 80, Protocol::Tcp)?;
        node.serve(&[service], &backends)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        let seen = spread(vip, 2000)?;
        ensure!(seen.len() > 1500, "only {} of 10,000 backends in 2000 connections", seen.len());
        // One endpoint less or more costs the same as in a small Service.
        ensure!(node.serve(&[service], &backends[1..])? <= 4);
        ensure!(node.serve(&[service], &backends)? <= 4);
        // Down to one while clients connect.
        let client = thread::spawn(move || spread(vip, 300));
        for left in (1..200).rev() {
            node.serve(&[service], &backends[..left])?;
        }
        client.join().expect("the client does not panic")?;
        ensure!(spread(vip, 10)?.keys().eq([&backends[0]]));
        Ok(())
    });
}

/// The kernel hands the memory of deleted entries to the next ones at once: connections to one Service must never end
/// at another's backends, however fast others come and go.
#[test]
fn services_that_come_and_go_never_mix() {
    with_node("datapath::services_that_come_and_go_never_mix", |_, _, mut node| {
        let own = tcp_servers(&["127.0.1.1", "127.0.1.2", "127.0.1.3"])?;
        let strangers = tcp_servers(&["127.0.2.1", "127.0.2.2", "127.0.2.3"])?;
        let service = frontend(V4, 80, Protocol::Tcp)?;
        node.serve(&[service], &own)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let client = {
            let (stop, own) = (stop.clone(), own.clone());
            thread::spawn(move || -> Result<usize> {
                let mut connected = 0;
                while !stop.load(Ordering::Relaxed) {
                    let seen = spread(vip, 20)?;
                    ensure!(
                        seen.keys().all(|backend| own.contains(backend)),
                        "a stranger answered: {seen:?}"
                    );
                    connected += 20;
                }
                Ok(connected)
            })
        };
        let start = Instant::now();
        let mut changes = 0;
        while start.elapsed() < patience(Duration::from_secs(2)) && !client.is_finished() {
            for host in 1..40 {
                let other = frontend(&format!("10.96.1.{host}"), 80, Protocol::Tcp)?;
                changes += node.serve(&[other], &strangers[..1 + host % 3])?;
            }
            // The Service itself loses and gets backends all the time.
            changes += node.serve(&[service], &own[..1])?;
            changes += node.serve(&[service], &own)?;
            for host in 1..40 {
                let other = frontend(&format!("10.96.1.{host}"), 80, Protocol::Tcp)?;
                changes += node.remove(&other)?;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let connected = client.join().expect("the client does not panic")?;
        println!("{connected} connections during {changes} map operations");
        ensure!(connected > 0 && changes > 1000);
        Ok(())
    });
}
