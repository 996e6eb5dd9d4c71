//! A namespace in memory, with one more for the other ends of veth pairs.
//!
//! Must not know: netlink messages. Kept: links, addresses, routes, neighbours, forwarding; refused: what a kernel would refuse.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::netlink::{Error, Link, Mac, Netlink, Route, Veth, Vxlan};

/// What a namespace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// Addresses by link.
    pub addresses: BTreeMap<u32, Vec<IpNet>>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Neighbours by link and address.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// Forwarding entries by link and hardware address.
    pub forwarding: BTreeMap<(u32, Mac), IpAddr>,
}

impl State {
    fn free_index(&self) -> u32 {
        self.links.values().map(|link| link.index).max().unwrap_or(1) + 1
    }

    fn link_mut(&mut self, operation: &'static str, index: u32) -> Result<&mut Link, Error> {
        let link = self.links.values_mut().find(|link| link.index == index);
        link.ok_or_else(|| refused(operation, index, libc::ENODEV))
    }
}

/// A namespace; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    peers: Option<Arc<Mutex<State>>>,
}

impl Fake {
    /// A node's namespace and a pod's.
    pub fn pair() -> (Self, Self) {
        let pod = Self::default();
        (Self { state: Arc::default(), peers: Some(pod.state.clone()) }, pod)
    }

    /// A look at the namespace.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(operation: &'static str, object: impl std::fmt::Display, errno: i32) -> Error {
    Error::new(operation, object, io::Error::from_raw_os_error(errno))
}

impl Netlink for Fake {
    fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.state().links.get(name).cloned())
    }

    fn links(&mut self) -> Result<Vec<Link>, Error> {
        Ok(self.state().links.values().cloned().collect())
    }

    fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        let peers = self.peers.clone().unwrap_or_default();
        let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        if state.links.contains_key(veth.name) || peers.links.contains_key(veth.peer) {
            return Err(refused("create veth", veth.name, libc::EEXIST));
        }
        let index = state.free_index();
        let link = |name: &str, mac| Link {
            index,
            name: name.to_owned(),
            mac: Some(mac),
            up: false,
            mtu: veth.mtu,
            tunnel: None,
        };
        state.links.insert(veth.name.to_owned(), link(veth.name, veth.mac));
        peers.links.insert(veth.peer.to_owned(), link(veth.peer, veth.peer_mac));
        Ok(())
    }

    fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), Error> {
        let mut state = self.state();
        if state.links.contains_key(vxlan.name) {
            return Err(refused("create VXLAN device", vxlan.name, libc::EEXIST));
        }
        let link = Link {
            index: state.free_index(),
            name: vxlan.name.to_owned(),
            mac: Some(vxlan.mac),
            up: false,
            mtu: vxlan.mtu,
            tunnel: Some(vxlan.tunnel),
        };
        state.links.insert(vxlan.name.to_owned(), link);
        Ok(())
    }

    fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut state = self.state();
        let Some(link) = state.links.remove(name) else { return Ok(()) };
        state.addresses.remove(&link.index);
        state.routes.retain(|route| route.device != Some(link.index));
        state.neighbours.retain(|(index, _), _| *index != link.index);
        state.forwarding.retain(|(index, _), _| *index != link.index);
        if let Some(peers) = &self.peers {
            *peers.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
        }
        Ok(())
    }

    fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.state().link_mut("switch on link", index)?.up = true;
        Ok(())
    }

    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.state().link_mut("set the MTU of link", index)?.mtu = mtu;
        Ok(())
    }

    fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut state = self.state();
        let addresses = state.addresses.entry(index).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
        Ok(())
    }

    fn delete_address(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        if let Some(addresses) = self.state().addresses.get_mut(&index) {
            addresses.retain(|other| *other != address);
        }
        Ok(())
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error> {
        Ok(self.state().addresses.get(&index).cloned().unwrap_or_default())
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let mut state = self.state();
        state.routes.retain(|other| other.destination != route.destination);
        state.routes.push(route.clone());
        Ok(())
    }

    fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        self.state().routes.retain(|other| other.destination != route.destination);
        Ok(())
    }

    fn routes(&mut self) -> Result<Vec<Route>, Error> {
        Ok(self.state().routes.clone())
    }

    fn replace_neighbour(&mut self, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        self.state().neighbours.insert((index, ip), mac);
        Ok(())
    }

    fn delete_neighbour(&mut self, index: u32, ip: IpAddr) -> Result<(), Error> {
        self.state().neighbours.remove(&(index, ip));
        Ok(())
    }

    fn neighbours(&mut self, index: u32) -> Result<Vec<(IpAddr, Mac)>, Error> {
        let state = self.state();
        let of_link = state.neighbours.iter().filter(|((link, _), _)| *link == index);
        Ok(of_link.map(|((_, ip), mac)| (*ip, *mac)).collect())
    }

    fn replace_forwarding(&mut self, index: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        self.state().forwarding.insert((index, mac), remote);
        Ok(())
    }

    fn delete_forwarding(&mut self, index: u32, mac: Mac, _: IpAddr) -> Result<(), Error> {
        self.state().forwarding.remove(&(index, mac));
        Ok(())
    }

    fn forwarding(&mut self, index: u32) -> Result<Vec<(Mac, IpAddr)>, Error> {
        let state = self.state();
        let of_link = state.forwarding.iter().filter(|((link, _), _)| *link == index);
        Ok(of_link.map(|((_, mac), remote)| (*mac, *remote)).collect())
    }
}
