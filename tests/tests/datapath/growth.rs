//! Maps that are replaced or grow while sockets connect.

use super::conntrack::cpu_time;
use super::*;

#[test]
fn another_capacity_replaces_the_maps_without_a_gap() {
    with_node("datapath::growth::another_capacity_replaces_the_maps_without_a_gap", |_, config, mut node| {
        let backends = tcp_servers(&["127.0.1.1"])?;
        let service = frontend(V4, 80, Protocol::Tcp)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        node.serve(&[service], &backends)?;
        let mut old = TcpStream::connect(vip)?;
        greeting(&mut old)?;
        drop(node);
        // Tables that refer to each other are replaced together.
        let mut config = config.clone();
        config.capacity.source_ranges = 1024;
        config.capacity.reverse = 1024;
        let mut datapath = Datapath::load(&config)?;
        let observed = datapath.services().observe()?;
        ensure!(observed.services.is_empty(), "the new maps are not empty");
        // Until the new programs are attached the old ones go on with the old maps.
        spread(vip, 5)?;
        let table = Table::new(observed, LIMITS, 0);
        let mut node = Node { datapath, table, affinity: 0, started: Instant::now() };
        node.serve(&[service], &backends)?;
        ensure!(node.datapath.attach()? == Attached { created: 0, replaced: 8 });
        spread(vip, 5)?;
        ensure!(old.peer_addr()? == vip, "what the socket remembered was lost");
        drop(node);
        // And these are the ones found at the next start.
        let (mut node, _) = Node::start(&config)?;
        ensure!(node.serve(&[service], &backends)? == 0);
        Ok(())
    });
}

/// Tables begin with room for few and grow while clients connect.
#[test]
fn tables_grow_under_load() {
    with_node("datapath::growth::tables_grow_under_load", |_, config, node| {
        drop(node);
        attach::remove(config)?;
        let mut config = config.clone();
        config.capacity.services = 2;
        config.capacity.slots = 2;
        config.capacity.backends = 2;
        config.capacity.numbers = 2;
        let (mut node, _) = Node::start(&config)?;
        let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
        let service = frontend(V4, 80, Protocol::Tcp)?;
        node.serve(&[service], &backends)?;
        let vip: SocketAddr = format!("{V4}:80").parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let client = {
            let stop = stop.clone();
            thread::spawn(move || -> Result<usize> {
                let mut connected = 0;
                while !stop.load(Ordering::Relaxed) {
                    spread(vip, 20)?;
                    connected += 20;
                }
                Ok(connected)
            })
        };
        for host in 1..=255u32 {
            for port in 1..=20 {
                let other = frontend(&format!("10.96.1.{host}"), port, Protocol::Tcp)?;
                let target = SocketAddr::new(IpAddr::from((0x0a01_0000 + host).to_be_bytes()), port);
                node.serve(&[other], &[target, backends[0]])?;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let connected = client.join().expect("the client does not panic")?;
        let capacity = node.datapath.services().capacity();
        println!("{connected} connections while the tables grew to {capacity:?}");
        ensure!(connected > 0 && capacity.services >= 5101 && capacity.backends >= 10_202);
        ensure!(capacity == node.table.capacity());
        let seen = node.datapath.services().observe()?;
        ensure!(seen.services.len() == 5101 && seen.backends.len() == 10_202);
        drop(node);
        let (mut node, _) = Node::start(&config)?;
        ensure!(node.serve(&[service], &backends)? == 0, "a restart wrote something");
        spread(vip, 5)?;
        Ok(())
    });
}

/// What a socket noted with maps of the layout before is known to this one, where it lies in them alike.
#[test]
fn what_sockets_noted_survives_a_change_of_layout() {
    with_node(
        "datapath::growth::what_sockets_noted_survives_a_change_of_layout",
        |sandbox, config, mut node| {
            let backends = tcp_servers(&["127.0.1.1"])?;
            let service = frontend(V4, 80, Protocol::Tcp)?;
            let vip: SocketAddr = format!("{V4}:80").parse()?;
            node.serve(&[service], &backends)?;
            let mut old = TcpStream::connect(vip)?;
            greeting(&mut old)?;
            drop(node);
            // The maps of this layout as if they were those of the one before.
            let root = sandbox.bpffs.join("pagurus");
            let own = root.join(format!("maps-v{}", pagurus_ebpf_abi::LAYOUT_VERSION));
            let before = root.join(format!("maps-v{}", pagurus_ebpf_abi::LAYOUT_VERSION - 1));
            std::fs::rename(&own, &before)?;
            let mut datapath = Datapath::load(config)?;
            let observed = datapath.observe()?;
            ensure!(observed.services.is_empty(), "another layout's tables are not this one's");
            // Until the new programs are attached the old ones go on.
            spread(vip, 5)?;
            let mut late = TcpStream::connect(vip)?;
            greeting(&mut late)?;
            let table = Table::new(observed, LIMITS, 0);
            let mut node = Node { datapath, table, affinity: 0, started: Instant::now() };
            node.serve(&[service], &backends)?;
            node.datapath.attach()?;
            ensure!(!before.exists() && own.exists(), "the old layout's maps are gone");
            ensure!(old.peer_addr()? == vip, "what the socket noted was lost");
            ensure!(late.peer_addr()? == vip, "what was noted last was lost");
            spread(vip, 5).map(drop)
        },
    );
}

/// Bytes of all maps this process has open, each once.
fn map_memory() -> Result<u64> {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor of the folder itself is gone by now.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.into_values().sum())
}

/// How long it takes to write very many Services into empty maps, and one change after; a measurement with bounds that hold on a
/// busy machine.
#[test]
fn very_many_services() {
    with_node("datapath::growth::very_many_services", |_, _, mut node| {
        let services: u32 = repetitions(50_000, 1).try_into()?;
        const ENDPOINTS: u32 = 5;
        let service = |number: u32, turn: u32| -> (ServiceName, Compiled) {
            let backend = |endpoint: u32| Backend {
                ip: IpAddr::from((0x0b00_0000 + number * 16 + (endpoint + turn) % 16).to_be_bytes()),
                port: 8080,
                protocol: Protocol::Tcp,
            };
            let mut members: Vec<Member> = (0..ENDPOINTS)
                .map(|endpoint| Member { backend: backend(endpoint), local: false, draining: false })
                .collect();
            members.sort_unstable();
            let ip = ServiceIp::Own(IpAddr::from((0x0a60_0000 + number).to_be_bytes()));
            let route = Route {
                frontend: Frontend { ip, port: 80, protocol: Protocol::Tcp },
                flags: Flags::HAS_ENDPOINTS,
                affinity: 0,
                inside: 0,
                outside: 0,
                maglev: false,
            };
            let lists = vec![(0..ENDPOINTS).collect()];
            let compiled = Compiled { members, lists, routes: vec![route], ranges: Vec::new() };
            (ServiceName::new("many", &number.to_string()), compiled)
        };
        let all: Vec<(ServiceName, Compiled)> = (0..services).map(|number| service(number, 0)).collect();
        let start = cpu_time()?;
        for chunk in all.chunks(1024) {
            let mut ops = Vec::new();
            for (name, compiled) in chunk {
                ops.extend(node.table.plan(name, compiled, &Claims::default())?);
            }
            node.datapath.apply(&ops)?;
            node.table.commit(&ops, ops.len(), 0);
        }
        let full = cpu_time()?.saturating_sub(start);
        let mut times = Vec::new();
        for change in 0..5000u32 {
            let (name, compiled) = service(change * 7919 % services, 1 + change % 7);
            let start = Instant::now();
            node.write(&name, &compiled)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!(
            "{services} Services with {} endpoints planned and written in {full:?} of a core; one change: p50 {:?}, p99 {:?}",
            services * ENDPOINTS,
            times[2500],
            times[4950]
        );
        let maps = map_memory()?;
        println!("{} MiB of maps", maps >> 20);
        ensure!(maps < 100_000_000, "{maps} bytes of maps");
        let start = cpu_time()?;
        let observed = node.datapath.observe()?;
        let read = cpu_time()?.saturating_sub(start);
        let again = Table::new(observed, LIMITS, 0);
        println!(
            "read again in {read:?}, understood in {:?} (of a core)",
            cpu_time()?.saturating_sub(start + read)
        );
        ensure!(again.used().services == services && full < patience(Duration::from_secs(60)));
        Ok(())
    });
}
