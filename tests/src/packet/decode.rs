//! Bytes to packets. Everything is verified: lengths to the byte, every checksum; an error names the layer in which it is.
//!
//! Must not know: making.

use super::checksum::{crc32c, internet};
use super::{Body, Ethernet, Extension, Fragment, Icmp, IcmpError, Packet, Sctp, Tcp, Udp, packet, protocol};
use anyhow::{Context as _, Result, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6's fragment header.
pub(super) const FRAGMENT_HEADER: u8 = 44;

/// Whether a body may be shorter than the IP header says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    /// Inside an ICMP error.
    PerhapsNot,
}

impl Packet {
    /// Reads an Ethernet frame.
    ///
    /// # Errors
    /// It is no IP packet, or something of it is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (header, rest) = take(bytes, 14).context("Ethernet header")?;
        let version = match (header[12], header[13]) {
            (0x08, 0x00) => 4,
            (0x86, 0xdd) => 6,
            (a, b) => bail!("Ethernet header: type {a:02x}{b:02x} is not IP"),
        };
        let made = Self::parse_ip(rest)?;
        ensure!(made.is_v4() == (version == 4), "Ethernet header: its type says IPv{version}");
        let mac = |at: usize| std::array::from_fn(|place| header[at + place]);
        Ok(Self { ethernet: Some(Ethernet { source: mac(6), destination: mac(0) }), ..made })
    }

    /// Reads an IP packet.
    ///
    /// # Errors
    /// Something of it is wrong.
    pub fn parse_ip(bytes: &[u8]) -> Result<Self> {
        ip(bytes, Whole::Yes)
    }
}

fn ip(bytes: &[u8], whole: Whole) -> Result<Packet> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => v4(bytes, whole).context("IPv4"),
        Some(6) => v6(bytes, whole).context("IPv6"),
        Some(version) => bail!("IP header: version {version}"),
        None => bail!("IP header: not there"),
    }
}

/// The first `length` bytes and the others.
fn take(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8])> {
    bytes.split_at_checked(length).with_context(|| format!("{} bytes where {length} should be", bytes.len()))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The body as long as the header says, or what is there of it.
fn cut_to<'a>(made: &mut Packet, rest: &'a [u8], said: usize, whole: Whole) -> Result<&'a [u8]> {
    ensure!(rest.len() <= said, "{} bytes behind its end", rest.len() - said);
    if rest.len() < said {
        ensure!(whole == Whole::PerhapsNot, "its body has {} bytes, the header says {said}", rest.len());
        made.said = Some(said);
    }
    Ok(rest)
}

fn v4(bytes: &[u8], whole: Whole) -> Result<Packet> {
    let (header, _) = take(bytes, 20).context("header")?;
    let length = usize::from(header[0] & 0xf) * 4;
    ensure!(length >= 20, "header: its length is {length}");
    let (header, rest) = take(bytes, length).context("header with options")?;
    let sum = internet(&[header]);
    ensure!(sum == 0, "header: checksum {:04x} is wrong by {sum:04x}", word(header, 10));
    let mut made = packet(Body::Other { protocol: header[9], bytes: Vec::new() });
    made.ethernet = None;
    made.tos = header[1];
    made.id = word(header, 4).into();
    let bits = word(header, 6);
    ensure!(bits & 0x8000 == 0, "header: its first flag is set");
    made.dont_fragment = bits & 0x4000 != 0;
    let place = Fragment { offset: (bits & 0x1fff) * 8, more: bits & 0x2000 != 0 };
    made.fragment = (place.offset > 0 || place.more).then_some(place);
    made.ttl = header[8];
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    (made.source, made.destination) = (address(12).into(), address(16).into());
    made.options = header[20..].to_vec();
    let said = usize::from(word(header, 2)).checked_sub(length).context("header: shorter than itself")?;
    let body = cut_to(&mut made, rest, said, whole)?;
    fill(made, header[9], body)
}

fn v6(bytes: &[u8], whole: Whole) -> Result<Packet> {
    let (header, mut rest) = take(bytes, 40).context("header")?;
    let mut next = header[6];
    let mut made = packet(Body::Other { protocol: next, bytes: Vec::new() });
    made.ethernet = None;
    made.tos = (word(header, 0) >> 4) as u8;
    made.flow_label = long(header, 0) & 0xf_ffff;
    made.ttl = header[7];
    let address = |at: usize| Ipv6Addr::from(std::array::from_fn(|place| header[at + place]));
    (made.source, made.destination) = (IpAddr::V6(address(8)), IpAddr::V6(address(24)));
    let mut said = usize::from(word(header, 4));
    while let 0 | 43 | 60 | FRAGMENT_HEADER = next {
        let what = || format!("extension header {next}");
        let (start, _) = take(rest, 8).with_context(what)?;
        let length = if next == FRAGMENT_HEADER { 8 } else { (usize::from(start[1]) + 1) * 8 };
        let (extension, behind) = take(rest, length).with_context(what)?;
        said = said.checked_sub(length).with_context(what).context("longer than the packet")?;
        if next == FRAGMENT_HEADER {
            let bits = word(extension, 2);
            made.fragment = Some(Fragment { offset: bits & 0xfff8, more: bits & 1 != 0 });
            made.id = long(extension, 4);
        } else {
            ensure!(made.fragment.is_none(), "extension header {next} behind the fragment header");
            made.extensions.push(Extension { kind: next, data: extension[2..].to_vec() });
        }
        (next, rest) = (extension[0], behind);
        if made.fragment.is_some_and(|place| place.offset > 0) {
            break;
        }
    }
    let body = cut_to(&mut made, rest, said, whole)?;
    fill(made, next, body)
}

/// Reads the body.
fn fill(mut made: Packet, number: u8, body: &[u8]) -> Result<Packet> {
    made.body = Body::Other { protocol: number, bytes: body.to_vec() };
    if let Some(place) = made.fragment.filter(|place| place.offset > 0 || place.more) {
        if place.offset == 0 {
            made.body = beginning(number, body);
        }
        return Ok(made);
    }
    if made.said.is_some() {
        made.body = beginning(number, body);
        return Ok(made);
    }
    let v4 = made.is_v4();
    made.body = match number {
        protocol::TCP => tcp(&made, body).context("TCP")?,
        protocol::UDP => udp(&made, body).context("UDP")?,
        protocol::SCTP => Body::Sctp(Sctp::parse(body).context("SCTP")?),
        protocol::ICMP if v4 => {
            icmp(body, internet(&[body]), |kind| matches!(kind, 3..=5 | 11 | 12)).context("ICMP")?
        }
        protocol::ICMPV6 if !v4 => icmp(body, made.with_pseudo(body), |kind| kind < 128).context("ICMPv6")?,
        _ => return Ok(made),
    };
    Ok(made)
}

/// The packet that these are the fragments of, the first one first.
///
/// # Errors
/// One is missing, or is not a fragment; what they are together is no packet.
pub fn joined(parts: &[Packet]) -> Result<Packet> {
    let first = parts.first().context("no fragments")?;
    let mut bytes = Vec::new();
    for part in parts {
        let fragment = part.fragment.with_context(|| format!("{part:?} is whole"))?;
        ensure!(usize::from(fragment.offset) == bytes.len(), "{} bytes, then {part:?}", bytes.len());
        match &part.body {
            Body::Cut { source_port, destination_port, rest, .. } => {
                bytes.extend(source_port.to_be_bytes());
                bytes.extend(destination_port.to_be_bytes());
                bytes.extend(rest);
            }
            Body::Other { bytes: more, .. } => bytes.extend(more),
            body => anyhow::bail!("a fragment with {body:?}"),
        }
    }
    let ends = parts.last().and_then(|part| part.fragment).is_some_and(|last| !last.more);
    ensure!(ends, "the last fragment is missing");
    let body = Body::Other { protocol: first.protocol(), bytes };
    let id = if first.is_v4() { first.id } else { 0 };
    Packet::parse(&Packet { fragment: None, id, body, ..first.clone() }.build())
}

/// The beginning of a body.
pub(super) fn beginning(number: u8, bytes: &[u8]) -> Body {
    if bytes.len() < 4 || ![protocol::TCP, protocol::UDP, protocol::SCTP].contains(&number) {
        return Body::Other { protocol: number, bytes: bytes.to_vec() };
    }
    let (source_port, destination_port) = (word(bytes, 0), word(bytes, 2));
    Body::Cut { protocol: number, source_port, destination_port, rest: bytes[4..].to_vec() }
}

/// The checksum with its pseudo header must be right.
fn verify(made: &Packet, body: &[u8], said: u16) -> Result<()> {
    let sum = made.with_pseudo(body);
    ensure!(sum == 0, "checksum {said:04x} is wrong by {sum:04x}");
    Ok(())
}

fn tcp(made: &Packet, body: &[u8]) -> Result<Body> {
    let (header, _) = take(body, 20).context("header")?;
    let length = usize::from(header[12] >> 4) * 4;
    ensure!(length >= 20, "header: its length is {length}");
    let (header, payload) = take(body, length).context("header with options")?;
    verify(made, body, word(header, 16))?;
    Ok(Body::Tcp(Tcp {
        source_port: word(header, 0),
        destination_port: word(header, 2),
        sequence: long(header, 4),
        acknowledgement: long(header, 8),
        flags: header[13],
        window: word(header, 14),
        options: header[20..].to_vec(),
        payload: payload.to_vec(),
    }))
}

fn udp(made: &Packet, body: &[u8]) -> Result<Body> {
    let (header, payload) = take(body, 8).context("header")?;
    let said = usize::from(word(header, 4));
    ensure!(said == body.len(), "header: it says {said} bytes, there are {}", body.len());
    let checksum = word(header, 6);
    ensure!(checksum != 0 || made.is_v4(), "no checksum, which IPv6 does not allow");
    if checksum != 0 {
        verify(made, body, checksum)?;
    }
    Ok(Body::Udp(Udp {
        source_port: word(header, 0),
        destination_port: word(header, 2),
        checksum: checksum != 0,
        payload: payload.to_vec(),
    }))
}

impl Sctp {
    /// Reads an SCTP packet without its IP header.
    ///
    /// # Errors
    /// It is too short, or its checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (header, chunks) = take(bytes, 12).context("header")?;
        let said = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if said != 0 {
            let mut blank = bytes.to_vec();
            blank[8..12].fill(0);
            let right = crc32c(&blank);
            ensure!(said == right, "checksum {said:08x}, should be {right:08x}");
        }
        Ok(Self {
            source_port: word(header, 0),
            destination_port: word(header, 2),
            tag: long(header, 4),
            checksum: said != 0,
            chunks: chunks.to_vec(),
        })
    }
}

fn icmp(body: &[u8], sum: u16, is_error: impl Fn(u8) -> bool) -> Result<Body> {
    let (header, payload) = take(body, 8).context("header")?;
    ensure!(sum == 0, "checksum {:04x} is wrong by {sum:04x}", word(header, 2));
    let (code, rest) = (header[1], [header[4], header[5], header[6], header[7]]);
    if is_error(header[0]) {
        let inner = Box::new(ip(payload, Whole::PerhapsNot).context("the packet inside")?);
        return Ok(Body::IcmpError(IcmpError { kind: header[0], code, rest, inner }));
    }
    // Echoes have one name in both families.
    let kind = match header[0] {
        128 => 8,
        129 => 0,
        kind => kind,
    };
    Ok(Body::Icmp(Icmp { kind, code, rest, payload: payload.to_vec() }))
}
