//! SCTP between network namespaces: the peers among themselves.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::sctp::{Association, has_sockets, kernel_ask, kernel_server, sctp_server};
use pagurus_tests::topology::Topology;

#[test]
fn peers_understand_each_other() {
    if has_sockets() {
        println!("SKIPPED: this kernel speaks SCTP itself, and ends associations that it does not know");
        return;
    }
    isolated("sctp::peers_understand_each_other", |sandbox| -> Result<()> {
        let mut topology = Topology::new(sandbox, 2)?;
        let (client, server) = (topology.nodes[0].pod()?, topology.nodes[1].pod()?);
        for ip in server.ips.both() {
            let serving = sctp_server(&server.host, ip, 7000, "server")?;
            let mut association = Association::connect(&client.host, 4000, serving.address)?;
            for size in [1, 100, 1400, 9000] {
                let answer = association.ask(&vec![b'?'; size])?;
                ensure!(answer.server == "server");
                ensure!(answer.client == SocketAddr::new(client.ips.like(ip), 4000), "{answer:?}");
            }
            association.shutdown()?;
            Association::connect(&client.host, 4001, serving.address)?.abort()?;
            // Without a socket of the protocol the kernel refuses it.
            let address: SocketAddr = serving.address;
            drop(serving);
            ensure!(Association::connect(&client.host, 4002, address).is_err());
        }
        Ok(())
    });
}

#[test]
fn the_kernels_own_sockets() {
    const NAME: &str = "sctp::the_kernels_own_sockets";
    if !has_sockets() {
        println!("SKIPPED: this kernel has no SCTP sockets (`cargo xtask test --vm` tries another one)");
        return;
    }
    isolated(NAME, |sandbox| -> Result<()> {
        let mut topology = Topology::new(sandbox, 2)?;
        let (client, server) = (topology.nodes[0].pod()?, topology.nodes[1].pod()?);
        for ip in server.ips.both() {
            let address = kernel_server(&server.host, ip, 7000, "server")?;
            for size in [10, 4000] {
                let answer = kernel_ask(&client.host, address, size)?;
                ensure!(answer.server == "server");
                ensure!(answer.client.ip() == client.ips.like(ip), "{answer:?}");
            }
        }
        Ok(())
    });
}
