//! How full the maps are that do not grow: what is written is counted, exactly where only user space writes.

use std::net::Ipv4Addr;

use pagurus_agent_core::services::plan::{MapOp, ServiceNumber};
use pagurus_agent_datapath::MapCapacity;
use pagurus_agent_datapath::fixed::Fill;
use pagurus_agent_datapath::handles::LocalPod;

use super::*;

#[test]
fn entries_are_counted() {
    with_node("datapath::fill::entries_are_counted", |_, _, mut node| {
        let capacity = MapCapacity::default();
        let check = |node: &Node, expected: [(&str, u64, u32); 8]| {
            let fills = node.datapath.fills();
            ensure!(fills.len() == expected.len(), "{fills:?}");
            for ((name, fill), (map, entries, capacity)) in fills.into_iter().zip(expected) {
                ensure!(name == map, "{name} in the place of {map}");
                ensure!(fill? == Fill { entries, capacity }, "{map}");
            }
            Ok(())
        };
        let of = |ranges, nodes, pods, announced, reverse, flows| {
            [
                ("source_ranges", ranges, capacity.source_ranges),
                ("nodes", nodes, capacity.nodes),
                ("endpoints", pods, capacity.endpoints),
                ("announced", announced, capacity.announced),
                ("reverse", reverse, capacity.reverse),
                ("flows", flows, capacity.flows),
                ("clients", 0, capacity.clients),
                ("fragments", 0, capacity.fragments),
            ]
        };
        check(&node, of(0, 0, 0, 0, 0, 0))?;
        let address = |number: u32| Ipv4Addr::from(0x0a00_0000 + number);
        let range = |number: u32| -> Result<MapOp> {
            Ok(MapOp::PutSourceRange(ServiceNumber(1), format!("{}/32", address(number)).parse()?))
        };
        // Prefixes that share the beginning of others: the trie's own branches are not entries.
        let mut ops = (0..1000).map(range).collect::<Result<Vec<_>>>()?;
        ops.push(MapOp::PutSourceRange(ServiceNumber(1), "10.0.0.0/8".parse()?));
        ops.push(MapOp::PutSourceRange(ServiceNumber(1), "fd00::/8".parse()?));
        let here = NodeAddress { local: false, node_ports: true };
        ops.extend((0..3000).map(|number| MapOp::PutNode(address(number).into(), here)));
        node.datapath.services().apply(&ops)?;
        let pod = LocalPod { ifindex: 1, mac: [2; 6], host_mac: [3; 6] };
        let mut pods = node.datapath.endpoints()?;
        pods.replace(&(0..20).map(|number| (address(number).into(), pod)).collect())?;
        let mut announced = node.datapath.announced()?;
        announced.set(address(1).into(), 1, [2; 6])?;
        check(&node, of(1002, 3000, 20, 1, 0, 0))?;
        pods.replace(&BTreeMap::new())?;
        announced.remove(address(1).into(), 1)?;
        // What sockets leave is counted, too.
        let backends = udp_servers(&["127.0.1.1"])?;
        node.serve(&[frontend(V4, 53, Protocol::Udp)?], &backends)?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(patience(Duration::from_secs(5))))?;
        client.send_to(b"?", format!("{V4}:53"))?;
        client.recv_from(&mut [0; 64])?;
        check(&node, of(1002, 3000, 0, 0, 1, 1))
    });
}
