//! The table of translated flows: looked through in small slices, cleaned of connections that are over, made larger while
//! packets flow.
//!
//! Owner of `CONNTRACK`. Must not know: when to look, how fast (the caller paces it); when a connection is over (`agent-core`).

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::MapData;
use pagurus_agent_core::conntrack::{self, Timeouts};
use pagurus_ebpf_abi::{self as abi, Address, FlowState, FlowTuple, Port};

use crate::fill::Scale;
use crate::services::MapError;
use crate::sys::{self, Cursor};
use crate::tables::Growing;
use crate::{Config, LoadError, pins};

const NAME: &str = abi::maps::CONNTRACK;
/// `BPF_NOEXIST`.
const NO_REPLACE: u64 = 1;
/// The place of the smaller table while it is being copied.
const OLD: u32 = 1;

/// An entry that there never is.
const NOBODY: FlowTuple = FlowTuple {
    source: Address::ANY_V4,
    destination: Address::ANY_V4,
    source_port: Port::new(0),
    destination_port: Port::new(0),
    protocol: 0,
    reserved: [0; 3],
};
const NOTHING: FlowState = FlowState {
    source: Address::ANY_V4,
    destination: Address::ANY_V4,
    source_port: Port::new(0),
    destination_port: Port::new(0),
    last: 0,
    flags: 0,
    backend: 0,
    service: 0,
    since: 0,
};

/// What looking at a slice found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Entries looked at.
    pub looked: usize,
    /// Entries removed.
    pub removed: usize,
    /// The end of the table was reached: the next slice is its beginning.
    pub is_end: bool,
    /// About how many entries the whole table has, from how many there were from its beginning to here.
    pub estimate: u64,
}

/// The table of flows.
#[derive(Debug)]
pub struct Conntrack {
    table: Growing,
    /// How its entries are counted; none: they cannot be.
    scale: Option<Scale>,
    cursor: Cursor,
    /// Entries from the beginning to the cursor.
    seen: u64,
    /// The smaller table, as long as it is being copied, and where.
    old: Option<(MapData, Cursor)>,
    keys: Vec<FlowTuple>,
    states: Vec<FlowState>,
    over: Vec<FlowTuple>,
}

impl Conntrack {
    /// Takes over the table, and a copying that an earlier agent did not finish.
    pub(crate) fn new(table: Growing) -> Result<Self, MapError> {
        let old = table.at(OLD)?.map(|old| (old, Cursor::default()));
        let (keys, states, over) = (Vec::new(), Vec::new(), Vec::new());
        let scale = Scale::measure(&NOBODY, &NOTHING)
            .map_err(|error| MapError::new("measure the entries of", NAME, error))?;
        Ok(Self { table, scale, cursor: Cursor::default(), seen: 0, old, keys, states, over })
    }

    /// The table of a running agent, to be listed.
    pub fn open(config: &Config) -> Result<Self, LoadError> {
        let path = pins::Pins::new(config).map(NAME);
        let error = |source| LoadError::Map { name: NAME, source: Box::new(source) };
        let map = aya::maps::Map::ArrayOfMaps(MapData::from_pin(path).map_err(error)?);
        let shape = sys::MapShape::hash::<FlowTuple, FlowState>();
        Ok(Self::new(Growing::read(NAME, map, shape)?)?)
    }

    /// How many entries it has room for.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// How many entries it has, if the kernel counts them.
    pub fn entries(&self) -> Result<Option<u64>, MapError> {
        let Some(scale) = &self.scale else { return Ok(None) };
        scale
            .entries(self.table.fd(), self.table.capacity())
            .map_err(|error| MapError::new("count the entries of", NAME, error))
    }

    /// Seconds since the machine was started, as entries have them.
    pub fn now() -> u32 {
        sys::seconds()
    }

    /// Looks at about `count` further entries and removes those whose connections are over.
    pub fn expire(&mut self, count: usize, now: u32, timeouts: &Timeouts) -> Result<Slice, MapError> {
        let read = |error| MapError::new("read", NAME, error);
        let more =
            self.cursor.next(self.table.fd(), count, &mut self.keys, &mut self.states).map_err(read)?;
        let buckets = self.table.capacity().next_power_of_two();
        let to = if self.cursor.is_at_end() { buckets } else { self.cursor.bucket() };
        self.over.clear();
        for (key, state) in self.keys.iter().zip(&self.states) {
            if !conntrack::may_be_over(key.protocol, state, now, timeouts) {
                continue;
            }
            let other_key = state.other(key.protocol);
            let other = sys::look_up(self.table.fd(), &other_key).map_err(read)?;
            if conntrack::is_over(key.protocol, state, other.as_ref(), now, timeouts) {
                self.over.push(*key);
                if other.is_some() {
                    self.over.push(other_key);
                }
            }
        }
        let removed = self.remove()?;
        let looked = self.keys.len();
        self.seen += looked as u64;
        let estimate = self.seen * u64::from(buckets) / u64::from(to).max(1);
        if !more || self.cursor.is_at_end() {
            self.cursor = Cursor::default();
            self.seen = 0;
        }
        Ok(Slice { looked, removed, is_end: self.cursor.bucket() == 0, estimate })
    }

    /// Removes what was found to be over; what has gone already is passed over.
    fn remove(&mut self) -> Result<usize, MapError> {
        let mut removed = 0;
        let mut left = self.over.as_slice();
        while !left.is_empty() {
            match sys::delete_batch(self.table.fd(), left) {
                Ok(()) => {
                    removed += left.len();
                    left = &[];
                }
                Err((done, error)) if error.kind() == io::ErrorKind::NotFound => {
                    removed += done;
                    left = left.get(done + 1..).unwrap_or_default();
                }
                Err((_, error)) => return Err(MapError::new("delete from", NAME, error)),
            }
        }
        Ok(removed)
    }

    /// All entries, at most `limit`.
    pub fn list(&self, limit: usize) -> Result<Vec<(FlowTuple, FlowState)>, MapError> {
        let (mut keys, mut states) = (Vec::new(), Vec::new());
        let (mut cursor, mut all) = (Cursor::default(), Vec::new());
        while all.len() < limit {
            let more = cursor.next(self.table.fd(), 4096.min(limit), &mut keys, &mut states);
            if !more.map_err(|error| MapError::new("read", NAME, error))? {
                break;
            }
            all.extend(keys.iter().copied().zip(states.iter().copied()));
        }
        all.truncate(limit);
        Ok(all)
    }

    /// Puts a larger table in the place of this one, whose entries are used on until they are copied
    /// ([`copy`](Self::copy)).
    pub fn grow(&mut self, capacity: u32) -> Result<(), MapError> {
        while self.is_copying() {
            self.copy(4096)?;
        }
        let larger = self.table.larger(capacity)?;
        let old = self.table.again()?;
        self.table.put_at(OLD, &old)?;
        self.table.install(larger, capacity)?;
        self.cursor = Cursor::default();
        self.seen = 0;
        self.old = Some((old, Cursor::default()));
        Ok(())
    }

    /// Whether the smaller table is still being copied.
    pub fn is_copying(&self) -> bool {
        self.old.is_some()
    }

    /// Copies about `count` further entries of the smaller table; when all are copied it goes.
    pub fn copy(&mut self, count: usize) -> Result<(), MapError> {
        let Some((old, cursor)) = &mut self.old else { return Ok(()) };
        let more = cursor.next(old.fd().as_fd(), count, &mut self.keys, &mut self.states);
        if !more.map_err(|error| MapError::new("read", NAME, error))? {
            self.table.clear_at(OLD)?;
            self.old = None;
            return Ok(());
        }
        // In a batch the kernel can only replace.
        for (key, state) in self.keys.iter().zip(&self.states) {
            match sys::update(self.table.fd(), key, state, NO_REPLACE) {
                // Somebody has written it anew.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(|error| MapError::new("copy", NAME, error))?,
            }
        }
        Ok(())
    }

    /// Writes entries, as programs would.
    #[cfg(any(test, feature = "fake"))]
    pub fn put(&mut self, entries: &[(FlowTuple, FlowState)]) -> Result<(), MapError> {
        let (keys, states): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        sys::update_batch(self.table.fd(), &keys, &states)
            .map_err(|(_, error)| MapError::new("write", NAME, error))
    }
}
