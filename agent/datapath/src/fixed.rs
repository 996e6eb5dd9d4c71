//! How full the maps are that do not grow: those that user space fills, and those that let the least recently used entry go.
//!
//! Must not know: what the entries mean, who asks.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::maps::Map;
use aya::{Ebpf, Pod};
use pagurus_ebpf_abi::{self as abi, maps};

use crate::LoadError;
use crate::fill;
use crate::load::map_error;
use crate::services::MapError;
use crate::sys::{self, Cursor};

/// Entries read by one call.
const BATCH: usize = 1024;

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries there are; while programs write, about.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u32,
}

/// How the entries of a map are counted.
type Count = fn(BorrowedFd<'_>) -> io::Result<u64>;

/// The maps: their names here, in the object, and how they are counted.
const FIXED: [(&str, &str, Count); 8] = [
    ("source_ranges", maps::SOURCE_RANGES, trie),
    ("nodes", maps::NODES, hash::<abi::Address, u32>),
    ("endpoints", maps::ENDPOINTS, hash::<abi::Address, abi::Endpoint>),
    ("announced", maps::ANNOUNCED, hash::<abi::AnnouncedKey, abi::Announced>),
    ("reverse", maps::REVERSE, hash::<abi::ReverseKey, abi::ReverseValue>),
    ("flows", maps::FLOWS, hash::<abi::FlowKey, abi::FlowValue>),
    ("clients", maps::CLIENTS, hash::<abi::ClientKey, abi::ClientValue>),
    ("fragments", maps::FRAGMENTS, hash::<abi::FragmentKey, abi::FragmentValue>),
];

/// A map that does not grow.
#[derive(Debug)]
struct Fixed {
    name: &'static str,
    map: OwnedFd,
    capacity: u32,
    count: Count,
}

/// All maps that do not grow.
#[derive(Debug)]
pub(crate) struct FixedMaps(Vec<Fixed>);

impl FixedMaps {
    /// Takes descriptors of its own of the maps of an object.
    pub(crate) fn open(ebpf: &Ebpf) -> Result<Self, LoadError> {
        let open = |(name, in_object, count): (&'static str, &'static str, Count)| {
            let data = match ebpf.map(in_object) {
                Some(Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data)) => data,
                _ => return Err(LoadError::Lacks(in_object)),
            };
            let capacity = data.info().map_err(|source| map_error(in_object, source))?.max_entries();
            let map = data.fd().as_fd().try_clone_to_owned();
            let map = map.map_err(|error| LoadError::Table(MapError::new("open", in_object, error)))?;
            Ok(Fixed { name, map, capacity, count })
        };
        FIXED.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// How full each is, by name.
    pub(crate) fn fills(&self) -> Vec<(&'static str, Result<Fill, MapError>)> {
        let fill = |fixed: &Fixed| {
            let Fixed { name, map, capacity, count } = fixed;
            let entries =
                count(map.as_fd()).map_err(|error| MapError::new("count the entries of", name, error));
            (*name, entries.map(|entries| Fill { entries, capacity: *capacity }))
        };
        self.0.iter().map(fill).collect()
    }
}

/// By reading: the kernel keeps no count of entries that have their memory from the beginning, and tells of the others only about.
fn hash<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<u64> {
    let (mut cursor, mut keys, mut values) = (Cursor::default(), Vec::<K>::new(), Vec::<V>::new());
    let mut entries = 0;
    while cursor.next(map, BATCH, &mut keys, &mut values)? {
        entries += keys.len() as u64;
    }
    Ok(entries)
}

/// By what the kernel says it takes: for a trie that is the size of an entry for each.
fn trie(map: BorrowedFd<'_>) -> io::Result<u64> {
    let other = || {
        io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell the memory of tries by entries")
    };
    let shape = sys::MapShape::trie(size_of::<abi::SourceRange>(), size_of::<u32>());
    let one = sys::create_map(&shape, 1, "pgr_scale")?;
    let empty = fill::bytes(one.as_fd())?.ok_or_else(other)?;
    // The length of a prefix, and what it is of.
    let key = [0u8; size_of::<u32>() + size_of::<abi::SourceRange>()];
    sys::update(one.as_fd(), &key, &0u32, 0)?;
    let each = fill::bytes(one.as_fd())?.and_then(|bytes| bytes.checked_sub(empty)).filter(|each| *each > 0);
    let bytes = fill::bytes(map)?.ok_or_else(other)?;
    Ok(bytes.saturating_sub(empty) / each.ok_or_else(other)?)
}
