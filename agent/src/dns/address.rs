//! The addresses at which a node's DNS listens: on the loopback device, so that they lead nowhere else.
//!
//! Must not know: what is served there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use ipnet::IpNet;
use pagurus_cni::netlink::{Netlink, Socket};

/// Link-local: never routed.
pub const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// Unique local; the same on every node.
pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x5067, 0x72, 0, 0, 0, 0, 0x53);

/// Both, as far as this machine has the family.
pub fn all() -> Vec<IpAddr> {
    let has_v6 = std::path::Path::new("/proc/net/if_inet6").exists()
        && std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
            .is_ok_and(|text| text.trim() == "0");
    let v6 = has_v6.then_some(IpAddr::V6(V6));
    [IpAddr::V4(V4)].into_iter().chain(v6).collect()
}

/// Puts these addresses on the loopback device, as far as they are not there.
pub(super) fn ensure(addresses: &[IpAddr]) -> anyhow::Result<()> {
    ensure_by(&mut Socket::open()?, addresses)
}

/// Takes the addresses away.
pub fn remove() -> anyhow::Result<()> {
    remove_by(&mut Socket::open()?)
}

fn ensure_by(netlink: &mut impl Netlink, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let lo = netlink.link("lo")?.context("this machine has no loopback device")?;
    if !lo.up {
        netlink.set_up(lo.index)?;
    }
    let present = netlink.addresses(lo.index)?;
    for address in addresses.iter().map(|ip| IpNet::from(*ip)) {
        if !present.contains(&address) {
            netlink.add_address(lo.index, address)?;
        }
    }
    Ok(())
}

/// Those of the addresses that are there.
pub fn present() -> anyhow::Result<Vec<IpNet>> {
    Ok(present_by(&mut Socket::open()?)?.1)
}

/// The loopback device, and our addresses on it.
fn present_by(netlink: &mut impl Netlink) -> anyhow::Result<(u32, Vec<IpNet>)> {
    let Some(lo) = netlink.link("lo")? else { return Ok((0, Vec::new())) };
    let mut present = netlink.addresses(lo.index)?;
    let ours = [IpNet::from(IpAddr::V4(V4)), IpNet::from(IpAddr::V6(V6))];
    present.retain(|address| ours.contains(address));
    Ok((lo.index, present))
}

fn remove_by(netlink: &mut impl Netlink) -> anyhow::Result<()> {
    let (lo, present) = present_by(netlink)?;
    for address in present {
        netlink.delete_address(lo, address)?;
    }
    Ok(())
}
