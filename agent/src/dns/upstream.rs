//! The servers that are asked about names that are not the cluster's.
//!
//! Of several, the first that works is asked; if it lets us wait, the next one too, and the first good answer wins. Must
//! not know: what is kept of answers, who wants them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;
use pagurus_agent_core::dns::body::Body;
use pagurus_agent_core::dns::query::LARGEST;
use pagurus_agent_core::pods::network::read_resolv_conf;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::metrics::DnsMetrics;

/// How long a question may take in all: shorter than the five seconds after which clients ask again.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How long one server may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// After how long another server is asked as well.
const HEDGE: Duration = Duration::from_millis(400);
/// A server that failed is asked last for so long.
const PENALTY: Duration = Duration::from_secs(5);
/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(5);
/// The type of our search for loops.
const HINFO: u16 = 13;

/// Where the list of servers comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given.
    Fixed(Vec<SocketAddr>),
    /// A resolv.conf, followed as it changes.
    File(PathBuf),
}

/// A question to a server.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Name and type, in lower case.
    pub(super) wire: Vec<u8>,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

struct Upstream {
    address: SocketAddr,
    /// Milliseconds after the start until which it is asked last.
    failing_until: AtomicU64,
    /// It asks us again.
    loops: AtomicBool,
}

/// The servers.
pub(super) struct Upstreams {
    source: Source,
    /// Whether this address is one of ours: to ask there would be a loop.
    is_own: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    list: Mutex<List>,
    start: Instant,
    /// The first label of the questions by which loops are found.
    sign: String,
}

#[derive(Default)]
struct List {
    servers: Arc<[Arc<Upstream>]>,
    looked: Option<Instant>,
    modified: Option<SystemTime>,
}

impl Upstreams {
    pub(super) fn new(source: Source, is_own: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        let sign = format!("pgr{:016x}", rand::random::<u64>());
        Self { source, is_own: Box::new(is_own), list: Mutex::default(), start: Instant::now(), sign }
    }

    /// The answer of the first server that gives a good one; else a bad answer, if there was one. `None` within
    /// [`DEADLINE`] if there was none at all.
    pub(super) async fn exchange(&self, asked: &Asked, metrics: &DnsMetrics) -> Option<Body> {
        let mut servers: Vec<Arc<Upstream>> =
            self.servers().iter().filter(|server| !server.loops.load(Ordering::Relaxed)).cloned().collect();
        let now = self.now();
        servers.sort_by_key(|server| server.failing_until.load(Ordering::Relaxed) > now);
        let mut bad = None;
        let all = async {
            // Who says nothing is asked once more: a datagram may get lost.
            let mut queue: VecDeque<(&Arc<Upstream>, bool)> =
                servers.iter().map(|server| (server, true)).collect();
            let mut attempts = FuturesUnordered::new();
            loop {
                if let Some((server, again)) = queue.pop_front() {
                    metrics.forwarded.inc();
                    attempts.push(async move { (server, again, self.attempt(server, asked).await) });
                } else if attempts.is_empty() {
                    return None;
                }
                let done = if queue.is_empty() {
                    attempts.next().await
                } else {
                    let Ok(done) = timeout(HEDGE, attempts.next()).await else { continue };
                    done
                };
                let Some((server, again, outcome)) = done else { continue };
                match outcome {
                    Ok(body) if is_good(&body) => return Some(body),
                    Ok(body) => bad = Some(body),
                    Err(()) if again => queue.push_back((server, false)),
                    Err(()) => {}
                }
                metrics.upstream_errors.inc();
            }
        };
        let good = timeout(DEADLINE, all).await.ok().flatten();
        good.or(bad)
    }

    /// Whether every server has failed lately.
    pub(super) fn are_failing(&self) -> bool {
        let now = self.now();
        self.servers().iter().all(|server| server.failing_until.load(Ordering::Relaxed) > now)
    }

    /// Whether this is a question of ours that has come back; then the server it was sent to is not asked any more.
    pub(super) fn saw(&self, name: &Name) -> bool {
        let mut labels = name.iter();
        let Some(sign) = labels.next().filter(|label| label.eq_ignore_ascii_case(self.sign.as_bytes()))
        else {
            return false;
        };
        let number = labels.next().and_then(|label| std::str::from_utf8(label).ok()?.parse::<usize>().ok());
        if let Some(server) = number.and_then(|number| self.servers().get(number).cloned())
            && !server.loops.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                server = %server.address,
                sign = %String::from_utf8_lossy(sign),
                "this DNS server asks the cluster's DNS again and is left out: correct /etc/resolv.conf of the node, or give --dns-upstream"
            );
        }
        true
    }

    /// Sends every server a question that, if it comes back to us, shows a loop.
    pub(super) async fn look_for_loops(&self) {
        // Now that the cluster's addresses are known, they are known in the list, too.
        *self.list.lock() = List::default();
        let servers = self.servers();
        for (number, server) in servers.iter().enumerate() {
            let number = number.to_string();
            let mut wire = Vec::new();
            for label in [&self.sign, &number] {
                wire.push(u8::try_from(label.len()).unwrap_or(0));
                wire.extend(label.bytes());
            }
            wire.push(0);
            wire.extend(HINFO.to_be_bytes());
            let asked = Asked { wire, dnssec_ok: false, checking_disabled: false };
            // Only whether it comes back counts, not what is answered.
            drop(timeout(ATTEMPT, over_udp(server.address, &asked, false)).await);
        }
    }

    /// For `/debug/state`.
    pub(super) fn explain(&self) -> serde_json::Value {
        let now = self.now();
        let list = self.servers();
        let state = |server: &Arc<Upstream>| {
            let state = if server.loops.load(Ordering::Relaxed) {
                "leads back here"
            } else if server.failing_until.load(Ordering::Relaxed) > now {
                "failing"
            } else {
                "asked"
            };
            (server.address.to_string(), state.into())
        };
        list.iter().map(state).collect::<serde_json::Map<String, serde_json::Value>>().into()
    }

    async fn attempt(&self, server: &Arc<Upstream>, asked: &Asked) -> Result<Body, ()> {
        let outcome = match timeout(ATTEMPT, ask(server.address, asked)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match outcome {
            Ok(body) => {
                server.failing_until.store(0, Ordering::Relaxed);
                Ok(body)
            }
            Err(error) => {
                tracing::debug!(server = %server.address, %error, "a DNS server does not answer");
                let until = self.now() + u64::try_from(PENALTY.as_millis()).unwrap_or(u64::MAX);
                server.failing_until.store(until, Ordering::Relaxed);
                Err(())
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The servers as they are now.
    fn servers(&self) -> Arc<[Arc<Upstream>]> {
        let mut list = self.list.lock();
        if list.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return list.servers.clone();
        }
        let is_first = list.looked.replace(Instant::now()).is_none();
        let addresses = match &self.source {
            Source::Fixed(addresses) if is_first => addresses.clone(),
            Source::Fixed(_) => return list.servers.clone(),
            Source::File(path) => {
                let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
                if !is_first && modified == list.modified {
                    return list.servers.clone();
                }
                list.modified = modified;
                let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
                    tracing::warn!(file = %path.display(), %error, "cannot read which DNS servers to ask");
                    String::new()
                });
                of_resolv_conf(&text)
            }
        };
        let (own, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| (self.is_own)(address.ip()));
        if !own.is_empty() {
            tracing::warn!(servers = ?own, "these DNS servers are the cluster's own; to ask them would be a loop, so they are left out");
        }
        if others.is_empty() {
            tracing::warn!(
                "there is no DNS server to ask about names outside the cluster; give --dns-upstream"
            );
        }
        let server = |address: &SocketAddr| {
            let known = list.servers.iter().find(|server| server.address == *address);
            let fresh = || {
                Arc::new(Upstream {
                    address: *address,
                    failing_until: AtomicU64::new(0),
                    loops: AtomicBool::new(false),
                })
            };
            known.cloned().unwrap_or_else(fresh)
        };
        let servers: Arc<[_]> = others.iter().map(server).collect();
        list.servers = servers.clone();
        servers
    }
}

/// The servers that a resolv.conf names.
fn of_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = read_resolv_conf(text).servers;
    // An address with a scope, as of a link, is not one for everybody.
    servers.iter().filter_map(|server| Some(SocketAddr::new(server.parse().ok()?, 53))).collect()
}

fn is_good(body: &Body) -> bool {
    matches!(body.code(), ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Asks one server, by a connection if a datagram is too small for the answer, without EDNS if it does not know that.
async fn ask(server: SocketAddr, asked: &Asked) -> io::Result<Body> {
    let mut answer = over_udp(server, asked, true).await?;
    let is_old = matches!(answer.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
    if is_old && answer.edns.is_none() {
        answer = over_udp(server, asked, false).await?;
    }
    if answer.metadata.truncation {
        answer = over_tcp(server, asked).await?;
    }
    if answer.queries.is_empty() {
        return Ok(Body::plain(answer.metadata.response_code));
    }
    // What points at the question does so in our spelling of it.
    for query in &mut answer.queries {
        let lower = query.name().to_lowercase();
        query.set_name(lower);
    }
    Body::of_message(&answer).map_err(unreadable)
}

async fn over_udp(server: SocketAddr, asked: &Asked, edns: bool) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A new socket for every question: its port is one that nobody can guess, and only this server is heard.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let (id, message) = encode(asked, edns);
    socket.send(&message).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = read(&buffer[..length], id, asked)? {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, asked: &Asked) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, message) = encode(asked, true);
    let length = u16::try_from(message.len()).map_err(unreadable)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        if let Some(answer) = read(&buffer, id, asked)? {
            return Ok(answer);
        }
    }
}

/// The question as a message with a number that nobody can guess.
fn encode(asked: &Asked, edns: bool) -> (u16, Vec<u8>) {
    let id = rand::random::<u16>();
    let [high, low] = id.to_be_bytes();
    let checking_disabled = if asked.checking_disabled { 0x10 } else { 0 };
    let mut message = Vec::with_capacity(asked.wire.len() + 32);
    message.extend([high, low, 1, checking_disabled, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    message.extend(&asked.wire);
    message.extend([0, 1]);
    if edns {
        let [high, low] = LARGEST.to_be_bytes();
        let dnssec_ok = if asked.dnssec_ok { 0x80 } else { 0 };
        message.extend([0, 0, 41, high, low, 0, 0, dnssec_ok, 0, 0, 0]);
    }
    (id, message)
}

/// The answer to our question; `None` if it is one to another.
fn read(bytes: &[u8], id: u16, asked: &Asked) -> io::Result<Option<Message>> {
    if bytes.get(..2) != Some(&id.to_be_bytes()) || bytes.get(2).is_none_or(|flags| flags & 0x80 == 0) {
        return Ok(None);
    }
    // Some servers that do not understand a question do not repeat it.
    let is_bare = bytes.get(4..6) == Some(&[0, 0]);
    let question = bytes.get(12..12 + asked.wire.len());
    if !is_bare && !question.is_some_and(|question| question.eq_ignore_ascii_case(&asked.wire)) {
        return Ok(None);
    }
    let message = Message::from_vec(bytes).map_err(unreadable)?;
    if message.queries.is_empty() && message.metadata.response_code == ResponseCode::NoError {
        return Err(unreadable("an answer without its question"));
    }
    Ok(Some(message))
}

fn unreadable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unreadable answer: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let servers = of_resolv_conf(
            "nameserver 192.0.2.1\nnameserver fd00::1\nnameserver fe80::1%eth0\nnameserver x\n",
        );
        assert_eq!(servers, ["192.0.2.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn own_servers_are_not_asked() {
        let fixed = ["169.254.53.53:53", "192.0.2.1:53"].map(|address| address.parse().unwrap()).to_vec();
        let upstreams =
            Upstreams::new(Source::Fixed(fixed), |ip| ip == IpAddr::V4(super::super::address::V4));
        assert_eq!(upstreams.servers().len(), 1);
        assert!(!upstreams.are_failing());
        // A question that comes back shows which server leads here.
        let name = |text: &str| Name::from_ascii(text).unwrap();
        assert!(!upstreams.saw(&name("pgr0.0.")));
        assert!(upstreams.saw(&name(&format!("{}.0.", upstreams.sign))));
        assert!(upstreams.servers()[0].loops.load(Ordering::Relaxed));
    }

    #[test]
    fn answers_to_other_questions_are_not_ours() {
        let asked = Asked { wire: b"\x01a\0\0\x01".to_vec(), dnssec_ok: true, checking_disabled: false };
        let (id, mut message) = encode(&asked, true);
        assert!(read(&message, id, &asked).unwrap().is_none(), "a question is no answer");
        message[2] |= 0x80;
        assert!(read(&message, id, &asked).unwrap().is_some());
        assert!(read(&message, id.wrapping_add(1), &asked).unwrap().is_none());
        let mut other = message.clone();
        other[13] = b'b';
        assert!(read(&other, id, &asked).unwrap().is_none());
        let mut upper = message.clone();
        upper[13] = b'A';
        assert!(read(&upper, id, &asked).unwrap().is_some());
        message.truncate(message.len() - 1);
        assert!(read(&message, id, &asked).is_err());
    }
}
