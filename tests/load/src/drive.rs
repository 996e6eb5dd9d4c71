//! Clients that send one request after the other, for a time or a number of requests, and what that took.
//!
//! Must not know: what the requests are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::Client;
use crate::process::{Meter, Used};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many requests of all clients together.
    Count(u64),
    /// After this time.
    Time(Duration),
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Requests answered.
    pub count: u64,
    /// What they took.
    pub used: Used,
    /// Microseconds of each.
    pub latencies: Vec<f64>,
}

impl Sample {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.used.wall
    }

    /// CPU milliseconds of the server for each.
    pub fn cpu_ms(&self) -> f64 {
        self.used.cpu * 1e3 / self.count as f64
    }
}

/// Has every client send requests, one at a time each. `operation` gets the request's number, which nobody else gets, beginning
/// with `first`.
///
/// # Errors
/// The first request that failed, or whose answer was not right.
pub async fn drive<F, Fut>(
    clients: &[Client],
    pids: &[i32],
    until: Until,
    first: u64,
    operation: F,
) -> Result<Sample>
where
    F: Fn(Client, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU64::new(first));
    let meter = Meter::start(pids)?;
    let begun = Instant::now();
    let over = move |number: u64| match until {
        Until::Count(count) => number >= first + count,
        Until::Time(time) => begun.elapsed() >= time,
    };
    let tasks: Vec<_> = clients
        .iter()
        .map(|client| {
            let (client, next, operation) = (client.clone(), next.clone(), operation.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(4096);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if over(number) {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    let start = Instant::now();
                    operation(client.clone(), number).await?;
                    latencies.push(start.elapsed().as_secs_f64() * 1e6);
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.context("a client panicked")??);
    }
    Ok(Sample { count: latencies.len() as u64, used: meter.read()?, latencies })
}
