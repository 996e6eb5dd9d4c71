//! What the tables of Services hold, as the kernel has it and as the plan speaks of it.
//!
//! Must not know: bpf(2).

use std::net::IpAddr;

use ipnet::IpNet;
use pagurus_agent_core::addr::{Backend, Family, Frontend, Protocol, ServiceIp};
use pagurus_agent_core::services::NodeAddress;
use pagurus_agent_core::services::plan::{Extent, Flags, Held, ServiceNumber, Value};
use pagurus_ebpf_abi as abi;

// The plan's flags lie in the maps as they are.
const _: () = assert!(
    Flags::AFFINITY.0 == abi::SERVICE_AFFINITY
        && Flags::SOURCE_RANGES.0 == abi::SERVICE_SOURCE_RANGES
        && Flags::OUTSIDE_LOCAL.0 == abi::SERVICE_OUTSIDE_LOCAL
        && Flags::INSIDE_LOCAL.0 == abi::SERVICE_INSIDE_LOCAL
        && Flags::EXTERNAL.0 == abi::SERVICE_EXTERNAL
        && Flags::DSR.0 == abi::SERVICE_DSR
        && Flags::RANDOM.0 == abi::SERVICE_RANDOM
        && Flags::HAS_ENDPOINTS.0 == abi::SERVICE_HAS_ENDPOINTS
        && Flags::HOST_PORT.0 == abi::SERVICE_HOST_PORT
);

/// Words of a backend.
pub(crate) const BACKEND_WORDS: usize = size_of::<abi::Backend>() / size_of::<u32>();

/// An address in its 16 bytes.
pub fn from_ip(ip: &IpAddr) -> abi::Address {
    match ip {
        IpAddr::V4(ip) => abi::Address::from_octets(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => abi::Address::from_octets(ip.octets()),
    }
}

/// An address from its 16 bytes.
pub fn to_ip(address: abi::Address) -> IpAddr {
    IpAddr::from(address.octets()).to_canonical()
}

/// The key of a frontend.
pub fn service_key(frontend: &Frontend) -> abi::ServiceKey {
    let address = match frontend.ip {
        ServiceIp::Own(ip) => from_ip(&ip),
        ServiceIp::Nodes(Family::V4) => abi::Address::ANY_V4,
        ServiceIp::Nodes(Family::V6) => abi::Address::ANY_V6,
    };
    let protocol = frontend.protocol.number();
    abi::ServiceKey { address, port: abi::Port::new(frontend.port), protocol, reserved: 0 }
}

/// The frontend of a key; none if the key is none of ours.
pub fn frontend(key: &abi::ServiceKey) -> Option<Frontend> {
    let protocol = Protocol::from_number(key.protocol).filter(|_| key.reserved == 0)?;
    let ip = match key.address {
        abi::Address::ANY_V4 => ServiceIp::Nodes(Family::V4),
        abi::Address::ANY_V6 => ServiceIp::Nodes(Family::V6),
        address => ServiceIp::Own(to_ip(address)),
    };
    Some(Frontend { ip, port: key.port.number(), protocol })
}

/// What lies in the map for a value.
pub fn service_value(value: &Value) -> abi::ServiceValue {
    let extent = |extent: Extent| abi::Extent { first: extent.first, count: extent.count };
    abi::ServiceValue {
        service: value.service.0,
        flags: value.flags.0,
        affinity_seconds: value.affinity,
        generation: value.generation,
        inside: extent(value.inside),
        outside: extent(value.outside),
        maglev: extent(value.maglev),
    }
}

/// The value that lies in the map.
pub fn value(value: &abi::ServiceValue) -> Value {
    let extent = |extent: abi::Extent| Extent { first: extent.first, count: extent.count };
    Value {
        service: ServiceNumber(value.service),
        flags: Flags(value.flags),
        affinity: value.affinity_seconds,
        generation: value.generation,
        inside: extent(value.inside),
        outside: extent(value.outside),
        maglev: extent(value.maglev),
    }
}

/// The words of a backend as they lie in the array.
pub(crate) fn backend_words(held: &Held) -> [u32; BACKEND_WORDS] {
    let [a, b, c, d] = from_ip(&held.backend.ip).words;
    let [high, low] = held.backend.port.to_be_bytes();
    let end = u32::from_ne_bytes([high, low, held.backend.protocol.number(), 0]);
    let local = if held.local { abi::BACKEND_LOCAL } else { 0 };
    let draining = if held.draining { abi::BACKEND_DRAINING } else { 0 };
    [a, b, c, d, end, local | draining]
}

/// The backend of these words; none if there is none.
pub(crate) fn held(words: [u32; BACKEND_WORDS]) -> Option<Held> {
    let [a, b, c, d, end, flags] = words;
    let [high, low, protocol, _] = end.to_ne_bytes();
    let backend = Backend {
        ip: to_ip(abi::Address { words: [a, b, c, d] }),
        port: u16::from_be_bytes([high, low]),
        protocol: Protocol::from_number(protocol)?,
    };
    let has = |flag| flags & flag != 0;
    Some(Held { backend, local: has(abi::BACKEND_LOCAL), draining: has(abi::BACKEND_DRAINING) })
}

/// A source range as a key of the trie: bits of the prefix, data.
pub(crate) fn range_key(number: ServiceNumber, range: &IpNet) -> (u32, abi::SourceRange) {
    let mapped = if range.addr().is_ipv4() { 96 } else { 0 };
    let bits = 32 + mapped + u32::from(range.prefix_len());
    (bits, abi::SourceRange { service: number.0.to_be(), address: from_ip(&range.network()) })
}

/// The source range of a key; none if it is none of ours.
pub(crate) fn range(bits: u32, data: &abi::SourceRange) -> Option<(ServiceNumber, IpNet)> {
    let ip = to_ip(data.address);
    let mapped = if ip.is_ipv4() { 96 } else { 0 };
    let bits = u8::try_from(bits.checked_sub(32 + mapped)?).ok()?;
    Some((ServiceNumber(u32::from_be(data.service)), IpNet::new(ip, bits).ok()?))
}

/// The flags of a node's address.
pub(crate) fn node_flags(address: NodeAddress) -> u32 {
    let local = if address.local { abi::NODE_ADDRESS_LOCAL } else { 0 };
    let node_ports = if address.node_ports { abi::NODE_ADDRESS_NODE_PORTS } else { 0 };
    local | node_ports
}

/// A node's address from its flags.
pub(crate) fn node_address(flags: u32) -> NodeAddress {
    NodeAddress {
        local: flags & abi::NODE_ADDRESS_LOCAL != 0,
        node_ports: flags & abi::NODE_ADDRESS_NODE_PORTS != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ip: ServiceIp) {
        let one = Frontend { ip, port: 8080, protocol: Protocol::Udp };
        assert_eq!(frontend(&service_key(&one)), Some(one));
    }

    #[test]
    fn frontends_come_back_from_their_keys() {
        for ip in ["10.96.0.1", "fd00::1", "2001:db8::ffff:1"] {
            check(ServiceIp::Own(ip.parse().expect("an address")));
        }
        check(ServiceIp::Nodes(Family::V4));
        check(ServiceIp::Nodes(Family::V6));
    }

    #[test]
    fn backends_come_back_from_their_words() {
        for ip in ["10.0.0.1", "fd01::5"] {
            let backend = Backend { ip: ip.parse().expect("an address"), port: 53, protocol: Protocol::Sctp };
            let one = Held { backend, local: true, draining: false };
            assert_eq!(held(backend_words(&one)), Some(one));
        }
        assert_eq!(held([0; BACKEND_WORDS]), None);
    }

    #[test]
    fn values_come_back() {
        let extent = |first, count| Extent { first, count };
        let one = Value {
            service: ServiceNumber(7),
            flags: Flags::AFFINITY | Flags::DSR,
            affinity: 10_800,
            generation: 3,
            inside: extent(1, 2),
            outside: extent(3, 4),
            maglev: extent(5, 251),
        };
        assert_eq!(value(&service_value(&one)), one);
    }

    #[test]
    fn source_ranges_come_back_from_their_keys() {
        for (text, bits) in [("10.0.0.0/8", 136), ("0.0.0.0/0", 128), ("fd00::/64", 96), ("1.2.3.4/32", 160)]
        {
            let one: IpNet = text.parse().expect("a range");
            let (found, data) = range_key(ServiceNumber(9), &one);
            assert_eq!(found, bits);
            assert_eq!(range(found, &data), Some((ServiceNumber(9), one)));
        }
    }

    #[test]
    fn keys_of_others_are_not_ours() {
        let key =
            service_key(&Frontend { ip: ServiceIp::Nodes(Family::V4), port: 1, protocol: Protocol::Tcp });
        assert_eq!(frontend(&abi::ServiceKey { reserved: 7, ..key }), None);
        assert_eq!(frontend(&abi::ServiceKey { protocol: 1, ..key }), None);
    }
}
