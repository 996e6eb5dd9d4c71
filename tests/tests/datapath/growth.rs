//! Maps that are replaced or grow while sockets connect.

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
