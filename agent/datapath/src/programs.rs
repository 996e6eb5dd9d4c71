//! The programs of a loaded object: verified here, attached in [`crate::attach`] (sockets) and [`crate::devices`] (packets).
//!
//! Verifying takes a second or more and touches no map: whoever writes the maps need not wait for it. Must not know: what the
//! maps hold.

use std::fmt;
use std::path::Path;

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use aya::{Ebpf, Pod};
use pagurus_ebpf_abi::{self as abi, maps, programs};

use crate::load::{LoadError, map_error};
use crate::pins::{Pins, Place};
use crate::{Config, attach};

/// The programs, and where they and their maps are pinned.
pub struct Programs {
    pub(crate) ebpf: Ebpf,
    pub(crate) pins: Pins,
    pub(crate) places: Vec<Place>,
    pub(crate) config: Config,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Programs {
    /// What they were loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Has the kernel verify the socket programs; what is attached stays as it is. Can be called again after a refusal.
    pub fn verify_sockets(&mut self) -> Result<(), LoadError> {
        for name in programs::SOCKET {
            let program = attach::socket_program(&mut self.ebpf, name)?;
            if program.fd().is_err() {
                program.load().map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
            }
        }
        Ok(())
    }

    /// Instructions the verifier walked for each socket program, where the kernel tells.
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, Option<u32>)>, LoadError> {
        let of = |name: &'static str| {
            let info = attach::socket_program(&mut self.ebpf, name)?.info();
            let info = info.map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
            Ok((name, info.verified_instruction_count()))
        };
        programs::SOCKET.into_iter().map(of).collect()
    }

    /// Copies what sockets and clients remember from maps that are about to be replaced. What is known already stays: it may be newer.
    pub(crate) fn carry_over(&mut self) -> Result<(), LoadError> {
        self.carry::<abi::ReverseKey, abi::ReverseValue>(maps::REVERSE)?;
        self.carry::<abi::FlowKey, abi::FlowValue>(maps::FLOWS)?;
        self.carry::<abi::ClientKey, abi::ClientValue>(maps::CLIENTS)
    }

    /// Copies the entries of one map.
    fn carry<K: Pod, V: Pod>(&mut self, name: &'static str) -> Result<(), LoadError> {
        let place = self.places.iter().find(|place| place.shape.name == name && place.replaces());
        let Some(path) = place.map(|place| &place.path) else { return Ok(()) };
        let error = |source| map_error(name, source);
        let old = Map::LruHashMap(MapData::from_pin(path).map_err(error)?);
        // Another shape than this layout's: nothing that could be copied.
        let Ok(old) = BpfHashMap::<_, K, V>::try_from(old) else { return Ok(()) };
        let new = self.ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
        let mut new = BpfHashMap::<_, K, V>::try_from(new).map_err(error)?;
        // An entry that goes away while we look is one that nobody needs; one that is there already is newer.
        for (key, value) in old.iter().flatten() {
            let inserted = new.insert(key, value, NO_REPLACE);
            if inserted.as_ref().is_err_and(|error| !is_there(error)) {
                inserted.map_err(error)?;
            }
        }
        Ok(())
    }

    /// Where a map is pinned now.
    pub(crate) fn pinned(&self, name: &str) -> &Path {
        let place = self.places.iter().find(|place| place.shape.name == name);
        place.map_or(Path::new(""), |place| &place.now)
    }
}

/// `BPF_NOEXIST`.
const NO_REPLACE: u64 = 1;

fn is_there(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::SyscallError(error)
        if error.io_error.kind() == std::io::ErrorKind::AlreadyExists)
}
