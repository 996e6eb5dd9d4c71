//! The network devices of this node, as the kernel tells of them, and when something about them changes.
//!
//! Must not know: what a device is for.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::IpAddr;

use anyhow::Context as _;
use nix::sys::socket::SockProtocol;
use pagurus_agent_core::devices::Link;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::observe::netlink::{Netlink, attributes, half, text, word};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Lengths of the fixed parts of messages.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
/// Attributes of links, addresses and routes.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
/// Links, addresses and routes of both families, as bits of the old group mask.
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The devices, by number.
    pub links: Vec<Link>,
    /// Devices that default routes lead through.
    pub default_routes: BTreeSet<u32>,
    /// A hash of all routes, to notice when they change.
    pub routes: u64,
}

/// Looks at the devices of the network namespace of the calling thread.
pub fn look() -> anyhow::Result<Seen> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute, 0).context("open netlink socket")?;
    let links = netlink.list(RTM_GETLINK, &[0; LINK]).context("list network devices")?;
    let mut links: Vec<Link> = links
        .iter()
        .filter(|message| message.kind == RTM_NEWLINK)
        .filter_map(|message| link(&message.body))
        .collect();
    links.sort_by_key(|link| link.index);
    let addresses = netlink.list(RTM_GETADDR, &[0; ADDRESS]).context("list addresses of network devices")?;
    for message in addresses.iter().filter(|message| message.kind == RTM_NEWADDR) {
        if let Some((index, ip)) = address(&message.body)
            && let Ok(place) = links.binary_search_by_key(&index, |link| link.index)
        {
            links[place].addresses.push(ip);
        }
    }
    let routes = netlink.list(RTM_GETROUTE, &[0; ROUTE]).context("list routes")?;
    let routes = || routes.iter().filter(|message| message.kind == RTM_NEWROUTE);
    let default_routes = routes().flat_map(|message| default_route(&message.body)).collect();
    Ok(Seen { links, default_routes, routes: hash(routes().map(|message| message.body.as_slice())) })
}

/// Routes as one number, whatever their order, without how often and for how long they are used.
fn hash<'a>(routes: impl Iterator<Item = &'a [u8]>) -> u64 {
    let hash = |body: &[u8]| {
        let mut hasher = DefaultHasher::new();
        body.get(..ROUTE).hash(&mut hasher);
        for attribute in attributes(body, ROUTE).filter(|(number, _)| *number != RTA_CACHEINFO) {
            attribute.hash(&mut hasher);
        }
        hasher.finish()
    };
    routes.fold(0, |sum, body| sum.wrapping_add(hash(body)))
}

/// `struct ifinfomsg`: family, type of device, index, flags; then attributes.
fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: word(body, 4)?,
        up: word(body, 8)? & IFF_UP != 0,
        ethernet: half(body, 2)? == ARPHRD_ETHER,
        ..Link::default()
    };
    for (number, value) in attributes(body, LINK) {
        match number {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value, 0).unwrap_or(0),
            IFLA_MASTER => link.master = word(value, 0).unwrap_or(0),
            IFLA_LINKINFO => {
                let kind = attributes(value, 0).find(|(number, _)| *number == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, kind)| text(kind)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index; then attributes.
fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let index = word(body, 4)?;
    // At one end of a line from point to point `IFA_ADDRESS` is the other end's.
    let of = |wanted| attributes(body, ADDRESS).find(|(number, _)| *number == wanted);
    let (_, value) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let ip = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    Some((index, ip))
}

/// `struct rtmsg`: family, lengths of prefixes, ..., table, protocol, scope, type; then attributes. The devices of a default
/// route of the main table.
fn default_route(body: &[u8]) -> Vec<u32> {
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    if !matches!(body, [_, 0, _, _, MAIN, _, _, UNICAST, ..]) {
        return Vec::new();
    }
    let of = |wanted| attributes(body, ROUTE).find(|(number, _)| *number == wanted).map(|(_, value)| value);
    let direct = of(RTA_OIF).and_then(|value| word(value, 0));
    // `struct rtnexthop` each: length, flags, hops, device.
    let mut hops = of(RTA_MULTIPATH).unwrap_or_default();
    let several = std::iter::from_fn(move || {
        let length = usize::from(half(hops, 0)?).max(8);
        let device = word(hops, 4)?;
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(device)
    });
    direct.into_iter().chain(several).collect()
}

/// Tells that something about devices, addresses or routes has changed.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<Netlink>,
}

impl Changes {
    /// Begins to listen, in the network namespace of the calling thread.
    pub fn listen() -> anyhow::Result<Self> {
        let netlink = Netlink::open(SockProtocol::NetlinkRoute, GROUPS)
            .context("listen to changes of network devices")?;
        // SAFETY: the socket owns its descriptor, names always the same one, and lives as long as this value.
        let socket = unsafe { AsyncFd::register_with_interest(netlink, Interest::READABLE) };
        let socket = socket.map_err(std::io::Error::from).context("watch a netlink socket")?;
        Ok(Self { socket })
    }

    /// Waits for the next change; what came together is one.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let told = ready.get_inner().drain()?;
            ready.clear_ready();
            if told {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_device() {
        let seen = look().expect("devices can be listed");
        let lo = seen.links.iter().find(|link| link.name == "lo").expect("lo");
        assert!(!lo.ethernet && lo.kind.is_empty() && lo.index > 0);
        assert!(!lo.up || lo.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{lo:?}");
    }

    #[test]
    fn routes_are_others_when_something_about_them_is() {
        let route = |last: u8, used: u8| {
            let mut body = vec![2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
            body.extend([8, 0, 1, 0, 10, 0, 0, last, 8, 0, 12, 0, used, 0, 0, 0]);
            body
        };
        let hash_of = |routes: &[Vec<u8>]| hash(routes.iter().map(Vec::as_slice));
        let both = hash_of(&[route(1, 1), route(2, 1)]);
        assert_eq!(both, hash_of(&[route(2, 9), route(1, 5)]), "in another order, used again");
        for others in [&[][..], &[route(1, 1)], &[route(1, 1), route(3, 1)], &[route(1, 1), route(1, 1)]] {
            assert_ne!(both, hash_of(others), "{others:?}");
        }
    }

    #[test]
    fn default_routes() {
        let check = |prefix: u8, table: u8, attributes: &[u8], expected: &[u32]| {
            let mut body = vec![2, prefix, 0, 0, table, 3, 0, 1, 0, 0, 0, 0];
            body.extend(attributes);
            assert_eq!(default_route(&body), expected);
        };
        let device = [8, 0, 4, 0, 7, 0, 0, 0];
        check(0, 254, &device, &[7]);
        check(24, 254, &device, &[]);
        check(0, 255, &device, &[]);
        let hops = [20, 0, 9, 0, 8, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0];
        check(0, 254, &hops, &[3, 4]);
        check(0, 254, &[], &[]);
        assert_eq!(default_route(&[]), Vec::<u32>::new());
    }
}
