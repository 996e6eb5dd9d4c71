//! Maps that others fill or read at their own pace: the pods of this node, the addresses it announces, the packets it dropped.
//!
//! Each handle is of its own and outlives the programs' owner. Must not know: where pods and addresses come from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, Map, MapData, RingBuf};
use pagurus_ebpf_abi::{self as abi, maps};

use crate::programs::Programs;
use crate::services::MapError;
use crate::{LoadError, sys, values};

/// A pod of this node: how packets get to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalPod {
    /// The host's end of its pair of devices.
    pub ifindex: u32,
    /// The pod's hardware address.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
}

/// The addresses of this node's pods.
#[derive(Debug)]
pub struct Endpoints(Entries<abi::Address, abi::Endpoint>);

impl Endpoints {
    /// All pods, as the programs know them.
    pub fn all(&self) -> Result<BTreeMap<IpAddr, LocalPod>, MapError> {
        let pod = |(address, endpoint): (abi::Address, abi::Endpoint)| {
            let abi::Endpoint { ifindex, mac, host_mac, .. } = endpoint;
            (values::to_ip(address), LocalPod { ifindex, mac, host_mac })
        };
        Ok(self.0.all()?.into_iter().map(pod).collect())
    }

    /// A pod is reached like this.
    pub fn set(&mut self, ip: IpAddr, pod: &LocalPod) -> Result<(), MapError> {
        let LocalPod { ifindex, mac, host_mac } = *pod;
        self.0.set(values::from_ip(&ip), abi::Endpoint { ifindex, flags: 0, mac, host_mac, reserved: 0 })
    }

    /// A pod is gone.
    pub fn remove(&mut self, ip: IpAddr) -> Result<(), MapError> {
        self.0.remove(&values::from_ip(&ip))
    }

    /// Makes these all pods there are; how many entries were written or removed.
    pub fn replace(&mut self, pods: &BTreeMap<IpAddr, LocalPod>) -> Result<usize, MapError> {
        let known = self.all()?;
        let mut changed = 0;
        for (ip, pod) in pods.iter().filter(|(ip, pod)| known.get(ip) != Some(pod)) {
            self.set(*ip, pod)?;
            changed += 1;
        }
        for ip in known.keys().filter(|ip| !pods.contains_key(ip)) {
            self.remove(*ip)?;
            changed += 1;
        }
        Ok(changed)
    }
}

/// The addresses this node answers ARP and neighbour solicitations for, by device, with the hardware address it answers.
#[derive(Debug)]
pub struct Announced(Entries<abi::AnnouncedKey, abi::Announced>);

impl Announced {
    /// All addresses, as the programs know them.
    pub fn all(&self) -> Result<BTreeMap<(IpAddr, u32), [u8; 6]>, MapError> {
        let one = |(key, value): (abi::AnnouncedKey, abi::Announced)| {
            ((values::to_ip(key.address), key.ifindex), value.mac)
        };
        Ok(self.0.all()?.into_iter().map(one).collect())
    }

    /// An address is announced at a device.
    pub fn set(&mut self, ip: IpAddr, ifindex: u32, mac: [u8; 6]) -> Result<(), MapError> {
        let key = abi::AnnouncedKey { address: values::from_ip(&ip), ifindex };
        self.0.set(key, abi::Announced { mac, reserved: [0; 2] })
    }

    /// An address is no longer announced there.
    pub fn remove(&mut self, ip: IpAddr, ifindex: u32) -> Result<(), MapError> {
        self.0.remove(&abi::AnnouncedKey { address: values::from_ip(&ip), ifindex })
    }

    /// Makes these all addresses that are announced; how many entries were written or removed.
    pub fn replace(&mut self, wanted: &BTreeMap<(IpAddr, u32), [u8; 6]>) -> Result<usize, MapError> {
        let known = self.all()?;
        let mut changed = 0;
        for ((ip, ifindex), mac) in wanted.iter().filter(|(key, mac)| known.get(key) != Some(mac)) {
            self.set(*ip, *ifindex, *mac)?;
            changed += 1;
        }
        for (ip, ifindex) in known.keys().filter(|key| !wanted.contains_key(key)) {
            self.remove(*ip, *ifindex)?;
            changed += 1;
        }
        Ok(changed)
    }
}

/// Packets that were dropped or refused, one by one.
pub struct Events(RingBuf<MapData>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Iterator for Events {
    type Item = abi::DropEvent;

    /// The next one, if there is one now; later there may be more.
    fn next(&mut self) -> Option<abi::DropEvent> {
        let item = self.0.next()?;
        sys::read_plain(&item)
    }
}

impl AsFd for Events {
    /// Readable when there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: the descriptor is the ring's, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Programs {
    /// The pods of this node.
    pub fn endpoints(&self) -> Result<Endpoints, LoadError> {
        Ok(Endpoints(self.entries(maps::ENDPOINTS)?))
    }

    /// The addresses this node announces.
    pub fn announced(&self) -> Result<Announced, LoadError> {
        Ok(Announced(self.entries(maps::ANNOUNCED)?))
    }

    /// Packets that were dropped or refused; can be taken once. `NODE_EVENTS` makes programs tell of them.
    pub fn take_events(&mut self) -> Result<Events, LoadError> {
        let map = self.ebpf.take_map(maps::EVENTS).ok_or(LoadError::Lacks(maps::EVENTS))?;
        let error = |source| LoadError::Map { name: maps::EVENTS, source: Box::new(source) };
        Ok(Events(RingBuf::try_from(map).map_err(error)?))
    }

    fn entries<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Entries<K, V>, LoadError> {
        let error = |source| LoadError::Map { name, source: Box::new(source) };
        let map = Map::HashMap(MapData::from_pin(self.pinned(name)).map_err(error)?);
        Ok(Entries { name, map: BpfHashMap::try_from(map).map_err(error)? })
    }
}

/// A hash map with one owner.
#[derive(Debug)]
struct Entries<K: Pod, V: Pod> {
    name: &'static str,
    map: BpfHashMap<MapData, K, V>,
}

impl<K: Pod, V: Pod> Entries<K, V> {
    fn all(&self) -> Result<Vec<(K, V)>, MapError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|error| MapError::new("read", self.name, error))
    }

    fn set(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.map.insert(key, value, 0).map_err(|error| MapError::new("write", self.name, error))
    }

    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        crate::services::gone(self.map.remove(key), self.name)
    }
}
