//! Agents that are killed at any step, with the kernel's maps and with connections all the while: nobody else's traffic is disturbed,
//! and whoever comes next makes the maps what those of a fresh start are.
//!
//! The agent that is killed is this same test in a process of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use pagurus_agent_core::services::plan::{Extent, Held, MapOp, Observed, QUARANTINE, Value};
use pagurus_agent_core::services::{Desired, Endpoint, Service, Slice, SlicePort};
use pagurus_tests::dataplane::{With as _, service};

use super::*;
use crate::packets::random::{self, Random};

const NAME: &str = "datapath::kills::the_next_agent_makes_the_maps_those_of_a_fresh_start";
/// Tells a process that it is an agent that will be killed: seed, after how many operations (0: when its parent likes), the root of
/// its cgroups, the BPF file system.
const KILLED: &str = "PAGURUS_KILLED_AGENT";
/// The frontend of the Service that nothing is changed of.
const STEADY: &str = "10.97.0.10";
/// How many agents are killed on an ordinary machine.
const AGENTS: u64 = 24;

/// The Service whose clients must not notice anything.
fn steady() -> Service {
    service("steady", &[STEADY]).port("http", Protocol::Tcp, 80).port("dns", Protocol::Udp, 53)
}

/// An agent with what it wants.
pub(super) struct Agent {
    pub(super) node: Node,
    pub(super) desired: Desired,
    /// Milliseconds: a quarantine goes by between any two changes.
    now: u64,
    /// How many operations it has carried out, and after how many it dies.
    done: usize,
    dies_after: Option<usize>,
}

impl Agent {
    fn start(config: &Config, dies_after: Option<usize>) -> Result<Self> {
        let (node, _) = Node::start(config)?;
        Ok(Self { dies_after, ..Self::wanting(node)? })
    }

    /// One that wants the steady Service.
    pub(super) fn wanting(node: Node) -> Result<Self> {
        let mut desired = Desired::default();
        desired.set_service(steady());
        let targets = ["127.0.1.1", "127.0.1.2"];
        for (name, protocol, port) in [("http", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 5353)] {
            let ports = vec![SlicePort { name: name.into(), protocol, port }];
            let endpoints = targets.iter().map(|ip| endpoint(ip)).collect::<Result<_>>()?;
            let service = steady().name;
            desired.set_slice(name, Slice { service, family: Family::V4, ports, endpoints });
        }
        Ok(Self { node, desired, now: 0, done: 0, dies_after: None })
    }

    /// Wants what a random cluster has; the steady Service stays.
    fn want(&mut self, seed: u64) {
        let cluster = random::cluster(&mut Random::new(seed));
        random::want(&mut self.desired, &cluster, &[steady().name]);
    }

    /// Carries operations out, and dies in the middle of them if it is time.
    fn carry_out(&mut self, ops: &[MapOp]) -> Result<()> {
        if let Some(limit) = self.dies_after
            && self.done + ops.len() >= limit
        {
            self.node.datapath.apply(&ops[..limit - self.done])?;
            raise(Signal::SIGKILL)?;
        }
        let result = self.node.datapath.apply(ops);
        let done = result.as_ref().map_or_else(|failed| failed.done, |()| ops.len());
        self.done += done;
        self.node.table.commit(ops, done, self.now);
        Ok(result?)
    }

    /// The first writing of all: what is not wanted goes.
    pub(super) fn take_over(&mut self) -> Result<()> {
        let mut ops = self.node.table.plan_nodes(self.desired.addresses());
        self.carry_out(&ops)?;
        self.desired.take_dirty();
        for name in self.desired.service_names().collect::<Vec<_>>() {
            let compiled = self.desired.compile(&name);
            ops = self.node.table.plan(&name, &compiled, self.desired.claims())?;
            self.carry_out(&ops)?;
        }
        let ops = self.node.table.sweep();
        self.carry_out(&ops)
    }

    /// Writes what has changed.
    pub(super) fn update(&mut self) -> Result<()> {
        let mut ops = self.node.table.plan_nodes(self.desired.addresses());
        for name in self.desired.take_dirty() {
            let compiled = self.desired.compile(&name);
            ops.extend(self.node.table.plan(&name, &compiled, self.desired.claims())?);
        }
        self.carry_out(&ops)?;
        self.release()
    }

    /// Gives away what nobody has led to for long enough.
    pub(super) fn release(&mut self) -> Result<()> {
        self.now += 2 * QUARANTINE;
        let ops = self.node.table.release(self.now);
        self.carry_out(&ops)
    }
}

fn endpoint(ip: &str) -> Result<Endpoint> {
    Ok(Endpoint {
        ip: ip.parse()?,
        ready: true,
        serving: true,
        terminating: false,
        local: true,
        for_zones: Box::default(),
        for_nodes: Box::default(),
    })
}

/// An agent that changes things until it is killed.
fn be_killed(text: &str) -> Result<()> {
    let [seed, limit, cgroup, bpffs] = text.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("{KILLED}={text}")
    };
    let (seed, limit): (u64, usize) = (seed.parse()?, limit.parse()?);
    let sandbox = Sandbox { cgroup: cgroup.into(), bpffs: bpffs.into() };
    let mut agent = Agent::start(&Node::config(&sandbox), (limit > 0).then_some(limit))?;
    agent.want(seed);
    agent.take_over()?;
    for step in 1.. {
        agent.want(seed + step);
        agent.update()?;
    }
    Ok(())
}

/// What maps mean, whichever numbers and places it has in them.
#[derive(Debug, PartialEq)]
struct Meaning {
    frontends: BTreeMap<Frontend, (Flags, u32, [Vec<Held>; 3])>,
    /// Whose Service is allowed for whom.
    ranges: BTreeMap<BTreeSet<Frontend>, BTreeSet<String>>,
    backends: Vec<Held>,
    slots: usize,
    nodes: BTreeMap<IpAddr, NodeAddress>,
}

fn meaning(observed: &Observed) -> Result<Meaning> {
    let held: BTreeMap<u32, Held> = observed.backends.iter().map(|(id, held)| (id.0, *held)).collect();
    let list = |extent: Extent| -> Result<Vec<Held>> {
        let ids = observed.slots.get(extent.first as usize..(extent.first + extent.count) as usize);
        let ids = ids.context("places beyond the end")?;
        ids.iter().map(|id| held.get(id).copied().with_context(|| format!("no backend {id}"))).collect()
    };
    let frontend = |(frontend, value): &(Frontend, Value)| {
        let lists = [list(value.inside)?, list(value.outside)?, list(value.maglev)?];
        Ok((*frontend, (value.flags, value.affinity, lists)))
    };
    let mut ranges: BTreeMap<BTreeSet<Frontend>, BTreeSet<String>> = BTreeMap::new();
    for (number, range) in &observed.ranges {
        let own = observed.services.iter().filter(|(_, value)| value.service == *number);
        let own = own.map(|(frontend, _)| *frontend).collect();
        ranges.entry(own).or_default().insert(range.to_string());
    }
    let mut backends: Vec<Held> = held.values().copied().collect();
    backends.sort_unstable();
    Ok(Meaning {
        frontends: observed.services.iter().map(frontend).collect::<Result<_>>()?,
        ranges,
        backends,
        slots: observed.slots.iter().filter(|id| **id != 0).count(),
        nodes: observed.nodes.iter().copied().collect(),
    })
}

/// Servers of the steady Service, at the ports its slices say.
pub(super) fn steady_servers() -> Result<()> {
    for ip in ["127.0.1.1", "127.0.1.2"] {
        let listener = TcpListener::bind((ip, 8080))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve_tcp(stream, address));
            }
        });
        let socket = UdpSocket::bind((ip, 5353))?;
        thread::spawn(move || -> std::io::Result<()> {
            let mut buffer = [0; 128];
            loop {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(format!("{ip}:5353").as_bytes(), from)?;
            }
        });
    }
    Ok(())
}

/// A client of the steady Service that connects and asks without end; how often it did.
pub(super) fn steady_client(stop: Arc<AtomicBool>) -> thread::JoinHandle<Result<usize>> {
    thread::spawn(move || {
        let (tcp, udp): (SocketAddr, SocketAddr) =
            (format!("{STEADY}:80").parse()?, format!("{STEADY}:53").parse()?);
        let asking = UdpSocket::bind("127.0.0.1:0")?;
        let mut old = TcpStream::connect(tcp)?;
        greeting(&mut old)?;
        let (mut count, mut buffer) = (0, [0; 4]);
        while !stop.load(Ordering::Relaxed) {
            spread(tcp, 1)?;
            ask(&asking, udp)?;
            ask(&UdpSocket::bind("127.0.0.1:0")?, udp)?;
            old.write_all(b"here")?;
            old.read_exact(&mut buffer)?;
            ensure!(&buffer == b"here" && old.peer_addr()? == tcp, "the old connection");
            count += 1;
        }
        Ok(count)
    })
}

/// Starts an agent and sees it die.
fn kill_one(config: &Config, seed: u64, random: &mut Random) -> Result<()> {
    // Mostly after some operations; now and then at any moment, while it starts or takes over.
    let limit = if random.once_in(3) { 0 } else { 1 + random.below(400) };
    let mut agent = Command::new(std::env::current_exe()?)
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(KILLED, format!("{seed} {limit} {} {}", config.cgroup_root.display(), config.bpffs.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if limit == 0 {
        // No condition to wait for: it is any moment that is wanted.
        thread::sleep(patience(Duration::from_millis(random.below(1500) as u64)));
        kill(Pid::from_raw(i32::try_from(agent.id())?), Signal::SIGKILL)?;
    }
    let status = agent.wait()?;
    if status.signal() != Some(Signal::SIGKILL as i32) {
        let mut said = String::new();
        agent.stderr.take().context("what it said")?.read_to_string(&mut said)?;
        anyhow::bail!("the agent of seed {seed}, limit {limit}, was not killed, but ended: {status}\n{said}");
    }
    Ok(())
}

#[test]
fn the_next_agent_makes_the_maps_those_of_a_fresh_start() {
    if let Ok(text) = std::env::var(KILLED) {
        // This process is in its parent's isolation.
        be_killed(&text).expect("an agent works until it is killed");
        return;
    }
    with_maps(NAME, |config| {
        let any = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs();
        let seed = std::env::var("PAGURUS_SEED").ok().map_or(Ok(any), |text| text.parse())?;
        println!("PAGURUS_SEED={seed} is this run");
        let mut random = Random::new(seed);
        steady_servers()?;
        let mut agent = Agent::start(config, None)?;
        agent.take_over()?;
        drop(agent);
        let stop = Arc::new(AtomicBool::new(false));
        let client = steady_client(stop.clone());
        let agents = repetitions(AGENTS, 6);
        for round in 0..agents {
            kill_one(config, seed + round * 10_000, &mut random)?;
            // Every few, one that lives.
            if round % 6 == 5 {
                let last = seed + round * 10_000 + 7;
                let mut agent = Agent::start(config, None)?;
                agent.want(last);
                agent.take_over()?;
                agent.release()?;
                agent.release()?;
                let found = meaning(&agent.node.datapath.observe()?)?;
                drop(agent);
                let fresh = fresh(config, last)?;
                ensure!(
                    found == fresh,
                    "after agent {round}: {found:#?}\nand those of a fresh start: {fresh:#?}"
                );
            }
            if client.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let count = client.join().expect("the client does not panic")?;
        println!("{count} turns of the client while {agents} agents were killed");
        ensure!(count as u64 > agents, "the client hardly came to its turn");
        Ok(())
    });
}

/// The meaning of maps that were empty before, filled for a cluster; in a file system of their own.
fn fresh(config: &Config, seed: u64) -> Result<Meaning> {
    let bpffs = config.bpffs.join("fresh");
    std::fs::create_dir(&bpffs)?;
    let config = Config { bpffs, ..config.clone() };
    let mut datapath = Datapath::load(&config)?;
    let table = Table::new(datapath.observe()?, LIMITS, 0);
    // Not attached: nobody uses these maps.
    let node = Node { datapath, table, affinity: 0, started: Instant::now() };
    let mut agent = Agent::wanting(node)?;
    agent.want(seed);
    agent.take_over()?;
    let meaning = meaning(&agent.node.datapath.observe()?)?;
    drop(agent);
    attach::remove(&config)?;
    std::fs::remove_dir(&config.bpffs)?;
    Ok(meaning)
}

/// Runs a body in isolation; in the process of an agent that is to be killed, in that of its parent.
fn with_maps(name: &str, body: impl FnOnce(&Config) -> Result<()>) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated(name, |sandbox| body(&Node::config(sandbox)));
}
