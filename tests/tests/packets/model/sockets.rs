//! Sockets of the node itself: what the programs at `connect` make of a destination, what the rules say, and what trace says.
//!
//! Must not know: packets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::Service;
use pagurus_agent_core::services::kube_proxy::{Cluster, Connection, Holder, Verdict, Way};
use pagurus_agent_core::trace::{Outcome, Question, SOURCE_PORT, trace};
use pagurus_agent_datapath::reading::Reader;

/// Where a connected socket really sends to, whatever it is told: as the kernel lists it.
fn real_peer(socket: &UdpSocket) -> Result<SocketAddr> {
    let own = socket.local_addr()?;
    let file = if own.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let text = std::fs::read_to_string(file).context(file)?;
    let port = format!(":{:04X}", own.port());
    let mut fields = text.lines().skip(1).map(|line| line.split_whitespace().skip(1));
    let peer = fields.find_map(|mut fields| fields.next()?.ends_with(&port).then(|| fields.next())?);
    let (ip, port) = peer.and_then(|peer| peer.split_once(':')).with_context(|| text.clone())?;
    // Words as the machine has them in memory.
    let words: Vec<u8> = (0..ip.len() / 8)
        .map(|word| u32::from_str_radix(&ip[word * 8..word * 8 + 8], 16).map(u32::to_ne_bytes))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let ip: IpAddr = match <[u8; 4]>::try_from(&words[..]) {
        Ok(octets) => Ipv4Addr::from(octets).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&words[..])?).into(),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

/// Whether only the packet programs can tell who may use a frontend.
fn is_guarded(service: &Service, way: Way, ip: &IpAddr) -> bool {
    let mut own =
        service.source_ranges.iter().filter(|range| range.addr().is_ipv4() == ip.is_ipv4()).peekable();
    way == Way::LoadBalancer && own.peek().is_some() && own.all(|range| range.prefix_len() > 0)
}

/// Connects to a destination, and looks where that leads; whether it was a Service with endpoints.
pub(super) fn connect(reader: &Reader, cluster: &Cluster, to: SocketAddr) -> Result<bool> {
    let protocol = Protocol::Udp;
    let connection =
        Connection { is_inside: true, source: to.ip(), destination: to.ip(), port: to.port(), protocol };
    let question = Question { from: None, from_port: SOURCE_PORT, to, protocol, socket: true, first: true };
    let said = trace(reader, &question);
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    let connected = socket.connect(to).map_err(|error| error.kind());
    let context = || format!("{connected:?}, trace says {said:#?}");
    let guarded = matches!(
        cluster.holder(&connection),
        Some(Holder::Service(service, _, way)) if is_guarded(service, way, &to.ip())
    );
    let verdict = if guarded { Verdict::Elsewhere } else { cluster.verdict(&connection) };
    match verdict {
        Verdict::Elsewhere => {
            ensure!(connected.is_ok() && said.outcome == Outcome::Untouched, "{}", context());
            let peer = real_peer(&socket)?;
            ensure!(peer == to, "to {peer}: {}", context());
            Ok(false)
        }
        Verdict::Refused | Verdict::Dropped(_) => {
            ensure!(connected == Err(ErrorKind::ConnectionRefused), "{}", context());
            ensure!(said.outcome == Outcome::Refused, "{}", context());
            Ok(false)
        }
        Verdict::To(all) => {
            ensure!(connected.is_ok() && socket.peer_addr()? == to, "{}", context());
            let peer = real_peer(&socket)?;
            let places: BTreeSet<SocketAddr> =
                all.iter().map(|backend| SocketAddr::new(backend.ip, backend.port)).collect();
            ensure!(places.contains(&peer), "to {peer}, which is none of {places:?}: {}", context());
            let wanted = match places.len() {
                1 => Outcome::Backend(peer),
                count => Outcome::AnyOf(u32::try_from(count)?),
            };
            ensure!(said.outcome == wanted, "{wanted:?}: {}", context());
            Ok(true)
        }
    }
}
