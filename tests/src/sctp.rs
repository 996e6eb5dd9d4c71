//! A small SCTP (RFC 9260) in user space over raw sockets, for kernels without one: associations with their four-way handshake, data
//! with acknowledgements, orderly and abrupt ends. One stream, one message at a time, the checksum of every packet verified.
//!
//! Must not know: what is between client and server.

mod chunk;
mod kernel;
mod server;
mod socket;

pub use chunk::Chunk;
pub use kernel::{has_sockets, kernel_ask, kernel_server};
pub use server::{SctpServer, sctp_server};

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::packet::Sctp;
use crate::topology::{Answer, Host};
use socket::RawSocket;

/// A server of either kind: by the kernel where it has SCTP sockets, in user space elsewhere.
#[derive(Debug)]
pub struct AnyServer {
    /// Where it is.
    pub address: SocketAddr,
    _ours: Option<SctpServer>,
}

/// A server by the kernel where it has SCTP sockets, in user space elsewhere.
///
/// # Errors
/// It cannot be started.
pub fn any_server(host: &Host, ip: IpAddr, port: u16, name: &str) -> Result<AnyServer> {
    if has_sockets() {
        return Ok(AnyServer { address: kernel_server(host, ip, port, name)?, _ours: None });
    }
    let ours = sctp_server(host, ip, port, name)?;
    Ok(AnyServer { address: ours.address, _ours: Some(ours) })
}

/// Asks over a new association: by the kernel where it has SCTP sockets, in user space elsewhere (then from `port`).
///
/// # Errors
/// Refused, or nobody answers.
pub fn any_ask(host: &Host, port: u16, to: SocketAddr, size: usize) -> Result<Answer> {
    if has_sockets() {
        return kernel_ask(host, to, size);
    }
    let mut association = Association::connect(host, port, to)?;
    let answer = association.ask(&vec![b'?'; size])?;
    association.shutdown()?;
    Ok(answer)
}

/// After so long without an answer a packet is sent again.
const AGAIN: Duration = Duration::from_millis(400);
/// So often at most.
const TRIES: u32 = 6;
/// The window that everybody advertises.
const WINDOW: u32 = 65_536;

/// The client's end of an association.
#[derive(Debug)]
pub struct Association {
    socket: RawSocket,
    remote: SocketAddr,
    port: u16,
    /// In packets to us.
    tag: u32,
    /// In packets to the peer.
    peer_tag: u32,
    /// Number of our next chunk of data.
    next: u32,
    /// Number of the last chunk received.
    last: u32,
}

/// A number that nobody guesses, and never zero.
fn random() -> u32 {
    RandomState::new().build_hasher().finish() as u32 | 1
}

impl Association {
    /// Sets an association up from a host, from a port that the test chooses.
    ///
    /// # Errors
    /// Refused (an ABORT or an ICMP error), or nobody answers.
    pub fn connect(host: &Host, port: u16, to: SocketAddr) -> Result<Self> {
        let socket = host.run(|| Ok(RawSocket::connect(to.ip())?))?;
        let (tag, next) = (random(), random());
        let mut made = Self { socket, remote: to, port, tag, peer_tag: 0, next, last: 0 };
        made.set_up().with_context(|| format!("SCTP association with {to} from port {port}"))?;
        Ok(made)
    }

    fn set_up(&mut self) -> Result<()> {
        let init = Chunk::Init { tag: self.tag, window: WINDOW, tsn: self.next };
        let cookie = self.exchange(&init, |association, chunk| match chunk {
            Chunk::InitAck { tag, tsn, cookie, .. } => {
                (association.peer_tag, association.last) = (tag, tsn.wrapping_sub(1));
                Some(cookie)
            }
            _ => None,
        });
        let cookie = cookie.context("INIT")?;
        let done =
            self.exchange(&Chunk::CookieEcho(cookie), |_, chunk| (chunk == Chunk::CookieAck).then_some(()));
        done.context("COOKIE-ECHO")
    }

    /// Sends a message and returns the server's: who it is, and as what it sees us.
    ///
    /// # Errors
    /// No answer, or one that is not well formed.
    pub fn ask(&mut self, question: &[u8]) -> Result<Answer> {
        let answer = self.send(question)?;
        ensure!(answer.len() >= question.len(), "the answer has {} bytes", answer.len());
        Answer::read(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default())
    }

    fn send(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        let tsn = self.next;
        let data = Chunk::Data { tsn, message: message.to_vec() };
        let mut acknowledged = false;
        let answer = self.exchange(&data, |association, chunk| match chunk {
            Chunk::Sack { tsn: upto } => {
                acknowledged |= upto == tsn;
                None
            }
            Chunk::Data { tsn, message } if tsn == association.last.wrapping_add(1) => {
                association.last = tsn;
                Some(message)
            }
            _ => None,
        });
        let answer = answer.context("DATA")?;
        ensure!(acknowledged, "answered without an acknowledgement");
        self.next = self.next.wrapping_add(1);
        self.transmit(&Chunk::Sack { tsn: self.last })?;
        Ok(answer)
    }

    /// Ends the association in order.
    ///
    /// # Errors
    /// The server does not agree.
    pub fn shutdown(mut self) -> Result<()> {
        let shutdown = Chunk::Shutdown { tsn: self.last };
        let done = self.exchange(&shutdown, |_, chunk| (chunk == Chunk::ShutdownAck).then_some(()));
        done.context("SHUTDOWN")?;
        self.transmit(&Chunk::ShutdownComplete)
    }

    /// Ends the association at once.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn abort(mut self) -> Result<()> {
        self.transmit(&Chunk::Abort)
    }

    fn transmit(&mut self, chunk: &Chunk) -> Result<()> {
        let packet = Sctp {
            source_port: self.port,
            destination_port: self.remote.port(),
            tag: self.peer_tag,
            checksum: true,
            chunks: chunk.build(),
        };
        self.socket.send(&packet).with_context(|| format!("send to {}", self.remote))
    }

    /// Sends a chunk, again and again, until something arrives that is the answer.
    fn exchange<T>(
        &mut self,
        chunk: &Chunk,
        mut is_it: impl FnMut(&mut Self, Chunk) -> Option<T>,
    ) -> Result<T> {
        for _ in 0..TRIES {
            self.transmit(chunk)?;
            let until = Instant::now() + AGAIN;
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            {
                let packet = match self.socket.receive(left) {
                    Ok((_, packet)) => packet,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).with_context(|| format!("receive from {}", self.remote)),
                };
                // Raw sockets see what is for others, too.
                if packet.destination_port != self.port {
                    continue;
                }
                ensure!(
                    packet.source_port == self.remote.port(),
                    "answered from port {}",
                    packet.source_port
                );
                ensure!(packet.checksum, "a packet without checksum");
                for received in Chunk::parse_all(&packet.chunks)? {
                    if received == Chunk::Abort {
                        bail!("refused: ABORT");
                    }
                    ensure!(packet.tag == self.tag, "verification tag {:x}, not {:x}", packet.tag, self.tag);
                    if let Some(answer) = is_it(self, received) {
                        return Ok(answer);
                    }
                }
            }
        }
        bail!("no answer to {TRIES} packets")
    }
}
