//! What four million translated connections' entries cost the agent that keeps their table clean.
//!
//! Must not know: how it is looked through.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_ebpf_abi::{Address, FLOW_ESTABLISHED, FLOW_REPLY, FlowState, FlowTuple, PROTOCOL_TCP, Port};
use pagurus_tests::daemon::{Agent, ApiServer, PATIENCE};
use pagurus_tests::dataplane::config;
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Node, Topology};

use crate::Effort;
use crate::row::Row;

/// Connections; each has two entries.
const CONNECTIONS: u32 = 2_000_000;
/// Entries written at once.
const AT_ONCE: usize = 8192;

/// Both entries of an established connection through a Service.
fn pair(number: u32, now: u32) -> [(FlowTuple, FlowState); 2] {
    let v4 = |ip: u32| Address::from_octets(Ipv4Addr::from(ip).to_ipv6_mapped().octets());
    let client = (v4(0x0b00_0000 + number / 16), Port::new(1024 + (number % 16) as u16));
    let service = (v4(0x0a60_0001), Port::new(80));
    let backend = (v4(0x0a00_0001), Port::new(8080));
    let tuple = |from: (Address, Port), to: (Address, Port)| FlowTuple {
        source: from.0,
        destination: to.0,
        source_port: from.1,
        destination_port: to.1,
        protocol: PROTOCOL_TCP,
        reserved: [0; 3],
    };
    let state = |from: (Address, Port), to: (Address, Port), flags| FlowState {
        source: from.0,
        destination: to.0,
        source_port: from.1,
        destination_port: to.1,
        last: now,
        flags,
        backend: 1,
        service: 1,
        since: now,
    };
    [
        (tuple(client, service), state(client, backend, FLOW_ESTABLISHED)),
        (tuple(backend, client), state(service, client, FLOW_ESTABLISHED | FLOW_REPLY)),
    ]
}

/// Writes all entries, as the programs would; the agent makes the table larger meanwhile.
fn fill(node: &Node) -> Result<()> {
    let config = config(&node.cgroup, &node.bpffs);
    let begun = Instant::now();
    'larger: loop {
        let mut table = Conntrack::open(&config)?;
        let now = Conntrack::now();
        let mut entries = Vec::with_capacity(AT_ONCE);
        for number in 0..CONNECTIONS {
            entries.extend(pair(number, now));
            if entries.len() == AT_ONCE || number + 1 == CONNECTIONS {
                if let Err(error) = table.put(&entries) {
                    ensure!(begun.elapsed() < 3 * PATIENCE, "{error}");
                    // It is full.
                    thread::sleep(Duration::from_millis(500));
                    continue 'larger;
                }
                entries.clear();
            }
        }
        return Ok(());
    }
}

/// Seconds of CPU that a process has had.
fn cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let stat = fs::read_to_string(entry?.path().join("schedstat"))?;
        nanoseconds += stat.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Waits until the agent has done what is done once: what a start leaves to do, and copying the table into larger ones.
fn settled(agent: &Agent) -> Result<()> {
    eventually("the agent has come to rest", 2 * PATIENCE, || {
        let before = cpu(agent.pid())?;
        thread::sleep(Duration::from_secs(1));
        let share = cpu(agent.pid())? - before;
        ensure!(share < 0.05, "{share:.3} s of CPU in a second");
        Ok(Some(()))
    })
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let topology = Topology::new(sandbox, 1)?;
    let api = ApiServer::start(&topology.nodes)?;
    let node = topology.nodes.first().context("one node was asked for")?;
    let agent = Agent::started(node, &api.kubeconfig(), &["--conntrack-max", "4194304"])?;
    let time = Duration::from_secs(3 * effort.rounds as u64);
    let share = |agent: &Agent| -> Result<f64> {
        let (before, start) = (cpu(agent.pid())?, Instant::now());
        thread::sleep(time);
        Ok((cpu(agent.pid())? - before) / start.elapsed().as_secs_f64() * 100.0)
    };
    settled(&agent)?;
    let idle = share(&agent)?;
    fill(node)?;
    settled(&agent)?;
    let full = share(&agent)?;
    let capacity = agent.metric("pagurus_agent_conntrack_capacity")?;
    let removed = agent.get("/metrics")?;
    let removed = removed.lines().find(|line| line.starts_with("pagurus_agent_conntrack_removed"));
    let note = format!(
        "over {} s the whole agent takes {full:.2} %, and {idle:.2} % with an empty table; {capacity:.0} places, {}",
        time.as_secs(),
        removed.unwrap_or("none removed")
    );
    Ok(vec![
        Row::at_most(
            "4 million conntrack entries, share of a core to keep them clean",
            full - idle,
            "%",
            1.0,
        )
        .noted(&note),
    ])
}
