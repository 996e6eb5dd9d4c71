//! Names of Services by their number in the maps, pinned beside them: for those who read the maps without an agent.
//!
//! The programs do not know this map. Must not know: who reads it.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Pod;

use crate::Config;
use crate::pins::{self, Pins};
use crate::services::MapError;
use crate::sys::{self, Cursor, MapShape};
use pagurus_agent_core::hash::HashMap;

/// The map, and its pin.
pub(crate) const NAMES: &str = "NAMES";
/// The kernel takes 16 bytes for each at once, whether there is a name or not. Services beyond have none.
const CAPACITY: u32 = 1 << 17;
const BATCH: usize = 1024;

/// A namespace, a slash and a name: 127 letters at most.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text([u8; 128]);

// SAFETY: bytes without padding: every bit pattern is a value.
unsafe impl Pod for Text {}

impl Text {
    fn new(name: &str) -> Self {
        let mut text = [0; 128];
        for (place, letter) in text.iter_mut().zip(name.bytes()) {
            *place = letter;
        }
        Self(text)
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end_matches('\0'))
    }
}

/// The names, to be written.
#[derive(Debug)]
pub struct Names {
    map: OwnedFd,
    /// What is written, as a number that tells names apart.
    written: HashMap<u32, u64>,
    hasher: RandomState,
}

impl Names {
    /// Takes over the map that is pinned, or makes one.
    pub fn open(config: &Config) -> Result<Self, MapError> {
        let path = Pins::new(config).map(NAMES);
        let error = |operation: &'static str| move |error: io::Error| MapError::new(operation, NAMES, error);
        let map = match sys::open_pin(&path) {
            Ok(map) => map,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                let map = sys::create_map(&MapShape::hash::<u32, Text>(), CAPACITY, NAMES)
                    .map_err(error("make"))?;
                let next = pins::next(&path);
                sys::pin(map.as_fd(), &next).map_err(error("pin"))?;
                std::fs::rename(&next, &path).map_err(error("pin"))?;
                map
            }
            Err(other) => return Err(error("open")(other)),
        };
        let (mut cursor, mut keys, mut values) = (Cursor::default(), Vec::new(), Vec::new());
        let (hasher, mut written) = (RandomState::new(), HashMap::default());
        while cursor.next::<u32, Text>(map.as_fd(), BATCH, &mut keys, &mut values).map_err(error("read"))? {
            let names = values.iter().map(|name| hasher.hash_one(name.to_string()));
            written.extend(keys.iter().copied().zip(names));
        }
        Ok(Self { map, written, hasher })
    }

    /// A number is that of this Service.
    pub fn set(&mut self, number: u32, name: &str) -> Result<(), MapError> {
        // As it comes back from the map, where long names are cut.
        let text = Text::new(name);
        let hash = self.hasher.hash_one(text.to_string());
        if self.written.get(&number) == Some(&hash) {
            return Ok(());
        }
        sys::update(self.map.as_fd(), &number, &text, 0)
            .map_err(|error| MapError::new("write", NAMES, error))?;
        self.written.insert(number, hash);
        Ok(())
    }

    /// Only these numbers are anybody's.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), MapError> {
        let gone: Vec<u32> = self.written.keys().copied().filter(|number| !keep(*number)).collect();
        for number in gone {
            sys::delete(self.map.as_fd(), &number)
                .map_err(|error| MapError::new("delete from", NAMES, error))?;
            self.written.remove(&number);
        }
        Ok(())
    }
}
