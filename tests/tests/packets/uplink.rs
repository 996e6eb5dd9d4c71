//! A network namespace with one uplink, behind which is everything else: all its ways lead to one gateway, and nobody need answer there.
//!
//! Must not know: what packets there are.

use anyhow::{Context as _, Result};
use pagurus_tests::netns::ip;

/// The uplink's hardware address, and that of everybody else on its network.
pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 7, 1];
pub(super) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 7, 0xfe];

/// Makes it in the namespace of the caller, whose addresses are then 192.168.7.1 and fd77::1; the uplink's number.
pub(super) fn make() -> Result<u32> {
    ip(&["link", "add", "up0", "address", "02:00:00:00:07:01", "type", "veth", "peer", "name", "up0-p"])?;
    for device in ["up0", "up0-p"] {
        ip(&["link", "set", "dev", device, "up"])?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    for (address, gateway) in [("192.168.7.1/24", "192.168.7.254"), ("fd77::1/64", "fd77::fe")] {
        ip(&["address", "add", address, "dev", "up0", "nodad"])
            .or_else(|_| ip(&["address", "add", address, "dev", "up0"]))?;
        is_at_the_gateway(gateway)?;
        ip(&["route", "add", "default", "via", gateway, "dev", "up0"])?;
    }
    nix::net::if_::if_nametoindex("up0").context("find up0")
}

/// Says that an address of the uplink's network is at the gateway's hardware address.
pub(super) fn is_at_the_gateway(address: &str) -> Result<()> {
    ip(&["neigh", "add", address, "lladdr", "02:00:00:00:07:fe", "dev", "up0", "nud", "permanent"]).map(drop)
}
