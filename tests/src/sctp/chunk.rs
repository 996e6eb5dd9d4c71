//! SCTP's chunks (RFC 9260, section 3.3), as many as the peers need.
//!
//! Must not know: associations.

use anyhow::{Context as _, Result, ensure};

/// Everything of one chunk that the peers look at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum Chunk {
    Data {
        tsn: u32,
        message: Vec<u8>,
    },
    Init {
        tag: u32,
        window: u32,
        tsn: u32,
    },
    InitAck {
        tag: u32,
        window: u32,
        tsn: u32,
        cookie: Vec<u8>,
    },
    Sack {
        tsn: u32,
    },
    Heartbeat(Vec<u8>),
    HeartbeatAck(Vec<u8>),
    Abort,
    Shutdown {
        tsn: u32,
    },
    ShutdownAck,
    CookieEcho(Vec<u8>),
    CookieAck,
    ShutdownComplete,
    /// Any other: its number.
    Other(u8),
}

/// The parameter "state cookie".
const STATE_COOKIE: u16 = 7;
/// Streams that everybody asks for.
const STREAMS: [u8; 4] = [0, 1, 0, 1];

impl Chunk {
    /// The bytes, padded.
    pub fn build(&self) -> Vec<u8> {
        let long = |number: u32| number.to_be_bytes().to_vec();
        let init = |tag, window, tsn| [long(tag), long(window), STREAMS.to_vec(), long(tsn)].concat();
        let (kind, flags, value) = match self {
            // Not fragmented: first and last at once. Stream 0, number 0, payload protocol 0.
            Self::Data { tsn, message } => (0, 3, [long(*tsn), vec![0; 8], message.clone()].concat()),
            Self::Init { tag, window, tsn } => (1, 0, init(*tag, *window, *tsn)),
            Self::InitAck { tag, window, tsn, cookie } => {
                let mut value = init(*tag, *window, *tsn);
                value.extend(STATE_COOKIE.to_be_bytes());
                value.extend(((cookie.len() + 4) as u16).to_be_bytes());
                value.extend(cookie);
                (2, 0, value)
            }
            Self::Sack { tsn } => (3, 0, [long(*tsn), long(super::WINDOW), vec![0; 4]].concat()),
            Self::Heartbeat(value) => (4, 0, value.clone()),
            Self::HeartbeatAck(value) => (5, 0, value.clone()),
            Self::Abort => (6, 0, Vec::new()),
            Self::Shutdown { tsn } => (7, 0, long(*tsn)),
            Self::ShutdownAck => (8, 0, Vec::new()),
            Self::CookieEcho(cookie) => (10, 0, cookie.clone()),
            Self::CookieAck => (11, 0, Vec::new()),
            Self::ShutdownComplete => (14, 0, Vec::new()),
            Self::Other(kind) => (*kind, 0, Vec::new()),
        };
        let length = value.len() + 4;
        let mut bytes = vec![kind, flags];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend(value);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    /// Reads all chunks of a packet.
    ///
    /// # Errors
    /// One is shorter than it says, or than it must be.
    pub fn parse_all(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let header = bytes.get(..4).context("chunk header")?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            ensure!(length >= 4, "chunk {}: its length is {length}", header[0]);
            let value = bytes.get(4..length).with_context(|| format!("chunk {} is cut off", header[0]))?;
            chunks.push(Self::parse(header[0], value).with_context(|| format!("chunk {}", header[0]))?);
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(chunks)
    }

    fn parse(kind: u8, value: &[u8]) -> Result<Self> {
        let long = |at: usize| -> Result<u32> {
            let bytes = value.get(at..at + 4).context("too short")?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        Ok(match kind {
            0 => Self::Data { tsn: long(0)?, message: value.get(12..).context("too short")?.to_vec() },
            1 => Self::Init { tag: long(0)?, window: long(4)?, tsn: long(12)? },
            2 => Self::InitAck { tag: long(0)?, window: long(4)?, tsn: long(12)?, cookie: cookie(value)? },
            3 => Self::Sack { tsn: long(0)? },
            4 => Self::Heartbeat(value.to_vec()),
            5 => Self::HeartbeatAck(value.to_vec()),
            6 => Self::Abort,
            7 => Self::Shutdown { tsn: long(0)? },
            8 => Self::ShutdownAck,
            10 => Self::CookieEcho(value.to_vec()),
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            kind => Self::Other(kind),
        })
    }
}

/// The state cookie among the parameters of an INIT-ACK.
fn cookie(value: &[u8]) -> Result<Vec<u8>> {
    let mut rest = value.get(16..).unwrap_or_default();
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let found = rest.get(4..length).context("parameter is cut off")?;
        if u16::from_be_bytes([header[0], header[1]]) == STATE_COOKIE {
            return Ok(found.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    anyhow::bail!("no state cookie")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn chunks_come_back() {
        let chunks = [
            Chunk::Data { tsn: 1, message: b"12345".to_vec() },
            Chunk::Init { tag: 1, window: 2, tsn: 3 },
            Chunk::InitAck { tag: 1, window: 2, tsn: 3, cookie: vec![9; 7] },
            Chunk::Sack { tsn: 4 },
            Chunk::Heartbeat(vec![1, 2, 3]),
            Chunk::Abort,
            Chunk::Shutdown { tsn: 5 },
            Chunk::CookieEcho(vec![9; 7]),
            Chunk::Other(200),
        ];
        let bytes: Vec<u8> = chunks.iter().flat_map(Chunk::build).collect();
        assert_eq!(Chunk::parse_all(&bytes).unwrap(), chunks);
        for length in 1..bytes.len() {
            // Never a panic; where it is cut between chunks, it is right.
            let _ = Chunk::parse_all(&bytes[..length]);
        }
        assert_eq!(Chunk::Data { tsn: 1, message: b"x".to_vec() }.build().len(), 20);
    }
}
