//! Keeps the table of connections clean and large enough: looked through in small slices, with rests in between, so that it costs
//! less than a hundredth of a core.
//!
//! Must not know: when a connection is over (`agent-core`), how the table is read (`agent-datapath`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use pagurus_agent_core::conntrack::{self, Timeouts};
use pagurus_agent_datapath::MapError;
use pagurus_agent_datapath::conntrack::Conntrack;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::told::Told;
use crate::config::NodeContext;
use crate::report::events::about_node;

/// Entries looked at, or copied, in one slice.
const SLICE: usize = 1024;
/// Between two passes over the whole table, and between two slices, at least.
const PASS: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(2);
/// A table that could not be read is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// What is shown of the table.
#[derive(Default)]
struct Shown {
    entries: Gauge,
    capacity: Gauge,
    fill: Gauge<f64, AtomicU64>,
    removed: Counter,
}

/// What one slice has come to.
struct Done {
    table: Conntrack,
    result: Result<Next, MapError>,
}

/// How to go on.
struct Next {
    rest: Duration,
    /// Entries there are, or about so many.
    estimate: Option<u64>,
    removed: usize,
    grown: bool,
}

/// Cleans the table, once there is one, until cancelled.
pub(super) async fn run(
    context: Arc<NodeContext>,
    table: oneshot::Receiver<Conntrack>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut table = tokio::select! {
        Ok(table) = table => table,
        () = cancel.cancelled() => return Ok(()),
    };
    let services = &context.config.services;
    let [opening, established, half_closed, closed] = services.tcp_seconds;
    let [one_way, answered] = services.udp_seconds;
    let timeouts = Timeouts { opening, established, half_closed, closed, one_way, answered };
    // Each connection has two entries.
    let limit = services.conntrack_max.saturating_mul(2);
    let shown = Shown::default();
    context.metrics.register("conntrack", |registry| {
        registry.register("entries", "Entries of the table of connections, about", shown.entries.clone());
        registry.register("capacity", "Entries it has room for", shown.capacity.clone());
        registry.register("fill", "How full it is, from 0 to 1", shown.fill.clone());
        registry.register("removed", "Entries of connections that were over", shown.removed.clone());
    });
    let mut told = Told::new(context.events.clone());
    loop {
        let job = tokio::task::spawn_blocking(move || slice(table, &timeouts, limit));
        let done = job.await.context("clean the table of connections")?;
        table = done.table;
        let mut problems = Vec::new();
        let rest = match done.result {
            Ok(next) => {
                let capacity = table.capacity();
                shown.capacity.set(capacity.into());
                shown.removed.inc_by(u64::try_from(next.removed).unwrap_or(0));
                if next.grown {
                    tracing::info!(capacity, "the table of connections has grown");
                }
                if let Some(estimate) = next.estimate {
                    shown.entries.set(i64::try_from(estimate).unwrap_or(i64::MAX));
                    shown.fill.set(estimate as f64 / f64::from(capacity.max(1)));
                    if capacity >= limit && estimate.saturating_mul(50) >= u64::from(capacity) * 49 {
                        problems.push(format!(
                            "the table of connections is full ({capacity} entries): connections that need an entry are refused; give a \
                             larger --conntrack-max"
                        ));
                    }
                }
                next.rest
            }
            Err(error) => {
                problems.push(format!(
                    "the table of connections is not cleaned: {:#}",
                    anyhow::Error::from(error)
                ));
                RETRY
            }
        };
        told.tell(&about_node(&context.node_name), "ConntrackFull", problems);
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

/// Looks at a slice of the table, or goes on copying it.
fn slice(mut table: Conntrack, timeouts: &Timeouts, limit: u32) -> Done {
    let result = step(&mut table, timeouts, limit);
    Done { table, result }
}

fn step(table: &mut Conntrack, timeouts: &Timeouts, limit: u32) -> Result<Next, MapError> {
    let begun = Instant::now();
    if table.is_copying() {
        table.copy(SLICE)?;
        return Ok(Next { rest: REST, estimate: None, removed: 0, grown: false });
    }
    let counted = table.entries()?;
    if counted == Some(0) {
        return Ok(Next { rest: PASS, estimate: counted, removed: 0, grown: false });
    }
    let slice = table.expire(SLICE, Conntrack::now(), timeouts)?;
    let entries = counted.unwrap_or(slice.estimate);
    let rest = conntrack::rest(begun.elapsed(), entries, table.capacity());
    let wanted = conntrack::wanted_capacity(entries, table.capacity(), limit);
    if let Some(capacity) = wanted {
        table.grow(capacity)?;
    }
    Ok(Next {
        rest: if slice.is_end { rest.max(PASS) } else { rest.max(REST) },
        estimate: Some(entries),
        removed: slice.removed,
        grown: wanted.is_some(),
    })
}
