//! The index as bytes, to be answered from after a restart for as long as nobody says what has changed since.
//!
//! Only what answers are made of is in it: of Services with addresses of their own no endpoints. Must not know: files, when it is
//! written.

use hickory_proto::rr::Name;

use super::Kind;
use super::index::{Index, Stored, StoredSlice};
use super::packed::Packed;

/// What every saved index begins with; the last byte is the version of what follows.
const MAGIC: [u8; 8] = *b"pgrdns\0\x01";
/// Numbers that stand before records.
const SERVICE: u8 = 1;
const SLICE: u8 = 2;
/// Kinds of Services.
const CLUSTER_IP: u8 = 1;
const HEADLESS: u8 = 2;
const HEADLESS_ALL: u8 = 3;
const EXTERNAL: u8 = 4;

/// Bytes that are no saved index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// It was written by another version, or is something else.
    #[error("it is no saved index of this version")]
    Version,
    /// Not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the contents make no sense.
    #[error("the record at byte {0} makes no sense")]
    Record(usize),
}

/// An index on its way into bytes, a piece at a time: nobody who changes the index waits for more than one piece.
#[derive(Debug)]
pub struct Saving {
    bytes: Vec<u8>,
    next: usize,
}

impl Default for Saving {
    fn default() -> Self {
        Self { bytes: MAGIC.to_vec(), next: 0 }
    }
}

impl Saving {
    /// Adds the next names, about so many; whether there are more.
    pub fn add(&mut self, index: &Index, count: usize) -> bool {
        let entries = index.entries.get(self.next..).unwrap_or_default();
        for entry in entries.iter().take(count).flatten() {
            let Some(service) = &entry.service else { continue };
            self.bytes.push(SERVICE);
            self.text(entry.key.as_bytes());
            self.kind(&service.kind);
            self.text(service.ports.bytes());
            if matches!(service.kind, Kind::Headless { .. }) {
                for slice in index.slices_of(entry) {
                    self.bytes.push(SLICE);
                    self.text(slice.bytes());
                }
            }
        }
        self.next += count;
        self.next < index.entries.len()
    }

    /// How many bytes it is so far.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// All that was added, with its checksum.
    pub fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.bytes);
        self.bytes.extend(sum.to_be_bytes());
        self.bytes
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes.extend(text);
    }

    fn kind(&mut self, kind: &Kind) {
        match kind {
            Kind::ClusterIp(v4, v6) => {
                self.bytes.push(CLUSTER_IP);
                self.text(&v4.map(|ip| ip.octets().to_vec()).unwrap_or_default());
                self.text(&v6.map(|ip| ip.octets().to_vec()).unwrap_or_default());
            }
            Kind::Headless { not_ready_too: false } => self.bytes.push(HEADLESS),
            Kind::Headless { not_ready_too: true } => self.bytes.push(HEADLESS_ALL),
            Kind::External(name) => {
                self.bytes.push(EXTERNAL);
                self.text(name.as_bytes());
            }
        }
    }
}

/// FNV-1a: tells what was cut off or overwritten; nobody means harm to this file who could not do worse.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What is left to read.
struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length: [u8; 4] = self.take(4)?.try_into().ok()?;
        self.take(usize::try_from(u32::from_be_bytes(length)).ok()?)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn kind(&mut self) -> Option<Kind> {
        /// None for no bytes; nothing at all for a wrong number of them.
        fn address<const N: usize, T: From<[u8; N]>>(bytes: &[u8]) -> Option<Option<T>> {
            if bytes.is_empty() {
                return Some(None);
            }
            <[u8; N]>::try_from(bytes).ok().map(|octets| Some(octets.into()))
        }
        Some(match self.byte()? {
            CLUSTER_IP => Kind::ClusterIp(address(self.bytes()?)?, address(self.bytes()?)?),
            HEADLESS => Kind::Headless { not_ready_too: false },
            HEADLESS_ALL => Kind::Headless { not_ready_too: true },
            EXTERNAL => Kind::External(self.text()?.to_owned()),
            _ => return None,
        })
    }
}

/// The index that was saved, for a domain.
pub fn restore(domain: &Name, bytes: &[u8]) -> Result<Index, Damaged> {
    let (all, sum) = bytes.split_last_chunk::<8>().ok_or(Damaged::Version)?;
    if !all.starts_with(&MAGIC) {
        return Err(Damaged::Version);
    }
    if checksum(all) != u64::from_be_bytes(*sum) {
        return Err(Damaged::Checksum);
    }
    let mut index = Index::new(domain);
    let mut reader = Reader { all, at: MAGIC.len() };
    let mut last = None;
    let mut slices = 0;
    while reader.at < all.len() {
        let at = reader.at;
        record(&mut reader, &mut index, &mut last, &mut slices).ok_or(Damaged::Record(at))?;
    }
    Ok(index)
}

/// Reads one record; `last` is the Service that slices belong to.
fn record(
    reader: &mut Reader<'_>,
    index: &mut Index,
    last: &mut Option<u32>,
    slices: &mut u64,
) -> Option<()> {
    match reader.byte()? {
        SERVICE => {
            let (name, namespace) = reader.text()?.split_once('.')?;
            let stored = Stored { kind: reader.kind()?, ports: Packed::of_bytes(reader.bytes()?) };
            let id = index.entry(name, namespace);
            index.put(id, namespace, Some(stored));
            *last = Some(id);
        }
        SLICE => {
            // Nobody will ever speak of it by its name: any number will do.
            *slices += 1;
            let content = Packed::of_bytes(reader.bytes()?);
            index.put_slice(*slices, StoredSlice { entry: (*last)?, content });
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint, name, port, service, shown, slice};
    use super::*;
    use crate::addr::Protocol;
    use hickory_proto::rr::RecordType;

    fn index() -> Index {
        let mut index = Index::new(&name("cluster.local."));
        let http = || vec![port("http", Protocol::Tcp, 80)];
        let ips = Kind::ClusterIp(Some([10, 96, 0, 1].into()), "fd00::1".parse().ok());
        index.set_service(service("ns", "web", ips, http()));
        index.set_service(service("ns", "db", Kind::Headless { not_ready_too: false }, http()));
        index.set_service(service("ns", "all", Kind::Headless { not_ready_too: true }, Vec::new()));
        index.set_service(service("other", "out", Kind::External("example.com".into()), Vec::new()));
        let one = vec![endpoint("10.0.0.1", true, "a"), endpoint("fd01::2", false, "")];
        for owner in ["db", "all", "web", "nobody"] {
            index.set_slice(&format!("{owner}-1"), &slice("ns", owner, http(), one.clone()));
        }
        index.set_slice("db-2", &slice("ns", "db", http(), vec![endpoint("10.0.0.3", true, "")]));
        index
    }

    fn save(index: &Index, at_once: usize) -> Vec<u8> {
        let mut saving = Saving::default();
        while saving.add(index, at_once) {}
        saving.finish()
    }

    #[test]
    fn a_saved_index_answers_like_the_one_it_came_from() {
        let before = index();
        for at_once in [1, 100] {
            let after = restore(&name("cluster.local."), &save(&before, at_once)).unwrap();
            for text in [
                "web.ns.svc.cluster.local.",
                "db.ns.svc.cluster.local.",
                "a.db.ns.svc.cluster.local.",
                "_http._tcp.db.ns.svc.cluster.local.",
                "_http._tcp.web.ns.svc.cluster.local.",
                "all.ns.svc.cluster.local.",
                "out.other.svc.cluster.local.",
                "nobody.ns.svc.cluster.local.",
                "x.none.svc.cluster.local.",
                "1.0.0.10.in-addr.arpa.",
                "1.0.96.10.in-addr.arpa.",
                "example.com.",
            ] {
                for kind in
                    [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR, RecordType::ANY]
                {
                    let of = |index: &Index| shown(index.answer(&name(text), kind));
                    assert_eq!(of(&before), of(&after), "{text} {kind}");
                }
            }
            let (before, after) = (before.used(), after.used());
            assert_eq!((after.services, after.slices), (before.services, 3), "no slices of web");
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_not_taken() {
        let domain = name("cluster.local.");
        let good = save(&index(), 10);
        let check = |bytes: &[u8], expected: Damaged| {
            assert_eq!(restore(&domain, bytes).map(|index| index.used()), Err(expected));
        };
        check(&[], Damaged::Version);
        check(b"something else altogether", Damaged::Version);
        for cut in [9, good.len() / 2, good.len() - 1] {
            assert!(restore(&domain, &good[..cut]).is_err());
        }
        for place in [10, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            check(&bad, Damaged::Checksum);
        }
        let mut newer = good.clone();
        newer[7] += 1;
        check(&newer, Damaged::Version);
        // A slice before any Service, rightly summed up.
        let mut saving = Saving::default();
        saving.bytes.push(SLICE);
        saving.text(&[0]);
        check(&saving.finish(), Damaged::Record(8));
    }
}
