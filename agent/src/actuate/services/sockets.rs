//! Ends the UDP sockets that are connected to a backend which is no more: nothing would ever tell their programs. The kernel
//! gives them an error (ECONNABORTED), they connect anew and get another backend. TCP finds out by itself.
//!
//! Sockets live in the network namespaces of pods, so that each namespace is entered, in a thread made for it. Must not know: which
//! backends went, which sockets are ours (the caller says).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockProtocol;
use pagurus_agent_core::services::plan::ServiceNumber;
use pagurus_agent_datapath::reading::Connections;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;
use crate::observe::netlink::{Netlink, word};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
const UDP: u8 = libc::IPPROTO_UDP as u8;
/// Connected ones, as a bit of the state's number.
const CONNECTED: u32 = 1 << 1;
/// `struct inet_diag_sockid`, and where it begins in a request and in an answer.
const ID: usize = 48;
const ID_IN_REQUEST: usize = 8;
const ID_IN_ANSWER: usize = 4;
/// Where namespaces have names.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Backends that went together are looked for together.
const GATHER: Duration = Duration::from_millis(50);

/// Backends that take no datagrams any more, and the Services they were of.
#[derive(Debug, Default)]
pub(super) struct Endings {
    waiting: Mutex<BTreeSet<(ServiceNumber, SocketAddr)>>,
    added: Notify,
}

impl Endings {
    /// More of them.
    pub(super) fn add(&self, ended: BTreeSet<(ServiceNumber, SocketAddr)>) {
        if !ended.is_empty() {
            self.waiting.lock().extend(ended);
            self.added.notify_one();
        }
    }
}

/// Ends the sockets of backends that went, until cancelled.
pub(super) async fn run(
    context: Arc<NodeContext>,
    endings: Arc<Endings>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    loop {
        tokio::select! {
            () = endings.added.notified() => {}
            () = cancel.cancelled() => return Ok(()),
        }
        tokio::time::sleep(GATHER).await;
        let ended = std::mem::take(&mut *endings.waiting.lock());
        let bpffs = context.config.bpffs.clone();
        let job = move || -> anyhow::Result<Ended> {
            let connections = Connections::open(&bpffs)?;
            Ok(end(|socket| {
                // Only those that came to the backend through that Service: others have it by its own address, or by another's.
                let service = connections.service_of(socket.cookie, socket.peer);
                service.is_some_and(|service| ended.contains(&(ServiceNumber(service), socket.peer)))
            }))
        };
        let done = tokio::task::spawn_blocking(job).await.context("end sockets of backends that went")?;
        let problems = match done {
            Ok(done) => {
                if done.sockets > 0 {
                    tracing::info!(sockets = done.sockets, "ended UDP sockets of backends that went");
                }
                done.problems
            }
            Err(error) => vec![format!("{error:#}")],
        };
        for problem in problems {
            if told.insert(problem.clone()) {
                tracing::warn!(problem, "sockets of backends that went may stay connected to them");
            }
        }
    }
}

/// A connected socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// The kernel's number of the socket.
    pub(super) cookie: u64,
    /// What it is connected to.
    pub(super) peer: SocketAddr,
    family: u8,
    id: [u8; ID],
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Sockets that were ended.
    pub(super) sockets: usize,
    /// Namespaces that could not be looked through, and why.
    pub(super) problems: Vec<String>,
}

/// Ends every UDP socket of this machine that is connected, and of which `is_ours` says so. Blocks.
pub(super) fn end(is_ours: impl Fn(&Connected) -> bool + Send + Sync) -> Ended {
    let mut ended = Ended::default();
    for path in namespaces().into_values() {
        // A namespace is entered by a thread, and the thread does not live longer than that.
        let result = std::thread::scope(|scope| {
            let inside = || -> io::Result<usize> {
                let namespace = match File::open(&path) {
                    Ok(namespace) => namespace,
                    // It has gone with its pod.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                    Err(error) => return Err(error),
                };
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                end_here(&is_ours)
            };
            let thread =
                std::thread::Builder::new().name("end sockets".to_owned()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))
        });
        match result {
            Ok(sockets) => ended.sockets += sockets,
            Err(error) => ended.problems.push(format!("{}: {error}", path.display())),
        }
    }
    ended
}

/// A path to each network namespace there is, by device and inode: those with a name, and those with a process.
fn namespaces() -> BTreeMap<(u64, u64), PathBuf> {
    let named = NAMED.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_processes = processes
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|letter| letter.is_ascii_digit()))
        .map(|entry| entry.path().join("ns/net"));
    let own = PathBuf::from("/proc/self/ns/net");
    let mut found = BTreeMap::new();
    for path in std::iter::once(own).chain(named.map(|entry| entry.path())).chain(of_processes) {
        if let Some(identity) = identity(&path) {
            found.entry(identity).or_insert(path);
        }
    }
    found
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The same in the namespace of the calling thread.
fn end_here(is_ours: &impl Fn(&Connected) -> bool) -> io::Result<usize> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkSockDiag, 0)?;
    let mut ended = 0;
    for family in FAMILIES {
        let answers = netlink.list(SOCK_DIAG_BY_FAMILY, &request(family, CONNECTED, &[0; ID]))?;
        let sockets = answers.iter().filter_map(|answer| connected(&answer.body));
        for socket in sockets.filter(|socket| is_ours(socket)) {
            match netlink.execute(SOCK_DESTROY, &request(socket.family, u32::MAX, &socket.id)) {
                Ok(()) => ended += 1,
                // It was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    let reason =
                        "the kernel cannot end sockets: it was built without CONFIG_INET_DIAG_DESTROY";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

/// `struct inet_diag_req_v2`: family, protocol, two unused bytes, states, and the socket.
fn request(family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut body = vec![family, UDP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    debug_assert_eq!(body.len(), ID_IN_REQUEST + ID);
    body
}

/// `struct inet_diag_msg`: family, state, two timers, the socket: ports, source, destination, device, cookie.
fn connected(body: &[u8]) -> Option<Connected> {
    let family = *body.first()?;
    let id: [u8; ID] = body.get(ID_IN_ANSWER..ID_IN_ANSWER + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let destination: [u8; 16] = id[20..36].try_into().ok()?;
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::from(<[u8; 4]>::try_from(&destination[..4]).ok()?),
        libc::AF_INET6 => IpAddr::from(destination).to_canonical(),
        _ => return None,
    };
    let cookie = u64::from(word(&id, 40)?) | u64::from(word(&id, 44)?) << 32;
    (port != 0).then_some(Connected { cookie, peer: SocketAddr::new(ip, port), family, id })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn cookie(socket: &UdpSocket) -> u64 {
        let mut cookie = 0u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the value is as long as the length says.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        cookie
    }

    #[test]
    fn only_the_sockets_meant_are_ended() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        for (own, peer) in [("127.0.0.1:0", "127.0.0.1:9"), ("[::]:0", "[::ffff:127.0.0.1]:9")] {
            let (meant, other) =
                (UdpSocket::bind(own).expect("a socket"), UdpSocket::bind(own).expect("a socket"));
            meant.connect(peer).expect("connected");
            other.connect(peer).expect("connected");
            let wanted = cookie(&meant);
            let ended = match end_here(&|socket: &Connected| socket.cookie == wanted) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    println!("SKIPPED: {error}");
                    return;
                }
                result => result.expect("looked through"),
            };
            assert_eq!(ended, 1, "{own}");
            let error = meant.recv(&mut [0; 8]).expect_err("ended");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED), "{error}");
            assert!(meant.peer_addr().is_err(), "not connected any more");
            assert_eq!(other.peer_addr().expect("still connected").port(), 9);
        }
    }

    #[test]
    fn namespaces_are_found_once() {
        let found = namespaces();
        let own = identity(Path::new("/proc/self/ns/net")).expect("our own");
        assert_eq!(found.get(&own), Some(&PathBuf::from("/proc/self/ns/net")));
    }

    #[test]
    fn broken_answers_are_nothing() {
        assert_eq!(connected(&[]), None);
        assert_eq!(connected(&[2; 51]), None);
        assert_eq!(connected(&[1; 72]), None);
    }
}
