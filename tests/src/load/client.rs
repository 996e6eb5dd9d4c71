//! Clients that never rest, and count: short connections, one long connection, datagrams. Each asks one thing after the other, so
//! that what goes unanswered is known, and how long the longest answer took.
//!
//! Speaks to servers that echo lines as well as to those of HTTP: a question is a request whose path is a number, and the answer
//! holds it. Uses the standard library only: the client program of the images is made of it too. Must not know: where it runs.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An answer that takes longer has failed: longer than a busy machine takes, and than TCP needs to send something again.
const LIMIT: Duration = Duration::from_secs(4);

/// What a client does all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connects, asks once, closes.
    Connections,
    /// Asks over one connection that lives as long as the client.
    Stream,
    /// Sends datagrams: from a socket that lives as long as the client and is not connected, and from a new connected one each time.
    Datagrams,
}

impl Kind {
    /// As a word of a command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Stream => "stream",
            Self::Datagrams => "datagrams",
        }
    }

    /// Reads such a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Connections, Self::Stream, Self::Datagrams].into_iter().find(|kind| kind.word() == word)
    }
}

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that were answered.
    pub answered: u64,
    /// Connections that could not be made or broke, datagrams without an answer.
    pub failed: u64,
    /// The longest time to an answer.
    pub longest: Duration,
    /// How the first failure showed.
    pub problem: Option<String>,
}

impl Counts {
    /// One line.
    pub fn line(&self) -> String {
        let problem = self.problem.as_deref().unwrap_or_default();
        format!("{} {} {} {problem}", self.answered, self.failed, self.longest.as_micros())
    }

    fn add(&mut self, since: Instant, result: io::Result<()>) {
        self.longest = self.longest.max(since.elapsed());
        match result {
            Ok(()) => self.answered += 1,
            Err(error) => {
                self.failed += 1;
                self.problem.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// What somebody else may see and say while a client runs.
#[derive(Debug, Default)]
pub struct Control {
    /// Set to end it.
    pub stop: AtomicBool,
    /// Questions asked to their end, well or badly.
    pub asked: AtomicU64,
}

/// Asks until told to stop, with a pause before each question.
pub fn run(kind: Kind, to: SocketAddr, pause: Duration, control: &Control) -> Counts {
    let mut counts = Counts::default();
    let mut stream: Option<TcpStream> = None;
    let mut lasting: Option<UdpSocket> = None;
    for number in 0u64.. {
        if control.stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(pause);
        let since = Instant::now();
        let result = match kind {
            Kind::Connections => connect(to).and_then(|mut stream| ask(&mut stream, number)),
            Kind::Stream => over(&mut stream, to, number),
            Kind::Datagrams if number % 2 == 0 => datagram(&mut lasting, to, number),
            Kind::Datagrams => datagram_of_its_own(to, number),
        };
        counts.add(since, result);
        control.asked.fetch_add(1, Ordering::Relaxed);
    }
    counts
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, LIMIT).map_err(|error| at("connect", error))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Asks over the connection that is there; makes it anew only after it broke, which is counted.
fn over(stream: &mut Option<TcpStream>, to: SocketAddr, number: u64) -> io::Result<()> {
    let mut current = match stream.take() {
        Some(stream) => stream,
        None => connect(to)?,
    };
    ask(&mut current, number)?;
    *stream = Some(current);
    Ok(())
}

/// One request and its answer.
fn ask(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    write!(stream, "GET /{number} HTTP/1.1\r\nHost: load\r\n\r\n").map_err(|error| at("write", error))?;
    // Also of the greeting, of headers, and of what followed the number in the answer before.
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    while !holds(&seen, number) {
        match stream.read(&mut buffer).map_err(|error| at("read", error))? {
            0 => return Err(at("read", ErrorKind::UnexpectedEof.into())),
            length => seen.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(())
}

/// Whether a text has the path of this number, and its end.
fn holds(text: &[u8], number: u64) -> bool {
    let path = format!("/{number}");
    let text = String::from_utf8_lossy(text);
    text.match_indices(&path).any(|(place, _)| {
        text[place + path.len()..].chars().next().is_some_and(|next| !next.is_ascii_digit())
    })
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// A datagram from the lasting socket. After one that was not answered there is a new socket: a late answer is for nobody.
fn datagram(lasting: &mut Option<UdpSocket>, to: SocketAddr, number: u64) -> io::Result<()> {
    let current = match lasting.take() {
        Some(socket) => socket,
        None => socket(to)?,
    };
    current.send_to(format!("/{number}").as_bytes(), to).map_err(|error| at("send to", error))?;
    let mut buffer = [0; 2048];
    let (_, from) = current.recv_from(&mut buffer).map_err(|error| at("no answer", error))?;
    if from != to {
        return Err(io::Error::other(format!("the answer came from {from}")));
    }
    *lasting = Some(current);
    Ok(())
}

fn datagram_of_its_own(to: SocketAddr, number: u64) -> io::Result<()> {
    let socket = socket(to)?;
    socket.connect(to)?;
    socket.send(format!("/{number}").as_bytes()).map_err(|error| at("send", error))?;
    socket.recv(&mut [0; 2048]).map(drop).map_err(|error| at("no answer to a connected socket", error))
}

fn at(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
