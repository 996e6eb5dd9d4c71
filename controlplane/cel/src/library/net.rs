//! Addresses and blocks of addresses.

use std::fmt;
use std::net::IpAddr;

use pagurus_controlplane_api::go::quote;

use super::{Opaque, Row, addresses};
use crate::cost::Costing;
use crate::eval::{EvalError, Outcome, failed};
use crate::value::Value;

/// A block of addresses as written: the address need not be the first of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits that all of the block have in common.
    pub bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Bytes of an address.
pub(crate) fn bytes(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 4 } else { 16 }
}

pub(super) static ROWS: &[Row] = &[
    ("ip", &["string_to_ip: (string) -> net.IP"], Costing::Parse, |_, args| {
        text(args, |text| match parse_ip(text) {
            Ok(ip) => Ok(Value::opaque(Opaque::Ip(ip))),
            Err(error) => failed(error),
        })
    }),
    ("isIP", &["is_ip: (string) -> bool"], Costing::Parse, |_, args| {
        text(args, |text| Ok(Value::Bool(parse_ip(text).is_ok())))
    }),
    ("ip.isCanonical", &["ip_is_canonical: (string) -> bool"], Costing::ParseTwice, |_, args| {
        text(args, |text| match parse_ip(text) {
            Ok(ip) => Ok(Value::Bool(ip.to_string() == text)),
            Err(error) => failed(error),
        })
    }),
    ("family", &["ip_family: net.IP.() -> int"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
    }),
    ("isUnspecified", &["ip_is_unspecified: net.IP.() -> bool"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Bool(ip.is_unspecified()))
    }),
    ("isLoopback", &["ip_is_loopback: net.IP.() -> bool"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Bool(ip.is_loopback()))
    }),
    ("isLinkLocalMulticast", &["ip_is_link_local_multicast: net.IP.() -> bool"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Bool(link_local_multicast(ip)))
    }),
    ("isLinkLocalUnicast", &["ip_is_link_local_unicast: net.IP.() -> bool"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Bool(link_local(ip)))
    }),
    ("isGlobalUnicast", &["ip_is_global_unicast: net.IP.() -> bool"], Costing::Unit, |_, args| {
        ip(args, |ip| Value::Bool(global(ip)))
    }),
    ("cidr", &["string_to_cidr: (string) -> net.CIDR"], Costing::Parse, |_, args| {
        text(args, |text| parse_cidr(text).map_or_else(no_cidr, |cidr| Ok(Value::opaque(Opaque::Cidr(cidr)))))
    }),
    ("isCIDR", &["is_cidr: (string) -> bool"], Costing::Parse, |_, args| {
        text(args, |text| Ok(Value::Bool(parse_cidr(text).is_ok())))
    }),
    ("ip", &["cidr_ip: net.CIDR.() -> net.IP"], Costing::Unit, |_, args| {
        cidr(args, |cidr| Value::opaque(Opaque::Ip(cidr.address)))
    }),
    ("masked", &["cidr_masked: net.CIDR.() -> net.CIDR"], Costing::Unit, |_, args| {
        cidr(args, |cidr| {
            Value::opaque(Opaque::Cidr(Cidr { address: masked(cidr.address, cidr.bits), bits: cidr.bits }))
        })
    }),
    ("prefixLength", &["cidr_prefix_length: net.CIDR.() -> int"], Costing::Unit, |_, args| {
        cidr(args, |cidr| Value::Int(cidr.bits.into()))
    }),
    (
        "containsIP",
        &["cidr_contains_ip_ip: net.CIDR.(net.IP) -> bool"],
        Costing::ContainsIp(false),
        |_, args| contains(args),
    ),
    (
        "containsIP",
        &["cidr_contains_ip_string: net.CIDR.(string) -> bool"],
        Costing::ContainsIp(true),
        |_, args| contains(args),
    ),
    (
        "containsCIDR",
        &["cidr_contains_cidr: net.CIDR.(net.CIDR) -> bool"],
        Costing::ContainsCidr(false),
        |_, args| contains_block(args),
    ),
    (
        "containsCIDR",
        &["cidr_contains_cidr_string: net.CIDR.(string) -> bool"],
        Costing::ContainsCidr(true),
        |_, args| contains_block(args),
    ),
];

fn text<'a>(args: &[Value<'a>], make: impl FnOnce(&str) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [Value::String(text)] => make(text),
        _ => failed("no such overload"),
    }
}

fn ip<'a>(args: &[Value<'a>], make: fn(IpAddr) -> Value<'a>) -> Outcome<'a> {
    match args {
        [Value::Opaque(opaque)] if let Opaque::Ip(ip) = opaque.as_ref() => Ok(make(*ip)),
        _ => failed("no such overload"),
    }
}

fn cidr<'a>(args: &[Value<'a>], make: fn(Cidr) -> Value<'a>) -> Outcome<'a> {
    match args {
        [Value::Opaque(opaque)] if let Opaque::Cidr(cidr) = opaque.as_ref() => Ok(make(*cidr)),
        _ => failed("no such overload"),
    }
}

/// An address: no zone, no IPv4 address within an IPv6 one, no leading zeros.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let (address, zone) = addresses::parse(text).map_err(|error| {
        format!("IP Address {} parse error during conversion from string: {error}", quote(text))
    })?;
    if !zone.is_empty() {
        return Err(format!("IP address {} with zone value is not allowed", quote(text)));
    }
    if is_mapped(address) {
        return Err(format!("IPv4-mapped IPv6 address {} is not allowed", quote(text)));
    }
    Ok(address)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let (address, bits) = prefix(text).map_err(|what| {
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix({}): {what}",
            quote(text)
        )
    })?;
    if is_mapped(address) {
        return Err(format!("IPv4-mapped IPv6 address {} is not allowed", quote(text)));
    }
    Ok(Cidr { address, bits })
}

/// An address and how many of its bits count.
fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, bits) = text.rsplit_once('/').ok_or("no '/'")?;
    let (address, zone) = addresses::parse(address)?;
    if !zone.is_empty() {
        return Err("IPv6 zones cannot be present in a prefix".to_owned());
    }
    let plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && !(bits.len() > 1 && bits.starts_with('0'));
    match bits.parse::<u32>() {
        Ok(number) if plain => match u8::try_from(number) {
            Ok(number) if usize::from(number) <= bytes(address) * 8 => Ok((address, number)),
            _ => Err("prefix length out of range".to_owned()),
        },
        _ => Err(format!("bad bits after slash: {}", quote(bits))),
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into())
        }
    }
}

fn holds(block: Cidr, ip: IpAddr) -> bool {
    block.address.is_ipv4() == ip.is_ipv4() && masked(block.address, block.bits) == masked(ip, block.bits)
}

/// The block that is the first argument.
fn block(args: &[Value<'_>]) -> Option<Cidr> {
    match args.first() {
        Some(Value::Opaque(opaque)) if let Opaque::Cidr(cidr) = opaque.as_ref() => Some(*cidr),
        _ => None,
    }
}

/// The error of a text that is no block.
fn no_cidr<T>(why: String) -> Result<T, EvalError> {
    failed(format!("network address parse error during conversion from string: {why}"))
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(block), Some(other)) = (block(args), args.get(1)) else { return failed("no such overload") };
    let ip = match other {
        // What is wrong with the text is not told.
        Value::String(text) => parse_ip(text).or_else(|_| failed("no such overload"))?,
        Value::Opaque(opaque) if let Opaque::Ip(ip) = opaque.as_ref() => *ip,
        _ => return failed("no such overload"),
    };
    Ok(Value::Bool(holds(block, ip)))
}

fn contains_block<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(block), Some(other)) = (block(args), args.get(1)) else { return failed("no such overload") };
    let other = match other {
        Value::String(text) => parse_cidr(text).or_else(no_cidr)?,
        Value::Opaque(opaque) if let Opaque::Cidr(cidr) = opaque.as_ref() => *cidr,
        _ => return failed("no such overload"),
    };
    Ok(Value::Bool(block.bits <= other.bits && holds(block, other.address)))
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn global(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip))
}
