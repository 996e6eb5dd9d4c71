//! Cluster DNS with real sockets: the server as a process of its own, in a network namespace of its own.

mod restart;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pagurus_agent::dns::{Dns, SERVICE, Settings, Source, address, keeper};
use pagurus_agent::index::services;
use pagurus_agent::process::debug_state::DebugState;
use pagurus_agent::process::metrics::Metrics;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::dns as names;
use pagurus_agent_core::services::plan::Table;
use pagurus_agent_core::services::{Desired, LocalDns, ServiceName};
use pagurus_agent_datapath::{Datapath, LIMITS, ServiceMaps as _};
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::isolated;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Tells a process of this binary that it is a server, and which servers it asks.
const UPSTREAMS: &str = "PAGURUS_TEST_DNS_UPSTREAMS";
/// Where the socket of the process that holds the sockets is.
const KEEPER: &str = "PAGURUS_TEST_DNS_KEEPER";
const DOMAIN: &str = "cluster.local";
const WEB: &str = "web.ns.svc.cluster.local.";
const TIMEOUT: Duration = Duration::from_secs(6);

/// Not a test by itself: the server process that the others start.
#[test]
fn a_server_process() {
    let Some(upstreams) = std::env::var_os(UPSTREAMS) else { return };
    let upstreams = upstreams.to_string_lossy().split_whitespace().map(|one| one.parse().unwrap()).collect();
    serve(Source::Fixed(upstreams)).unwrap();
}

/// Not a test by itself: the process that holds the sockets of the former.
#[test]
fn a_keeper_process() {
    let Some(path) = std::env::var_os(KEEPER) else { return };
    keeper::main(path.as_ref()).unwrap();
}

fn serve(upstreams: Source) -> Result<()> {
    let socket = PathBuf::from(std::env::var_os(KEEPER).context("no keeper")?);
    let program = std::env::current_exe()?;
    let command =
        vec![program.into(), "--exact".into(), "dns::a_keeper_process".into(), "--nocapture".into()];
    let settings = Settings {
        domain: DOMAIN.to_owned(),
        addresses: address::all(),
        port: 53,
        upstreams,
        keeper: keeper::Settings { socket, command },
    };
    let dns = Dns::open(settings)?;
    let table = dns.table();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = |name: &str, kind, ports| {
        let (namespace, name) = ("ns".to_owned(), name.to_owned());
        table.set_service(names::Service { namespace, name, kind, ports });
    };
    let http = names::Port { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80 };
    service("web", names::Kind::ClusterIp(Some([10, 96, 0, 7].into()), None), vec![http]);
    service("out", names::Kind::External("www.example.com".to_owned()), Vec::new());
    service("db", names::Kind::Headless { not_ready_too: false }, Vec::new());
    let endpoint = |host: u32| {
        let ip = Ipv4Addr::from(0x0a01_0000 + host).into();
        names::Endpoint { ip, ready: true, hostname: None }
    };
    let slice = names::Slice {
        namespace: "ns".to_owned(),
        service: "db".to_owned(),
        ports: Vec::new(),
        endpoints: (0..200).map(endpoint).collect(),
    };
    table.set_slice("db-1", &slice);
    table.set_complete();
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let ended = cancel.clone();
        let waiting = tokio::spawn(async move {
            term.recv().await;
            ended.cancel();
        });
        let outcome = dns.run(&Metrics::default(), &DebugState::default(), cancel).await;
        waiting.abort();
        outcome
    })
}

/// The running server process.
struct Server(Child);

impl Server {
    fn start(upstreams: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "dns::a_server_process", "--nocapture"]).stdout(Stdio::null());
        command.env(UPSTREAMS, upstreams).env(KEEPER, keeper_socket());
        Ok(Self(command.spawn()?))
    }

    /// Started and answering.
    fn ready(upstreams: &str) -> Result<Self> {
        let server = Self::start(upstreams)?;
        eventually("the server answers", Duration::from_secs(20), || {
            let answer = ask_within(&question(WEB, RecordType::A), Duration::from_millis(200));
            Ok(answer.ok().map(drop))
        })?;
        Ok(server)
    }

    /// As an agent that is told to end.
    fn end(&mut self) -> Result<()> {
        let process = nix::unistd::Pid::from_raw(self.0.id().try_into()?);
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    /// As `kill -9`.
    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

fn keeper_socket() -> PathBuf {
    std::env::temp_dir().join(format!("pgr-dns-{}.sock", std::process::id()))
}

/// Runs a body in a namespace of its own; afterwards no process that holds sockets is left.
fn with_namespace(name: &str, body: impl FnOnce() -> Result<()>) {
    isolated(name, |sandbox| {
        let outcome = body();
        let ended = keeper::end(&keeper::Settings { socket: keeper_socket(), command: Vec::new() });
        if let Err(error) = ended {
            eprintln!("end who holds the sockets: {error}");
        }
        outcome?;
        eventually("the process that holds the sockets ends", TIMEOUT, || {
            let processes = std::fs::read_to_string(sandbox.cgroup.join("cgroup.procs"))?;
            Ok((processes.lines().count() == 1).then_some(()))
        })
    });
}

fn server_at() -> SocketAddr {
    (address::V4, 53).into()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("the tests ask for names"), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn exchange(socket: &UdpSocket, message: &[u8]) -> Result<Message> {
    socket.send(message)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        // Answers of earlier questions may come late.
        if buffer[..2] == message[..2] {
            return Ok(Message::from_vec(&buffer[..length])?);
        }
    }
}

fn client(at: SocketAddr, wait: Duration) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(wait))?;
    Ok(socket)
}

fn ask_within(message: &Message, wait: Duration) -> Result<Message> {
    exchange(&client(server_at(), wait)?, &message.to_vec()?)
}

fn ask(name: &str, kind: RecordType) -> Result<Message> {
    ask_within(&question(name, kind), TIMEOUT).with_context(|| format!("ask for {kind} {name}"))
}

fn ask_tcp(stream: &mut TcpStream, messages: &[Message]) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    for message in messages {
        let bytes = message.to_vec()?;
        all.extend(u16::try_from(bytes.len())?.to_be_bytes());
        all.extend(bytes);
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&all)?;
    let mut answers = Vec::new();
    for _ in messages {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        answers.push(Message::from_vec(&bytes)?);
    }
    Ok(answers)
}

fn ips(message: &Message) -> Vec<Ipv4Addr> {
    let ip = |record: &Record| match record.data {
        RData::A(A(ip)) => Some(ip),
        _ => None,
    };
    message.answers.iter().filter_map(ip).collect()
}

#[test]
fn names_over_datagrams_and_connections() {
    with_namespace("dns::names_over_datagrams_and_connections", || {
        let _server = Server::ready("")?;
        for ip in address::all() {
            let at = SocketAddr::new(ip, 53);
            let answer = exchange(&client(at, TIMEOUT)?, &question(WEB, RecordType::A).to_vec()?)?;
            ensure!(ips(&answer) == [Ipv4Addr::new(10, 96, 0, 7)], "{answer:?}");
            // Several questions at once, answered in any order.
            let questions = [
                question(WEB, RecordType::A),
                question("nobody.ns.svc.cluster.local.", RecordType::A),
                question("db.ns.svc.cluster.local.", RecordType::A),
            ];
            let answers = ask_tcp(&mut TcpStream::connect(at)?, &questions)?;
            for asked in &questions {
                let answer = answers.iter().find(|answer| answer.metadata.id == asked.metadata.id);
                ensure!(answer.is_some_and(|answer| answer.queries == asked.queries), "{answers:?}");
            }
            ensure!(answers.iter().any(|answer| answer.answers.len() == 200), "nothing is cut over TCP");
        }
        // What is too long for a datagram is cut where the client says.
        let db = question("db.ns.svc.cluster.local.", RecordType::A);
        for (message, fits) in
            [(db.clone(), 29), (with_edns(db.clone(), 1232), 73), (with_edns(db, 65_000), 73)]
        {
            let answer = ask_within(&message, TIMEOUT)?;
            ensure!(answer.metadata.truncation, "{answer:?}");
            ensure!(answer.answers.len() == fits, "{} of {fits} answers", answer.answers.len());
            ensure!(answer.edns.is_some() == message.edns.is_some());
        }
        // Nonsense is told or passed over, and disturbs nobody.
        let mut status = question(WEB, RecordType::A);
        status.metadata.op_code = OpCode::Status;
        ensure!(ask_within(&status, TIMEOUT)?.metadata.response_code == ResponseCode::NotImp);
        let socket = client(server_at(), TIMEOUT)?;
        for junk in [&[][..], &[0; 5], &[0xff; 600]] {
            socket.send(junk)?;
        }
        let short = exchange(&socket, &[7; 13].map(|byte| byte & 0x07))?;
        ensure!(short.metadata.response_code == ResponseCode::FormErr, "{short:?}");
        // Clients that connect and say nothing do not keep others out.
        let _silent: Vec<TcpStream> =
            (0..50).map(|_| TcpStream::connect(server_at())).collect::<Result<_, _>>()?;
        ask_tcp(&mut TcpStream::connect(server_at())?, &[question(WEB, RecordType::A)])?;
        // Nobody to ask about other names.
        let answer = ask("www.example.com.", RecordType::A)?;
        ensure!(answer.metadata.response_code == ResponseCode::ServFail, "{answer:?}");
        Ok(())
    });
}

/// A server for names outside the cluster: `www` has a short answer, `long` one that does not fit, `brief` one that is
/// soon too old, all others none. Counts what it is asked.
struct Upstream {
    asked: Arc<AtomicUsize>,
    is_silent: Arc<AtomicBool>,
}

impl Upstream {
    fn start(at: &str) -> Result<Self> {
        let this = Self { asked: Arc::default(), is_silent: Arc::default() };
        let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
        let (asked, is_silent) = (this.asked.clone(), this.is_silent.clone());
        thread::spawn(move || -> Result<()> {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer)?;
                asked.fetch_add(1, Ordering::SeqCst);
                if is_silent.load(Ordering::SeqCst) {
                    continue;
                }
                let mut answer = Self::answer(&buffer[..length])?;
                if answer.answers.len() > 20 {
                    answer = answer.truncate();
                }
                let (udp, answer) = (udp.try_clone()?, answer.to_vec()?);
                thread::spawn(move || {
                    // Time for others to ask the same, and for an agent to end.
                    thread::sleep(Duration::from_millis(50));
                    udp.send_to(&answer, from)
                });
            }
        });
        thread::spawn(move || -> Result<()> {
            for stream in tcp.incoming() {
                let mut stream = stream?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut bytes)?;
                let answer = Self::answer(&bytes)?.to_vec()?;
                stream.write_all(&[&u16::try_from(answer.len())?.to_be_bytes()[..], &answer].concat())?;
            }
            Ok(())
        });
        Ok(this)
    }

    fn answer(bytes: &[u8]) -> Result<Message> {
        let asked = Message::from_vec(bytes)?;
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.add_queries(asked.queries.clone());
        let name = asked.queries.first().context("no question")?.name().clone();
        let host = name.iter().next().map(|label| String::from_utf8_lossy(label).into_owned());
        match host.as_deref() {
            Some("www") => {
                answer.add_answer(Record::from_rdata(name, 300, RData::A(A(Ipv4Addr::new(192, 0, 2, 80)))));
            }
            Some("brief") => {
                answer.add_answer(Record::from_rdata(name, 1, RData::A(A(Ipv4Addr::new(192, 0, 2, 81)))));
            }
            Some("long") => {
                let text = |number: u32| RData::TXT(TXT::new(vec![format!("{number}{}", "x".repeat(50))]));
                answer.add_answers((0..60).map(|number| Record::from_rdata(name.clone(), 300, text(number))));
            }
            _ => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        if asked.edns.is_some() {
            answer.set_edns(Edns::new());
        }
        Ok(answer)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[test]
fn other_names_are_asked_for_once() {
    with_namespace("dns::other_names_are_asked_for_once", || {
        let upstream = Upstream::start("127.0.0.2:53")?;
        let _server = Server::ready("127.0.0.2:53")?;
        // The search for loops is over.
        eventually("the server looked for loops", TIMEOUT, || Ok((upstream.asked() == 1).then_some(())))?;
        let clients: Vec<_> =
            (0..10).map(|_| thread::spawn(|| ask("www.example.com.", RecordType::A))).collect();
        for client in clients {
            let answer = client.join().expect("no panic")?;
            ensure!(ips(&answer) == [Ipv4Addr::new(192, 0, 2, 80)], "{answer:?}");
        }
        ensure!(upstream.asked() == 2, "asked {} times", upstream.asked());
        let answer = ask("WWW.Example.COM.", RecordType::A)?;
        ensure!(upstream.asked() == 2, "a kept answer was asked for");
        ensure!(answer.answers[0].ttl <= 300 && !answer.metadata.authoritative);
        // An alias out of the cluster comes with what it leads to.
        let answer = ask("out.ns.svc.cluster.local.", RecordType::A)?;
        ensure!(answer.answers.len() == 2 && ips(&answer) == [Ipv4Addr::new(192, 0, 2, 80)], "{answer:?}");
        ensure!(upstream.asked() == 2);
        // Longer than a datagram: by a connection, on both sides.
        let long = question("long.example.com.", RecordType::TXT);
        ensure!(ask_within(&long, TIMEOUT)?.metadata.truncation);
        let answers = ask_tcp(&mut TcpStream::connect(server_at())?, &[long])?;
        ensure!(answers[0].answers.len() == 60, "{} answers", answers[0].answers.len());
        // No such name, and no word for how long: asked anew.
        let missing = ask("missing.example.com.", RecordType::A)?;
        ensure!(missing.metadata.response_code == ResponseCode::NXDomain);
        // The server goes silent: what was known is told, what was not is a failure, in time.
        ask("brief.example.com.", RecordType::A)?;
        upstream.is_silent.store(true, Ordering::SeqCst);
        // It is kept for a second, and this must go by: nothing else tells of it.
        thread::sleep(Duration::from_millis(1100));
        let start = Instant::now();
        let answer = ask("brief.example.com.", RecordType::A)?;
        ensure!(ips(&answer) == [Ipv4Addr::new(192, 0, 2, 81)], "{answer:?}");
        ensure!(start.elapsed() < Duration::from_millis(2500), "a stale answer took {:?}", start.elapsed());
        let start = Instant::now();
        let answer = ask("silence.example.com.", RecordType::A)?;
        ensure!(answer.metadata.response_code == ResponseCode::ServFail, "{answer:?}");
        ensure!(start.elapsed() < Duration::from_secs(5), "a failure took {:?}", start.elapsed());
        Ok(())
    });
}

#[test]
fn one_of_several_servers_is_enough() {
    with_namespace("dns::one_of_several_servers_is_enough", || {
        let silent = Upstream::start("127.0.0.2:53")?;
        silent.is_silent.store(true, Ordering::SeqCst);
        let _good = Upstream::start("127.0.0.3:53")?;
        // One says nothing, nobody listens at the next, and one is this server itself.
        let own = server_at();
        let _server = Server::ready(&format!("127.0.0.2:53 127.0.0.9:53 {own} 127.0.0.3:53"))?;
        let start = Instant::now();
        ensure!(ips(&ask("www.example.com.", RecordType::A)?).len() == 1);
        ensure!(start.elapsed() < Duration::from_secs(1), "the first answer took {:?}", start.elapsed());
        Ok(())
    });
}

/// The whole way: a client that knows only the ClusterIP of `kube-dns` is led to this node's server, and stays so while
/// the server is away.
#[test]
fn clients_ask_at_the_address_of_the_service() {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated("dns::clients_ask_at_the_address_of_the_service", |sandbox| {
        let mut server = Server::ready("")?;
        let config = pagurus_tests::dataplane::config(&sandbox.cgroup, &sandbox.bpffs);
        let name = ServiceName::new(SERVICE.0, SERVICE.1);
        let object = json!({
            "metadata": {"namespace": SERVICE.0, "name": SERVICE.1},
            "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53},
            ]},
        })
        .to_string();
        let object = serde_json::from_str(&object)?;
        let mut desired = Desired::default();
        desired.set_service(
            services::service(&object, &services::Defaults::default(), &mut Vec::new())
                .context("no Service")?,
        );
        desired.set_local_dns(Some(LocalDns { service: name.clone(), ips: address::all() }));
        let mut datapath = Datapath::load(&config)?;
        let mut table = Table::new(datapath.services().observe()?, LIMITS, 0);
        let ops = table.plan(&name, &desired.compile(&name), desired.claims())?;
        datapath.apply(&ops)?;
        table.commit(&ops, ops.len(), 0);
        datapath.attach()?;
        let service = SocketAddr::from(([10, 96, 0, 10], 53));
        let asked = question(WEB, RecordType::A).to_vec()?;
        let socket = client(service, TIMEOUT)?;
        for _ in 0..3 {
            ensure!(ips(&exchange(&socket, &asked)?).len() == 1);
            ask_tcp(&mut TcpStream::connect(service)?, &[question(WEB, RecordType::A)])?;
            // A socket that is not connected hears its answer from the address it asked.
            let other = UdpSocket::bind("0.0.0.0:0")?;
            other.set_read_timeout(Some(TIMEOUT))?;
            other.send_to(&asked, service)?;
            let (length, from) = other.recv_from(&mut [0; 512])?;
            ensure!(from == service && length > 0, "the answer came from {from}");
            server.kill()?;
            server = Server::start("")?;
        }
        drop(server);
        keeper::end(&keeper::Settings { socket: keeper_socket(), command: Vec::new() })?;
        Ok(())
    });
}

#[test]
fn the_addresses_are_on_the_loopback_device() {
    with_namespace("dns::the_addresses_are_on_the_loopback_device", || {
        let server = Server::ready("")?;
        let shown = pagurus_tests::netns::ip(&["-o", "addr", "show", "dev", "lo"])?;
        for ip in address::all() {
            ensure!(shown.contains(&format!("{ip}/")), "{ip} is not there: {shown}");
        }
        drop(server);
        address::remove()?;
        let shown = pagurus_tests::netns::ip(&["-o", "addr", "show", "dev", "lo"])?;
        ensure!(!shown.contains(&address::V4.to_string()), "{shown}");
        let listening = UdpSocket::bind((IpAddr::from(address::V4), 0));
        ensure!(listening.is_err(), "the address is still there");
        Ok(())
    });
}
