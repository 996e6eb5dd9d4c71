//! Real sockets through the program in the driver of a node's uplink, first alone and then with those behind it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use super::super::programs::Programs;
use super::super::sockets;
use anyhow::{Result, ensure};
use nix::libc;
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{CLIENT, Host, PATIENCE, Topology};

/// Makes checksums before packets leave a device: a program in a driver sees no others than those in the packet.
fn sum_at_once(host: &Host, device: &str) -> Result<()> {
    /// `SIOCETHTOOL`, `ETHTOOL_STXCSUM`.
    const ETHTOOL: libc::c_ulong = 0x8946;
    const SET_SENT_CHECKSUMS: u32 = 0x17;
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        data: *mut [u32; 2],
        rest: [u64; 2],
    }
    host.run(|| {
        let mut value = [SET_SENT_CHECKSUMS, 0];
        let mut request = Request { name: [0; 16], data: &raw mut value, rest: [0; 2] };
        request.name[..device.len()].copy_from_slice(device.as_bytes());
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // SAFETY: the request is a `struct ifreq` with a pointer to a `struct ethtool_value`, both alive during the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
        ensure!(done == 0, "{device}: {}", io::Error::last_os_error());
        Ok(())
    })
}

#[test]
fn sockets_talk_through_the_driver() {
    isolated("packets::xdp::driver::sockets_talk_through_the_driver", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let remote = topology.nodes[1].pod()?;
        let local = topology.nodes[0].pod()?;
        // What a driver's program sends back over a pair of devices arrives only where a program is, too.
        let Some(mut far) = Programs::load()? else { return Ok(()) };
        far.attach_early("p-node1")?;
        let node = &topology.nodes[0];
        sum_at_once(&topology.client, "eth0")?;
        sum_at_once(&topology.nodes[1].host, "eth0")?;
        // The kernel asks who its neighbours are when it sends them something.
        for ip in CLIENT.both().into_iter().chain(topology.nodes[1].ips.both()) {
            eventually(&format!("{ip} is known"), PATIENCE, || {
                node.host.run(|| {
                    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    Ok(UdpSocket::bind(any)?.send_to(b"who?", (ip, 9))?)
                })?;
                let known = node.host.ip(&["neigh", "show", "to", &ip.to_string()])?;
                Ok(known.contains("REACHABLE").then_some(()))
            })?;
        }
        let own: [IpAddr; 2] = node.ips.both();
        // Nothing but the driver's program is there: the kernel knows no Service.
        let mut early = node.host.run(|| {
            let Some(mut programs) = Programs::load()? else { return Ok(None) };
            programs.node(&own)?;
            programs.attach_early("eth0")?;
            Ok(Some(programs))
        })?;
        let Some(early) = &mut early else { return Ok(()) };
        sockets::serve(early, &remote, false, 0)?;
        for ip in own {
            let to = SocketAddr::new(ip, 30_080);
            sockets::ask("driver alone", &topology.client, &remote, to, Some(ip))?;
        }
        ensure!(early.warm()? >= 4, "{}", early.warm()?);
        // With the other programs: backends of this node, too.
        for program in ["from_outside", "to_outside"] {
            node.host.run(|| early.attach(program, "eth0"))?;
        }
        sum_at_once(&node.host, "eth0")?;
        sockets::serve(early, &local, true, 0)?;
        for (ip, client) in own.into_iter().zip(CLIENT.both()) {
            sockets::ask("local", &topology.client, &local, SocketAddr::new(ip, 30_080), Some(client))?;
        }
        sockets::serve(early, &remote, false, 0)?;
        for ip in own {
            sockets::ask("both", &topology.client, &remote, SocketAddr::new(ip, 30_080), Some(ip))?;
        }
        Ok(())
    });
}
