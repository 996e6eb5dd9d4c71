//! The network of a cluster: a bridge in the fabric namespace, one namespace with `eth0` for each node. Level-triggered: what is
//! there is kept, what is missing is made.

use super::{Cluster, FABRIC_V4, FABRIC_V6, Node};
use crate::process::{output, words};
use anyhow::{Context as _, Result};
use std::path::Path;

/// The bridge's hardware address: locally administered, and seen by nobody outside the fabric.
const FABRIC_MAC: &str = "02:50:67:72:00:01";

/// Where `ip netns` keeps names; its first use makes this directory, mounted on itself.
const NAMES: &str = "/run/netns";
/// Says that the directory was made for us, so that it goes with the last cluster.
const NAMES_ARE_OURS: &str = "/run/pagurus-netns";

fn netns(name: &str) -> Result<()> {
    if !Path::new(NAMES).exists() {
        std::fs::write(NAMES_ARE_OURS, "").with_context(|| format!("cannot write {NAMES_ARE_OURS}"))?;
    }
    if !Path::new(NAMES).join(name).exists() {
        output(&mut words(&format!("ip netns add {name}")))?;
    }
    output(&mut words(&format!("ip -n {name} link set lo up"))).map(|_| ())
}

fn has_link(namespace: &str, link: &str) -> bool {
    output(&mut words(&format!("ip -n {namespace} -o link show dev {link}"))).is_ok()
}

fn address(namespace: &str, link: &str, v4: &str, v6: &str) -> Result<()> {
    output(&mut words(&format!("ip -n {namespace} addr replace {v4}/24 dev {link}")))?;
    output(&mut words(&format!("ip -n {namespace} addr replace {v6}/64 dev {link} nodad")))?;
    output(&mut words(&format!("ip -n {namespace} link set {link} up"))).map(|_| ())
}

/// The bridge.
pub fn fabric(cluster: &Cluster) -> Result<()> {
    let fabric = cluster.fabric();
    netns(&fabric)?;
    if !has_link(&fabric, "br0") {
        output(&mut words(&format!("ip -n {fabric} link add br0 type bridge")))?;
    }
    // Given, so that it stays: a bridge without one takes the lowest of its ports', which changes as nodes come, and the nodes that
    // know the one before are not heard until they ask again, half a minute later.
    output(&mut words(&format!("ip -n {fabric} link set br0 address {FABRIC_MAC}")))?;
    address(&fabric, "br0", FABRIC_V4, FABRIC_V6)
}

/// A node's namespace and its link to the bridge.
pub fn node(node: &Node) -> Result<()> {
    let (fabric, namespace, port) = (node.cluster.fabric(), node.netns(), format!("n{}", node.number));
    netns(&namespace)?;
    if !has_link(&namespace, "eth0") {
        if has_link(&fabric, &port) {
            output(&mut words(&format!("ip -n {fabric} link delete {port}")))?;
        }
        output(&mut words(&format!(
            "ip -n {fabric} link add {port} type veth peer name eth0 netns {namespace}"
        )))?;
    }
    output(&mut words(&format!("ip -n {fabric} link set {port} master br0 up")))?;
    let (v4, v6) = node.addresses();
    address(&namespace, "eth0", &v4, &v6)?;
    output(&mut words(&format!("ip -n {namespace} route replace default via {FABRIC_V4} dev eth0")))?;
    output(&mut words(&format!("ip -n {namespace} -6 route replace default via {FABRIC_V6} dev eth0")))
        .map(|_| ())
}

/// The way from the fabric, where the control plane is, to a node's pods.
pub fn pod_routes(node: &Node, pod_cidrs: &[String]) -> Result<()> {
    let (v4, v6) = node.addresses();
    for cidr in pod_cidrs {
        let (family, via) = if cidr.contains(':') { ("-6", &v6) } else { ("-4", &v4) };
        output(&mut words(&format!(
            "ip -n {} {family} route replace {cidr} via {via} dev br0",
            node.cluster.fabric()
        )))?;
    }
    Ok(())
}

/// Every network namespace that belongs to a cluster of this name.
pub fn namespaces(cluster: &str) -> Vec<String> {
    let fabric = format!("pagurus-{cluster}");
    let node = format!("{fabric}-node-");
    let entries = std::fs::read_dir(NAMES).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            *name == fabric || name.strip_prefix(&node).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    names.sort();
    names
}

/// Removes them all, with their links.
pub fn remove(cluster: &str) -> Vec<anyhow::Error> {
    namespaces(cluster)
        .iter()
        .filter_map(|name| output(&mut words(&format!("ip netns delete {name}"))).err())
        .collect()
}

/// Takes away the directory of names if it was made for us and nobody uses it; for the end of the last cluster.
pub fn remove_directory() {
    if !Path::new(NAMES_ARE_OURS).exists() {
        return;
    }
    let empty = std::fs::read_dir(NAMES).is_ok_and(|mut entries| entries.next().is_none());
    // `ip` may have mounted it on itself more than once; when nothing is mounted there any more, unmounting fails.
    while empty && nix::mount::umount(NAMES).is_ok() {}
    if !empty || std::fs::remove_dir(NAMES).is_ok() {
        // In use by others now: it is theirs.
        let _ = std::fs::remove_file(NAMES_ARE_OURS);
    }
}
