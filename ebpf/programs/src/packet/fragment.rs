//! Datagrams that come in fragments: only the first one has the ports.
//!
//! Must not know: what the ports are for.

use pagurus_ebpf_abi::{Address, FragmentKey, FragmentValue, Port};

use crate::maps::FRAGMENTS;
use crate::work::{PARSED_PORTS, Parsed};

#[inline(always)]
fn key(parsed: &Parsed) -> FragmentKey {
    FragmentKey {
        source: parsed.tuple.source,
        destination: parsed.tuple.destination,
        id: parsed.fragment,
        protocol: u32::from(parsed.tuple.protocol),
    }
}

/// Notes the ports of a first fragment. False: they could not be noted.
#[inline(always)]
pub(crate) fn note(parsed: &Parsed) -> bool {
    let value = FragmentValue {
        source_port: parsed.tuple.source_port,
        destination_port: parsed.tuple.destination_port,
    };
    FRAGMENTS.insert(key(parsed), value, 0).is_ok()
}

/// Stands for all datagrams to an address.
#[inline(always)]
fn mark(destination: &Address) -> FragmentKey {
    FragmentKey { source: Address::ANY_V6, destination: *destination, id: 0, protocol: 0 }
}

/// Notes that nobody but the programs knows what to do with datagrams to an address. False: it could not be noted.
#[inline(always)]
pub(crate) fn note_destination(destination: &Address) -> bool {
    let key = mark(destination);
    let none = FragmentValue { source_port: Port(0), destination_port: Port(0) };
    FRAGMENTS.get_ptr(key).is_some() || FRAGMENTS.insert(key, none, 0).is_ok()
}

/// Whether that was noted.
#[inline(always)]
pub(crate) fn is_noted(destination: &Address) -> bool {
    FRAGMENTS.get_ptr(mark(destination)).is_some()
}

/// Puts the ports into the tuple of a later fragment, and says so in its flags. False: the first one was not seen.
#[inline(always)]
pub(crate) fn ports(parsed: &mut Parsed) -> bool {
    // SAFETY: one word, copied at once.
    let Some(value) = unsafe { FRAGMENTS.get(key(parsed)) }.copied() else { return false };
    parsed.tuple.source_port = value.source_port;
    parsed.tuple.destination_port = value.destination_port;
    parsed.flags |= PARSED_PORTS;
    true
}
