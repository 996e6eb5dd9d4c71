//! What the programs say to each other about a packet that was decided, nobody else can say: a pod that marks its packets alike leaves the
//! cluster with its node's address all the same.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_ebpf_abi::{NODE_DELIVER, NODE_FORWARD, NODE_MASQUERADE};
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{Topology, WORLD, tcp_ask, tcp_server};

use super::sockets::programs_at;

/// Commands of bpf(2), and the kinds of program and attachment.
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_EGRESS: u32 = 47;
/// `skb->tc_index` of a packet that was decided (`packet/skb.rs` of the programs), and where the context has it.
const DECIDED: u32 = 0x5047;
const TC_INDEX: u64 = 44;

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, and the buffers that they name live during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    ensure!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(result)?) })
}

/// Marks what leaves a device of the calling thread's namespace, until dropped.
fn mark(device: &str) -> Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        code: u64,
        license: u64,
        rest: [u64; 4],
    }
    #[repr(C)]
    struct Link {
        program: i32,
        ifindex: u32,
        place: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        revision: u64,
    }
    // r2 = DECIDED; context->tc_index = r2; return "go on".
    let code = [
        0xb7 | 2 << 8 | u64::from(DECIDED) << 32,
        0x63 | 1 << 8 | 2 << 12 | TC_INDEX << 16,
        0xb7 | 0xffff_ffff << 32,
        0x95,
    ];
    let mut load = Load {
        kind: SCHED_CLS,
        count: 4,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 4],
    };
    let program = bpf(PROG_LOAD, &mut load).context("load a program")?;
    let ifindex = Socket::open()?.link(device)?.context("the pod's device")?.index;
    let mut link = Link {
        program: program.as_raw_fd(),
        ifindex,
        place: TCX_EGRESS,
        flags: 0,
        relative: 0,
        padding: 0,
        revision: 0,
    };
    bpf(LINK_CREATE, &mut link).context("attach it")
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
