//! What the kernel refuses: programs, and entries for which there is no room. Connections to everything else go on all the while.

use aya::maps::{Array, Map, MapData};
use pagurus_agent_datapath::{Build, LoadError};
use pagurus_ebpf_abi::{LAYOUT_VERSION, maps};
use pagurus_tests::dataplane::{With as _, service};
use pagurus_tests::object::broken;

use super::kills::{Agent, steady_client, steady_servers};
use super::*;

/// The programs with nonsense where a section of them begins.
fn load_broken(config: &Config, section: &str) -> Result<Datapath> {
    let own = Build::own();
    let object = broken(own.object, section)?;
    Ok(Datapath::load_build(config, &Build { object: &object, ..own })?)
}

/// The verifier's own words are in an error about this program.
fn check_refusal(error: &LoadError, programs: &[&str]) -> Result<()> {
    let text = error.to_string();
    let LoadError::Program { name, .. } = error else { anyhow::bail!("another error: {text}") };
    ensure!(programs.contains(name) && text.contains(&format!("load program {name}")), "{text}");
    let (_, log) = text.split_once("its verifier said:\n").with_context(|| text.clone())?;
    ensure!(log.contains("insn") || log.contains("R0"), "no words of the verifier: {text}");
    Ok(())
}

#[test]
fn programs_that_are_refused_leave_the_old_ones_in_place() {
    with_node(
        "datapath::trouble::programs_that_are_refused_leave_the_old_ones_in_place",
        |_, config, mut node| {
            let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
            let service = frontend(V4, 80, Protocol::Tcp)?;
            node.serve(&[service], &backends)?;
            let vip: SocketAddr = format!("{V4}:80").parse()?;
            let mut old = TcpStream::connect(vip)?;
            greeting(&mut old)?;
            let before = node.datapath.observe()?;
            drop(node);
            let Err(error) = load_broken(config, "cgroup/connect4") else {
                anyhow::bail!("the kernel took a program that returns nothing");
            };
            check_refusal(error.downcast_ref().context("another error")?, &["connect4"])?;
            check_spread(&spread(vip, 100)?, &backends, 100)?;
            let mut datapath = load_broken(config, "classifier")?;
            let Err(error) = datapath.packet_programs(true) else {
                anyhow::bail!("the kernel took a program that returns nothing");
            };
            check_refusal(&error, &pagurus_ebpf_abi::programs::PACKET)?;
            drop(datapath);
            check_spread(&spread(vip, 100)?, &backends, 100)?;
            ensure!(old.peer_addr()? == vip, "what the socket remembered was lost");
            // What was refused has left nothing that is in the way of the next.
            let (mut node, attached) = Node::start(config)?;
            ensure!(attached == Attached { created: 0, replaced: 8 }, "{attached:?}");
            ensure!(node.serve(&[service], &backends)? == 0 && node.datapath.observe()? == before);
            check_spread(&spread(vip, 100)?, &backends, 100)
        },
    );
}

#[test]
fn a_full_map_holds_what_fits() {
    with_node("datapath::trouble::a_full_map_holds_what_fits", |_, config, node| {
        drop(node);
        attach::remove(config)?;
        let mut config = config.clone();
        config.capacity.source_ranges = 4;
        steady_servers()?;
        let mut agent = Agent::wanting(Node::start(&config)?.0)?;
        agent.take_over()?;
        let stop = Arc::new(AtomicBool::new(false));
        let client = steady_client(stop.clone());
        let ranged = |name: &str, cluster_ip: &str, ip: &str| -> Result<_> {
            let mut made = service(name, &[cluster_ip]).port("http", Protocol::Tcp, 80);
            made.load_balancer_ips.push(ip.parse()?);
            for range in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
                made.source_ranges.push(range.parse()?);
            }
            Ok(made)
        };
        let (first, second) =
            (ranged("first", "10.97.1.1", "192.0.2.1")?, ranged("second", "10.97.1.2", "192.0.2.2")?);
        agent.desired.set_service(first.clone());
        agent.update()?;
        for _ in 0..3 {
            agent.desired.set_service(second.clone());
            agent.desired.mark_dirty(second.name.clone());
            let error = agent.update().err().context("there is no room for it")?;
            ensure!(format!("{error:#}").contains("SOURCE_RANGES"), "{error:#}");
            let observed = agent.node.datapath.observe()?;
            let number = agent.node.table.number(&first.name).context("the first has a number")?;
            let own = observed.ranges.iter().filter(|(of, _)| *of == number).count();
            ensure!(own == 3, "{:?}", observed.ranges);
            let guarded = frontend("192.0.2.1", 80, Protocol::Tcp)?;
            ensure!(observed.services.iter().any(|(frontend, _)| *frontend == guarded));
            // Who may use it is not known: nobody may.
            let unguarded = frontend("192.0.2.2", 80, Protocol::Tcp)?;
            ensure!(observed.services.iter().all(|(frontend, _)| *frontend != unguarded));
        }
        // There is room again.
        agent.desired.remove_service(&first.name);
        agent.update()?;
        agent.desired.mark_dirty(second.name.clone());
        agent.update()?;
        agent.release()?;
        let observed = agent.node.datapath.observe()?;
        let number = agent.node.table.number(&second.name).context("the second has a number")?;
        ensure!(observed.ranges.len() == 3 && observed.ranges.iter().all(|(of, _)| *of == number));
        stop.store(true, Ordering::Relaxed);
        let count = client.join().expect("the client does not panic")?;
        ensure!(count > 0);
        Ok(())
    });
}

/// How often something was taken back that packets were sent by.
fn taken_back(config: &Config) -> Result<u32> {
    let pin = config.bpffs.join(format!("pagurus/maps-v{LAYOUT_VERSION}/{}", maps::TAKEN_BACK));
    Ok(Array::<_, u32>::try_from(Map::Array(MapData::from_pin(pin)?))?.get(&0, 0)?)
}

/// Deleted and made again at once, with other endpoints: who asks from then on never meets the old ones.
#[test]
fn a_service_that_is_made_again_at_once_is_the_new_one() {
    with_node(
        "datapath::trouble::a_service_that_is_made_again_at_once_is_the_new_one",
        |_, config, mut node| {
            let sets = [tcp_servers(&["127.0.1.1", "127.0.1.2"])?, tcp_servers(&["127.0.2.1", "127.0.2.2"])?];
            let echoes = [udp_servers(&["127.0.1.1"])?, udp_servers(&["127.0.2.1"])?];
            let (tcp, udp) = (frontend(V4, 80, Protocol::Tcp)?, frontend(V4, 53, Protocol::Udp)?);
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            for turn in 0..200 {
                let (own, echo) = (&sets[turn % 2], &echoes[turn % 2]);
                let before = taken_back(config)?;
                node.remove(&tcp)?;
                node.remove(&udp)?;
                // The first time there is nothing to remove.
                ensure!(
                    turn == 0 || taken_back(config)? != before,
                    "turn {turn}: XDP still believes its flows"
                );
                node.serve(&[tcp], own)?;
                node.serve(&[udp], echo)?;
                let seen = spread(format!("{V4}:80").parse()?, 3)?;
                ensure!(seen.keys().all(|backend| own.contains(backend)), "turn {turn}: {seen:?}");
                // A socket that has asked the old one before.
                let who = ask(&socket, format!("{V4}:53").parse()?)?;
                ensure!(echo.contains(&who), "turn {turn}: {who} answered");
            }
            Ok(())
        },
    );
}
