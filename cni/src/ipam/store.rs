//! The attachments of this node on disk: one file each, on disk before the address is used and removed after it is free.
//!
//! A file is written whole beside its place and renamed, so a crash leaves the old state or the new one. Attachments of
//! an earlier boot are forgotten: their namespaces are gone. Must not know: wiring.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ipam::{HostPort, range};

/// What an attachment is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The runtime's id of the container (for pods: of the sandbox).
    pub container_id: String,
    /// Name of the device in the container.
    pub ifname: String,
}

impl Key {
    /// A name for the host's end of the pair: the same for the same attachment, other for others, short enough.
    pub fn host_link(&self) -> String {
        // FNV-1a, 64 bits.
        let bytes = self.container_id.bytes().chain([0]).chain(self.ifname.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("pgr{:012x}", hash >> 16)
    }

    fn file_name(&self) -> String {
        format!("{}@{}.json", self.container_id, self.ifname)
    }
}

/// A container's connection to the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Its name.
    #[serde(flatten)]
    pub key: Key,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// The pod, for people: namespace/name.
    pub pod: String,
    /// Its uid, if the runtime says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Ports of the node that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// The boot it was made in.
    pub boot_id: String,
}

/// The pod that a container is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// Namespace/name.
    pub name: String,
    /// Its uid; empty if nobody says it.
    pub uid: String,
}

impl From<&str> for PodName {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), uid: String::new() }
    }
}

/// Why an address cannot be given or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{operation} {path}")]
    File {
        /// What was done.
        operation: &'static str,
        /// To which file.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Every address is in use.
    #[error("no address of {0} is free")]
    Exhausted(IpNet),
    /// A port of the node leads to another pod already.
    #[error("host port {port} is taken by pod {pod}; it is free when that pod has gone")]
    HostPort {
        /// The port.
        port: HostPort,
        /// Who has it: namespace/name.
        pod: String,
    },
    /// The node has no ranges yet.
    #[error("the node has no pod address ranges yet")]
    NoRange,
}

fn file_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { operation, path: path.display().to_string(), source }
}

/// All attachments.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    boot_id: String,
    attachments: BTreeMap<Key, Attachment>,
    /// The address given last, by range.
    last: BTreeMap<IpNet, IpAddr>,
    /// Files set aside because they could not be read.
    damaged: Vec<PathBuf>,
}

impl Store {
    /// Reads the folder, making it if need be.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::open_in_boot(folder, boot_id.trim())
    }

    fn open_in_boot(folder: &Path, boot_id: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| file_error("create", folder, source))?;
        let mut store = Self {
            folder: folder.to_owned(),
            boot_id: boot_id.to_owned(),
            attachments: BTreeMap::new(),
            last: BTreeMap::new(),
            damaged: Vec::new(),
        };
        let entries = fs::read_dir(folder).map_err(|source| file_error("list", folder, source))?;
        for entry in entries {
            let path = entry.map_err(|source| file_error("list", folder, source))?.path();
            store.read(&path)?;
        }
        Ok(store)
    }

    fn read(&mut self, path: &Path) -> Result<(), Error> {
        match path.extension().and_then(|extension| extension.to_str()) {
            // Left by a crash while writing: the address was not in use yet.
            Some("new") => return remove(path),
            Some("json") => {}
            _ => return Ok(()),
        }
        let bytes = fs::read(path).map_err(|source| file_error("read", path, source))?;
        match serde_json::from_slice::<Attachment>(&bytes) {
            Ok(attachment) if attachment.boot_id == self.boot_id => {
                self.attachments.insert(attachment.key.clone(), attachment);
                Ok(())
            }
            Ok(_) => remove(path),
            Err(_) => {
                let aside = path.with_extension("damaged");
                fs::rename(path, &aside).map_err(|source| file_error("rename", path, source))?;
                self.damaged.push(aside);
                Ok(())
            }
        }
    }

    /// Files set aside because they could not be read; their addresses are only known from the kernel's routes.
    pub fn damaged(&self) -> &[PathBuf] {
        &self.damaged
    }

    /// The attachment of this name.
    pub fn get(&self, key: &Key) -> Option<&Attachment> {
        self.attachments.get(key)
    }

    /// All attachments.
    pub fn iter(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// The attachment of this name, made with one free address of each range if there is none. It is on disk when this
    /// returns. `also_used` are addresses that are in use though no attachment has them.
    pub fn reserve(
        &mut self,
        key: &Key,
        netns: &Path,
        pod: impl Into<PodName>,
        host_ports: &[HostPort],
        ranges: &[IpNet],
        also_used: impl Fn(&IpAddr) -> bool,
    ) -> Result<Attachment, Error> {
        let known = self.attachments.get(key).filter(|known| known.netns == netns && !known.ips.is_empty());
        if let Some(known) = known {
            return Ok(known.clone());
        }
        if ranges.is_empty() {
            return Err(Error::NoRange);
        }
        let others = || self.attachments.values().filter(|other| other.key != *key);
        for port in host_ports {
            if let Some(other) = others().find(|a| a.host_ports.iter().any(|taken| taken.clashes(port))) {
                return Err(Error::HostPort { port: port.clone(), pod: other.pod.clone() });
            }
        }
        let mut ips = Vec::with_capacity(ranges.len());
        for range in ranges {
            let used = |ip: &IpAddr| {
                also_used(ip) || self.attachments.values().any(|a| a.key != *key && a.ips.contains(ip))
            };
            let ip =
                range::free(range, self.last.get(range).copied(), used).ok_or(Error::Exhausted(*range))?;
            ips.push(ip);
        }
        let pod = pod.into();
        let attachment = Attachment {
            key: key.clone(),
            netns: netns.to_owned(),
            pod: pod.name,
            pod_uid: pod.uid,
            ips,
            host_ports: host_ports.to_vec(),
            boot_id: self.boot_id.clone(),
        };
        self.write(&attachment)?;
        for (range, ip) in ranges.iter().zip(&attachment.ips) {
            self.last.insert(*range, *ip);
        }
        self.attachments.insert(key.clone(), attachment.clone());
        Ok(attachment)
    }

    /// Gives the addresses of an attachment back; that there is none is as good.
    pub fn release(&mut self, key: &Key) -> Result<(), Error> {
        remove(&self.folder.join(key.file_name()))?;
        sync(&self.folder)?;
        self.attachments.remove(key);
        Ok(())
    }

    fn write(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.folder.join(attachment.key.file_name());
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(attachment)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| file_error("write", &path, source))?;
        sync(&self.folder)
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes renames and removals in a folder last.
fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|source| file_error("sync", folder, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETNS: &str = "/run/netns/x";

    fn key(container: &str) -> Key {
        Key { container_id: container.into(), ifname: "eth0".into() }
    }

    fn ranges() -> Vec<IpNet> {
        ["10.244.0.0/29", "fd00:1::/64"].iter().map(|range| range.parse().expect("a range")).collect()
    }

    fn reserve(store: &mut Store, container: &str) -> Result<Attachment, Error> {
        store.reserve(&key(container), Path::new(NETNS), "ns/pod", &[], &ranges(), |_| false)
    }

    #[test]
    fn reservations_survive_and_are_never_doubled() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open_in_boot(folder.path(), "boot").expect("open");
        let a = reserve(&mut store, "a").expect("reserve");
        assert_eq!(a.ips, ["10.244.0.1".parse::<IpAddr>().expect("ip"), "fd00:1::1".parse().expect("ip")]);
        assert_eq!(reserve(&mut store, "a").expect("again"), a);
        let b = reserve(&mut store, "b").expect("reserve");
        let mut store = Store::open_in_boot(folder.path(), "boot").expect("open again");
        assert_eq!(store.iter().count(), 2);
        let all: Vec<Attachment> =
            ["c", "d", "e", "f"].iter().map(|name| reserve(&mut store, name).expect("reserve")).collect();
        assert!(all.iter().all(|c| c.ips.iter().all(|ip| !a.ips.contains(ip) && !b.ips.contains(ip))));
        assert!(matches!(reserve(&mut store, "g"), Err(Error::Exhausted(_))));
        store.release(&key("b")).expect("release");
        store.release(&key("b")).expect("release again");
        assert_eq!(reserve(&mut store, "g").expect("the one given back").ips[0], b.ips[0]);
    }

    #[test]
    fn host_ports_are_kept_and_lead_to_one_pod() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = |store: &mut Store, container: &str, ports: &[HostPort]| {
            let pod = format!("ns/{container}");
            store.reserve(&key(container), Path::new(NETNS), &*pod, ports, &ranges(), |_| false)
        };
        let port = |port, ip: Option<&str>| HostPort {
            host_ip: ip.map(|ip| ip.parse().expect("an address")),
            host_port: port,
            container_port: 80,
            protocol: "tcp".into(),
        };
        let mut store = Store::open_in_boot(folder.path(), "boot").expect("open");
        reserve(&mut store, "a", &[port(8080, None), port(8081, Some("192.168.0.1"))]).expect("free");
        reserve(&mut store, "a", &[port(8080, None)]).expect("its own");
        let mut store = Store::open_in_boot(folder.path(), "boot").expect("open again");
        let taken = reserve(&mut store, "b", &[port(9090, None), port(8080, Some("192.168.0.2"))]);
        assert_eq!(
            taken.expect_err("taken").to_string(),
            "host port 192.168.0.2:8080/tcp is taken by pod ns/a; it is free when that pod has gone"
        );
        assert!(store.get(&key("b")).is_none());
        reserve(&mut store, "b", &[port(8081, Some("192.168.0.2"))]).expect("another address");
        store.release(&key("a")).expect("release");
        reserve(&mut store, "c", &[port(8080, None)]).expect("free again");
    }

    #[test]
    fn a_crash_while_writing_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a@eth0.new"), b"{").expect("write");
        let store = Store::open_in_boot(folder.path(), "boot").expect("open");
        assert_eq!(store.iter().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn another_boot_starts_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open_in_boot(folder.path(), "one").expect("open");
        reserve(&mut store, "a").expect("reserve");
        assert_eq!(Store::open_in_boot(folder.path(), "two").expect("open").iter().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a@eth0.json"), b"not json").expect("write");
        let store = Store::open_in_boot(folder.path(), "boot").expect("open");
        assert_eq!(store.damaged(), [folder.path().join("a@eth0.damaged")]);
        let used: IpAddr = "10.244.0.1".parse().expect("ip");
        let mut store = store;
        let b = store
            .reserve(&key("b"), Path::new(NETNS), "ns/pod", &[], &ranges(), |ip| *ip == used)
            .expect("reserve");
        assert_ne!(b.ips[0], used);
    }

    #[test]
    fn host_links_have_short_names_of_their_own() {
        let name = key("4f1e").host_link();
        assert!(name.len() == 15 && name.starts_with("pgr"), "{name}");
        assert_ne!(name, key("4f1f").host_link());
        assert_ne!(name, Key { container_id: "4f1e".into(), ifname: "eth1".into() }.host_link());
    }
}
