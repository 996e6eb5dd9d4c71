//! Header blocks of SPDY/3: name and value pairs, compressed with one zlib stream per direction and a dictionary that the
//! protocol fixes. It must not know frames.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::{Buf as _, BufMut as _, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names (lower case) and values of a block.
pub(crate) type Headers = BTreeMap<String, String>;

/// A block never gets bigger than this when unpacked.
const MAX_BLOCK: usize = 64 * 1024;

/// Why a block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// Not zlib, or with another dictionary.
    #[error("cannot be unpacked: {0}")]
    Inflate(flate2::DecompressError),
    /// The compressor failed.
    #[error("cannot be packed: {0}")]
    Deflate(#[from] flate2::CompressError),
    /// Unpacks to too much.
    #[error("is too big")]
    TooBig,
    /// Ends within a pair.
    #[error("is cut short")]
    Short,
    /// A name or value is not text.
    #[error("is not text")]
    NotText,
}

/// The dictionary: lengths and words, then words alone. Checked against its known checksum in a test.
fn dictionary() -> &'static [u8] {
    static DICTIONARY: OnceLock<Vec<u8>> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        let mut bytes = Vec::with_capacity(1423);
        for word in COUNTED {
            bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(PLAIN.as_bytes());
        bytes
    })
}

#[rustfmt::skip]
const COUNTED: [&str; 65] = [
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding",
    "accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection",
    "content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5",
    "content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
    "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after",
    "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public",
    "set-cookie", "keep-alive", "origin",
];

const PLAIN: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

/// One direction's unpacking; its state runs over all blocks of a connection.
pub(super) struct Decompressor {
    stream: Decompress,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(true) }
    }

    /// Unpacks and reads a block.
    pub(super) fn read(&mut self, packed: &[u8]) -> Result<Headers, HeaderError> {
        let block = self.unpack(packed)?;
        parse(&block)
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut block: Vec<u8> = Vec::with_capacity(1024);
        let start = self.stream.total_in();
        loop {
            let read = usize::try_from(self.stream.total_in() - start).unwrap_or(usize::MAX);
            let rest = packed.get(read..).unwrap_or_default();
            let before = block.len();
            match self.stream.decompress_vec(rest, &mut block, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.stream.set_dictionary(dictionary()).map_err(HeaderError::Inflate)?;
                }
                Err(error) => return Err(HeaderError::Inflate(error)),
                Ok(Status::StreamEnd) => return Ok(block),
                Ok(Status::Ok | Status::BufError) => {
                    let consumed = usize::try_from(self.stream.total_in() - start).unwrap_or(usize::MAX);
                    if block.len() < block.capacity() && (consumed >= packed.len() || block.len() == before) {
                        return Ok(block);
                    }
                    if block.len() >= MAX_BLOCK {
                        return Err(HeaderError::TooBig);
                    }
                    block.reserve(1024);
                }
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, HeaderError> {
    let mut headers = Headers::new();
    let count = number(&mut block)?;
    for _ in 0..count {
        let name = text(&mut block)?;
        let value = text(&mut block)?;
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> Result<u32, HeaderError> {
    if block.len() < 4 { Err(HeaderError::Short) } else { Ok(block.get_u32()) }
}

fn text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = number(block)? as usize;
    if block.len() < length {
        return Err(HeaderError::Short);
    }
    let (text, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HeaderError::NotText)
}

/// One direction's packing.
pub(super) struct Compressor {
    stream: Compress,
    has_dictionary: bool,
}

impl Compressor {
    pub(super) fn new() -> Self {
        // Blocks are tiny and few: the smallest window saves memory on each connection.
        Self { stream: Compress::new_with_window_bits(Compression::fast(), true, 11), has_dictionary: false }
    }

    /// Packs a block and appends it.
    pub(super) fn write(&mut self, headers: &Headers, out: &mut BytesMut) -> Result<(), HeaderError> {
        if !self.has_dictionary {
            self.stream.set_dictionary(dictionary())?;
            self.has_dictionary = true;
        }
        let mut block = BytesMut::new();
        put_number(&mut block, headers.len())?;
        for (name, value) in headers {
            for text in [name, value] {
                put_number(&mut block, text.len())?;
                block.put_slice(text.as_bytes());
            }
        }
        let mut packed = Vec::with_capacity(block.len() + 64);
        let start = self.stream.total_in();
        loop {
            let read = usize::try_from(self.stream.total_in() - start).unwrap_or(usize::MAX);
            self.stream.compress_vec(&block[read.min(block.len())..], &mut packed, FlushCompress::Sync)?;
            // A flush is complete when it did not fill the buffer.
            if packed.len() < packed.capacity() {
                break;
            }
            packed.reserve(256);
        }
        out.put_slice(&packed);
        Ok(())
    }
}

fn put_number(block: &mut BytesMut, number: usize) -> Result<(), HeaderError> {
    block.put_u32(u32::try_from(number).map_err(|_| HeaderError::TooBig)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1950's checksum, written plainly.
    fn adler32(bytes: &[u8]) -> u32 {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in bytes {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(adler32(dictionary()), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_survive() {
        let (mut packer, mut unpacker) = (Compressor::new(), Decompressor::new());
        for n in 0..300_usize {
            let mut headers = Headers::new();
            headers.insert("streamtype".to_owned(), "data".to_owned());
            headers.insert("requestid".to_owned(), n.to_string());
            headers.insert("long".to_owned(), "x".repeat(n * 40));
            let mut packed = BytesMut::new();
            packer.write(&headers, &mut packed).expect("packs");
            if n == 0 {
                assert_eq!(
                    packed[2..6],
                    [0xe3, 0xc6, 0xa7, 0xc2],
                    "the dictionary's checksum stands in the stream"
                );
            }
            assert_eq!(unpacker.read(&packed).expect("unpacks"), headers, "block {n}");
        }
    }

    #[test]
    fn random_text_survives() {
        let (mut packer, mut unpacker) = (Compressor::new(), Decompressor::new());
        let mut state = 1_u64;
        for _ in 0..50 {
            let mut value = String::new();
            for _ in 0..2000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                value.push(char::from(33 + u8::try_from(state >> 57).expect("seven bits") % 90));
            }
            let headers = Headers::from([("v".to_owned(), value)]);
            let mut packed = BytesMut::new();
            packer.write(&headers, &mut packed).expect("packs");
            assert_eq!(unpacker.read(&packed).expect("unpacks"), headers);
        }
    }

    #[test]
    fn blocks_that_lie() {
        let check = |block: &[u8], expected: &str| {
            assert_eq!(parse(block).expect_err("bad").to_string(), expected);
        };
        check(&[0, 0], "is cut short");
        check(&[0, 0, 0, 1], "is cut short");
        check(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1], "is cut short");
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0], "is not text");
        assert!(parse(&[0, 0, 0, 0]).expect("empty").is_empty());
    }
}
