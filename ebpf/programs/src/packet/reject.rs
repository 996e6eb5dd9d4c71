//! Answers in the name of a destination that does not take the packet: made of the packet itself, sent back where it came from.
//!
//! Must not know: why the packet is refused.

use aya_ebpf::helpers::{bpf_csum_diff, bpf_ktime_get_coarse_ns};
use pagurus_ebpf_abi::{Address, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, sctp_checksum};

use super::{
    Packet, Verdict,
    checksum::{self, Sum},
    headers::{ETHERNET, Ports, Tcp, V4, V4_WHOLE, V4Tail, V6, V6Addresses},
};
use crate::maps::ANSWER;
use crate::work::{
    PARSED_FRAGMENT_LATER, PARSED_ICMP_ERROR, PARSED_V6, Parsed, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
};

/// "Internetwork control", as answers about packets have it.
const TOS_CONTROL: u8 = 0xc0;
const HOPS: u8 = 64;

const V4_UNREACHABLE: u8 = 3;
const V4_PORT: u8 = 3;
const V4_FRAGMENTATION_NEEDED: u8 = 4;
const V4_TIME_EXCEEDED: u8 = 11;
const V6_UNREACHABLE: u8 = 1;
const V6_PORT: u8 = 4;
const V6_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;

/// How much of the packet an ICMP error quotes: the whole answer has at most 576 bytes (RFC 1812), or 1280 (RFC 4443).
const V4_QUOTE: u32 = 576 - 28;
const V6_QUOTE: u32 = 1280 - 48;
/// An IPv4 header and the ports.
const SHORTEST_QUOTE: u32 = 28;
/// Longer than any quote, and all its bits set: makes the verifier see a bound.
const QUOTE_BITS: u32 = 0x7ff;

const SCTP_INIT: u8 = 1;
const SCTP_ABORT: u8 = 6;
const SCTP_SHUTDOWN_ACK: u8 = 8;
const SCTP_COOKIE_ECHO: u8 = 10;
const SCTP_ERROR: u8 = 9;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;
/// Chunk flag T: the verification tag is the one of the packet that is answered.
const SCTP_REFLECTED: u8 = 1;

/// ICMP errors that one CPU sends at once, and how often it may send another one: each 2^20 nanoseconds.
const BURST: u64 = 64;
const REFILL_BITS: u32 = 20;

/// Memory for answers, for each CPU (see `work`).
#[repr(C)]
pub(crate) struct Answer {
    /// When `tokens` was last brought up to date, in units of the refill.
    last: u64,
    /// ICMP errors that may be sent now.
    tokens: u64,
    /// How much is quoted.
    quote: u32,
    /// An ICMP header, and what it quotes.
    words: [u32; 2 + (QUOTE_BITS as usize + 1) / 4 + 1],
}

/// A TCP reset, an SCTP abort, or ICMP "port unreachable" for other protocols.
#[inline(always)]
pub(crate) fn refuse<P: Packet>(packet: &P, parsed: &Parsed) -> Verdict {
    if parsed.is(PARSED_FRAGMENT_LATER) {
        return Verdict::Drop;
    }
    match parsed.tuple.protocol {
        PROTOCOL_TCP => reset(packet, parsed),
        PROTOCOL_SCTP => abort(packet, parsed),
        _ if parsed.is(PARSED_V6) => error(packet, parsed, V6_UNREACHABLE, V6_PORT, 0),
        _ => error(packet, parsed, V4_UNREACHABLE, V4_PORT, 0),
    }
}

/// ICMP "fragmentation needed", ICMPv6 "packet too big": no packets longer than `mtu` go this way.
#[inline(always)]
pub(crate) fn too_long<P: Packet>(packet: &P, parsed: &Parsed, mtu: u32) -> Verdict {
    if parsed.is(PARSED_V6) {
        error(packet, parsed, V6_TOO_BIG, 0, mtu.to_be())
    } else {
        error(packet, parsed, V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED, (mtu & 0xffff).to_be())
    }
}

/// ICMP "time exceeded", in the name of this node: the packet's time to live is used up here.
#[inline(always)]
pub(crate) fn expired<P: Packet>(packet: &P, parsed: &mut Parsed, node: Address) -> Verdict {
    // Whoever the packet is for has nothing to do with it.
    let meant = parsed.tuple.destination;
    parsed.tuple.destination = node;
    let kind = if parsed.is(PARSED_V6) { V6_TIME_EXCEEDED } else { V4_TIME_EXCEEDED };
    let verdict = error(packet, parsed, kind, 0, 0);
    parsed.tuple.destination = meant;
    verdict
}

/// Makes the packet an empty one that goes back: Ethernet and IP header are written, `length` bytes of this protocol follow.
#[inline(always)]
fn turn<P: Packet>(packet: &P, parsed: &Parsed, protocol: u8, tos: u8, length: u32) -> Option<u32> {
    let macs = packet.read::<[u16; 6]>(0)?;
    let macs = [macs[3], macs[4], macs[5], macs[0], macs[1], macs[2]];
    let tuple = &parsed.tuple;
    let is_v6 = parsed.is(PARSED_V6);
    let header = if is_v6 { size_of::<V6>() } else { size_of::<V4>() } as u32;
    if !packet.clear(ETHERNET + header + length) || !packet.write(0, &macs, false) {
        return None;
    }
    let is_written = if is_v6 {
        let ip = V6 {
            word: (0x6000_0000 | u32::from(tos) << 20).to_be(),
            length: (length as u16).to_be(),
            next: protocol,
            hops: HOPS,
            addresses: V6Addresses { source: tuple.destination, destination: tuple.source },
        };
        packet.write(ETHERNET, &ip, false)
    } else {
        let mut ip = V4 {
            version_ihl: 0x45,
            tos,
            length: ((header + length) as u16).to_be(),
            id: 0,
            fragment: V4_WHOLE,
            tail: V4Tail {
                ttl: HOPS,
                protocol,
                checksum: 0,
                source: tuple.destination.v4_word(),
                destination: tuple.source.v4_word(),
            },
        };
        let sum = Sum::new()
            .plus(u32::from(u16::from_ne_bytes([ip.version_ihl, ip.tos])))
            .plus(u32::from(ip.length))
            .plus(u32::from(ip.fragment))
            .plus(u32::from(u16::from_ne_bytes([ip.tail.ttl, ip.tail.protocol])))
            .plus(ip.tail.source)
            .plus(ip.tail.destination);
        ip.tail.checksum = checksum::finish(sum);
        packet.write(ETHERNET, &ip, false)
    };
    is_written.then_some(ETHERNET + header)
}

/// The pseudo-header of so many bytes. Which address is whose makes no difference.
#[inline(always)]
fn pseudo(parsed: &Parsed, protocol: u8, length: u32) -> Sum {
    let tuple = &parsed.tuple;
    let sum = Sum::new().plus(length.to_be()).plus(u32::from(protocol).to_be());
    if parsed.is(PARSED_V6) {
        sum.plus_address(&tuple.source).plus_address(&tuple.destination)
    } else {
        sum.plus(tuple.source.v4_word()).plus(tuple.destination.v4_word())
    }
}

/// A TCP reset (RFC 9293, 3.10.7.1); none in answer to one.
#[inline(always)]
fn reset<P: Packet>(packet: &P, parsed: &Parsed) -> Verdict {
    let Some(tcp) = packet.read::<Tcp>(parsed.l4) else { return Verdict::Drop };
    if parsed.kind & TCP_RST != 0 {
        return Verdict::Drop;
    }
    let (sequence, acknowledged, flags) = if parsed.kind & TCP_ACK != 0 {
        (tcp.acknowledged, 0, TCP_RST)
    } else {
        let header = u32::from(u16::from_be(tcp.bits) >> 12) * 4;
        let marks = u32::from(parsed.kind & TCP_SYN != 0) + u32::from(parsed.kind & TCP_FIN != 0);
        let length = parsed.end.wrapping_sub(parsed.l4).wrapping_sub(header).wrapping_add(marks);
        (0, u32::from_be(tcp.sequence).wrapping_add(length).to_be(), TCP_RST | TCP_ACK)
    };
    let length = size_of::<Tcp>() as u32;
    let mut answer = Tcp {
        ports: Ports { source: tcp.ports.destination, destination: tcp.ports.source },
        sequence,
        acknowledged,
        bits: (0x5000 | u16::from(flags)).to_be(),
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    let sum = pseudo(parsed, PROTOCOL_TCP, length)
        .plus(u32::from(answer.ports.source.0))
        .plus(u32::from(answer.ports.destination.0))
        .plus(answer.sequence)
        .plus(answer.acknowledged)
        .plus(u32::from(answer.bits));
    answer.checksum = checksum::finish(sum);
    match turn(packet, parsed, PROTOCOL_TCP, 0, length) {
        Some(l4) if packet.write(l4, &answer, false) => packet.answer(),
        _ => Verdict::Drop,
    }
}

/// An SCTP abort, as a node sends it that knows nothing of the association (RFC 9260, 8.4).
#[inline(always)]
fn abort<P: Packet>(packet: &P, parsed: &Parsed) -> Verdict {
    let Some([ports, tag]) = packet.read::<[u32; 2]>(parsed.l4) else { return Verdict::Drop };
    let ports = ports.rotate_left(16);
    let (kind, flags, tag) = match parsed.kind {
        SCTP_INIT => {
            let Some(initiate) = packet.read::<u32>(parsed.l4 + 16) else { return Verdict::Drop };
            (SCTP_ABORT, 0, initiate)
        }
        SCTP_SHUTDOWN_ACK => (SCTP_SHUTDOWN_COMPLETE, SCTP_REFLECTED, tag),
        SCTP_ABORT | SCTP_SHUTDOWN_COMPLETE | SCTP_COOKIE_ECHO | SCTP_ERROR => return Verdict::Drop,
        _ => (SCTP_ABORT, SCTP_REFLECTED, tag),
    };
    let chunk = u32::from_ne_bytes([kind, flags, 0, 4]);
    let mut answer = [ports, tag, 0, chunk];
    answer[2] = sctp_checksum(&answer);
    match turn(packet, parsed, PROTOCOL_SCTP, 0, size_of_val(&answer) as u32) {
        Some(l4) if packet.write(l4, &answer, false) => packet.answer(),
        _ => Verdict::Drop,
    }
}

/// Whether this CPU may send another ICMP error.
#[inline(always)]
fn is_allowed(answer: &mut Answer) -> bool {
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_coarse_ns() } >> REFILL_BITS;
    let tokens = answer.tokens.wrapping_add(now.wrapping_sub(answer.last));
    answer.last = now;
    answer.tokens = if tokens > BURST { BURST } else { tokens };
    if answer.tokens == 0 {
        return false;
    }
    answer.tokens -= 1;
    true
}

/// Whether an ICMP error may be sent to the packet's sender (RFC 1122, 3.2.2; RFC 4443, 2.4): one node that sent to one node.
#[inline(always)]
fn is_answerable<P: Packet>(packet: &P, parsed: &Parsed) -> bool {
    if parsed.flags & (PARSED_ICMP_ERROR | PARSED_FRAGMENT_LATER) != 0 {
        return false;
    }
    if packet.read::<u8>(0).is_none_or(|mac| mac & 1 != 0) {
        return false;
    }
    let (source, destination) = (&parsed.tuple.source, &parsed.tuple.destination);
    if parsed.is(PARSED_V6) {
        let is_many = |address: &Address| address.words[0].to_ne_bytes()[0] == 0xff;
        return *source != Address::ANY_V6 && !is_many(source) && !is_many(destination);
    }
    let first = |address: &Address| address.v4_word().to_ne_bytes()[0];
    first(source) != 0 && first(source) != 127 && first(source) < 224 && first(destination) < 224
}

/// An ICMP error with this second word, quoting the packet.
#[inline(always)]
fn error<P: Packet>(packet: &P, parsed: &Parsed, kind: u8, code: u8, word: u32) -> Verdict {
    let Some(answer) = ANSWER.get_ptr_mut(0) else { return Verdict::Drop };
    // SAFETY: a place in an array that lives as long as the program; nothing else uses it while the program runs.
    let answer = unsafe { &mut *answer };
    if !is_answerable(packet, parsed) || !is_allowed(answer) {
        return Verdict::Drop;
    }
    let is_v6 = parsed.is(PARSED_V6);
    let most = if is_v6 { V6_QUOTE } else { V4_QUOTE };
    let end = if parsed.end < packet.length() { parsed.end } else { packet.length() };
    let there = end.wrapping_sub(parsed.l3);
    answer.quote = if there < most { there } else { most };
    // SAFETY: a field just written. Volatile, so that the bounds are checked on what is used, where the verifier sees it.
    let quote = unsafe { core::ptr::read_volatile(&raw const answer.quote) } & QUOTE_BITS;
    if quote < SHORTEST_QUOTE {
        return Verdict::Drop;
    }
    answer.words[0] = u32::from_ne_bytes([kind, code, 0, 0]);
    answer.words[1] = word;
    // What is summed is a number of whole words.
    answer.words[2 + (quote as usize >> 2)] = 0;
    if !packet.load(parsed.l3, (&raw mut answer.words[2]).cast(), quote) {
        return Verdict::Drop;
    }
    let length = quote + 8;
    let protocol = if is_v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
    let begin = if is_v6 { pseudo(parsed, protocol, length) } else { Sum::new() };
    let sum = sum(answer, length, begin);
    answer.words[0] |= u32::from(checksum::finish(sum)) << 16;
    let tos = if is_v6 { 0 } else { TOS_CONTROL };
    match turn(packet, parsed, protocol, tos, length) {
        Some(l4) if packet.store(l4, (&raw const answer.words).cast(), length) => packet.answer(),
        _ => Verdict::Drop,
    }
}

/// Adds so many bytes of an answer, rounded up to words, to a sum.
#[inline(always)]
fn sum(answer: &mut Answer, length: u32, begin: Sum) -> Sum {
    /// Older kernels sum no more at once.
    const CHUNK: u32 = 512;
    let mut left = (length + 3) & !3;
    let mut sum = begin;
    let mut at = 0;
    while at < 3 {
        let chunk = if left < CHUNK { left } else { CHUNK };
        let from = (&raw mut answer.words).cast::<u32>().wrapping_add((at * CHUNK / 4) as usize);
        // SAFETY: three chunks lie within the array.
        sum = sum.plus(unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from, chunk, 0) } as u32);
        left -= chunk;
        at += 1;
    }
    sum
}
