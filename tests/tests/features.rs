//! Every feature of Services with real sockets, between network namespaces, on three nodes with the dataplane and no agent.

mod cluster_ip;
mod live;
mod outside;
mod policies;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::Service;
use pagurus_agent_datapath::Datapath;
use pagurus_tests::dataplane::{Cluster, Options, Target, With as _, service};
use pagurus_tests::netns::isolated;
use pagurus_tests::pace::patience;
use pagurus_tests::sctp::{AnyServer, any_ask, any_server};
use pagurus_tests::topology::{
    Answer, Host, PATIENCE, Pod, Server, tcp_ask, tcp_server, udp_ask, udp_server, udp_socket,
};

/// Cluster IPs of the Service.
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
/// A port of the Service: name, protocol, at its own addresses, as NodePort, in the pods.
type Port = (&'static str, Protocol, u16, u16, u16);
/// Its ports: TCP, UDP, SCTP.
const PORTS: [Port; 3] = [
    ("web", Protocol::Tcp, 80, 30_080, 8080),
    ("dns", Protocol::Udp, 53, 30_053, 5353),
    ("sig", Protocol::Sctp, 2905, 30_905, 9905),
];

/// Everything that is tried.
const PARTS: &[Part] = &[
    ("cluster IP from pods and nodes", cluster_ip::from_everywhere),
    ("cluster IP of oneself", cluster_ip::a_pod_reaches_itself),
    ("cluster IP without endpoints", cluster_ip::without_endpoints_it_refuses_at_once),
    ("cluster IP, datagrams in fragments", cluster_ip::long_datagrams),
    ("masquerade", cluster_ip::pods_leave_the_cluster_with_the_nodes_address),
    ("NodePort, load balancer, external IP", outside::to_pods_of_every_node),
    ("NodePort, datagrams in fragments", outside::long_datagrams),
    ("direct server return", outside::direct_answers),
    ("outside without endpoints", outside::without_endpoints_it_refuses_at_once),
    ("external traffic policy Local", outside::local_policy_keeps_the_clients_address),
    ("source ranges", outside::source_ranges),
    ("session affinity", policies::clients_stay_with_their_endpoint),
    ("the time of session affinity", policies::clients_stay_for_a_time),
    ("internal traffic policy Local", policies::internal_local_policy),
    ("datagrams when their endpoint goes", live::datagrams_go_elsewhere_when_their_endpoint_goes),
    ("connections to draining endpoints", live::connections_to_draining_endpoints_live),
];

#[test]
fn ports_that_are_used_again() {
    let parts: &[Part] = &[("clients' ports used again", live::ports_are_used_again)];
    on_ground("features::ports_that_are_used_again", &Options::default(), parts);
}

#[test]
fn with_the_kernels_forwarding() {
    on_ground("features::with_the_kernels_forwarding", &Options::default(), PARTS);
}

#[test]
fn with_delivery_by_the_programs() {
    let options = Options { own_network: true, ..Options::default() };
    on_ground("features::with_delivery_by_the_programs", &options, PARTS);
}

/// Three nodes; a pod with servers on each; a client pod on the first.
struct Ground {
    cluster: Cluster,
    client: Pod,
    pods: Vec<Pod>,
    _servers: Vec<Box<dyn std::any::Any>>,
}

impl Ground {
    /// The endpoints, one on each node.
    fn targets(&self) -> Vec<Target> {
        let ports = PORTS.map(|(name, _, _, _, target)| (name, target));
        self.pods.iter().map(|pod| Target::new(pod.ips, &ports)).collect()
    }

    /// The name of the server on a node.
    fn server(&self, node: usize) -> &str {
        &self.pods[node].host.name
    }

    /// The addresses of a node.
    fn node(&self, node: usize) -> &pagurus_tests::topology::Node {
        &self.cluster.topology.nodes[node]
    }

    /// Makes the Service lead to these nodes' pods.
    fn serve(&mut self, service: &Service, nodes: &[usize]) -> Result<()> {
        let targets = self.targets();
        let targets: Vec<Target> = nodes.iter().map(|node| targets[*node].clone()).collect();
        self.cluster.serve(service, &targets).map(|_| ())
    }
}

/// The Service with all its ports, and NodePorts.
fn web() -> Service {
    let made = service("web", &CLUSTER_IPS);
    PORTS.iter().fold(made, |made, (name, protocol, port, node_port, _)| {
        made.port(name, *protocol, *port).node_port(*node_port)
    })
}

/// A feature and how it is tried.
type Part = (&'static str, fn(&mut Ground) -> Result<()>);

/// Tries features one after the other on the same ground (making it takes longer than most of them); skipped if this build has no
/// programs. All are tried, whichever fails.
fn on_ground(name: &str, options: &Options, parts: &[Part]) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated(name, |sandbox| {
        let mut cluster = Cluster::new(sandbox, 3, options)?;
        let client = cluster.pod(0)?;
        let mut servers: Vec<Box<dyn std::any::Any>> = Vec::new();
        let mut pods = Vec::new();
        for node in 0..3 {
            let pod = cluster.pod(node)?;
            for ip in pod.ips.both() {
                servers.extend(servers_of(&pod, ip)?);
            }
            pods.push(pod);
        }
        let mut ground = Ground { cluster, client, pods, _servers: servers };
        let mut failed = Vec::new();
        // For those who look for a mistake: only features whose name holds this.
        let only = std::env::var("PAGURUS_FEATURE").unwrap_or_default();
        for (feature, part) in parts.iter().filter(|part| part.0.contains(&only)) {
            let start = Instant::now();
            match part(&mut ground) {
                Ok(()) => println!("{feature}: ok in {:.1} s", start.elapsed().as_secs_f64()),
                Err(error) => {
                    println!("{feature}: FAILED: {error:?}\n{}", ground.cluster.said());
                    failed.push(*feature);
                }
            }
            ground.cluster.remove(&web().name)?;
        }
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    });
}

fn servers_of(pod: &Pod, ip: IpAddr) -> Result<Vec<Box<dyn std::any::Any>>> {
    let (host, name) = (&pod.host, &pod.host.name);
    let tcp: Server = tcp_server(host, ip, PORTS[0].4, name)?;
    let udp: Server = udp_server(host, ip, PORTS[1].4, name)?;
    let sctp: AnyServer = any_server(host, ip, PORTS[2].4, name)?;
    Ok(vec![Box::new(tcp), Box::new(udp), Box::new(sctp)])
}

/// Another port for each association of the peers in user space.
fn next_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Asks once, over a new connection.
fn ask(host: &Host, protocol: Protocol, to: SocketAddr) -> Result<Answer> {
    match protocol {
        Protocol::Tcp => tcp_ask(host, to),
        Protocol::Udp => udp_ask(&udp_socket(host, to)?, to, b"?"),
        Protocol::Sctp => any_ask(host, next_port(), to, 10),
    }
}

/// Asks until all of these servers have answered, and nobody else; what the last of each said.
fn ask_all(host: &Host, protocol: Protocol, to: SocketAddr, servers: &[&str]) -> Result<Vec<Answer>> {
    let wanted: BTreeSet<&str> = servers.iter().copied().collect();
    let mut seen: Vec<Answer> = Vec::new();
    // Of three servers one is missed in so many draws once in 10^10.
    for _ in 0..60 {
        let answer = ask(host, protocol, to).with_context(|| format!("{protocol} to {to}"))?;
        if !wanted.contains(answer.server.as_str()) {
            bail!("{protocol} to {to}: {} answered, not one of {servers:?}", answer.server);
        }
        if seen.iter().all(|other| other.server != answer.server) {
            seen.push(answer);
        }
        if seen.len() == wanted.len() {
            return Ok(seen);
        }
    }
    bail!("{protocol} to {to}: only {seen:?} answered, not all of {servers:?}")
}

/// The Service refuses at once, and does not only keep silent.
fn refused(host: &Host, protocol: Protocol, to: SocketAddr) -> Result<()> {
    let what = || format!("{protocol} to {to} from {host:?}");
    let start = Instant::now();
    match protocol {
        Protocol::Tcp => {
            let result =
                host.run(|| Ok(TcpStream::connect_timeout(&to, patience(PATIENCE)).err().map(|e| e.kind())))?;
            ensure!(result == Some(ErrorKind::ConnectionRefused), "{}: {result:?}", what());
        }
        Protocol::Udp => {
            let socket = udp_socket(host, to)?;
            let result: std::io::Result<()> = host.run(|| {
                Ok(socket.connect(to).and_then(|()| socket.send(b"?")).and_then(|_| {
                    let mut buffer = [0; 100];
                    socket.recv(&mut buffer).map(drop)
                }))
            })?;
            let kind = result.err().map(|error| error.kind());
            ensure!(kind == Some(ErrorKind::ConnectionRefused), "{}: {kind:?}", what());
        }
        Protocol::Sctp => {
            let result = any_ask(host, next_port(), to, 10);
            ensure!(result.is_err(), "{}: {result:?}", what());
        }
    }
    ensure!(
        start.elapsed() < patience(Duration::from_secs(1)),
        "{}: refused after {:?}",
        what(),
        start.elapsed()
    );
    Ok(())
}

/// Nobody answers: what is sent is dropped. Waits for a moment only.
fn silent(host: &Host, protocol: Protocol, to: SocketAddr) -> Result<()> {
    const MOMENT: Duration = Duration::from_millis(300);
    let kind = match protocol {
        Protocol::Tcp => host.run(|| Ok(TcpStream::connect_timeout(&to, MOMENT).err().map(|e| e.kind())))?,
        _ => {
            let socket = udp_socket(host, to)?;
            socket.set_read_timeout(Some(MOMENT))?;
            socket.send_to(b"?", to)?;
            let mut buffer = [0; 100];
            socket.recv(&mut buffer).err().map(|error| error.kind())
        }
    };
    let silent = matches!(kind, Some(ErrorKind::TimedOut | ErrorKind::WouldBlock));
    ensure!(silent, "{protocol} to {to} from {host:?}: {kind:?}");
    Ok(())
}
