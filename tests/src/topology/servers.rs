//! Servers that say who they are and whom they see, and clients that read it.
//!
//! Must not know: how packets get from one to the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, shutdown,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::Host;
use crate::pace::patience;

/// How long clients wait on an ordinary machine: much longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How often a server of datagrams looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// The client, as the server sees it.
    pub client: SocketAddr,
}

impl Answer {
    /// Reads `name address`.
    pub(crate) fn read(line: &str) -> Result<Self> {
        let (server, client) = line.trim_end().split_once(' ').with_context(|| format!("answer {line:?}"))?;
        Ok(Self { server: server.to_owned(), client: client.parse()? })
    }
}

/// A running server: ends when dropped; connections it has go on.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<TcpListener>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            // Wakes the one that accepts.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP server at an address of a host: says its name and the client's address at once, then echoes lines.
///
/// # Errors
/// The address cannot be listened at.
pub fn tcp_server(host: &Host, ip: IpAddr, port: u16, name: &str) -> Result<Server> {
    let stop = Arc::new(AtomicBool::new(false));
    let (name, stopped) = (name.to_owned(), stop.clone());
    host.run(|| {
        let listener =
            TcpListener::bind((ip, port)).with_context(|| format!("listen at {ip} port {port}"))?;
        let address = listener.local_addr()?;
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            serve_streams(&accepting, &name, &stopped);
        });
        Ok(Server { address, stop, listener: Some(listener), thread: Some(thread) })
    })
}

/// Serves all who connect, each on a thread of its own, until it finds itself stopped when somebody comes.
pub(crate) fn serve_streams(listener: &TcpListener, name: &str, stopped: &AtomicBool) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(stream) = stream {
            let name = name.to_owned();
            // A client that goes away ends its thread, and nobody needs to know.
            thread::spawn(move || serve_stream(stream, &name));
        }
    }
}

fn serve_stream(mut stream: TcpStream, name: &str) -> Result<()> {
    let client = stream.peer_addr()?;
    writeln!(stream, "{name} {client}")?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        stream.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// A UDP server at an address of a host: answers each datagram with its name and the client's address.
///
/// # Errors
/// The address is taken.
pub fn udp_server(host: &Host, ip: IpAddr, port: u16, name: &str) -> Result<Server> {
    let stop = Arc::new(AtomicBool::new(false));
    let (name, stopped) = (name.to_owned(), stop.clone());
    host.run(|| {
        let socket = UdpSocket::bind((ip, port)).with_context(|| format!("bind {ip} port {port}"))?;
        socket.set_read_timeout(Some(LOOK))?;
        let address = socket.local_addr()?;
        let thread = thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    // As long as the question, at least: so that long ways are tried in both directions.
                    let mut answer = format!("{name} {client}\n").into_bytes();
                    answer.resize(answer.len().max(length), b'.');
                    // A client that has gone away needs no answer.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(Server { address, stop, listener: None, thread: Some(thread) })
    })
}

/// Connects, from the calling thread's place.
///
/// # Errors
/// Refused, or nobody answers.
pub fn tcp_connect(to: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&to, patience(PATIENCE)).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(patience(PATIENCE)))?;
    stream.set_write_timeout(Some(patience(PATIENCE)))?;
    Ok(stream)
}

/// Connects from a port of one's own, from the calling thread's place.
///
/// # Errors
/// The port is taken, refused, or nobody answers.
pub fn tcp_connect_from(port: u16, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Also while an earlier connection from there is being forgotten.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let limit = TimeVal::seconds(patience(PATIENCE).as_secs() as i64);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))
        .with_context(|| format!("bind port {port}"))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("connect to {to} from port {port}"))?;
    Ok(TcpStream::from(socket))
}

/// Connects from a host and reads who answers.
///
/// # Errors
/// Refused, or nobody answers.
pub fn tcp_ask(host: &Host, to: SocketAddr) -> Result<Answer> {
    host.run(|| {
        let stream = tcp_connect(to)?;
        ensure!(stream.peer_addr()? == to, "connected to {}, not to {to}", stream.peer_addr()?);
        ask_on(stream, b"are you there").with_context(|| format!("ask {to}"))
    })
}

/// Reads from a new connection who answers, and sends a line there and back.
pub(crate) fn ask_on(mut stream: TcpStream, line: &[u8]) -> Result<Answer> {
    let mut name = String::new();
    BufReader::new(&stream).read_line(&mut name).context("read who it is")?;
    let answer = Answer::read(&name)?;
    echo_on(&mut stream, line)?;
    Ok(answer)
}

/// Sends something over a connection and reads it back.
///
/// # Errors
/// It does not come back.
pub fn tcp_ask_on(stream: &mut TcpStream) -> Result<()> {
    echo_on(stream, b"are you there")
}

fn echo_on(stream: &mut TcpStream, line: &[u8]) -> Result<()> {
    let sent = [line, b"\n"].concat();
    stream.write_all(&sent).context("write")?;
    let mut back = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut back).context("read the echo")?;
    let begin = back[..back.len().min(64)].escape_ascii();
    ensure!(back == sent, "{} bytes came back, not {}; they begin with {begin}", back.len(), sent.len());
    Ok(())
}

/// A UDP socket of a host, of the family of `like`.
///
/// # Errors
/// The kernel gives none.
pub fn udp_socket(host: &Host, like: SocketAddr) -> Result<UdpSocket> {
    host.run(|| {
        let socket = UdpSocket::bind(if like.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(patience(PATIENCE)))?;
        Ok(socket)
    })
}

/// Asks over a socket (connected or not); the answer must come from where the question went.
///
/// # Errors
/// No answer, or from elsewhere.
pub fn udp_ask(socket: &UdpSocket, to: SocketAddr, question: &[u8]) -> Result<Answer> {
    let sent = match socket.peer_addr() {
        Ok(_) => socket.send(question),
        Err(_) => socket.send_to(question, to),
    };
    sent.with_context(|| format!("send to {to}"))?;
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("answer of {to}"))?;
    if from != to {
        bail!("asked {to}, answered by {from}");
    }
    let text = String::from_utf8_lossy(&buffer[..length]);
    ensure!(length >= question.len(), "the answer has {length} bytes, the question {}", question.len());
    Answer::read(text.lines().next().unwrap_or_default())
}
