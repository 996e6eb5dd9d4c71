//! Carrying out commands on this node: the agent's half of the plugin.
//!
//! Must not know: sockets and processes (`client`), the Kubernetes API. One attachment is worked on by one command at a
//! time; different ones at once.

mod add;
mod check;
mod del;
mod gc;
mod status;
mod version;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use serde_json::Value;

use crate::ipam::store::Error as StoreError;
use crate::ipam::{Attachment, Key, Store};
use crate::netlink::{self, Mac, Netlink as _, ROUTE_PROTOCOL, Socket};
use crate::netns::{self, NetNs};
use crate::request::{Call, Command, Request};
use crate::spec::{Error, INVALID_ENVIRONMENT, IO_FAILURE, TRY_AGAIN_LATER, WIRING_FAILED};
use crate::veth::{self, Wiring};

/// What the node's network looks like now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Ranges for pods, at most one of each family; empty until the node has them.
    pub ranges: Vec<IpNet>,
    /// The node's addresses.
    pub node_ips: Vec<IpAddr>,
    /// Largest packet of pods.
    pub mtu: u32,
}

/// What else is to be done for a device before its container starts: from its number and its name.
pub type OnConnect = dyn Fn(u32, &str) -> Result<(), Box<dyn std::error::Error>> + Send + Sync;

/// A connected container, and how its packets get to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its addresses and ports.
    pub attachment: Attachment,
    /// Number of the host's end of its pair.
    pub ifindex: u32,
    /// Hardware address of the container's end.
    pub mac: Mac,
    /// Hardware address of the host's end.
    pub host_mac: Mac,
}

/// The pod network of this node.
pub struct Network {
    state: Mutex<State>,
    on_connect: Option<Box<OnConnect>>,
    /// Signalled whenever an attachment is no longer worked on.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    store: Store,
    settings: Settings,
    busy: HashSet<Key>,
    /// Addresses that have a route to a pod of this node although no attachment has them.
    foreign: HashSet<IpAddr>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Attachments worked on by this command; let go at the end.
struct Working<'a> {
    network: &'a Network,
    key: Key,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.network.state().busy.remove(&self.key);
        self.network.idle.notify_all();
    }
}

impl Network {
    /// Opens the attachments kept in a folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = Store::open(folder)?;
        let state = State {
            store,
            settings: Settings { mtu: 1500, ..Settings::default() },
            busy: HashSet::new(),
            foreign: HashSet::new(),
        };
        Ok(Self { state: Mutex::new(state), on_connect: None, idle: Condvar::new() })
    }

    /// Has this done for each container at the end of its ADD; if it fails, so does ADD.
    pub fn on_connect(&mut self, work: Box<OnConnect>) {
        self.on_connect = Some(work);
    }

    /// Takes over what the node's network looks like now.
    pub fn set(&self, settings: Settings) {
        self.state().settings = settings;
    }

    /// What the node's network looks like.
    pub fn settings(&self) -> Settings {
        self.state().settings.clone()
    }

    /// Files of attachments that could not be read and were set aside.
    pub fn damaged(&self) -> Vec<std::path::PathBuf> {
        self.state().store.damaged().to_vec()
    }

    /// All attachments.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.state().store.iter().cloned().collect()
    }

    /// All containers whose device is there.
    pub fn connected(&self) -> Result<Vec<Connected>, Error> {
        let links = host()?.links().map_err(|error| Error::from_source(IO_FAILURE, &error))?;
        let links: HashMap<&str, u32> = links.iter().map(|link| (link.name.as_str(), link.index)).collect();
        let state = self.state();
        let connected = state.store.iter().filter_map(|attachment| {
            let wiring = wiring(attachment, &state.settings);
            let ifindex = *links.get(wiring.host_link.as_str())?;
            let (mac, host_mac) = (wiring.pod_mac(), wiring.host_mac());
            Some(Connected { attachment: attachment.clone(), ifindex, mac, host_mac })
        });
        Ok(connected.collect())
    }

    /// Does what else is to be done for a container's device.
    fn tell(&self, wiring: &Wiring, host: &mut Socket) -> Result<(), Error> {
        let Some(work) = &self.on_connect else { return Ok(()) };
        let link = host.link(&wiring.host_link).map_err(|error| Error::from_source(WIRING_FAILED, &error))?;
        let link = link.ok_or_else(|| {
            Error::new(WIRING_FAILED, format!("link {} has gone while it was connected", wiring.host_link))
        })?;
        work(link.index, &link.name).map_err(|error| Error::from_source(WIRING_FAILED, &*error))
    }

    /// Carries out a call of the plugin; what it returns is to be printed.
    pub fn handle(&self, call: &Call) -> Result<Option<Value>, Error> {
        let request = Request::parse(call)?;
        match request.command {
            Command::Add => add::run(self, &request).map(Some),
            Command::Del => del::run(self, &request).map(|()| None),
            Command::Check => check::run(self, &request).map(|()| None),
            Command::Status => status::run(self).map(|()| None),
            Command::Gc => gc::run(self, &request).map(|()| None),
            Command::Version => Ok(Some(version::run(&request))),
        }
    }

    /// Makes the host's side of every attachment whole, and drops those whose namespace is gone without a DEL. What
    /// failed is returned; the rest is done. To be called at start and from time to time.
    pub fn reconcile(&self) -> Vec<Error> {
        gc::reconcile(self)
    }

    /// Never held while something is waited for, but for the disk.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on this attachment.
    fn work_on(&self, key: &Key) -> Working<'_> {
        let mut state = self.state();
        while state.busy.contains(key) {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy.insert(key.clone());
        Working { network: self, key: key.clone() }
    }
}

/// How an attachment is wired.
fn wiring(attachment: &Attachment, settings: &Settings) -> Wiring {
    Wiring {
        host_link: attachment.key.host_link(),
        pod_link: attachment.key.ifname.clone(),
        ips: attachment.ips.clone(),
        node_ips: settings.node_ips.clone(),
        mtu: settings.mtu,
    }
}

/// Opens a container's namespace.
fn open_netns(path: &Path) -> Result<NetNs, Error> {
    let netns = NetNs::open(path).map_err(|error| Error::from_source(INVALID_ENVIRONMENT, &error))?;
    netns.ok_or_else(|| {
        Error::new(INVALID_ENVIRONMENT, format!("there is no network namespace at {}", path.display()))
    })
}

/// Opens the host's network configuration.
fn host() -> Result<Socket, Error> {
    Socket::open().map_err(|error| Error::from_source(IO_FAILURE, &error))
}

/// Runs something with the network configuration of a container.
fn in_pod<T: Send>(
    netns: &NetNs,
    work: impl FnOnce(&mut Socket) -> Result<T, veth::Error> + Send,
) -> Result<T, Error> {
    let outcome: Result<Result<T, veth::Error>, netns::Error> = netns.run(|| work(&mut Socket::open()?));
    outcome
        .map_err(|error| Error::from_source(IO_FAILURE, &error))?
        .map_err(|error| Error::from_source(WIRING_FAILED, &error))
}

/// Addresses that have a route to a pod of this node.
fn routed(host: &mut Socket) -> Result<HashSet<IpAddr>, netlink::Error> {
    let routes = host.routes()?.into_iter();
    let pods = routes.filter(|route| route.protocol == ROUTE_PROTOCOL && route.gateway.is_none());
    Ok(pods.map(|route| route.destination.addr()).collect())
}

fn store_error(error: &StoreError) -> Error {
    let code = match error {
        StoreError::NoRange | StoreError::Exhausted(_) | StoreError::HostPort { .. } => TRY_AGAIN_LATER,
        StoreError::File { .. } => IO_FAILURE,
    };
    Error::from_source(code, error)
}
