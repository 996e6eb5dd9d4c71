//! The tables of Services: reading them whole, and carrying out one operation at a time in the order it was planned.
//!
//! Owner of `SERVICES`, `SLOTS`, `BACKENDS` and `NODES`. Must not know: why an operation is wanted.

use std::net::IpAddr;

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, MapData, MapError as AyaMapError};
use pagurus_agent_core::addr::{Backend, BackendId, Family, Frontend, PoolId, Protocol, ServiceIp};
use pagurus_agent_core::services::plan::{MapOp, Observed, Spread};
use pagurus_ebpf_abi as abi;

/// A map operation that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} in map {map}")]
pub struct MapError {
    operation: &'static str,
    map: &'static str,
    #[source]
    source: Box<AyaMapError>,
}

impl MapError {
    pub(crate) fn new(operation: &'static str, map: &'static str, source: AyaMapError) -> Self {
        Self { operation, map, source: Box::new(source) }
    }
}

/// The tables of Services, real or recorded.
pub trait ServiceMaps: Send {
    /// Everything in them.
    fn observe(&mut self) -> Result<Observed, MapError>;
    /// Carries out one operation.
    fn apply(&mut self, op: &MapOp) -> Result<(), MapError>;
}

/// The tables in the kernel.
#[derive(Debug)]
pub struct KernelMaps {
    pub(crate) services: BpfHashMap<MapData, abi::ServiceKey, abi::ServiceValue>,
    pub(crate) slots: BpfHashMap<MapData, abi::SlotKey, u32>,
    pub(crate) backends: BpfHashMap<MapData, u32, abi::Backend>,
    pub(crate) nodes: BpfHashMap<MapData, abi::Address, u32>,
}

impl ServiceMaps for KernelMaps {
    fn observe(&mut self) -> Result<Observed, MapError> {
        let mut observed = Observed::default();
        let mut foreign = Vec::new();
        for (key, value) in read(&self.services, abi::maps::SERVICES)? {
            match frontend(&key) {
                Some(frontend) => {
                    observed.services.push((frontend, PoolId(value.id), spread(&value)));
                }
                None => foreign.push(key),
            }
        }
        // Keys that no version of this layout writes: nobody would ever remove them.
        for key in foreign {
            delete(&mut self.services, abi::maps::SERVICES, &key)?;
        }
        let slots = read(&self.slots, abi::maps::SLOTS)?;
        observed.slots =
            slots.into_iter().map(|(key, id)| (PoolId(key.service), key.slot, BackendId(id))).collect();
        let mut foreign = Vec::new();
        for (id, value) in read(&self.backends, abi::maps::BACKENDS)? {
            match backend(&value) {
                Some(backend) => observed.backends.push((BackendId(id), backend)),
                None => foreign.push(id),
            }
        }
        for id in foreign {
            delete(&mut self.backends, abi::maps::BACKENDS, &id)?;
        }
        let nodes = read(&self.nodes, abi::maps::NODES)?;
        observed.nodes = nodes
            .into_iter()
            .map(|(address, flags)| (to_ip(address), flags & abi::NODE_ADDRESS_LOCAL != 0))
            .collect();
        Ok(observed)
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), MapError> {
        match *op {
            MapOp::PutBackend(id, backend) => {
                insert(&mut self.backends, abi::maps::BACKENDS, id.0, backend_value(&backend))
            }
            MapOp::PutSlot(pool, slot, id) => {
                insert(&mut self.slots, abi::maps::SLOTS, slot_key(pool, slot), id.0)
            }
            MapOp::PutService(frontend, pool, spread) => {
                let value = service_value(pool, spread);
                insert(&mut self.services, abi::maps::SERVICES, service_key(&frontend), value)
            }
            MapOp::PutNode(ip, local) => {
                let flags = if local { abi::NODE_ADDRESS_LOCAL } else { 0 };
                insert(&mut self.nodes, abi::maps::NODES, from_ip(&ip), flags)
            }
            MapOp::DeleteService(frontend) => {
                delete(&mut self.services, abi::maps::SERVICES, &service_key(&frontend))
            }
            MapOp::DeleteSlot(pool, slot) => delete(&mut self.slots, abi::maps::SLOTS, &slot_key(pool, slot)),
            MapOp::DeleteBackend(id) => delete(&mut self.backends, abi::maps::BACKENDS, &id.0),
            MapOp::DeleteNode(ip) => delete(&mut self.nodes, abi::maps::NODES, &from_ip(&ip)),
        }
    }
}

impl ServiceMaps for crate::Datapath {
    fn observe(&mut self) -> Result<Observed, MapError> {
        self.services().observe()
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), MapError> {
        self.services().apply(op)
    }
}

/// All entries of a map whose only writer we are.
fn read<K: Pod, V: Pod>(
    map: &BpfHashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, MapError> {
    map.iter().collect::<Result<_, _>>().map_err(|source| MapError::new("read", name, source))
}

fn insert<K: Pod, V: Pod>(
    map: &mut BpfHashMap<MapData, K, V>,
    name: &'static str,
    key: K,
    value: V,
) -> Result<(), MapError> {
    map.insert(key, value, 0).map_err(|source| MapError::new("write", name, source))
}

/// Removes an entry; that it has gone already is as good.
fn delete<K: Pod, V: Pod>(
    map: &mut BpfHashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), MapError> {
    match map.remove(key) {
        Err(AyaMapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result.map_err(|source| MapError::new("delete", name, source)),
    }
}

fn from_ip(ip: &IpAddr) -> abi::Address {
    match ip {
        IpAddr::V4(ip) => abi::Address::from_octets(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => abi::Address::from_octets(ip.octets()),
    }
}

fn to_ip(address: abi::Address) -> IpAddr {
    IpAddr::from(address.octets()).to_canonical()
}

fn service_key(frontend: &Frontend) -> abi::ServiceKey {
    let address = match frontend.ip {
        ServiceIp::Own(ip) => from_ip(&ip),
        ServiceIp::Nodes(Family::V4) => abi::Address::ANY_V4,
        ServiceIp::Nodes(Family::V6) => abi::Address::ANY_V6,
    };
    let protocol = frontend.protocol.number();
    abi::ServiceKey { address, port: abi::Port::new(frontend.port), protocol, scope: 0 }
}

/// The frontend of a key; none if the key is none of ours.
fn frontend(key: &abi::ServiceKey) -> Option<Frontend> {
    let protocol = Protocol::from_number(key.protocol).filter(|_| key.scope == 0)?;
    let ip = match key.address {
        abi::Address::ANY_V4 => ServiceIp::Nodes(Family::V4),
        abi::Address::ANY_V6 => ServiceIp::Nodes(Family::V6),
        address => ServiceIp::Own(to_ip(address)),
    };
    Some(Frontend { ip, port: key.port.number(), protocol })
}

fn service_value(pool: PoolId, spread: Spread) -> abi::ServiceValue {
    let flags = if spread.affinity > 0 { abi::SERVICE_AFFINITY } else { 0 };
    abi::ServiceValue { id: pool.0, count: spread.slots, flags, affinity_seconds: spread.affinity }
}

fn spread(value: &abi::ServiceValue) -> Spread {
    let affinity = if value.flags & abi::SERVICE_AFFINITY == 0 { 0 } else { value.affinity_seconds };
    Spread { slots: value.count, affinity }
}

fn slot_key(pool: PoolId, slot: u32) -> abi::SlotKey {
    abi::SlotKey { service: pool.0, slot }
}

fn backend_value(backend: &Backend) -> abi::Backend {
    abi::Backend {
        address: from_ip(&backend.ip),
        port: abi::Port::new(backend.port),
        protocol: backend.protocol.number(),
        reserved: 0,
        flags: 0,
    }
}

fn backend(value: &abi::Backend) -> Option<Backend> {
    let protocol = Protocol::from_number(value.protocol)?;
    Some(Backend { ip: to_ip(value.address), port: value.port.number(), protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ip: ServiceIp) {
        let one = Frontend { ip, port: 8080, protocol: Protocol::Udp };
        assert_eq!(frontend(&service_key(&one)), Some(one));
    }

    #[test]
    fn frontends_come_back_from_their_keys() {
        for ip in ["10.96.0.1", "fd00::1", "2001:db8::ffff:1"] {
            check(ServiceIp::Own(ip.parse().expect("an address")));
        }
        check(ServiceIp::Nodes(Family::V4));
        check(ServiceIp::Nodes(Family::V6));
    }

    #[test]
    fn backends_come_back_from_their_values() {
        for ip in ["10.0.0.1", "fd01::5"] {
            let one = Backend { ip: ip.parse().expect("an address"), port: 53, protocol: Protocol::Tcp };
            assert_eq!(backend(&backend_value(&one)), Some(one));
        }
    }

    #[test]
    fn spreads_come_back_from_their_values() {
        for affinity in [0, 1, 10_800] {
            let one = Spread { slots: 3, affinity };
            assert_eq!(spread(&service_value(PoolId(7), one)), one);
        }
    }

    #[test]
    fn keys_of_others_are_not_ours() {
        let key =
            service_key(&Frontend { ip: ServiceIp::Nodes(Family::V4), port: 1, protocol: Protocol::Tcp });
        assert_eq!(frontend(&abi::ServiceKey { scope: 7, ..key }), None);
        assert_eq!(frontend(&abi::ServiceKey { protocol: 1, ..key }), None);
    }
}
