//! What is written into the files: headers, frames with a check sum, and the records in them. Bytes only, no files.
//!
//! A frame is what is synced at once, so a crash can only leave the last frame of the last log unfinished.

use bytes::Bytes;

use crate::Revision;

/// The version of everything below; files of another version are refused.
pub(super) const FORMAT: u32 = 1;
/// Length of the header of a log or snapshot file.
pub(super) const HEADER: usize = 36;
/// Length of what comes before a frame's payload.
pub(super) const FRAME_HEAD: usize = 12;
/// Length of what comes before the key of a write.
pub(super) const WRITE_HEAD: usize = 32;
/// The bit of a written version that says that a note follows the value.
const NOTED: u64 = 1 << 63;
/// No frame is longer than this; a length beyond it is damage.
pub(super) const MAX_FRAME: usize = 1 << 30;

const FRAME_MAGIC: [u8; 4] = *b"PGRf";

/// The two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Snapshot,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"PAGURUSL",
            Self::Snapshot => *b"PAGURUSS",
        }
    }
}

/// The start of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: FileKind,
    /// The store the file belongs to.
    pub(super) store: u64,
    /// A log's first revision, a snapshot's only one.
    pub(super) revision: Revision,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&self.kind.magic());
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..24].copy_from_slice(&self.store.to_le_bytes());
        out[24..32].copy_from_slice(&self.revision.to_le_bytes());
        let sum = crc32fast::hash(&out[..32]);
        out[32..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a header, or says what is wrong with it.
    pub(super) fn decode(kind: FileKind, bytes: &[u8; HEADER]) -> Result<Self, String> {
        if bytes[..8] != kind.magic() {
            return Err("this is not a file of a pagurus store".to_owned());
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(format!("written by another version (format {format}, this one reads {FORMAT})"));
        }
        if crc32fast::hash(&bytes[..32]) != u32_at(bytes, 32) {
            return Err("the header is damaged (check sum)".to_owned());
        }
        Ok(Self { kind, store: u64_at(bytes, 16), revision: u64_at(bytes, 24) })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

/// One key as a transaction left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) key: String,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    /// 0 for a deletion.
    pub(super) version: u64,
    /// Where the value begins in the frame, and how long it is.
    pub(super) value: (usize, usize),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A transaction, with its writes.
    Txn(Revision, Vec<Written>),
    /// History up to the revision was forgotten.
    Compacted(Revision),
    /// One key of a snapshot.
    Key(Written),
    /// The end of a snapshot, with the number of its keys.
    End(u64),
}

const TXN: u8 = 1;
const COMPACTED: u8 = 2;
const KEY: u8 = 3;
const END: u8 = 4;

/// Builds one frame.
#[derive(Default)]
pub(super) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// Length of the frame so far, head included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().max(FRAME_HEAD)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME_HEAD
    }

    /// Begins a transaction of so many writes, which must follow.
    pub(super) fn txn(&mut self, revision: Revision, writes: usize) {
        self.tag(TXN);
        self.u64(revision);
        self.u64(writes as u64);
    }

    pub(super) fn compacted(&mut self, revision: Revision) {
        self.tag(COMPACTED);
        self.u64(revision);
    }

    pub(super) fn end(&mut self, keys: u64) {
        self.tag(END);
        self.u64(keys);
    }

    /// Begins a key of a snapshot, which must follow as a write.
    pub(super) fn key(&mut self) {
        self.tag(KEY);
    }

    /// One write, with a note if that is not empty; returns where its value begins in the frame.
    pub(super) fn write(
        &mut self,
        key: &str,
        create_revision: Revision,
        mod_revision: Revision,
        version: u64,
        value: &[u8],
        note: &[u8],
    ) -> usize {
        self.u64(create_revision);
        self.u64(mod_revision);
        self.u64(if note.is_empty() { version } else { version | NOTED });
        self.u32(key.len() as u32);
        self.u32(value.len() as u32);
        self.bytes.extend_from_slice(key.as_bytes());
        let at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        if !note.is_empty() {
            self.u32(note.len() as u32);
            self.bytes.extend_from_slice(note);
        }
        at
    }

    /// The finished frame.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.head();
        let payload = self.bytes.len() - FRAME_HEAD;
        self.bytes[..4].copy_from_slice(&FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
        let sum = sum(&self.bytes);
        self.bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }

    fn head(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.resize(FRAME_HEAD, 0);
        }
    }

    fn tag(&mut self, tag: u8) {
        self.head();
        self.bytes.push(tag);
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
}

/// The check sum of a frame: over everything but itself.
fn sum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..8]);
    hasher.update(&frame[FRAME_HEAD..]);
    hasher.finalize()
}

/// The length of the frame that begins with these bytes, if they can be the head of one.
pub(super) fn frame_length(head: &[u8]) -> Option<usize> {
    if head.len() < FRAME_HEAD || head[..4] != FRAME_MAGIC {
        return None;
    }
    let length = u32_at(head, 4) as usize;
    (length <= MAX_FRAME).then_some(FRAME_HEAD + length)
}

/// Whether the bytes are one whole frame.
pub(super) fn is_frame(frame: &[u8]) -> bool {
    frame_length(frame) == Some(frame.len()) && sum(frame) == u32_at(frame, 8)
}

/// Where a whole frame begins in the bytes, if there is one; finds what lies behind a damaged place.
pub(super) fn find_frame(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len().saturating_sub(FRAME_HEAD)).find(|at| {
        let rest = &bytes[*at..];
        frame_length(rest).is_some_and(|length| length <= rest.len() && is_frame(&rest[..length]))
    })
}

/// Whether a note follows the value of the write that begins with this head.
pub(super) fn is_noted(head: &[u8; WRITE_HEAD]) -> bool {
    u64_at(head, 16) & NOTED != 0
}

/// The records of a whole frame; `None` if they do not fit together.
pub(super) fn records(frame: &[u8]) -> Option<Vec<Record>> {
    let mut reader = Reader { frame, at: FRAME_HEAD };
    let mut out = Vec::new();
    while reader.at < frame.len() {
        out.push(reader.record()?);
    }
    Some(out)
}

struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let out = self.frame.get(self.at..end)?;
        self.at = end;
        Some(out)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32_at(b, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64_at(b, 0))
    }

    fn record(&mut self) -> Option<Record> {
        match self.take(1)?[0] {
            TXN => {
                let (revision, writes) = (self.u64()?, self.u64()?);
                let writes = (0..writes).map(|_| self.written()).collect::<Option<_>>()?;
                Some(Record::Txn(revision, writes))
            }
            COMPACTED => Some(Record::Compacted(self.u64()?)),
            KEY => Some(Record::Key(self.written()?)),
            END => Some(Record::End(self.u64()?)),
            _ => None,
        }
    }

    fn written(&mut self) -> Option<Written> {
        let (create_revision, mod_revision, version) = (self.u64()?, self.u64()?, self.u64()?);
        let (key, value) = (self.u32()? as usize, self.u32()? as usize);
        let key = String::from_utf8(self.take(key)?.to_vec()).ok()?;
        let at = self.at;
        self.take(value)?;
        if version & NOTED != 0 {
            let note = self.u32()? as usize;
            self.take(note)?;
        }
        let version = version & !NOTED;
        Some(Written { key, create_revision, mod_revision, version, value: (at, value) })
    }
}

/// A value that may be read from a file later or is at hand.
#[derive(Clone, Debug)]
pub(super) struct NewValue {
    pub(super) key: std::sync::Arc<str>,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    /// 0 for a deletion.
    pub(super) version: u64,
    pub(super) value: Bytes,
    /// Where the value begins in its frame.
    pub(super) at: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn frames_round_trip() {
        let mut frame = FrameBuilder::default();
        assert!(frame.is_empty());
        frame.txn(7, 2);
        let at = frame.write("/a", 3, 7, 2, b"value", b"");
        let noted = frame.write("/b", 0, 7, 0, b"", b"gone");
        frame.compacted(5);
        let frame = frame.finish();
        assert!(is_frame(&frame));
        assert_eq!(&frame[at..at + 5], b"value");
        let head = |at: usize| frame[at - 2 - WRITE_HEAD..at - 2].try_into().unwrap();
        assert_eq!((is_noted(&head(at)), is_noted(&head(noted))), (false, true));
        assert_eq!(&frame[noted + 4..noted + 8], b"gone");
        let got = records(&frame).unwrap();
        let Record::Txn(7, writes) = &got[0] else { panic!("{got:?}") };
        assert_eq!((writes[0].key.as_str(), writes[0].value, writes[1].version), ("/a", (at, 5), 0));
        assert_eq!(got[1], Record::Compacted(5));
        for bit in 0..frame.len() * 8 {
            let mut broken = frame.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_frame(&broken), "bit {bit}");
        }
        let mut inside = vec![0; 9];
        inside.extend_from_slice(&frame);
        assert_eq!(find_frame(&inside), Some(9));
        assert_eq!(find_frame(&inside[..inside.len() - 1]), None);
    }

    #[test]
    fn headers() {
        let header = Header { kind: FileKind::Log, store: 9, revision: 2 };
        let bytes = header.encode();
        assert_eq!(Header::decode(FileKind::Log, &bytes), Ok(header));
        assert!(Header::decode(FileKind::Snapshot, &bytes).is_err());
        let mut other = bytes;
        other[8] = 2;
        assert!(Header::decode(FileKind::Log, &other).unwrap_err().contains("another version (format 2"));
        let mut broken = bytes;
        broken[25] ^= 1;
        assert!(Header::decode(FileKind::Log, &broken).unwrap_err().contains("damaged"));
    }
}
