//! Subcommands that read the pinned maps and print what is in them: Services, connections, drops, and what would become of a
//! packet. No agent need run; nothing is changed, but by `install-plugin` and `cleanup` ([`crate::cleanup`]).
//!
//! Must not know: how maps are read (`agent-datapath`), how a trace is made (`agent-core`).

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::actuate::network::PLUGIN;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::trace::{self, Maps as _, Question};
use pagurus_agent_datapath::reading::{self, Drops, Reader};
use pagurus_agent_datapath::values;
use pagurus_ebpf_abi::{
    DROP_NAMES, DropEvent, FLOW_DSR, FLOW_MASQUERADE, FLOW_REPLY, FLOW_SNAT, FlowState, FlowTuple,
};
use serde_json::{Value, json};

mod services;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Services as the programs see them: where each is reached and which endpoints it has
    Services(Output),
    /// Connections that are translated
    Conntrack {
        #[command(flatten)]
        #[allow(missing_docs, reason = "a comment would become the text of the flags")]
        output: Output,
        /// Only those of this Service
        #[arg(long, value_name = "NAMESPACE/NAME")]
        service: Option<String>,
    },
    /// What the programs would do with a packet, step by step
    Trace {
        #[command(flatten)]
        #[allow(missing_docs, reason = "a comment would become the text of the flags")]
        output: Output,
        /// Where it goes
        #[arg(long, value_name = "IP:PORT")]
        to: SocketAddr,
        /// Who sends it [default: a pod of this node, or the node itself]
        #[arg(long, value_name = "IP")]
        from: Option<IpAddr>,
        /// From which port
        #[arg(long, value_name = "PORT", default_value_t = trace::SOURCE_PORT)]
        from_port: u16,
        /// Ask the packet programs alone, as for a client whose sockets have no hook: a raw socket, or one in another network
        /// namespace than its pod's
        #[arg(long)]
        packet: bool,
        /// Ask for a packet in the middle of a connection, not for its first
        #[arg(long)]
        established: bool,
        /// TCP, UDP or SCTP
        #[arg(long, value_name = "PROTOCOL", default_value = "TCP", ignore_case = true, value_parser = protocol)]
        protocol: Protocol,
    },
    /// Packets dropped or refused, by reason
    Drops {
        #[command(flatten)]
        #[allow(missing_docs, reason = "a comment would become the text of the flags")]
        output: Output,
        /// Show single packets as they are dropped, until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Takes away what agents have left on this node, when none is to come again
    Cleanup(crate::cleanup::Options),
    /// Puts the CNI plugin that lies beside this program where runtimes look for plugins
    InstallPlugin {
        /// Directory of plugins
        #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
        to: PathBuf,
    },
}

/// Where from, and how it is shown.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// BPF file system in which the maps are pinned
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

impl Output {
    fn reader(&self) -> anyhow::Result<Reader> {
        Reader::open(&self.bpffs).with_context(|| {
            format!(
                "read the maps below {}; has an agent of this version run on this node?",
                self.bpffs.display()
            )
        })
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::parse(Some(&text.to_uppercase()))
        .filter(|_| !text.is_empty())
        .ok_or_else(|| "not one of TCP, UDP, SCTP".to_owned())
}

/// Answers.
pub fn run(command: Command) -> anyhow::Result<()> {
    let out = &mut std::io::stdout().lock();
    let shown = match command {
        Command::Services(output) => services::show(&output.reader()?, output.json, out),
        Command::Conntrack { output, service } => {
            conntrack(&output.reader()?, output.json, service.as_deref(), out)
        }
        Command::Trace { output, to, from, from_port, packet, established, protocol } => {
            let (socket, first) = (!packet, !established);
            let question = Question { from, from_port, to, protocol, socket, first };
            show_trace(&output.reader()?, output.json, &question, out)
        }
        Command::Drops { output, follow: false } => drops(&output, out),
        Command::Drops { output, follow: true } => follow(&output, out),
        Command::Cleanup(options) => crate::cleanup::run(&options, out),
        Command::InstallPlugin { to } => return install_plugin(&to),
    };
    match shown {
        // Whoever read it has seen enough.
        Err(error) if is_closed(&error) => Ok(()),
        shown => shown,
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A connection: the packets of its client as they come, and where they go.
struct Connection {
    tuple: FlowTuple,
    state: FlowState,
    answered: Option<u32>,
}

fn conntrack(reader: &Reader, json: bool, service: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut flows = BTreeMap::new();
    let take = |tuple, state| {
        flows.insert(tuple, state);
    };
    reader.flows(take).context("read CONNTRACK")?;
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let mut rows = Vec::new();
    for (tuple, state) in flows.iter().filter(|(_, state)| state.flags & FLOW_REPLY == 0) {
        let name = names
            .entry(state.service)
            .or_insert_with(|| reader.name(state.service).unwrap_or_default())
            .clone();
        if service.is_none_or(|service| service == name) {
            let answered = flows.get(&state.other(tuple.protocol)).map(|other| other.last);
            rows.push((Connection { tuple: *tuple, state: *state, answered }, name));
        }
    }
    if json {
        let rows: Vec<Value> = rows.iter().map(|(connection, name)| connection.json(name)).collect();
        return Ok(writeln!(out, "{:#}", Value::from(rows))?);
    }
    for (connection, name) in &rows {
        writeln!(out, "{}", connection.line(name))?;
    }
    Ok(())
}

impl Connection {
    fn protocol(&self) -> String {
        protocol_name(self.tuple.protocol)
    }

    fn way(&self) -> &'static str {
        match self.state.flags {
            flags if flags & FLOW_DSR != 0 => "dsr",
            flags if flags & FLOW_MASQUERADE != 0 => "masquerade",
            flags if flags & FLOW_SNAT != 0 => "snat",
            _ => "dnat",
        }
    }

    /// Seconds since the machine was started at which the last packet came.
    fn last(&self) -> u32 {
        self.state.last.max(self.answered.unwrap_or(0))
    }

    fn line(&self, name: &str) -> String {
        let (tuple, state) = (&self.tuple, &self.state);
        format!(
            "{:<4} {} -> {} => {} -> {}  {} {name} idle {} s, since {} s{}",
            self.protocol(),
            at(tuple.source, tuple.source_port),
            at(tuple.destination, tuple.destination_port),
            at(state.source, state.source_port),
            at(state.destination, state.destination_port),
            self.way(),
            uptime().saturating_sub(self.last()),
            uptime().saturating_sub(state.since),
            if self.answered.is_none() { ", one-way" } else { "" },
        )
    }

    fn json(&self, name: &str) -> Value {
        let (tuple, state) = (&self.tuple, &self.state);
        json!({
            "protocol": self.protocol(),
            "source": at(tuple.source, tuple.source_port).to_string(),
            "destination": at(tuple.destination, tuple.destination_port).to_string(),
            "newSource": at(state.source, state.source_port).to_string(),
            "newDestination": at(state.destination, state.destination_port).to_string(),
            "way": self.way(), "service": name, "backend": state.backend,
            "idleSeconds": uptime().saturating_sub(self.last()),
            "ageSeconds": uptime().saturating_sub(state.since),
            "answered": self.answered.is_some(),
        })
    }
}

fn at(address: pagurus_ebpf_abi::Address, port: pagurus_ebpf_abi::Port) -> SocketAddr {
    SocketAddr::new(values::to_ip(address), port.number())
}

fn protocol_name(number: u8) -> String {
    Protocol::from_number(number).map_or_else(
        || if matches!(number, 1 | 58) { "ICMP".to_owned() } else { number.to_string() },
        |protocol| protocol.to_string(),
    )
}

/// Seconds since the machine was started, as the programs count them.
fn uptime() -> u32 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

fn show_trace(reader: &Reader, json: bool, question: &Question, out: &mut impl Write) -> anyhow::Result<()> {
    let trace = trace::trace(reader, question);
    if json {
        let steps: Vec<Value> =
            trace.steps.iter().map(|step| json!({"program": step.program, "text": step.text})).collect();
        return Ok(writeln!(out, "{:#}", json!({"steps": steps, "outcome": trace.outcome.to_string()}))?);
    }
    for (number, step) in trace.steps.iter().enumerate() {
        writeln!(out, "{:>2}. {:<12} {}", number + 1, step.program, step.text)?;
    }
    Ok(writeln!(out, " => {}", trace.outcome)?)
}

fn drops(output: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let counts = reading::drop_counts(&output.bpffs).context("read DROPS; has an agent run on this node?")?;
    if output.json {
        let counts: serde_json::Map<String, Value> =
            counts.into_iter().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
        return Ok(writeln!(out, "{:#}", Value::from(counts))?);
    }
    for (reason, count) in counts {
        writeln!(out, "{reason:<20} {count}")?;
    }
    Ok(())
}

/// How often the ring is looked at, and how often the wish to be told is said again.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_PER_WISH: u32 = 10;

fn follow(output: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let reader = output.reader()?;
    let mut drops = Drops::open(&output.bpffs).context("open the ring of events")?;
    let ended = signalled().context("listen for the end")?;
    // What is left there from before is old.
    while drops.next().is_some() {}
    let mut looks = 0u32;
    let mut result = Ok(());
    while result.is_ok() && !ended.load(std::sync::atomic::Ordering::Relaxed) {
        if looks.is_multiple_of(LOOKS_PER_WISH) {
            drops.want(true).context("ask for events")?;
        }
        looks = looks.wrapping_add(1);
        for event in drops.by_ref() {
            let name = reader.name(event.service).unwrap_or_default();
            let shown = if output.json {
                writeln!(out, "{}", event_json(&event, &name))
            } else {
                writeln!(out, "{}", event_line(&event, &name))
            };
            result = shown.and_then(|()| out.flush());
            if result.is_err() {
                break;
            }
        }
        std::thread::sleep(LOOK);
    }
    drops.want(false).context("ask for no more events")?;
    Ok(result?)
}

/// Becomes true with SIGINT or SIGTERM. To be called before there is another thread.
pub(crate) fn signalled() -> anyhow::Result<std::sync::Arc<std::sync::atomic::AtomicBool>> {
    use nix::sys::signal::{SigSet, Signal};
    let ended = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before there is another thread, so that none of them takes the signal.
    signals.thread_block()?;
    let tell = ended.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            tell.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })?;
    Ok(ended)
}

fn reason(event: &DropEvent) -> String {
    DROP_NAMES.get(event.reason as usize).map_or_else(|| event.reason.to_string(), |name| (*name).to_owned())
}

fn event_line(event: &DropEvent, service: &str) -> String {
    let tuple = &event.tuple;
    format!(
        "{}.{:06} {:<4} {} -> {} {} bytes from device {}: {} {service}",
        event.time / 1_000_000_000,
        event.time / 1000 % 1_000_000,
        protocol_name(tuple.protocol),
        at(tuple.source, tuple.source_port),
        at(tuple.destination, tuple.destination_port),
        event.length,
        event.ifindex,
        reason(event),
    )
}

fn event_json(event: &DropEvent, service: &str) -> Value {
    let tuple = &event.tuple;
    json!({
        "time": event.time, "protocol": protocol_name(tuple.protocol),
        "source": at(tuple.source, tuple.source_port).to_string(),
        "destination": at(tuple.destination, tuple.destination_port).to_string(),
        "reason": reason(event), "device": event.ifindex, "length": event.length, "service": service,
    })
}

/// Copies the plugin, whole or not at all: a runtime may start it at any moment.
fn install_plugin(to: &std::path::Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let from = own.with_file_name(PLUGIN);
    let (target, new) = (to.join(PLUGIN), to.join(format!(".{PLUGIN}.new")));
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    std::fs::copy(&from, &new).with_context(|| format!("copy {} to {}", from.display(), new.display()))?;
    std::fs::rename(&new, &target)
        .with_context(|| format!("rename {} to {}", new.display(), target.display()))
}

#[cfg(test)]
mod tests;
