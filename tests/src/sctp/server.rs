//! The server: any number of associations, answering each message with its name and the client it sees. Nothing is kept of an
//! association before its cookie has come back.
//!
//! Must not know: what is between it and its clients.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::socket::RawSocket;
use super::{Chunk, WINDOW, random};
use crate::packet::Sctp;
use crate::topology::Host;

/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// A running server: ends when dropped, with all its associations.
#[derive(Debug)]
pub struct SctpServer {
    /// Where it is.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Drop for SctpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(thread::JoinHandle::join) {
            eprintln!("SCTP server at {}: {error}", self.address);
        }
    }
}

/// An SCTP server at an address of a host.
///
/// # Errors
/// There are no raw sockets.
pub fn sctp_server(host: &Host, ip: IpAddr, port: u16, name: &str) -> Result<SctpServer> {
    let stop = Arc::new(AtomicBool::new(false));
    let (name, stopped) = (name.to_owned(), stop.clone());
    host.run(|| {
        let socket = RawSocket::bind(ip).with_context(|| format!("raw socket at {ip}"))?;
        let mut serving = Serving { socket, port, name, associations: HashMap::new() };
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match serving.socket.receive(LOOK) {
                    Ok((client, packet)) if packet.destination_port == port => {
                        serving.take(client, &packet)?
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // A wrong checksum, say: it is not answered, and the client tells of it.
                    Err(error) if error.kind() == ErrorKind::InvalidData => {
                        eprintln!("SCTP server at {ip}: {error}");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        Ok(SctpServer { address: SocketAddr::new(ip, port), stop, thread: Some(thread) })
    })
}

/// One association.
struct State {
    peer_tag: u32,
    /// Number of our next chunk of data.
    next: u32,
    /// Number of the last chunk received.
    last: u32,
    /// The last answer, for a client that asks again.
    answer: Vec<u8>,
}

struct Serving {
    socket: RawSocket,
    port: u16,
    name: String,
    /// By client and the tag of packets to us.
    associations: HashMap<(SocketAddr, u32), State>,
}

impl Serving {
    /// Takes a packet.
    fn take(&mut self, client: IpAddr, packet: &Sctp) -> io::Result<()> {
        let client = SocketAddr::new(client, packet.source_port);
        let chunks = Chunk::parse_all(&packet.chunks);
        let chunks = chunks.map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("{error:#}")))?;
        for chunk in chunks {
            for (tag, answer) in self.answers(client, packet.tag, chunk) {
                let packet = Sctp {
                    source_port: self.port,
                    destination_port: client.port(),
                    tag,
                    checksum: true,
                    chunks: answer.build(),
                };
                self.socket.send_to(client.ip(), &packet)?;
            }
        }
        Ok(())
    }

    /// What a chunk is answered with, under which tag.
    fn answers(&mut self, client: SocketAddr, tag: u32, chunk: Chunk) -> Vec<(u32, Chunk)> {
        let key = (client, tag);
        match chunk {
            Chunk::Init { tag: peer_tag, tsn, .. } => {
                let (own, next) = (random(), random());
                // The cookie is the association: the server forgets it till it comes back.
                let cookie = [own, peer_tag, next, tsn.wrapping_sub(1)].map(u32::to_be_bytes).concat();
                vec![(peer_tag, Chunk::InitAck { tag: own, window: WINDOW, tsn: next, cookie })]
            }
            Chunk::CookieEcho(cookie) => {
                let words: Vec<u32> = cookie
                    .chunks_exact(4)
                    .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
                    .collect();
                let &[own, peer_tag, next, last] = words.as_slice() else { return Vec::new() };
                if own != tag {
                    return Vec::new();
                }
                self.associations.entry(key).or_insert(State { peer_tag, next, last, answer: Vec::new() });
                vec![(peer_tag, Chunk::CookieAck)]
            }
            Chunk::Abort | Chunk::ShutdownComplete => {
                self.associations.remove(&key);
                Vec::new()
            }
            chunk => match self.associations.get_mut(&key) {
                Some(state) => state.answers(&self.name, client, chunk),
                // Out of the blue: the sender learns it from an ABORT with its own tag.
                None => vec![(tag, Chunk::Abort)],
            },
        }
    }
}

impl State {
    fn answers(&mut self, name: &str, client: SocketAddr, chunk: Chunk) -> Vec<(u32, Chunk)> {
        let answers = match chunk {
            Chunk::Data { tsn, message } => {
                if tsn == self.last.wrapping_add(1) {
                    self.last = tsn;
                    self.next = self.next.wrapping_add(1);
                    self.answer = format!("{name} {client}\n").into_bytes();
                    // As long as the question, at least: so that long ways are tried in both directions.
                    self.answer.resize(self.answer.len().max(message.len()), b'.');
                }
                let data = Chunk::Data { tsn: self.next.wrapping_sub(1), message: self.answer.clone() };
                vec![Chunk::Sack { tsn: self.last }, data]
            }
            Chunk::Heartbeat(value) => vec![Chunk::HeartbeatAck(value)],
            Chunk::Shutdown { .. } => vec![Chunk::ShutdownAck],
            _ => Vec::new(),
        };
        answers.into_iter().map(|chunk| (self.peer_tag, chunk)).collect()
    }
}
