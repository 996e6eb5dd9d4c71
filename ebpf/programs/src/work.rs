//! What a packet program works on: one place for each CPU, because a program's stack has 512 bytes.
//!
//! Must not know: what the programs do. Only for packet programs: they run with softirqs off, so none of them interrupts another on
//! the same CPU, which is not so for socket hooks. A program finds what the one before it left there, and writes before it reads.
//!
//! What is read from here is unknown to the verifier: it need not follow each way in which a value came about.

use aya_ebpf::bindings::{bpf_fib_lookup, bpf_redir_neigh};
use pagurus_ebpf_abi::{Backend, FlowState, FlowTuple, ServiceValue};

use crate::maps::WORK;

/// [`Parsed::flags`]: IPv6.
pub(crate) const PARSED_V6: u32 = 1 << 0;
/// [`Parsed::flags`]: the first fragment of a datagram: it has the ports.
pub(crate) const PARSED_FRAGMENT_FIRST: u32 = 1 << 1;
/// [`Parsed::flags`]: another fragment: the packet has no header of the transport, the ports are what was noted of the first.
pub(crate) const PARSED_FRAGMENT_LATER: u32 = 1 << 2;
/// [`Parsed::flags`]: an ICMP error; `l4` is its header, and the tuple has only the outer addresses.
pub(crate) const PARSED_ICMP_ERROR: u32 = 1 << 3;
/// [`Parsed::flags`]: ports (or an ICMP identifier) are in the tuple.
pub(crate) const PARSED_PORTS: u32 = 1 << 4;
/// [`Parsed::flags`]: routers may send it on in fragments: IPv4 without "do not fragment".
pub(crate) const PARSED_DIVISIBLE: u32 = 1 << 5;

/// TCP FIN.
pub(crate) const TCP_FIN: u8 = 0x01;
/// TCP SYN.
pub(crate) const TCP_SYN: u8 = 0x02;
/// TCP RST.
pub(crate) const TCP_RST: u8 = 0x04;
/// TCP ACK.
pub(crate) const TCP_ACK: u8 = 0x10;

/// What the headers of a packet say.
#[repr(C)]
pub(crate) struct Parsed {
    /// Its flow. After a rewrite: as the packet then is.
    pub(crate) tuple: FlowTuple,
    /// Where the IP header begins.
    pub(crate) l3: u32,
    /// Where the transport's header begins.
    pub(crate) l4: u32,
    /// Where the IP packet ends, as its header says.
    pub(crate) end: u32,
    /// `PARSED_*`.
    pub(crate) flags: u32,
    /// Identification of a fragmented datagram.
    pub(crate) fragment: u32,
    /// Time to live, hop limit.
    pub(crate) ttl: u8,
    /// TCP flags; for SCTP the type of the first chunk; for ICMP its type.
    pub(crate) kind: u8,
    /// Type of service, traffic class.
    pub(crate) tos: u8,
    /// Always 0.
    pub(crate) reserved: u8,
}

impl Parsed {
    /// Whether all of these flags are set.
    #[inline(always)]
    pub(crate) fn is(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

/// A packet program's memory.
#[repr(C)]
pub(crate) struct Work {
    /// The packet.
    pub(crate) parsed: Parsed,
    /// The flow as the packet came.
    pub(crate) tuple: FlowTuple,
    /// What becomes of it.
    pub(crate) state: FlowState,
    /// Key of the other direction.
    pub(crate) other_key: FlowTuple,
    /// Key of another flow that is in the way of this one.
    pub(crate) rival_key: FlowTuple,
    /// What becomes of the other direction.
    pub(crate) other: FlowState,
    /// The Service it is for.
    pub(crate) service: ServiceValue,
    /// The chosen backend.
    pub(crate) backend: Backend,
    /// Its id.
    pub(crate) id: u32,
    /// The kernel's answer where a packet goes.
    pub(crate) fib: bpf_fib_lookup,
    /// The next hop of that.
    pub(crate) next_hop: bpf_redir_neigh,
    /// When XDP began to look for what becomes of the packet, on the clock of flows (`xdp/warm.rs`).
    pub(crate) now: u32,
    /// The second in which events were last counted.
    pub(crate) events_second: u32,
    /// How many there were in it.
    pub(crate) events: u32,
}

/// This CPU's.
#[inline(always)]
pub(crate) fn work() -> Option<&'static mut Work> {
    let place = WORK.get_ptr_mut(0)?;
    // SAFETY: a place in an array that lives as long as the program; nothing else uses it while the program runs (see above).
    Some(unsafe { &mut *place })
}
