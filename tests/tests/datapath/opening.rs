//! An agent that starts: what it opens serves on under the programs of the agent before, and what it writes is seen by them, until its own
//! are attached.

use pagurus_agent_datapath::Parts;

use super::*;

#[test]
fn the_programs_before_serve_until_the_new_ones_are_attached() {
    with_node(
        "datapath::opening::the_programs_before_serve_until_the_new_ones_are_attached",
        |_, config, mut node| {
            let backends = tcp_servers(&["127.0.1.1", "127.0.1.2"])?;
            let service = frontend(V4, 80, Protocol::Tcp)?;
            let vip: SocketAddr = format!("{V4}:80").parse()?;
            node.serve(&[service], &backends[..1])?;
            drop(node);
            // An agent to which the API server says nothing: it opens the maps, and nothing has changed.
            let mut parts = Parts::open(config)?;
            let observed = parts.services.observe()?;
            ensure!((observed.services.len(), observed.backends.len()) == (1, 1), "{observed:?}");
            check_spread(&spread(vip, 4)?, &backends[..1], 4)?;
            parts.programs.verify_sockets()?;
            ensure!(!parts.programs.packet_programs(false)?.is_empty());
            check_spread(&spread(vip, 4)?, &backends[..1], 4)?;
            // It ends without ever having heard anything, and so does the next one; the third is told of a change.
            drop(parts);
            drop(Parts::open(config)?);
            let mut parts = Parts::open(config)?;
            let mut table = Table::new(parts.services.observe()?, LIMITS, 0);
            let name = ServiceName::new("test", &service.to_string());
            let ops = table.plan(&name, &leads_to(service, &backends[1]), &Claims::default())?;
            parts.services.apply(&ops)?;
            table.commit(&ops, ops.len(), 0);
            check_spread(&spread(vip, 4)?, &backends[1..], 4)?;
            parts.programs.verify_sockets()?;
            ensure!(parts.programs.attach()? == Attached { created: 0, replaced: 8 });
            check_spread(&spread(vip, 4)?, &backends[1..], 4)
        },
    );
}

/// A Service with one endpoint.
fn leads_to(frontend: Frontend, at: &SocketAddr) -> Compiled {
    let backend = Backend { ip: at.ip(), port: at.port(), protocol: frontend.protocol };
    Compiled {
        lists: vec![vec![0]],
        members: vec![Member { backend, local: true, draining: false }],
        routes: vec![Route {
            frontend,
            flags: Flags::NONE,
            affinity: 0,
            inside: 0,
            outside: 0,
            maglev: false,
        }],
        ranges: Vec::new(),
    }
}
