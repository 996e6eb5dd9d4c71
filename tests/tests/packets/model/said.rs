//! What `pagurus-agent trace` says of a packet, beside what the programs did with it.
//!
//! Must not know: how a trace is made.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Backend;
use pagurus_agent_core::services::kube_proxy::{Verdict, Why};
use pagurus_agent_core::trace::{Maps as _, Outcome, Question, Trace, trace};
use pagurus_agent_datapath::reading::Reader;
use pagurus_agent_datapath::values::{from_ip, to_ip};
use pagurus_ebpf_abi::{FlowTuple, Port};

use super::attempt::Attempt;
use super::connection::Source;

/// What is said of a packet: the first of its connection, or a later one.
pub(super) fn about(reader: &Reader, attempt: &Attempt, first: bool) -> Trace {
    let question = Question {
        from: Some(attempt.connection.source),
        from_port: attempt.port,
        to: attempt.to(),
        protocol: attempt.connection.protocol,
        socket: false,
        first,
    };
    trace(reader, &question)
}

/// Where the table of connections says that one goes.
pub(super) fn chosen(reader: &Reader, attempt: &Attempt) -> Option<SocketAddr> {
    let connection = &attempt.connection;
    let tuple = FlowTuple {
        source: from_ip(&connection.source),
        destination: from_ip(&connection.destination),
        source_port: Port::new(attempt.port),
        destination_port: Port::new(connection.port),
        protocol: connection.protocol.number(),
        reserved: [0; 3],
    };
    let state = reader.flow(&tuple)?;
    Some(SocketAddr::new(to_ip(state.destination), state.destination_port.number()))
}

fn last(trace: &Trace) -> Result<&str> {
    Ok(&trace.steps.last().context("a trace without steps")?.text)
}

/// It says what becomes of a packet that goes to no backend.
pub(super) fn agrees(trace: &Trace, verdict: &Verdict) -> Result<()> {
    let (outcome, word) = match verdict {
        Verdict::Elsewhere => (Outcome::Untouched, ""),
        Verdict::Refused => (Outcome::Refused, "no_endpoint"),
        Verdict::Dropped(Why::SourceRange) => (Outcome::Dropped, "source_range"),
        Verdict::Dropped(Why::NoLocalEndpoint) => (Outcome::Dropped, "no_local_endpoint"),
        Verdict::To(all) => anyhow::bail!("to {all:?}"),
    };
    ensure!(
        trace.outcome == outcome && last(trace)?.contains(word),
        "{verdict:?}, and trace says {trace:#?}"
    );
    Ok(())
}

/// It says whether a pod's packet leaves with the node's address.
pub(super) fn leaves(trace: &Trace, is_masqueraded: bool) -> Result<()> {
    let says = last(trace)?.contains("leaves with this node's address");
    ensure!(
        trace.outcome == Outcome::Untouched && says == is_masqueraded,
        "masqueraded: {is_masqueraded}, and trace says {trace:#?}"
    );
    Ok(())
}

/// It says to which backend a new connection goes, and with which source.
pub(super) fn agrees_on(
    trace: &Trace,
    chosen: &Backend,
    source: Source,
    count: usize,
    may_be_random: bool,
) -> Result<()> {
    let differs = || format!("it went to {chosen}, {source:?}; trace says {trace:#?}");
    if may_be_random {
        ensure!(trace.outcome == Outcome::AnyOf(u32::try_from(count)?), "{}", differs());
        return Ok(());
    }
    ensure!(trace.outcome == Outcome::Backend(SocketAddr::new(chosen.ip, chosen.port)), "{}", differs());
    let word = match source {
        Source::Kept => "the client's address is kept",
        Source::Node => "with this node's address as the source",
        Source::HandedOn => "handed there as it is",
    };
    ensure!(last(trace)?.contains(word), "{}", differs());
    Ok(())
}

/// It says that nothing can be done with the middle of a connection, if it can say which backend is chosen.
pub(super) fn is_lost(trace: &Trace) -> Result<()> {
    let is = match trace.outcome {
        Outcome::Refused => last(trace)?.contains("unknown_connection"),
        Outcome::AnyOf(_) => true,
        _ => false,
    };
    ensure!(is, "its port is lost; trace says {trace:#?}");
    Ok(())
}

/// It says that this node does not reach itself this way, if it can say which backend is chosen.
pub(super) fn is_own(trace: &Trace) -> Result<()> {
    let is = match trace.outcome {
        Outcome::Refused => last(trace)?.contains("no_route"),
        Outcome::AnyOf(_) => true,
        _ => false,
    };
    ensure!(is, "it leads to this node itself; trace says {trace:#?}");
    Ok(())
}

/// It knows a connection that has begun.
pub(super) fn knows(trace: &Trace, chosen: &Backend) -> Result<()> {
    let to = Outcome::Backend(SocketAddr::new(chosen.ip, chosen.port));
    ensure!(
        trace.outcome == to && last(trace)?.contains("a known connection"),
        "to {chosen}, and trace says {trace:#?}"
    );
    Ok(())
}
