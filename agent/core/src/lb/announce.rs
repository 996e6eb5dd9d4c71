//! Which node announces an address: the same on all nodes that know the same, without a word between them.
//!
//! Must not know: how an address is announced.

use std::net::IpAddr;

/// The one of these nodes that announces an address: the one whose name gives the highest number together with it. When a
/// node comes or goes, only addresses that it takes or had change hands.
pub fn announcer<'a>(ip: IpAddr, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes.into_iter().max_by_key(|node| (weight(ip, node), *node))
}

fn weight(ip: IpAddr, node: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    node.bytes().for_each(&mut add);
    match ip {
        IpAddr::V4(ip) => ip.octets().into_iter().for_each(add),
        IpAddr::V6(ip) => ip.octets().into_iter().for_each(add),
    }
    // FNV mixes its last bytes badly into the high bits, which decide here.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_node_for_each_address_and_little_moves() {
        let ips: Vec<IpAddr> = (0..=255).map(|last| Ipv4Addr::new(192, 168, 0, last).into()).collect();
        let nodes = ["node-1", "node-2", "node-3"];
        let mut count = [0; 3];
        for ip in &ips {
            let chosen = announcer(*ip, nodes).expect("a node");
            assert_eq!(announcer(*ip, nodes.iter().rev().copied()), Some(chosen), "in any order");
            let left = announcer(*ip, nodes.into_iter().filter(|node| *node != "node-2")).expect("a node");
            assert!(left == chosen || chosen == "node-2", "only what node-2 had moves");
            count[nodes.iter().position(|node| *node == chosen).expect("one of them")] += 1;
        }
        assert!(count.iter().all(|count| (55..=115).contains(count)), "{count:?}");
        assert_eq!(announcer(ips[0], []), None);
    }
}
