//! What the programs say to each other about a packet that was decided, nobody else can say: a pod that marks its packets alike leaves the
//! cluster with its node's address all the same.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_ebpf_abi::{NODE_DELIVER, NODE_FORWARD, NODE_MASQUERADE};
use pagurus_tests::bpf::register::{R0, R1, R2};
use pagurus_tests::bpf::{AT_TCX_EGRESS, Code, Kind, attach, load};
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{Topology, WORLD, tcp_ask, tcp_server};

use super::sockets::programs_at;

/// `skb->tc_index` of a packet that was decided (`packet/skb.rs` of the programs), and where the context has it.
const DECIDED: i32 = 0x5047;
const TC_INDEX: i16 = 44;
/// What a program answers after which others are asked.
const GO_ON: i32 = -1;

/// Marks what leaves a device of the calling thread's namespace, until dropped.
fn mark(device: &str) -> Result<OwnedFd> {
    let mut code = Code::default();
    code.mov_value(R2, DECIDED).store32(R1, TC_INDEX, R2).mov_value(R0, GO_ON).exit();
    let ifindex = Socket::open()?.link(device)?.context("the pod's device")?.index;
    attach(&load(Kind::Tc, &code)?, ifindex, AT_TCX_EGRESS)
}

#[test]
fn a_pod_cannot_say_that_its_packets_were() {
    isolated("packets::decided::a_pod_cannot_say_that_its_packets_were", |sandbox| {
        let mut topology = Topology::new(sandbox, 1)?;
        let pod = topology.nodes[0].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&pod])? else { return Ok(()) };
        let _marks = pod.host.run(|| mark("eth0"))?;
        // By the kernel's forwarding, and by the programs' own.
        for flags in [0, NODE_DELIVER | NODE_FORWARD] {
            here.configure(|config| config.flags = flags | NODE_MASQUERADE)?;
            for (ip, node) in WORLD.both().into_iter().zip(topology.nodes[0].ips.both()) {
                let _server = tcp_server(&topology.world, ip, 7070, "world")?;
                let answer = tcp_ask(&pod.host, SocketAddr::new(ip, 7070))?;
                ensure!(answer.client.ip() == node, "{flags}: {answer:?}");
            }
        }
        Ok(())
    });
}
