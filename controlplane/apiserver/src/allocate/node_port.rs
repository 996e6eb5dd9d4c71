//! The ports that Services open on every node, counted per protocol. It must not know Services.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use rand::Rng;

/// Why a port could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another Service has it.
    #[error("provided port is already allocated")]
    Taken,
    /// It is outside of the range.
    #[error("provided port is not in the valid range. The range of valid ports is {}-{}", range.start(), range.end())]
    Outside {
        /// The range.
        range: RangeInclusive<u16>,
    },
    /// Nothing is free.
    #[error("range is full")]
    Full,
}

/// The transport protocols that ports are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of that name; an absent one is TCP.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// The range and what is taken of it.
#[derive(Debug)]
pub struct NodePorts {
    range: RangeInclusive<u16>,
    taken: Mutex<HashSet<(Protocol, u16)>>,
}

impl NodePorts {
    /// An allocator of that range.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, taken: Mutex::default() }
    }

    /// Takes that very port.
    pub fn take(&self, protocol: Protocol, port: u16) -> Result<(), PortError> {
        if !self.range.contains(&port) {
            return Err(PortError::Outside { range: self.range.clone() });
        }
        if self.taken.lock().insert((protocol, port)) { Ok(()) } else { Err(PortError::Taken) }
    }

    /// Takes a port that is free for each of the protocols.
    pub fn any(&self, protocols: &[Protocol]) -> Result<u16, PortError> {
        let mut taken = self.taken.lock();
        let free = |port: &u16| protocols.iter().all(|p| !taken.contains(&(*p, *port)));
        let mut rng = rand::rng();
        // The first 86 ports of the usual range are left for Services that name their port.
        let count = self.range.len() as u16;
        let lower = if count < 32 { 0 } else { (count / 32).clamp(16, 128) };
        let upper = self.range.start() + lower..=*self.range.end();
        let random = (0..16).map(|_| rng.random_range(upper.clone())).find(free);
        let port = random.or_else(|| upper.clone().find(free)).or_else(|| self.range.clone().find(free));
        let port = port.ok_or(PortError::Full)?;
        taken.extend(protocols.iter().map(|p| (*p, port)));
        Ok(port)
    }

    /// Gives a port back.
    pub fn free(&self, protocol: Protocol, port: u16) {
        self.taken.lock().remove(&(protocol, port));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ports_are_counted_per_protocol() {
        let ports = NodePorts::new(30000..=30003);
        assert_eq!(ports.take(Protocol::Tcp, 30001), Ok(()));
        assert_eq!(ports.take(Protocol::Tcp, 30001), Err(PortError::Taken));
        assert_eq!(ports.take(Protocol::Udp, 30001), Ok(()));
        assert_eq!(ports.take(Protocol::Tcp, 80), Err(PortError::Outside { range: 30000..=30003 }));
        let got: HashSet<_> = (0..3).map(|_| ports.any(&[Protocol::Tcp, Protocol::Udp]).unwrap()).collect();
        assert_eq!(got, HashSet::from([30000, 30002, 30003]));
        assert_eq!(ports.any(&[Protocol::Tcp]), Err(PortError::Full));
        assert!(ports.any(&[Protocol::Sctp]).is_ok());
        ports.free(Protocol::Tcp, 30001);
        assert_eq!(ports.any(&[Protocol::Tcp]), Ok(30001));
    }
}
