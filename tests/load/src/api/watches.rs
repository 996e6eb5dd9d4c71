//! Events to many watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;

use super::Lab;
use super::check::{Events, number_after};
use super::subject::Subject;
use super::writes::{TURN, merge};
use crate::client::{Ask, Client};
use crate::drive::{Until, drive};
use crate::objects;
use crate::process::{Meter, Used};
use crate::row::{Row, Series};

/// How long the last event may take to come to the last watcher.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events delivered in a round.
const EVENTS: u64 = 300_000;

/// What a round came to.
struct Delivered {
    events: u64,
    used: Used,
    /// Milliseconds from a request to its event, as the first watcher saw it.
    latencies: Vec<f64>,
    /// CPU seconds of the server for the same patches without a watcher.
    patches: f64,
}

/// All clients patch pods as fast as they can; every watcher must see every change, in order.
///
/// # Errors
/// A request failed, or a watcher saw something else.
pub async fn run(lab: &mut Lab, watchers: u64) -> Result<Vec<Row>> {
    let mut samples: Vec<Vec<Delivered>> = Vec::new();
    let changes = (EVENTS / watchers / lab.effort.scale).max(50);
    for subject in &mut lab.subjects {
        subject.stock().await?;
        samples.push(Vec::new());
    }
    for round in 0..=lab.effort.rounds as u64 {
        for (subject, samples) in lab.subjects.iter().zip(&mut samples) {
            let delivered = deliver(subject, watchers, changes).await?;
            if round > 0 {
                samples.push(delivered);
            }
        }
    }
    Ok(rows(lab, watchers, &samples))
}

/// One round: with watchers, and the same without.
async fn deliver(subject: &Subject, watchers: u64, changes: u64) -> Result<Delivered> {
    let patch = |mut client: Client, number| async move { merge(&mut client, number).await };
    let alone = drive(&subject.clients, &subject.pids, Until::Count(changes), 0, patch).await?;
    let (seen, mut following) = (Arc::new(AtomicU64::new(0)), Vec::new());
    for number in 0..watchers {
        following.push(follow(subject, changes, number == 0, seen.clone()).await?);
    }
    let meter = Meter::start(&subject.pids)?;
    drive(&subject.clients, &subject.pids, Until::Count(changes), 0, patch).await?;
    let mut latencies = Vec::new();
    for task in following {
        let ended = tokio::time::timeout(PATIENCE, task).await.with_context(|| {
            format!(
                "{} of {} events have come after {PATIENCE:?}",
                seen.load(Ordering::Relaxed),
                changes * watchers
            )
        })?;
        latencies.extend(ended.context("a watcher panicked")??);
    }
    let used = meter.read()?;
    let events = seen.load(Ordering::Relaxed);
    ensure!(events == changes * watchers, "{events} events instead of {}", changes * watchers);
    Ok(Delivered { events, used, latencies, patches: alone.used.cpu })
}

/// Watches from now on until so many changes have come.
async fn follow(
    subject: &Subject,
    changes: u64,
    timed: bool,
    seen: Arc<AtomicU64>,
) -> Result<JoinHandle<Result<Vec<f64>>>> {
    let mut client = Client::connect(&subject.target).await?;
    let list = client.expect(200, Ask::get(format!("{}?limit=1", objects::collection("pods")))).await?;
    let revision =
        number_after(&list, br#""resourceVersion":""#).context("a list without resourceVersion")?;
    let path = format!("{}?watch=1&resourceVersion={revision}", objects::collection("pods"));
    let response = client.send(Ask::get(path)).await?;
    ensure!(response.status() == 200, "WATCH: {}", response.status());
    let mut body = response.into_body();
    Ok(tokio::spawn(async move {
        // The connection lives as long as this does.
        let _client = client;
        let (mut events, mut count, mut latencies) = (Events::default(), 0, Vec::new());
        let field = format!("\"{TURN}\":\"");
        while count < changes {
            let frame = body.frame().await.context("the watch ended")??;
            let Ok(data) = frame.into_data() else { continue };
            let before = count;
            events.take(&data, |line| {
                count += 1;
                if timed && let Some(sent) = number_after(line, field.as_bytes()) {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
                    latencies.push(now.saturating_sub(u128::from(sent)) as f64 / 1e3);
                }
            })?;
            seen.fetch_add(count - before, Ordering::Relaxed);
        }
        Ok(latencies)
    }))
}

fn rows(lab: &Lab, watchers: u64, samples: &[Vec<Delivered>]) -> Vec<Row> {
    let figures = |figure: fn(&Delivered) -> f64| -> Vec<Series> {
        samples.iter().map(|samples| samples.iter().map(figure).collect()).collect()
    };
    let own = figures(|d| (d.used.cpu - d.patches).max(0.0) * 1e6 / d.events as f64);
    let all = figures(|d| d.used.cpu * 1e6 / d.events as f64);
    let rate = figures(|d| d.events as f64 / d.used.wall);
    let note = |digits: usize, of: &[Series]| {
        let each = (0..samples.len()).map(|at| {
            let latencies: Series = samples[at].iter().flat_map(|d| d.latencies.iter().copied()).collect();
            let share = |of: fn(&Used) -> f64| samples[at].iter().map(|d| of(&d.used)).sum::<f64>() / samples[at].len() as f64;
            format!(
                "{}: {}, p50 {:.1} ms, p99 {:.1} ms from request to event, cores: server {:.2}, generator {:.2}, others {:.2}, {:.2} us with the patches",
                lab.name(at),
                of[at].range(digits),
                latencies.median(),
                latencies.percentile(0.99),
                share(|u| u.cpu / u.wall),
                share(|u| u.own / u.wall),
                share(|u| u.others),
                all[at].median(),
            )
        });
        format!("{}; upstream, 50 watchers: 64 us, 25000/s", each.collect::<Vec<_>>().join(" | "))
    };
    let name = format!("watch event delivered, {watchers} watchers");
    let known = |at: usize| lab.subjects.get(at).is_some_and(|subject| !subject.pids.is_empty());
    let mut rows = Vec::new();
    if known(0) {
        let row =
            Row::at_most(format!("{name}: server's CPU without the patches"), own[0].median(), "us", 4.0);
        rows.push(row.against(own.get(1).filter(|_| known(1)).map(Series::median)).noted(note(2, &own)));
    }
    let row = Row::at_least(name, rate[0].median(), "/s", 250_000.0);
    rows.push(row.against(rate.get(1).map(Series::median)).noted(note(0, &rate)));
    rows
}
