//! The agent as it is installed, with an API server that has many Services: how long it takes to have all in the maps, what it takes in
//! memory, and how fast it answers pods' questions for names.
//!
//! Must not know: how it does that.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use pagurus_tests::daemon::{Agent, ApiServer};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Host, Node, Topology};
use serde_json::{Value, json};

use crate::Effort;
use crate::row::{Row, Series};

/// Services of the goal for memory, and the endpoints of each.
const SERVICES: u32 = 30_000;
const ENDPOINTS: u32 = 4;
/// Further Services: together with those, 50,000 Services and 250,000 endpoints.
const MORE: u32 = 20_000;
/// Requests to the API server at once.
const AT_ONCE: usize = 32;
/// The address of the cluster's DNS.
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Questions that are on their way at once while the server is loaded.
const PIPELINED: usize = 64;

/// A Service of a number as the API takes it, and its endpoints.
fn objects(number: u32, endpoints: u32) -> [Value; 2] {
    let name = format!("service-{number}");
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 0)) + number);
    let service = json!({
        "metadata": {"name": name},
        "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]},
    });
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let endpoint = |place: u32| {
        json!({
            "addresses": [Ipv4Addr::from(0x0b00_0000 + number * 8 + place)], "conditions": ready,
            "nodeName": format!("node{}", place % 3 + 7), "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{name}-{place}"),
                "uid": format!("{number:08x}-0000-4000-8000-{place:012x}")},
        })
    };
    let slice = json!({
        "metadata": {"name": format!("{name}-x7d2f"), "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<Value>>(),
    });
    [service, slice]
}

/// Starts an agent on a node that has never had one; how long it took until everything was in place.
fn started(node: &Node, kubeconfig: &Path) -> Result<(Agent, f64)> {
    let start = Instant::now();
    let agent = Agent::started(node, kubeconfig, &[])?;
    Ok((agent, start.elapsed().as_secs_f64()))
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// Bytes of the maps of a process, by their names, as the kernel counts them.
fn maps(pid: u32) -> Result<BTreeMap<u32, f64>> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.ends_with("anon_inode:bpf-map")) {
            let name = path.file_name().context("a descriptor has a number")?.to_string_lossy().into_owned();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}"))?;
            let field = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            };
            let (id, bytes) = (field("map_id:").context("map_id")?, field("memlock:").context("memlock")?);
            maps.insert(id as u32, bytes);
        }
    }
    Ok(maps)
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let mut topology = Topology::new(sandbox, 2)?;
    let api = ApiServer::start(&topology.nodes)?;
    api.fill(AT_ONCE, (0..SERVICES).map(|number| objects(number, ENDPOINTS)))?;
    let [first, second] = topology.nodes.as_mut_slice() else { unreachable!("two nodes were asked for") };
    let pod = first.pod()?;
    let (agent, took) = started(first, &api.kubeconfig())?;
    let frontends = agent.metric("pagurus_agent_services_frontends")?;
    ensure!(frontends > f64::from(SERVICES), "{frontends} frontends");
    let memory = resident(agent.pid())?;
    let maps = maps(agent.pid())?;
    let note = format!("the installed program, {took:.2} s after its start; {frontends} frontends");
    let mut rows = vec![
        Row::at_most("agent with 30,000 Services x 4, resident", memory / f64::from(1 << 20), "MiB", 150.0)
            .noted(&note),
        Row::at_most("its maps", maps.values().sum::<f64>() / 1e6, "MB", 100.0)
            .noted(&format!("{} maps, as the kernel accounts them", maps.len())),
    ];
    rows.extend(names(&pod.host, &agent, effort)?);
    drop(agent);
    let more = SERVICES..SERVICES + MORE;
    api.fill(AT_ONCE, more.map(|number| objects(number, 6 + number % 2)))?;
    let (agent, took) = started(second, &api.kubeconfig())?;
    let note = format!(
        "from the start of the process until it is ready, {} frontends; API server and agent on the same machine; resident {:.0} MiB",
        agent.metric("pagurus_agent_services_frontends")?,
        resident(agent.pid())? / f64::from(1 << 20),
    );
    rows.push(
        Row::at_most("50,000 Services / 250,000 endpoints from an empty agent", took, "s", 2.0).noted(&note),
    );
    Ok(rows)
}

/// Questions of a pod at the address of the cluster's DNS.
fn names(pod: &Host, agent: &Agent, effort: Effort) -> Result<Vec<Row>> {
    let count = effort.rounds * 3000;
    let mut waits = Series::default();
    pod.run(|| {
        let socket = asking()?;
        for number in 0..count as u32 {
            let question = question(number % SERVICES)?;
            let start = Instant::now();
            socket.send(&question)?;
            answered(&socket)?;
            waits.0.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    })?;
    let note = format!("of {count}, one at a time, each another name of {SERVICES}");
    let before = on_cpu(agent.pid())?;
    let start = Instant::now();
    let answers = pod.run(|| loaded(effort.time * effort.rounds as u32))?;
    let rate = answers as f64 / start.elapsed().as_secs_f64();
    let cpu = on_cpu(agent.pid())? - before;
    Ok(vec![
        Row::at_most("DNS look-up of a Service from a pod, p50", waits.median(), "us", 60.0).noted(&note),
        Row::at_most("DNS look-up of a Service from a pod, p99", waits.percentile(0.99), "us", 300.0)
            .noted(&note),
        Row {
            higher: true,
            ..Row::at_most("DNS answers/s on one core", answers as f64 / cpu, "/s", 100_000.0)
        }
        .noted(&format!(
            "{answers} answers for {cpu:.2} s of CPU of the threads that answer; {rate:.0}/s while the client took the other core"
        )),
    ])
}

fn asking() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddr::from((DNS, 53)))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

fn question(number: u32) -> Result<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = format!("service-{number}.default.svc.cluster.local.");
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    Ok(message.to_vec()?)
}

/// Waits for an answer with an address in it.
fn answered(socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).context("no answer")?;
    ensure!(length > 12 && buffer[3] & 15 == 0 && buffer[7] == 1, "no address: {:?}", &buffer[..length]);
    Ok(())
}

/// Keeps some questions on their way; how many were answered.
fn loaded(time: Duration) -> Result<u64> {
    let socket = asking()?;
    let questions: Vec<Vec<u8>> =
        (0..1024).map(|number| question(number * 29 % SERVICES)).collect::<Result<_>>()?;
    let (start, mut answers) = (Instant::now(), 0);
    let mut next = questions.iter().cycle();
    let mut send = |socket: &UdpSocket| -> Result<()> {
        socket.send(next.next().context("there are questions")?)?;
        Ok(())
    };
    for _ in 0..PIPELINED {
        send(&socket)?;
    }
    while start.elapsed() < time {
        answered(&socket)?;
        send(&socket)?;
        answers += 1;
    }
    Ok(answers)
}

/// Seconds that the threads which answer datagrams have had on a CPU.
fn on_cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == "dns-udp" {
            let stat = fs::read_to_string(path.join("schedstat"))?;
            nanoseconds += stat.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
        }
    }
    ensure!(nanoseconds > 0.0, "process {pid} has no thread that answers");
    Ok(nanoseconds / 1e9)
}
