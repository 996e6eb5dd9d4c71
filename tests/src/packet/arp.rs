//! ARP, which is no IP packet.
//!
//! Must not know: who asks.

use super::SENDER;
use anyhow::{Context as _, Result, ensure};
use std::net::Ipv4Addr;

/// A frame with an ARP request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Ethernet source.
    pub source: [u8; 6],
    /// Ethernet destination.
    pub destination: [u8; 6],
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Hardware address of the sender.
    pub sender_mac: [u8; 6],
    /// Its address.
    pub sender: Ipv4Addr,
    /// Hardware address of the target; zeros in a request.
    pub target_mac: [u8; 6],
    /// Its address.
    pub target: Ipv4Addr,
}

/// What precedes the operation: Ethernet and IPv4, lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

impl Arp {
    /// "Who has `target`? Tell `sender`", to everybody.
    pub fn request(sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            source: SENDER,
            destination: [0xff; 6],
            operation: 1,
            sender_mac: SENDER,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    /// The answer to this: the target is at `mac`.
    #[must_use]
    pub fn reply(&self, mac: [u8; 6]) -> Self {
        Self {
            source: mac,
            destination: self.source,
            operation: 2,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = [&self.destination[..], &self.source, &[0x08, 0x06], &KIND].concat();
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender.octets());
        bytes.extend(self.target_mac);
        bytes.extend(self.target.octets());
        bytes
    }

    /// Reads a frame; what follows the message fills it up.
    ///
    /// # Errors
    /// It is no ARP for Ethernet and IPv4.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let frame = bytes.get(..42).with_context(|| format!("ARP: {} bytes", bytes.len()))?;
        ensure!(frame[12..14] == [0x08, 0x06], "Ethernet header: type {:02x?} is not ARP", &frame[12..14]);
        ensure!(frame[14..20] == KIND, "ARP: not Ethernet and IPv4: {:02x?}", &frame[14..20]);
        let mac = |at: usize| std::array::from_fn(|place| frame[at + place]);
        let ip = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
        Ok(Self {
            source: mac(6),
            destination: mac(0),
            operation: u16::from_be_bytes([frame[20], frame[21]]),
            sender_mac: mac(22),
            sender: ip(28),
            target_mac: mac(32),
            target: ip(38),
        })
    }
}
