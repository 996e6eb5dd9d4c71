//! Addresses and ports as they lie in maps: always in network byte order.
//!
//! Must not know: what an address means (pod, service, node); that is `agent-core`'s.

/// An IPv6 address, or an IPv4 address in its v4-mapped form (`::ffff:a.b.c.d`), in network byte order.
///
/// Four words instead of sixteen bytes, because programs read and write the context by words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The words as they lie in memory: `words[0]` holds the first four bytes of the address.
    pub words: [u32; 4],
}

/// Third word of every v4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// `::ffff:0.0.0.0`: stands for any IPv4 address of a node in the key of a NodePort.
    pub const ANY_V4: Self = Self::from_v4_word(0);
    /// `::`: stands for any IPv6 address of a node in the key of a NodePort.
    pub const ANY_V6: Self = Self { words: [0; 4] };

    /// The v4-mapped address of an IPv4 address given as the kernel's word (network byte order in memory).
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    /// The address made of these sixteen bytes.
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// The sixteen bytes of the address.
    pub const fn octets(self) -> [u8; 16] {
        let a = self.words[0].to_ne_bytes();
        let b = self.words[1].to_ne_bytes();
        let c = self.words[2].to_ne_bytes();
        let d = self.words[3].to_ne_bytes();
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// Stands for the clients in one network namespace of this node, by the kernel's cookie of it, where their address is not
    /// known: a value that is no address of any client (the IPv6 discard prefix, 100::/64, RFC 6666).
    #[inline(always)]
    pub const fn of_namespace(cookie: u64) -> Self {
        Self { words: [1u32.to_le(), 0, cookie as u32, (cookie >> 32) as u32] }
    }

    /// Whether this is an IPv4 address in v4-mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The IPv4 address as the kernel's word; meaningful only if [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }
}

/// A port in network byte order, as it lies in the wire header and in `bpf_sock_addr.user_port`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

impl Port {
    /// From the number people write.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// The number people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);
const _: () = assert!(size_of::<Port>() == 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_back() {
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(Address::from_octets(octets).octets(), octets);
        assert!(!Address::from_octets(octets).is_v4());
    }

    #[test]
    fn v4_is_mapped() {
        let address = Address::from_v4_word(u32::from_ne_bytes([10, 96, 0, 1]));
        assert_eq!(address.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1]);
        assert!(address.is_v4());
        assert_eq!(address.v4_word().to_ne_bytes(), [10, 96, 0, 1]);
        assert!(!Address::ANY_V6.is_v4() && Address::ANY_V4.is_v4());
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Port::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(Port::new(30_000).number(), 30_000);
    }
}
