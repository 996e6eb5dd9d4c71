//! The sockets on which DNS is served: taken over from the agent before, or new ones.
//!
//! Must not know: what is served on them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};

use super::keeper::{Keeper, Settings};

/// Room for questions that wait while the agent starts again.
const WAITING: usize = 4 << 20;

/// The sockets, and who holds them while this process is away.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) datagrams: Vec<Arc<UdpSocket>>,
    pub(super) listeners: Vec<TcpListener>,
    /// How many of them were there before.
    pub(super) taken_over: usize,
    keeper: Option<Keeper>,
    settings: Settings,
}

impl Sockets {
    /// Takes the sockets of these addresses over from whoever holds them, and makes those that nobody does.
    pub(super) fn open(addresses: &[IpAddr], port: u16, settings: &Settings) -> anyhow::Result<Self> {
        let keeper = Keeper::find(settings);
        let held = match keeper.as_ref().map(Keeper::take) {
            Some(Ok(held)) => held,
            Some(Err(error)) => {
                tracing::warn!(%error, "the process that holds the DNS sockets does not give them");
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut this = Self {
            datagrams: Vec::new(),
            listeners: Vec::new(),
            taken_over: 0,
            keeper,
            settings: settings.clone(),
        };
        let wanted: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        for socket in held {
            this.take_over(socket, &wanted);
        }
        for address in wanted {
            this.make(address)?;
        }
        this.hold();
        Ok(this)
    }

    /// Sees to it that somebody holds the sockets.
    pub(super) fn hold(&mut self) {
        let keep = |keeper: &Keeper| keeper.keep(&self.all());
        if self.keeper.as_ref().is_some_and(|keeper| keep(keeper).is_ok()) {
            return;
        }
        let started = Keeper::start(&self.settings).and_then(|keeper| {
            keep(&keeper).context("hand the DNS sockets over to the process that holds them")?;
            Ok(keeper)
        });
        self.keeper = started
            .inspect_err(|error| {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "nobody holds the DNS sockets: questions that come while the agent is away are not answered"
                );
            })
            .ok();
    }

    fn all(&self) -> Vec<BorrowedFd<'_>> {
        let datagrams = self.datagrams.iter().map(|socket| socket.as_fd());
        datagrams.chain(self.listeners.iter().map(|socket| socket.as_fd())).collect()
    }

    fn take_over(&mut self, socket: OwnedFd, wanted: &[SocketAddr]) {
        let is_stream = getsockopt(&socket, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
        if is_stream {
            let socket = TcpListener::from(socket);
            let at = socket.local_addr().ok().filter(|at| wanted.contains(at));
            if at.is_some() && !self.listeners.iter().any(|other| other.local_addr().ok() == at) {
                self.listeners.push(socket);
                self.taken_over += 1;
            }
        } else {
            let socket = UdpSocket::from(socket);
            let at = socket.local_addr().ok().filter(|at| wanted.contains(at));
            if at.is_some() && !self.datagrams.iter().any(|other| other.local_addr().ok() == at) {
                self.datagrams.push(Arc::new(socket));
                self.taken_over += 1;
            }
        }
    }

    fn make(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let told = |what: &str| {
            format!(
                "listen on {address}/{what} for the cluster's DNS; free it, or give --cluster-dns-server=off"
            )
        };
        if !self.datagrams.iter().any(|socket| socket.local_addr().is_ok_and(|at| at == address)) {
            let socket = UdpSocket::bind(address).with_context(|| told("UDP"))?;
            if setsockopt(&socket, sockopt::RcvBufForce, &WAITING).is_err() {
                // Without the right to it, what the machine allows.
                let _ = setsockopt(&socket, sockopt::RcvBuf, &WAITING);
            }
            prepare(socket.set_nonblocking(true), &address)?;
            self.datagrams.push(Arc::new(socket));
        }
        if !self.listeners.iter().any(|socket| socket.local_addr().is_ok_and(|at| at == address)) {
            let socket = TcpListener::bind(address).with_context(|| told("TCP"))?;
            prepare(socket.set_nonblocking(true), &address)?;
            self.listeners.push(socket);
        }
        Ok(())
    }
}

fn prepare(done: io::Result<()>, address: &SocketAddr) -> anyhow::Result<()> {
    done.with_context(|| format!("prepare the DNS socket at {address}"))
}
