//! The agent as it is installed, a real API server and no containers: what is said of objects that make no sense and of programs that the
//! kernel refuses, and what goes on while the API server is away. Traffic of other Services rests at no moment.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use nix::sys::signal::Signal;
use pagurus_agent_datapath::Build;
use pagurus_tests::daemon::{
    Ground, NODES, PATIENCE, SERVICE_PORT, SERVICES, SLICES, program, with_programs,
};
use pagurus_tests::dataplane::{Attached, attached};
use pagurus_tests::eventually::eventually;
use pagurus_tests::load::{Kind, Load};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::object::broken;
use pagurus_tests::topology::{Host, tcp_ask};
use serde_json::json;

/// The Service whose traffic never rests.
const WEB: [&str; 2] = ["10.96.7.7", "fd10:96::77"];
const NODE_PORT: u16 = 30_080;
/// The address of the cluster's DNS.
const DNS: &str = "10.96.0.10:53";

/// Nodes with the Service, and clients of it.
struct Loaded {
    load: Load,
    ground: Ground,
}

impl Deref for Loaded {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Ground {
        &mut self.ground
    }
}

/// Runs a test on this ground, if there is what it takes.
fn with_agents(name: &str, body: impl FnOnce(&mut Loaded) -> Result<()>) {
    with_programs(name, |sandbox| {
        let mut loaded = Loaded::new(sandbox)?;
        body(&mut loaded).with_context(|| loaded.said())
    });
}

impl Loaded {
    fn new(sandbox: &Sandbox) -> Result<Self> {
        let ips = [WEB[0].parse()?, WEB[1].parse()?];
        let (load, ground) = (Load::default(), Ground::new(sandbox, &ips, NODE_PORT)?);
        let mut loaded = Self { load, ground };
        let ground = &loaded.ground;
        let own = ground.topology.nodes[0].ips;
        for ip in ips {
            for (host, to) in [
                (&ground.caller.host, SocketAddr::new(ip, SERVICE_PORT)),
                (&ground.topology.client, SocketAddr::new(own.like(ip), NODE_PORT)),
            ] {
                // Packets are looked at a moment after sockets.
                eventually("the Service is served", PATIENCE, || tcp_ask(host, to).map(Some))?;
                for kind in [Kind::Connections, Kind::Stream, Kind::Datagrams] {
                    loaded.load.add(host, kind, to, Duration::from_millis(5))?;
                }
            }
        }
        loaded.load.go_on(10)?;
        Ok(loaded)
    }

    /// Which server answers the caller at an address of a Service.
    fn answering(&self, ip: IpAddr) -> Result<String> {
        Ok(tcp_ask(&self.caller.host, SocketAddr::new(ip, SERVICE_PORT))?.server)
    }

    /// Ends the traffic: nothing of it was lost.
    fn finish(&mut self) -> Result<()> {
        self.load.go_on(10)?;
        let report = std::mem::take(&mut self.load).finish()?;
        println!("{report}");
        report.nothing_lost()
    }

    /// Waits until the first node says this of its dataplane, with this reason.
    fn condition(&self, status: &str, reason: &str) -> Result<()> {
        let name = &self.topology.nodes[0].host.name;
        eventually(&format!("{name} says {status}, {reason}"), PATIENCE, || {
            let node = self.api.get(NODES, name)?;
            let conditions = node["status"]["conditions"].as_array().context("no conditions")?.clone();
            let said = conditions.iter().find(|condition| condition["type"] == "DataplaneReady");
            let said = said.context("nothing is said of the dataplane")?;
            ensure!(said["status"] == status && said["reason"] == reason, "{said}");
            Ok(Some(()))
        })
    }
}

/// The agent's program file with another object of BPF programs in it.
fn agent_with(directory: &Path, object: &[u8]) -> Result<PathBuf> {
    /// The object is at a multiple of this.
    const ALIGNMENT: usize = 8;
    let own = Build::own().object;
    let mut file = fs::read(program("pagurus-agent")?)?;
    let places: Vec<usize> = (0..file.len().saturating_sub(own.len()))
        .step_by(ALIGNMENT)
        .filter(|at| file[*at..].starts_with(own))
        .collect();
    ensure!(places.len() == 1, "the agent was not built with the programs of this test: {places:?}");
    file[places[0]..places[0] + object.len()].copy_from_slice(object);
    let path = directory.join("pagurus-agent");
    fs::write(&path, file)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn programs_that_are_refused_are_told_of_and_the_old_ones_serve() {
    with_agents("trouble::programs_that_are_refused_are_told_of_and_the_old_ones_serve", |ground| {
        let directory = tempfile::tempdir()?;
        let node = ground.topology.nodes[0].host.name.clone();
        ground.condition("True", "ServingServices")?;
        for (section, reason) in
            [("cgroup/connect4", "ProgramsRefused"), ("classifier", "PacketProgramsRefused")]
        {
            let before = attached(&ground.topology.nodes[0])?;
            let refused = agent_with(directory.path(), &broken(Build::own().object, section)?)?;
            ground.replace_agent(0, &refused, Signal::SIGTERM)?;
            ground.condition("False", reason)?;
            eventually("an event tells why", PATIENCE, || {
                let told = ground.api.told("Node", &node, "DataplaneProgramsRefused")?;
                let why = told.iter().find(|message| message.contains("its verifier said"));
                why.with_context(|| format!("{told:?}")).map(|_| Some(()))
            })?;
            ground.load.go_on(20)?;
            // Where those of sockets are taken they are used; those of packets are not, all or none.
            let is_kept = |link: &str| section == "cgroup/connect4" || is_of_packets(link);
            let kept = |mut links: BTreeMap<String, Attached>| {
                links.retain(|link, _| is_kept(link));
                links
            };
            let (then, now) = (kept(before.clone()), kept(attached(&ground.topology.nodes[0])?));
            ensure!(then == now && !now.is_empty(), "{section}: in the links is {now:?}, and was {then:?}");
            ground.replace_agent(0, &program("pagurus-agent")?, Signal::SIGKILL)?;
            ground.condition("True", "ServingServices")?;
            eventually("every program is another one", PATIENCE, || {
                let now = attached(&ground.topology.nodes[0])?;
                let others =
                    now.iter().all(|(name, (id, _))| before.get(name).is_some_and(|old| old.0 != *id));
                ensure!(others && now.len() == before.len(), "{before:?}, now {now:?}");
                Ok(Some(()))
            })?;
        }
        ground.finish()
    });
}

/// Whether a link is that of a device, and not of sockets.
fn is_of_packets(link: &str) -> bool {
    !pagurus_ebpf_abi::programs::SOCKET.contains(&link)
}

#[test]
fn what_is_wrong_with_objects_is_told_on_them() {
    with_agents("trouble::what_is_wrong_with_objects_is_told_on_them", |ground| {
        // Two Services want one external address.
        let contested: IpAddr = "198.51.100.20".parse()?;
        let external = json!({"externalIPs": [contested]});
        for (place, name) in ["one", "two"].into_iter().enumerate() {
            let ip = format!("10.96.8.{}", place + 1).parse()?;
            ground.api.serve(name, &[ip], None, &external, &ground.endpoints()[place..=place])?;
        }
        let lost = |name: &str| ground.api.told("Service", name, "AddressInUse");
        let (loser, message) = eventually("the one that lost is told", PATIENCE, || {
            let told = [("one", lost("one")?), ("two", lost("two")?)];
            Ok(told.into_iter().find_map(|(name, told)| Some((name, told.first()?.clone()))))
        })?;
        let winner = if loser == "one" { "two" } else { "one" };
        ensure!(message.contains(&format!("is served for default/{winner}")), "{message}");
        ensure!(message.contains(&contested.to_string()) && lost(winner)?.is_empty(), "{message}");
        let server = |name: &str| ground.pods[usize::from(name == "two")].host.name.clone();
        for _ in 0..10 {
            ensure!(ground.answering(contested)? == server(winner), "the one that lost is served");
        }
        ground.api.delete(SERVICES, winner)?;
        eventually("the other one has the address", PATIENCE, || {
            Ok((ground.answering(contested)? == server(loser)).then_some(()))
        })?;
        // A NodePort cannot be had twice.
        let twice = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": NODE_PORT}]});
        let refused = ground.api.create(SERVICES, &json!({"metadata": {"name": "twice"}, "spec": twice}));
        let error = format!("{:#}", refused.err().context("a NodePort was given twice")?);
        ensure!(error.contains("provided port is already allocated"), "{error}");
        // An address that no endpoint can have, beside one that is good.
        let ip: IpAddr = "10.96.8.3".parse()?;
        ground.api.serve("odd", &[ip], None, &json!({}), &ground.endpoints()[..1])?;
        let good = ground.pods[1].ips.v4;
        let endpoints = json!({"endpoints": [{"addresses": ["224.1.2.3"]}, {"addresses": [good]}]});
        ground.api.change(SLICES, "odd-ipv4", &endpoints)?;
        eventually("the slice's mistake is told", PATIENCE, || {
            let told = ground.api.told("EndpointSlice", "odd-ipv4", "InvalidEndpoints")?;
            let is_it = told.iter().any(|message| message.contains("\"224.1.2.3\""));
            ensure!(is_it, "{told:?}");
            Ok(Some(()))
        })?;
        for _ in 0..20 {
            ensure!(ground.answering(ip)? == ground.pods[1].host.name);
        }
        ground.finish()
    });
}

/// The addresses of a name, as a pod learns them; it asks again as clients do.
fn look_up(host: &Host, name: &str, record: RecordType) -> Result<Vec<IpAddr>> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name)?, record));
    let question = question.to_vec()?;
    host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(DNS)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut buffer = [0; 512];
        let mut ask = || -> Result<usize> {
            socket.send(&question)?;
            socket.recv(&mut buffer).with_context(|| format!("no answer about {name}"))
        };
        let length = ask().or_else(|_| ask())?;
        let answer = Message::from_vec(&buffer[..length])?;
        let ip = |data: &RData| match data {
            RData::A(ip) => Some(IpAddr::from(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::from(ip.0)),
            _ => None,
        };
        Ok(answer.answers.iter().filter_map(|record| ip(&record.data)).collect())
    })
}

#[test]
fn without_the_api_server_names_and_services_are_as_they_were() {
    with_agents("trouble::without_the_api_server_names_and_services_are_as_they_were", |ground| {
        let web: Vec<IpAddr> = vec![WEB[0].parse()?, WEB[1].parse()?];
        let caller = ground.caller.host.clone();
        let names = || -> Result<()> {
            for (ip, record) in web.iter().zip([RecordType::A, RecordType::AAAA]) {
                let found = look_up(&caller, "web.default.svc.cluster.local.", record)?;
                ensure!(found == [*ip], "{found:?}");
            }
            Ok(())
        };
        names()?;
        ground.api.control.kill()?;
        names()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            ground.replace_agent(0, &program("pagurus-agent")?, signal)?;
            // Asked while it starts already.
            names().context("while an agent starts without the API server")?;
            eventually("the agent has begun", PATIENCE, || ground.agents[0].get("/healthz").map(Some))?;
            ground.load.go_on(30)?;
            names().context("of an agent that never saw the API server")?;
            let ready = ground.agents[0].get("/readyz")?;
            ensure!(!ready.starts_with("HTTP/1.1 200"), "it cannot be ready: {ready}");
        }
        ground.api.control.restart()?;
        ground.agents[0].ready(2 * PATIENCE)?;
        names()?;
        // Changes are followed again, on both nodes.
        let ip: IpAddr = "10.96.8.1".parse()?;
        eventually("a Service can be created", PATIENCE, || ground.api.list(SERVICES).map(Some))?;
        ground.api.serve("late", &[ip], None, &json!({}), &ground.endpoints()[..1])?;
        eventually("the new Service is served", PATIENCE, || {
            Ok((ground.answering(ip)? == ground.pods[0].host.name).then_some(()))
        })?;
        eventually("the new Service has its name", PATIENCE, || {
            Ok((look_up(&caller, "late.default.svc.cluster.local.", RecordType::A)? == [ip]).then_some(()))
        })?;
        ground.api.lead_to("late", ip, &ground.endpoints()[1..])?;
        eventually("it has the other endpoint", PATIENCE, || {
            Ok((ground.answering(ip)? == ground.pods[1].host.name).then_some(()))
        })?;
        ground.finish()
    });
}
