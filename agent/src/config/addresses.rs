//! Finds the addresses of this node when none were given: those the machine would send from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::bail;

/// One address, or one of each family. The family by which the API server is reached comes first.
pub(super) fn of_this_machine(api_server: Option<&str>) -> anyhow::Result<Vec<IpAddr>> {
    let api_server: Option<IpAddr> = api_server
        .and_then(|host| host.trim_matches(['[', ']']).parse().ok())
        .filter(|ip: &IpAddr| !ip.is_loopback());
    // Documentation addresses: nobody has them, so only a default route leads there. Nothing is sent.
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let mut found: Vec<IpAddr> = Vec::new();
    for target in api_server.into_iter().chain([v4, v6]) {
        if let Some(source) = source_towards(target)
            && !found.iter().any(|ip| ip.is_ipv4() == source.is_ipv4())
        {
            found.push(source);
        }
    }
    if found.is_empty() {
        found.extend(first_of_an_interface());
    }
    if found.is_empty() {
        bail!("no interface but loopback has an address");
    }
    Ok(found)
}

/// The address the kernel would send from towards `target`.
fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    is_usable(source).then_some(source)
}

fn first_of_an_interface() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .find(|address| is_usable(*address))
}

fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_addresses() {
        let check = |address: &str, usable: bool| {
            assert_eq!(is_usable(address.parse().expect("address")), usable, "{address}");
        };
        check("10.0.0.1", true);
        check("fd00::1", true);
        check("127.0.0.1", false);
        check("::1", false);
        check("169.254.1.1", false);
        check("fe80::1", false);
        check("0.0.0.0", false);
    }
}
