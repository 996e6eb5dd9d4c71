//! Services and EndpointSlices by the names and addresses that DNS is asked for.
//!
//! Must not know: what is answered.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::rr::Name;

use super::packed::{Packed, PackedEndpoint};
use super::{Kind, Service, Slice, Topic};
use crate::hash::HashMap;

/// How many topics are told apart; those of two names may be the same one, which only makes an answer forgotten too early.
const TOPICS: usize = 1024;
/// Answers that depend on who has an address, or on several Services.
pub(super) const EVERYTHING: Topic = Topic(0);
/// Answers that never change.
pub(super) const NOTHING: Topic = Topic(1);
const FIRST: usize = 2;

/// How often something changed, by topic. Clones share it.
#[derive(Clone, Debug)]
pub struct Generations(Arc<[AtomicU64; TOPICS]>);

impl Generations {
    /// How often this has changed.
    pub fn of(&self, topic: Topic) -> u64 {
        self.0.get(topic.0).map_or(0, |generation| generation.load(Ordering::Acquire))
    }

    /// How often anything has changed that an answer is made of.
    pub fn of_all(&self) -> u64 {
        self.of(EVERYTHING)
    }

    fn bump(&self, topic: Topic) {
        if let Some(generation) = self.0.get(topic.0) {
            generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Services.
    pub services: usize,
    /// EndpointSlices.
    pub slices: usize,
    /// Endpoints.
    pub endpoints: usize,
}

/// A name under which there is something.
#[derive(Debug)]
pub(super) struct Entry {
    /// `name.namespace`.
    pub(super) key: Arc<str>,
    /// `None`: only slices are known.
    pub(super) service: Option<Stored>,
    slices: Box<[u64]>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) kind: Kind,
    pub(super) ports: Packed,
}

#[derive(Debug)]
pub(super) struct StoredSlice {
    pub(super) entry: u32,
    pub(super) content: Packed,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    pub(super) domain: Name,
    pub(super) entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    ids: HashMap<Arc<str>, u32>,
    /// How many Services each namespace has.
    namespaces: HashMap<Box<str>, u32>,
    slices: HashMap<u64, StoredSlice>,
    /// Who has a ClusterIP.
    cluster_ips: BTreeSet<(IpAddr, u32)>,
    /// Which slices of headless Services have an address.
    endpoint_ips: BTreeSet<(IpAddr, u64)>,
    /// Names of slices are only ever compared: their hashes do.
    hasher: RandomState,
    generations: Generations,
}

impl Index {
    /// An empty index of a domain such as `cluster.local`.
    pub fn new(domain: &Name) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Self {
            domain,
            entries: Vec::new(),
            free: Vec::new(),
            ids: HashMap::default(),
            namespaces: HashMap::default(),
            slices: HashMap::default(),
            cluster_ips: BTreeSet::new(),
            endpoint_ips: BTreeSet::new(),
            hasher: RandomState::new(),
            generations: Generations(Arc::new([const { AtomicU64::new(0) }; TOPICS])),
        }
    }

    /// What changed how often; can be looked at without the index.
    pub fn generations(&self) -> Generations {
        self.generations.clone()
    }

    /// How much there is.
    pub fn used(&self) -> Used {
        Used {
            services: self.entries.iter().flatten().filter(|entry| entry.service.is_some()).count(),
            slices: self.slices.len(),
            endpoints: self.slices.values().map(|slice| slice.content.endpoints().count()).sum(),
        }
    }

    /// A Service as it is now.
    pub fn set_service(&mut self, service: Service) {
        let ports = Packed::new(&service.ports, &[]);
        let stored = Stored { kind: service.kind, ports };
        let id = self.entry(&service.name, &service.namespace);
        let Some(entry) = self.entries[id as usize].as_ref() else { return };
        if entry.service.as_ref() == Some(&stored) {
            return;
        }
        self.put(id, &service.namespace, Some(stored));
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let Some(id) = self.ids.get(&*key(name, namespace)).copied() else { return };
        self.put(id, namespace, None);
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&mut self, name: &str, slice: &Slice) {
        let number = self.number(&slice.namespace, name);
        let id = self.entry(&slice.service, &slice.namespace);
        let content = Packed::new(&slice.ports, &slice.endpoints);
        match self.slices.get(&number) {
            Some(stored) if stored.entry == id && stored.content == content => return,
            Some(stored) if stored.entry != id => self.take_slice(number),
            _ => {}
        }
        self.put_slice(number, StoredSlice { entry: id, content });
    }

    /// Puts a slice in its place.
    pub(super) fn put_slice(&mut self, number: u64, slice: StoredSlice) {
        let id = slice.entry;
        let is_headless = self.is_headless(id);
        if is_headless {
            self.forget_addresses(number);
        }
        self.slices.insert(number, slice);
        if let Some(entry) = self.entries[id as usize].as_mut()
            && !entry.slices.contains(&number)
        {
            entry.slices = entry.slices.iter().copied().chain([number]).collect();
        }
        if is_headless {
            self.remember_addresses(number);
            self.changed(id);
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        self.take_slice(self.number(namespace, name));
    }

    /// Whether this Service has this ClusterIP.
    pub fn has_cluster_ip(&self, namespace: &str, name: &str, ip: IpAddr) -> bool {
        self.owners(ip).any(|owner| owner == key(name, namespace))
    }

    pub(super) fn topic(&self, name: &str) -> Topic {
        let hash = usize::try_from(self.hasher.hash_one(name) >> 16).unwrap_or(0);
        Topic(FIRST + hash % (TOPICS - FIRST))
    }

    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The Service of a name, as `name.namespace`.
    pub(super) fn find(&self, key: &str) -> Option<(&Entry, &Stored)> {
        let entry = self.entries.get(*self.ids.get(key)? as usize)?.as_ref()?;
        Some((entry, entry.service.as_ref()?))
    }

    /// The slices of a Service.
    pub(super) fn slices_of(&self, entry: &Entry) -> impl Iterator<Item = &Packed> {
        entry.slices.iter().filter_map(|number| Some(&self.slices.get(number)?.content))
    }

    /// The Services (`name.namespace`) that have this ClusterIP.
    pub(super) fn owners(&self, ip: IpAddr) -> impl Iterator<Item = &str> {
        let range = self.cluster_ips.range((ip, 0)..=(ip, u32::MAX));
        range.filter_map(|(_, id)| Some(&*self.entries.get(*id as usize)?.as_ref()?.key))
    }

    /// The endpoints of headless Services (`name.namespace`) that have this address.
    pub(super) fn endpoints_at(
        &self,
        ip: IpAddr,
    ) -> impl Iterator<Item = (&str, &Stored, PackedEndpoint<'_>)> {
        let range = self.endpoint_ips.range((ip, 0)..=(ip, u64::MAX));
        range.flat_map(move |(_, number)| {
            let slice = self.slices.get(number);
            let entry = slice.and_then(|slice| self.entries.get(slice.entry as usize)?.as_ref());
            let found =
                slice.zip(entry).and_then(|(slice, entry)| Some((slice, entry, entry.service.as_ref()?)));
            found.into_iter().flat_map(move |(slice, entry, stored)| {
                let here = slice.content.endpoints().filter(move |endpoint| endpoint.ip == ip);
                here.map(move |endpoint| (&*entry.key, stored, endpoint))
            })
        })
    }

    fn number(&self, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((namespace, name))
    }

    /// The number of a name, made if it has none.
    pub(super) fn entry(&mut self, name: &str, namespace: &str) -> u32 {
        let key: Arc<str> = key(name, namespace).into();
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let entry = Some(Entry { key: key.clone(), service: None, slices: Box::default() });
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.ids.insert(key, id);
        id
    }

    /// Puts a Service, or none, in its place.
    pub(super) fn put(&mut self, id: u32, namespace: &str, service: Option<Stored>) {
        let was_headless = self.is_headless(id);
        let Some(entry) = self.entries[id as usize].as_mut() else { return };
        let is_there = service.is_some();
        let addresses = |service: &Option<Stored>| match service {
            Some(Stored { kind: Kind::ClusterIp(v4, v6), .. }) => [v4.map(IpAddr::V4), v6.map(IpAddr::V6)],
            _ => [None, None],
        };
        let after = addresses(&service);
        let old = std::mem::replace(&mut entry.service, service);
        for ip in addresses(&old).into_iter().flatten() {
            self.cluster_ips.remove(&(ip, id));
        }
        for ip in after.into_iter().flatten() {
            self.cluster_ips.insert((ip, id));
        }
        let slices = entry.slices.clone();
        match (was_headless, self.is_headless(id)) {
            (true, false) => slices.iter().for_each(|number| self.forget_addresses(*number)),
            (false, true) => slices.iter().for_each(|number| self.remember_addresses(*number)),
            _ => {}
        }
        if is_there != old.is_some() {
            self.count(namespace, is_there);
        }
        self.changed(id);
        self.drop_if_empty(id);
    }

    fn count(&mut self, namespace: &str, more: bool) {
        match self.namespaces.get_mut(namespace) {
            Some(count) if more => *count += 1,
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.namespaces.remove(namespace);
            }
            None if more => {
                self.namespaces.insert(namespace.into(), 1);
            }
            None => {}
        }
        self.generations.bump(self.topic(namespace));
    }

    fn take_slice(&mut self, number: u64) {
        self.forget_addresses(number);
        let Some(slice) = self.slices.remove(&number) else { return };
        if self.is_headless(slice.entry) {
            self.changed(slice.entry);
        }
        if let Some(entry) = self.entries[slice.entry as usize].as_mut() {
            entry.slices = entry.slices.iter().copied().filter(|other| *other != number).collect();
        }
        self.drop_if_empty(slice.entry);
    }

    fn is_headless(&self, id: u32) -> bool {
        let entry = self.entries.get(id as usize).and_then(Option::as_ref);
        let service = entry.and_then(|entry| entry.service.as_ref());
        service.is_some_and(|service| matches!(service.kind, Kind::Headless { .. }))
    }

    fn remember_addresses(&mut self, number: u64) {
        if let Some(slice) = self.slices.get(&number) {
            self.endpoint_ips.extend(slice.content.endpoints().map(|endpoint| (endpoint.ip, number)));
        }
    }

    fn forget_addresses(&mut self, number: u64) {
        if let Some(slice) = self.slices.get(&number) {
            for endpoint in slice.content.endpoints() {
                self.endpoint_ips.remove(&(endpoint.ip, number));
            }
        }
    }

    fn changed(&self, id: u32) {
        self.generations.bump(EVERYTHING);
        if let Some(entry) = self.entries.get(id as usize).and_then(Option::as_ref) {
            self.generations.bump(self.topic(&entry.key));
        }
    }

    fn drop_if_empty(&mut self, id: u32) {
        let is_empty = |entry: &Entry| entry.service.is_none() && entry.slices.is_empty();
        if let Some(entry) = self.entries[id as usize].take_if(|entry| is_empty(entry)) {
            self.ids.remove(&entry.key);
            self.free.push(id);
        }
    }
}

/// `name.namespace`, as entries are called.
pub(super) fn key(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}")
}
