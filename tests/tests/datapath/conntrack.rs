//! The table of flows from user space: cleaned in slices, made larger, fast with millions of entries.

use pagurus_agent_core::conntrack::Timeouts;
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_ebpf_abi::{
    Address, FLOW_ESTABLISHED, FLOW_FIN, FLOW_REPLY, FlowState, FlowTuple, PROTOCOL_TCP, PROTOCOL_UDP, Port,
};

use super::*;

/// Both entries of a connection: of client `number` with a backend, last used at these times.
fn pair(number: u32, protocol: u8, flags: u32, last: [u32; 2]) -> [(FlowTuple, FlowState); 2] {
    let v4 = |number: u32| Address::from_v4_word(number.to_be());
    let (client, service, backend) = (v4(0x0b00_0000 + number / 16), v4(0x0a60_0001), v4(0x0a00_0001));
    let source_port = Port::new(u16::try_from(1024 + number % 16).unwrap_or(1024));
    let (port, target) = (Port::new(80), Port::new(8080));
    let tuple = |source, destination, source_port, destination_port| FlowTuple {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        reserved: [0; 3],
    };
    let state = |to: FlowTuple, flags, last| FlowState {
        source: to.source,
        destination: to.destination,
        source_port: to.source_port,
        destination_port: to.destination_port,
        last,
        flags,
        backend: 1,
        service: 1,
        since: 0,
    };
    let forward = state(tuple(client, backend, source_port, target), flags, last[0]);
    let reply = state(tuple(service, client, port, source_port), flags | FLOW_REPLY, last[1]);
    let entries = [
        (tuple(client, service, source_port, port), forward),
        (tuple(backend, client, target, source_port), reply),
    ];
    assert_eq!(entries[0].1.other(protocol), entries[1].0, "they are a pair");
    entries
}

/// Looks through the whole table; how many entries were looked at and removed.
fn pass(table: &mut Conntrack, count: usize, now: u32) -> Result<(usize, usize)> {
    let (mut looked, mut removed) = (0, 0);
    loop {
        let slice = table.expire(count, now, &Timeouts::default())?;
        looked += slice.looked;
        removed += slice.removed;
        if slice.is_end {
            return Ok((looked, removed));
        }
    }
}

#[test]
fn connections_that_are_over_go_and_others_stay_while_the_table_grows() {
    with_node(
        "datapath::conntrack::connections_that_are_over_go_and_others_stay_while_the_table_grows",
        |_, config, mut node| {
            let mut table = node.datapath.take_conntrack().context("the table of flows")?;
            let capacity = table.capacity();
            let now = 200_000;
            let est = FLOW_ESTABLISHED;
            let mut kept = Vec::new();
            let mut all = Vec::new();
            for number in 0..20_000 {
                // Kept for the other direction's sake; kept as established TCP; over; over because both sides ended it.
                let (pair, is_kept) = match number % 4 {
                    0 => (pair(number, PROTOCOL_UDP, est, [now - 3000, now - 5]), true),
                    1 => (pair(number, PROTOCOL_TCP, est, [now - 3000, now - 3000]), true),
                    2 => (pair(number, PROTOCOL_UDP, est, [now - 3000, now - 200]), false),
                    _ => (pair(number, PROTOCOL_TCP, est | FLOW_FIN, [now - 11, now - 20]), false),
                };
                all.extend(pair);
                if is_kept {
                    kept.extend(pair);
                }
            }
            ensure!(table.entries()? == Some(0));
            table.put(&all)?;
            ensure!(table.entries()? == Some(40_000), "the kernel counts them");
            let slice = table.expire(1000, now, &Timeouts::default())?;
            let error = slice.estimate.abs_diff(40_000);
            ensure!(error < 8000, "about 40,000 entries, not {}", slice.estimate);
            let mut removed = slice.removed;
            removed += pass(&mut table, 1000, now)?.1 + pass(&mut table, 1000, now)?.1;
            ensure!(removed == 20_000, "{removed} entries removed");
            ensure!(table.entries()? == Some(20_000), "{:?}", table.entries()?);
            let sorted = |mut entries: Vec<(FlowTuple, FlowState)>| {
                entries.sort_by_key(|(key, _)| *key);
                entries
            };
            let kept = sorted(kept);
            ensure!(sorted(table.list(usize::MAX)?) == kept);
            // Larger, while everything is found in one of the two.
            table.grow(capacity * 2)?;
            ensure!(table.capacity() == capacity * 2 && table.is_copying() && table.list(9)?.is_empty());
            table.copy(1000)?;
            let newer = (kept[0].0, FlowState { last: now, ..kept[0].1 });
            table.put(&[newer])?;
            // The agent dies now; the next one goes on.
            drop(node);
            drop(table);
            let (mut node, _) = Node::start(config)?;
            let mut table = node.datapath.take_conntrack().context("the table of flows")?;
            ensure!(table.is_copying() && table.capacity() == capacity * 2);
            while table.is_copying() {
                table.copy(1000)?;
            }
            let mut expected = kept.clone();
            expected[0] = newer;
            ensure!(sorted(table.list(usize::MAX)?) == expected, "what is newer stays, the rest is copied");
            Ok(())
        },
    );
}

/// What this thread has used of a core.
pub(super) fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().context("no time")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// How fast the table is looked through; `PAGURUS_FLOWS` says how many connections there are (a million entries without it,
/// fewer on a slow machine).
#[test]
fn millions_of_flows_are_looked_through_quickly() {
    with_node("datapath::conntrack::millions_of_flows_are_looked_through_quickly", |_, _, mut node| {
        let given = std::env::var("PAGURUS_FLOWS").ok().and_then(|text| text.parse().ok());
        let connections: u32 = given.map_or_else(|| repetitions(500_000, 1).try_into(), Ok)?;
        let mut table = node.datapath.take_conntrack().context("the table of flows")?;
        table.grow((connections * 2).next_power_of_two())?;
        let now = 200_000;
        let mut entries = Vec::new();
        for number in 0..connections {
            // Every tenth is a flow of datagrams in one direction only: its other entry must be looked up.
            entries.extend(match number % 10 {
                0 => pair(number, PROTOCOL_UDP, FLOW_ESTABLISHED, [now - 1, now - 3000]),
                _ => pair(number, PROTOCOL_TCP, FLOW_ESTABLISHED, [now - 1, now - 1]),
            });
            if entries.len() >= 8192 || number + 1 == connections {
                table.put(&entries)?;
                entries.clear();
            }
        }
        let mut longest = Duration::ZERO;
        let start = cpu_time()?;
        let mut looked = 0;
        loop {
            let one = cpu_time()?;
            let slice = table.expire(4096, now, &Timeouts::default())?;
            longest = longest.max(cpu_time()?.saturating_sub(one));
            looked += slice.looked;
            ensure!(slice.removed == 0);
            if slice.is_end {
                break;
            }
        }
        let elapsed = cpu_time()?.saturating_sub(start);
        println!(
            "{looked} entries in {elapsed:?}: {:.0} ns each, longest slice {longest:?}; once in two minutes that is {:.2} % of a core",
            elapsed.as_nanos() as f64 / f64::from(connections * 2),
            elapsed.as_secs_f64() / 1.2,
        );
        ensure!(looked == usize::try_from(connections)? * 2);
        Ok(())
    });
}
