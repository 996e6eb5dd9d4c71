//! What a program did with a packet, by its return value and the packet as it then is; every checksum is verified.
//!
//! Must not know: what it should have done.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use pagurus_agent_core::services::kube_proxy::Why;
use pagurus_tests::packet::{Body, IcmpError, Packet, flag};
use pagurus_tests::test_run::Ran;

use crate::packets::programs::{DROP, PASS, REDIRECT};

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Whether a packet is a TCP reset.
pub(super) fn is_reset(packet: &Packet) -> bool {
    matches!(&packet.body, Body::Tcp(tcp) if tcp.flags & flag::RST != 0)
}

/// Whether the sender of a packet is told by a reset.
pub(super) fn is_reset_for(ran: &Ran, original: &Packet) -> bool {
    ran.code == REDIRECT
        && Packet::parse(&ran.bytes).is_ok_and(|told| {
            is_reset(&told) && (told.source, told.destination) == (original.destination, original.source)
        })
}

/// Whether the sender of a packet is told of it in the name of its destination, or too many are told already.
pub(super) fn is_told(ran: &Ran, original: &Packet) -> bool {
    ran.code == DROP
        || ran.code == REDIRECT
            && Packet::parse(&ran.bytes)
                .is_ok_and(|told| (told.source, told.destination) == (original.destination, original.source))
}

/// The reasons for which there is more than before.
pub(super) fn noted(
    before: &BTreeMap<&'static str, u64>,
    after: &BTreeMap<&'static str, u64>,
) -> Vec<&'static str> {
    let count = |of: &BTreeMap<_, u64>, name| of.get(name).copied().unwrap_or(0);
    let more = |name: &&'static str| count(after, *name) - count(before, *name);
    after.keys().flat_map(|name| std::iter::repeat_n(*name, more(name) as usize)).collect()
}

/// The packet that goes on: its time to live is one less where a program sends it.
pub(super) fn sent(ran: &Ran, original: &Packet) -> Result<Packet> {
    let ttl = match ran.code {
        PASS => original.ttl,
        REDIRECT => original.ttl - 1,
        code => anyhow::bail!("returned {code}"),
    };
    let packet = Packet::parse(&ran.bytes)?;
    ensure!(packet.ttl == ttl, "time to live {} where {ttl} should be", packet.ttl);
    Ok(packet)
}

/// The packet that XDP sends; none if it goes on, as it came.
pub(super) fn sent_early(ran: &Ran, original: &Packet) -> Result<Option<Packet>> {
    if ran.code == XDP_PASS {
        ensure!(ran.bytes == original.build(), "goes on, and is not as it was");
        return Ok(None);
    }
    ensure!(ran.code == XDP_TX, "returned {}", ran.code);
    let packet = Packet::parse(&ran.bytes)?;
    ensure!(packet.ttl == original.ttl - 1, "time to live {}", packet.ttl);
    Ok(Some(packet))
}

/// It goes on with nothing of it translated.
pub(super) fn is_left(ran: &Ran, original: &Packet, noted: &[&str]) -> Result<()> {
    ensure!(noted.is_empty(), "noted as {noted:?}");
    let packet = sent(ran, original)?;
    if ran.code == PASS {
        ensure!(ran.bytes == original.build(), "not byte by byte as it was");
    }
    let wanted = Packet { ethernet: packet.ethernet, ttl: packet.ttl, ..original.clone() };
    ensure!(packet == wanted, "{packet:?} is not as it was");
    Ok(())
}

/// A later fragment whose first nobody has seen: dropped as such, or it goes on with nothing of it translated.
pub(super) fn is_astray(ran: &Ran, original: &Packet, noted: &[&str]) -> Result<()> {
    if ran.code == DROP {
        ensure!(*noted == ["fragment"], "dropped, and noted as {noted:?}");
        return Ok(());
    }
    is_left(ran, original, noted)
}

/// It is dropped for this reason.
pub(super) fn is_dropped(ran: &Ran, why: Why, noted: &[&str]) -> Result<()> {
    let reason = match why {
        Why::SourceRange => "source_range",
        Why::NoLocalEndpoint => "no_local_endpoint",
    };
    ensure!(ran.code == DROP && *noted == [reason], "not dropped for {reason}");
    Ok(())
}

/// Its sender is told that nobody is there; false where there were too many answers already.
pub(super) fn is_refused(ran: &Ran, original: &Packet, noted: &[&str]) -> Result<bool> {
    ensure!(*noted == ["no_endpoint"], "noted as {noted:?}: {ran:?}");
    // ICMP errors are limited.
    if ran.code == DROP && matches!(original.body, Body::Udp(_)) {
        return Ok(false);
    }
    ensure!(ran.code == REDIRECT, "returned {}: {ran:?}", ran.code);
    let answer = Packet::parse(&ran.bytes)?;
    let turned = original.clone().turned();
    ensure!(
        (answer.source, answer.destination, answer.ethernet)
            == (turned.source, turned.destination, turned.ethernet),
        "not to its sender: {answer:?}"
    );
    match &answer.body {
        Body::Tcp(tcp) => {
            ensure!(tcp.flags & flag::RST != 0 && answer.ports() == turned.ports(), "{answer:?}");
        }
        // ABORT.
        Body::Sctp(sctp) => {
            ensure!(sctp.chunks.first() == Some(&6) && answer.ports() == turned.ports(), "{answer:?}");
        }
        Body::IcmpError(error) => {
            let kind = if original.is_v4() { (3, 3) } else { (1, 4) };
            ensure!((error.kind, error.code) == kind, "{answer:?}");
            let sent = original.clone().without_ethernet().build();
            let quoted = error.inner.build();
            ensure!(sent.starts_with(&quoted) && quoted.len() >= 28, "quotes something else: {answer:?}");
        }
        other => anyhow::bail!("no refusal: {other:?}"),
    }
    Ok(true)
}

/// An error that was restored quotes what its receiver sent, and says what it said.
pub(super) fn quotes(restored: &Packet, error: &Packet, original: &Packet, became: &Packet) -> Result<()> {
    let (Body::IcmpError(restored), Body::IcmpError(error)) = (&restored.body, &error.body) else {
        anyhow::bail!("no ICMP error: {restored:?}");
    };
    let inner = Packet { ethernet: None, ttl: became.ttl, ..original.clone() };
    let wanted = IcmpError { inner: Box::new(inner), ..error.clone() };
    ensure!(*restored == wanted, "{restored:?} is not {wanted:?}");
    Ok(())
}
