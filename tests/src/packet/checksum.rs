//! The two checksums of IP's protocols, by their definitions and not fast.
//!
//! Must not know: where in a packet they are.

use std::net::IpAddr;

/// The internet checksum (RFC 1071) over all parts, which but for the last have an even length. Over something that holds its own
/// checksum it is zero.
pub fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !(sum as u16)
}

/// The pseudo header of TCP, UDP and ICMPv6.
pub(super) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    let mut bytes = Vec::with_capacity(40);
    for ip in [source, destination] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(length);
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// CRC32c (Castagnoli), as SCTP has it; it goes into the packet with its lowest byte first.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
