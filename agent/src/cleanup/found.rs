//! What agents leave on a node, and how each of it is taken away.
//!
//! Must not know: what is said of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pagurus_agent_datapath::attach;
use pagurus_cni::ipam::Attachment;
use pagurus_cni::netlink::{Netlink as _, ROUTE_PROTOCOL, Socket};
use pagurus_cni::overlay;

use super::{Found, Options};
use crate::actuate::network::{CONFLIST, PLUGIN, STATE};
use crate::actuate::services::HEALTH_CHECKS;
use crate::dns::{self, address, keeper};

/// Looks for one part of it.
type Look = fn(&Options) -> anyhow::Result<Vec<Found>>;

/// The parts, in the order in which they go.
pub(super) const PARTS: [Look; 6] = [configuration, names, programs, network, files, folders];

/// What makes the runtime call our plugin: first of all, so that no pod is given to it meanwhile.
fn configuration(options: &Options) -> anyhow::Result<Vec<Found>> {
    let path = options.cni_conf_dir.join(CONFLIST);
    Ok(file("CNI configuration", path.clone())
        .into_iter()
        .chain(file("file", beside(&path, ".new")))
        .collect())
}

/// DNS: whoever holds its sockets, and its addresses.
fn names(options: &Options) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    let settings = keeper::Settings { socket: PathBuf::from(dns::KEEPER), command: Vec::new() };
    if keeper::is_there(&settings) {
        all.push(Found::new("process", "that holds the DNS sockets", move || {
            keeper::end(&settings).map(drop).context("tell it to end")
        }));
    }
    for address in address::present().context("look at the loopback device")? {
        all.push(Found::new("address", format!("{address} of lo"), move || {
            let mut netlink = Socket::open()?;
            let lo = netlink.link("lo")?.context("there is no loopback device")?;
            Ok(netlink.delete_address(lo.index, address)?)
        }));
    }
    // Where the service manager had the agent in a unit.
    let root = &options.cgroup_root;
    let slices = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for group in [root.clone()].into_iter().chain(slices).map(|slice| slice.join(keeper::CGROUP)) {
        if group.is_dir() {
            let shown = group.display().to_string();
            all.push(Found::new("cgroup", shown, move || remove_cgroup(&group)));
        }
    }
    Ok(all)
}

/// The process in it ends a moment after it has said so.
fn remove_cgroup(group: &Path) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 100 => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

/// Programs, which go with their links, and maps.
fn programs(options: &Options) -> anyhow::Result<Vec<Found>> {
    let pins = attach::pinned(&options.bpffs).context("list what is pinned")?;
    let kind = |path: &Path| {
        let is_link = path.parent().is_some_and(|folder| folder.ends_with("links"));
        if path.is_dir() {
            "folder"
        } else if is_link {
            "program"
        } else {
            "map"
        }
    };
    let found = |path: PathBuf| {
        Found::new(kind(&path), path.display().to_string(), move || Ok(attach::unpin(&path)?))
    };
    Ok(pins.into_iter().map(found).collect())
}

/// Routes to other nodes' pods, the overlay, and the devices of pods.
fn network(options: &Options) -> anyhow::Result<Vec<Found>> {
    let mut netlink = Socket::open()?;
    let mut all = Vec::new();
    for route in netlink.routes().context("list routes")? {
        // Those to pods of this node go with their devices.
        let Some(gateway) = route.gateway.filter(|_| route.protocol == ROUTE_PROTOCOL) else { continue };
        let name = format!("{} via {gateway}", route.destination);
        all.push(Found::new("route", name, move || Ok(Socket::open()?.delete_route(&route)?)));
    }
    let links = netlink.links().context("list network devices")?;
    let attachments = attachments()?;
    for link in links {
        let name = link.name;
        let pod = attachments.get(&name).map(|(pod, _)| pod.clone());
        let is_of_a_pod = pod.is_some() || is_of_a_pod(&name);
        if name == overlay::DEVICE || (options.pods && is_of_a_pod) {
            all.push(device(name));
        } else if is_of_a_pod {
            let pod = pod.unwrap_or_else(|| "a pod".to_owned());
            let why = format!("it connects {pod}, which runs; drain the node first, or give --pods");
            all.push(Found { kind: "device", name, fate: Err(why) });
        }
    }
    Ok(all)
}

fn device(name: String) -> Found {
    Found::new("device", name.clone(), move || Ok(Socket::open()?.delete_link(&name)?))
}

/// Whether a device has a name as the plugin gives it.
fn is_of_a_pod(name: &str) -> bool {
    name.strip_prefix("pgr")
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// Pods and the files that tell of them, by the names of their devices.
fn attachments() -> anyhow::Result<BTreeMap<String, (String, PathBuf)>> {
    let mut all = BTreeMap::new();
    for path in
        listed(Path::new(STATE))?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        // One that cannot be read tells of nobody, and goes with the others.
        if let Ok(attachment) = serde_json::from_slice::<Attachment>(&bytes) {
            all.insert(attachment.key.host_link(), (attachment.pod, path));
        }
    }
    Ok(all)
}

fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", folder.display()))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths =
        paths.collect::<io::Result<Vec<_>>>().with_context(|| format!("list {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// Files: of DNS, of health checks and of the pod network.
fn files(options: &Options) -> anyhow::Result<Vec<Found>> {
    let mut paths = vec![PathBuf::from(dns::KEEPER), options.cni_socket.clone()];
    for kept in [dns::NAMES, HEALTH_CHECKS] {
        let kept = PathBuf::from(kept);
        paths.extend([kept.with_extension("next"), kept]);
    }
    let plugin = options.cni_bin_dir.join(PLUGIN);
    let loopback = options.cni_bin_dir.join("loopback");
    if fs::read_link(&loopback).is_ok_and(|to| to == Path::new(PLUGIN)) {
        paths.push(loopback);
    }
    paths.extend([plugin, options.cni_bin_dir.join(format!(".{PLUGIN}.new"))]);
    // Of pods that stay connected, so does what is known.
    let mut netlink = Socket::open()?;
    let mut connected = Vec::new();
    for (link, (_, path)) in attachments()? {
        if !options.pods && netlink.link(&link)?.is_some() {
            connected.push(path);
        }
    }
    paths.extend(listed(Path::new(STATE))?.into_iter().filter(|path| !connected.contains(path)));
    Ok(paths.into_iter().filter_map(|path| file("file", path)).collect())
}

/// The folders of state, if nothing is in them any more.
fn folders(_: &Options) -> anyhow::Result<Vec<Found>> {
    let state = PathBuf::from(STATE);
    if !is_empty(&state)? {
        return Ok(Vec::new());
    }
    Ok(vec![Found::new("folder", state.display().to_string(), move || {
        fs::remove_dir(&state)?;
        match state.parent() {
            Some(parent) if is_empty(parent)? => Ok(fs::remove_dir(parent)?),
            _ => Ok(()),
        }
    })])
}

/// Whether a folder is there with nothing in it. One that is mounted here is the node's to remove.
fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    Ok(folder.is_dir() && !is_mounted(folder) && listed(folder)?.is_empty())
}

/// Whether a folder is another file system than the one it is in, or another part of it.
fn is_mounted(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == folder))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

/// A file, if it is there.
fn file(kind: &'static str, path: PathBuf) -> Option<Found> {
    path.symlink_metadata().is_ok().then(|| {
        Found::new(kind, path.display().to_string(), move || match fs::remove_file(&path) {
            // Such as a socket whose process has removed it when it ended.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        })
    })
}

/// The lock, and its folder if nothing else is in it.
pub(super) fn remove_lock(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    match path.parent() {
        Some(folder) if is_empty(folder)? => {
            fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_pods() {
        for (name, expected) in [
            ("pgr0123456789ab", true),
            ("pgr_vxlan", false),
            ("pgr0123456789a", false),
            ("pgr0123456789xy", false),
            ("eth0", false),
        ] {
            assert_eq!(is_of_a_pod(name), expected, "{name}");
        }
    }
}
