//! Random clusters in the real maps, random packets through the real programs, and what kube-proxy's rules say of them
//! ([`kube_proxy`]): the endpoints that may be chosen, the source that is kept or replaced, refusals, drops, answers and ICMP errors
//! restored exactly, clients that stay with their endpoint; and what `pagurus-agent trace` says of the same packets.
//!
//! `PAGURUS_SEED` plays a run again from the cluster of that seed on, `PAGURUS_CLUSTERS` says how many clusters there are.
//!
//! [`kube_proxy`]: pagurus_agent_core::services::kube_proxy

mod attempt;
mod connection;
mod node;
mod outcome;
mod said;
mod sockets;

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::pace::repetitions;

use super::random::{self, Random};
use connection::Run;
use node::Node;

/// How many clusters on an ordinary machine, and how many connections in each.
const CLUSTERS: u64 = 300;
const CONNECTIONS: usize = 40;

fn number(variable: &str) -> Result<Option<u64>> {
    match std::env::var(variable) {
        Ok(text) => text.parse().map(Some).with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(None),
    }
}

#[test]
fn packets_go_where_the_rules_say() {
    isolated("packets::model::packets_go_where_the_rules_say", |sandbox| {
        let Some(mut node) = Node::new(sandbox)? else { return Ok(()) };
        let any = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let first = number("PAGURUS_SEED")?.unwrap_or(any);
        let clusters = number("PAGURUS_CLUSTERS")?.unwrap_or_else(|| repetitions(CLUSTERS, 1));
        println!("PAGURUS_SEED={first} PAGURUS_CLUSTERS={clusters} is this run");
        let begun = Instant::now();
        let mut seen = connection::Seen::default();
        for seed in first..first + clusters {
            let mut random = Random::new(seed);
            let cluster = random::cluster(&mut random);
            let replay = || format!("PAGURUS_SEED={seed} PAGURUS_CLUSTERS=1 plays it again");
            node.become_part_of(&cluster, random.once_in(2), random.once_in(2)).with_context(replay)?;
            let mut run = Run::new(&node, &cluster, &mut random, &mut seen)?;
            for _ in 0..CONNECTIONS {
                run.connection().with_context(|| format!("in {cluster:#?}")).with_context(replay)?;
            }
            run.sockets().with_context(|| format!("in {cluster:#?}")).with_context(replay)?;
        }
        println!("{seen:?} in {:?}", begun.elapsed());
        ensure!(clusters < CLUSTERS || seen.is_everything(), "some of it was never there: {seen:?}");
        Ok(())
    });
}
