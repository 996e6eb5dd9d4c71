//! Maps that grow: an array of maps with the map in place 0, and a larger one put there while programs run.
//!
//! Must not know: what the maps hold.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData};

use crate::memory::Shared;
use crate::services::MapError;
use crate::sys::{self, MapShape};

/// `BPF_F_MMAPABLE | BPF_F_INNER_MAP`.
pub(crate) const SHARED: u32 = 0x400 | 0x1000;

/// The outer map and the one in its place 0.
#[derive(Debug)]
pub(crate) struct Growing {
    pub(crate) name: &'static str,
    shape: MapShape,
    outer: MapData,
    inner: MapData,
    capacity: u32,
}

impl Growing {
    /// Takes over the map that is there, or puts one of this capacity there.
    pub(crate) fn open(
        name: &'static str,
        outer: Map,
        shape: MapShape,
        capacity: u32,
    ) -> Result<Self, MapError> {
        let outer = outer_map(name, outer)?;
        if let Some(inner) = inner(name, &outer, 0)? {
            let info = inner.info().map_err(|error| MapError::new("ask the shape of", name, error))?;
            let capacity = info.max_entries();
            return Ok(Self { name, shape, outer, inner, capacity });
        }
        let inner = create(name, &shape, capacity)?;
        put(name, &outer, 0, &inner)?;
        Ok(Self { name, shape, outer, inner, capacity })
    }

    /// Takes the map that is there, to read it.
    pub(crate) fn read(name: &'static str, outer: Map, shape: MapShape) -> Result<Self, MapError> {
        let outer = outer_map(name, outer)?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no agent has filled it yet");
        let inner = inner(name, &outer, 0)?.ok_or_else(|| MapError::new("open", name, missing()))?;
        let info = inner.info().map_err(|error| MapError::new("ask the shape of", name, error))?;
        let capacity = info.max_entries();
        Ok(Self { name, shape, outer, inner, capacity })
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The map in place 0.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd().as_fd()
    }

    /// Makes a map of another capacity, which no program sees yet.
    pub(crate) fn larger(&self, capacity: u32) -> Result<MapData, MapError> {
        create(self.name, &self.shape, capacity)
    }

    /// The map in place 0, once more.
    pub(crate) fn again(&self) -> Result<MapData, MapError> {
        let error = |error: io::Error| MapError::new("open", self.name, error);
        let fd = self.fd().try_clone_to_owned().map_err(error)?;
        MapData::from_fd(fd).map_err(|error| MapError::new("open", self.name, error))
    }

    /// The map in another place, if there is one.
    pub(crate) fn at(&self, place: u32) -> Result<Option<MapData>, MapError> {
        inner(self.name, &self.outer, place)
    }

    /// Puts a map into another place than the first.
    pub(crate) fn put_at(&mut self, place: u32, map: &MapData) -> Result<(), MapError> {
        put(self.name, &self.outer, place, map)
    }

    /// Empties another place than the first.
    pub(crate) fn clear_at(&mut self, place: u32) -> Result<(), MapError> {
        sys::delete(self.outer.fd().as_fd(), &place)
            .map_err(|error| MapError::new("empty a place of", self.name, error))
    }

    /// Puts a map in place 0 for good. When this returns no program uses the one before: the kernel waits for them.
    pub(crate) fn install(&mut self, map: MapData, capacity: u32) -> Result<MapData, MapError> {
        put(self.name, &self.outer, 0, &map)?;
        self.capacity = capacity;
        Ok(std::mem::replace(&mut self.inner, map))
    }
}

fn create(name: &'static str, shape: &MapShape, capacity: u32) -> Result<MapData, MapError> {
    let fd = sys::create_map(shape, capacity, name).map_err(|error| MapError::new("make", name, error))?;
    MapData::from_fd(fd).map_err(|error| MapError::new("make", name, error))
}

fn outer_map(name: &'static str, map: Map) -> Result<MapData, MapError> {
    match map {
        Map::ArrayOfMaps(map) => Ok(map),
        _ => Err(MapError::new("open", name, io::Error::other("it is no array of maps"))),
    }
}

/// Puts a map into a place; when this returns no program uses the one before.
fn put(name: &'static str, outer: &MapData, place: u32, map: &MapData) -> Result<(), MapError> {
    sys::update(outer.fd().as_fd(), &place, &map.fd().as_fd().as_raw_fd(), 0)
        .map_err(|error| MapError::new("put in place", name, error))
}

/// The map in a place, if there is one.
fn inner(name: &'static str, outer: &MapData, place: u32) -> Result<Option<MapData>, MapError> {
    let id: Option<u32> =
        sys::look_up(outer.fd().as_fd(), &place).map_err(|error| MapError::new("look into", name, error))?;
    match id {
        Some(id) => MapData::from_id(id).map(Some).map_err(|error| MapError::new("look into", name, error)),
        None => Ok(None),
    }
}

/// An array that grows, as memory.
#[derive(Debug)]
pub(crate) struct SharedArray {
    pub(crate) map: Growing,
    /// Of the array that is in place now.
    pub(crate) memory: Arc<Shared>,
    value: usize,
}

impl SharedArray {
    pub(crate) fn open(
        name: &'static str,
        outer: Map,
        value: usize,
        capacity: u32,
    ) -> Result<Self, MapError> {
        Self::of(Growing::open(name, outer, MapShape::array(value, SHARED), capacity)?, value)
    }

    fn of(map: Growing, value: usize) -> Result<Self, MapError> {
        let memory = Shared::map(map.fd(), map.capacity(), value)
            .map_err(|error| MapError::new("map into memory", map.name, error))?;
        Ok(Self { map, memory: Arc::new(memory), value })
    }

    /// Puts a larger one in its place. What programs add to (`is_counted`) is added to the new one; anything else, which only we
    /// write, is copied before.
    pub(crate) fn grow(&mut self, capacity: u32, is_counted: bool) -> Result<(), MapError> {
        let larger = self.map.larger(capacity)?;
        let memory = Shared::map(larger.fd().as_fd(), capacity, self.value)
            .map_err(|error| MapError::new("map into memory", self.map.name, error))?;
        if !is_counted {
            memory.copy_from(&self.memory);
        }
        self.map.install(larger, capacity)?;
        if is_counted {
            memory.add_from(&self.memory);
        }
        self.memory = Arc::new(memory);
        Ok(())
    }
}
