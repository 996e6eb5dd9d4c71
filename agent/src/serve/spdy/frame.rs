//! Frames of SPDY/3.1 and their bytes. Pure: bytes in, frames out. It must not know streams' states.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_util::codec;

use super::headers::{Compressor, Decompressor, Headers};

/// The longest control frame we read; header blocks here are a few dozen bytes.
const MAX_CONTROL: usize = 64 * 1024;
/// The longest data frame we read.
const MAX_DATA: usize = 4 * 1024 * 1024;
const HEAD: usize = 8;
const FIN: u8 = 0x01;
const ID: u32 = 0x7fff_ffff;

/// A frame, with what matters here of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// The answer to it.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// The end of a stream by error.
    Rst { id: u32, status: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// No new streams any more.
    GoAway { last: u32, status: u32 },
    /// More headers.
    Headers { id: u32, fin: bool },
    /// Data.
    Data { id: u32, fin: bool, payload: Bytes },
    /// A kind that has no meaning here (settings, windows: the other implementation does not do flow control).
    Other { kind: u16 },
}

/// Why bytes are not frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another protocol, or another version of it.
    #[error("control frame of SPDY version {0}, not 3")]
    Version(u16),
    /// Longer than we read.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// Ends within a field.
    #[error("control frame of type {kind} is cut short")]
    Short { kind: u16 },
    /// The header block cannot be read.
    #[error("header block: {0}")]
    Headers(#[from] super::headers::HeaderError),
}

/// Bytes to frames.
pub(super) struct Decoder {
    inflate: Decompressor,
}

/// Frames to bytes.
pub(super) struct Encoder {
    deflate: Compressor,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { inflate: Decompressor::new() }
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: Bytes) -> Result<Frame, FrameError> {
        let fin = flags & FIN != 0;
        let word = |payload: &mut Bytes| {
            if payload.remaining() < 4 { Err(FrameError::Short { kind }) } else { Ok(payload.get_u32()) }
        };
        Ok(match kind {
            1 => {
                let id = word(&mut payload)? & ID;
                let _associated = word(&mut payload)?;
                if payload.remaining() < 2 {
                    return Err(FrameError::Short { kind });
                }
                payload.advance(2);
                Frame::SynStream { id, fin, headers: self.inflate.read(&payload)? }
            }
            2 => {
                let id = word(&mut payload)? & ID;
                Frame::SynReply { id, fin, headers: self.inflate.read(&payload)? }
            }
            3 => Frame::Rst { id: word(&mut payload)? & ID, status: word(&mut payload)? },
            6 => Frame::Ping { id: word(&mut payload)? },
            7 => Frame::GoAway { last: word(&mut payload)? & ID, status: word(&mut payload)? },
            8 => {
                let id = word(&mut payload)? & ID;
                // Read all the same: the compression's state runs on over all blocks.
                self.inflate.read(&payload)?;
                Frame::Headers { id, fin }
            }
            kind => Frame::Other { kind },
        })
    }
}

impl codec::Decoder for Decoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = source.first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, flags, e, f, g] = *head;
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        let is_control = a & 0x80 != 0;
        if length > if is_control { MAX_CONTROL } else { MAX_DATA } {
            return Err(FrameError::TooLong(length));
        }
        if source.len() < HEAD + length {
            source.reserve(HEAD + length - source.len());
            return Ok(None);
        }
        source.advance(HEAD);
        let payload = source.split_to(length).freeze();
        if !is_control {
            let id = u32::from_be_bytes([a, b, c, d]);
            return Ok(Some(Frame::Data { id, fin: flags & FIN != 0, payload }));
        }
        match u16::from_be_bytes([a & 0x7f, b]) {
            3 => self.control(u16::from_be_bytes([c, d]), flags, payload).map(Some),
            version => Err(FrameError::Version(version)),
        }
    }
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { deflate: Compressor::new() }
    }
}

impl codec::Encoder<Frame> for Encoder {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        let mut payload = BytesMut::new();
        let flag = |fin: bool| if fin { FIN } else { 0 };
        let (kind, flags) = match frame {
            Frame::Data { id, fin, payload } => {
                out.reserve(HEAD + payload.len());
                out.put_u32(id);
                out.put_u32(u32::from(flag(fin)) << 24 | length(payload.len())?);
                out.put(payload);
                return Ok(());
            }
            Frame::SynStream { id, fin, headers } => {
                payload.put_u32(id);
                payload.put_u32(0);
                payload.put_u16(0);
                self.deflate.write(&headers, &mut payload)?;
                (1, flag(fin))
            }
            Frame::SynReply { id, fin, headers } => {
                payload.put_u32(id);
                self.deflate.write(&headers, &mut payload)?;
                (2, flag(fin))
            }
            Frame::Headers { id, fin } => {
                payload.put_u32(id);
                self.deflate.write(&Headers::default(), &mut payload)?;
                (8, flag(fin))
            }
            Frame::Rst { id, status } => {
                payload.put_u32(id);
                payload.put_u32(status);
                (3, 0)
            }
            Frame::Ping { id } => {
                payload.put_u32(id);
                (6, 0)
            }
            Frame::GoAway { last, status } => {
                payload.put_u32(last);
                payload.put_u32(status);
                (7, 0)
            }
            Frame::Other { .. } => return Ok(()),
        };
        out.put_u16(0x8003);
        out.put_u16(kind);
        out.put_u32(u32::from(flags) << 24 | length(payload.len())?);
        out.put(payload);
        Ok(())
    }
}

fn length(bytes: usize) -> Result<u32, FrameError> {
    u32::try_from(bytes).ok().filter(|length| *length < 1 << 24).ok_or(FrameError::TooLong(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::{Decoder as _, Encoder as _};

    fn headers(entries: &[(&str, &str)]) -> Headers {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn frames_survive_the_wire_in_any_cut() {
        let frames = [
            Frame::SynStream {
                id: 1,
                fin: false,
                headers: headers(&[("streamtype", "error"), ("port", "80")]),
            },
            Frame::SynReply { id: 1, fin: false, headers: Headers::default() },
            Frame::SynStream {
                id: 3,
                fin: true,
                headers: headers(&[("streamtype", "data"), ("port", "80")]),
            },
            Frame::Data { id: 3, fin: false, payload: Bytes::from_static(b"hello") },
            Frame::Data { id: 3, fin: true, payload: Bytes::new() },
            Frame::Ping { id: 7 },
            Frame::Headers { id: 3, fin: false },
            Frame::Rst { id: 1, status: 5 },
            Frame::GoAway { last: 3, status: 0 },
        ];
        let mut wire = BytesMut::new();
        let mut encoder = Encoder::new();
        for frame in &frames {
            encoder.encode(frame.clone(), &mut wire).expect("encodes");
        }
        for step in [1, 7, wire.len()] {
            let mut decoder = Decoder::new();
            let (mut arrived, mut decoded) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(step) {
                arrived.extend_from_slice(chunk);
                while let Some(frame) = decoder.decode(&mut arrived).expect("decodes") {
                    decoded.push(frame);
                }
            }
            assert_eq!(decoded, frames, "in steps of {step}");
        }
    }

    #[test]
    fn what_is_no_frame() {
        let check = |bytes: &[u8], expected: &str| {
            let error = Decoder::new().decode(&mut BytesMut::from(bytes)).expect_err("no frame");
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(&[0x80, 2, 0, 1, 0, 0, 0, 0], "version 2");
        check(&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "cut short");
        check(&[0x80, 3, 0, 1, 0, 0xff, 0, 0], "too long");
        check(&[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4], "header block");
        // Settings and windows are read over.
        let mut decoder = Decoder::new();
        let mut bytes = BytesMut::from(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 9][..]);
        assert_eq!(decoder.decode(&mut bytes).expect("decodes"), Some(Frame::Other { kind: 9 }));
    }
}
