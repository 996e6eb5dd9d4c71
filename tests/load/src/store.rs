//! `pagurus-load store`: the figures of the embedded store, used directly: durable writes beside the disk's own syncs, reads,
//! watches, opening.
//!
//! Must not know: API servers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use pagurus_controlplane_store::embedded::{self, Options as StoreOptions};
use pagurus_controlplane_store::{Range, Store, Txn};
use tokio::runtime::Runtime;

use crate::process::Meter;
use crate::row::{Row, Series};

/// Bytes of a value.
const VALUE: usize = 1000;

/// Flags of `store`.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Writers are tasks in this process; each write is acknowledged when it is on the disk. The disk's own \
sync is measured in the same directory, before and after. \"64 writers\" send one write each and wait for it; a write cannot take \
less than a sync, so where a sync takes 1 ms no store can acknowledge more than 64,000/s to them; \"64 writers, 16 under way each\" \
is what the store itself can do.\n\nExample:\n  cargo xtask bench store --json figures.json"
)]
pub struct Options {
    /// A directory on the disk to measure; a new one in it is used and removed [default: the current one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Two short rounds of each and a tenth of the objects: only to see that it works
    #[arg(long)]
    quick: bool,
}

struct Effort {
    rounds: usize,
    time: Duration,
    scale: u64,
}

/// Measures and prints.
///
/// # Errors
/// The store fails, or reads something else than was written.
pub fn run(runtime: &Runtime, options: &Options) -> Result<()> {
    let effort = if options.quick {
        Effort { rounds: 2, time: Duration::from_millis(300), scale: 10 }
    } else {
        Effort { rounds: 5, time: Duration::from_secs(2), scale: 1 }
    };
    let parent = options.dir.clone().map_or_else(std::env::current_dir, Ok)?;
    let directory = tempfile::Builder::new().prefix("pagurus-load-").tempdir_in(&parent)?;
    let mut rows = Vec::new();
    let before = syncs(directory.path())?;
    for (writers, under_way, target) in [(1, 1, None), (64, 1, Some(100_000.0)), (64, 16, Some(100_000.0))] {
        rows.extend(writes(runtime, &directory.path().join("writes"), &effort, writers, under_way, target)?);
    }
    rows.extend(reads(runtime, &directory.path().join("writes"), &effort)?);
    rows.extend(watches(runtime, &directory.path().join("watches"), &effort)?);
    rows.extend(opening(runtime, &directory.path().join("opening"), &effort)?);
    let after = syncs(directory.path())?;
    let both: Series = before.iter().chain(&after).copied().collect();
    let (before, after): (Series, Series) = (before.into_iter().collect(), after.into_iter().collect());
    let note = format!(
        "4 kB appended and fdatasync; p99 {:.3}; before the others p50 {:.3}, after them {:.3}",
        both.percentile(0.99),
        before.median(),
        after.median()
    );
    rows.insert(0, Row::at_most("the disk's own sync, p50", both.median(), "ms", 1.0).noted(note));
    for row in rows {
        println!("{}", row.json());
    }
    Ok(())
}

/// Milliseconds of syncs of 4 kB appended to a file.
fn syncs(directory: &Path) -> Result<Vec<f64>> {
    let path = directory.join("syncs");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

fn key(number: u64) -> String {
    format!("/registry/things/load/thing-{number:016x}")
}

/// A value that tells which it is.
fn value(number: u64) -> Bytes {
    let mut value = number.to_le_bytes().repeat(VALUE / 8);
    value.resize(VALUE, 0);
    value.into()
}

/// Durable writes of new keys.
fn writes(
    runtime: &Runtime,
    path: &Path,
    effort: &Effort,
    writers: u64,
    under_way: u64,
    target: Option<f64>,
) -> Result<Vec<Row>> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    let store = Arc::new(embedded::Store::open(path, StoreOptions::default())?);
    let (mut rates, mut latencies, mut cpu, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=effort.rounds as u64 {
        let meter = Meter::start(&[std::process::id() as i32])?;
        let tasks: Vec<_> = (0..writers * under_way)
            .map(|task| {
                let (store, time) = (store.clone(), effort.time);
                runtime.spawn(async move {
                    let (begun, mut times) = (Instant::now(), Vec::new());
                    while begun.elapsed() < time {
                        let number = round << 48 | task << 32 | times.len() as u64;
                        let start = Instant::now();
                        let done = store.txn(Txn::put_if(key(number), 0, value(number))).await?;
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                        ensure!(done.committed, "{} was there already", key(number));
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(runtime.block_on(task).context("a writer panicked")??);
        }
        let used = meter.read()?;
        if round > 0 {
            rates.push(times.len() as f64 / used.wall);
            cpu.push(used.cpu * 1e6 / times.len() as f64);
            // Here the processes measured are this one.
            others.push(used.others + used.own / used.wall);
            latencies.extend(times);
        }
    }
    let (rates, latencies, cpu, others): (Series, Series, Series, Series) = (
        rates.into_iter().collect(),
        latencies.into_iter().collect(),
        cpu.into_iter().collect(),
        others.into_iter().collect(),
    );
    let name = match (writers, under_way) {
        (1, _) => "durable writes, 1 writer".to_owned(),
        (writers, 1) => format!("durable writes, {writers} writers"),
        (writers, under_way) => format!("durable writes, {writers} writers, {under_way} under way each"),
    };
    let note = format!(
        "{}; p50 {:.2} ms, p99 {:.2} ms; {:.1} us of CPU each with the writers; others used {:.2} cores",
        rates.range(0),
        latencies.median(),
        latencies.percentile(0.99),
        cpu.median(),
        others.median()
    );
    let row = Row::at_least(&name, rates.median(), "/s", target.unwrap_or_default()).noted(note);
    let p99 = Row::at_most(format!("{name}, p99"), latencies.percentile(0.99), "ms", 10.0);
    Ok(vec![row, p99])
}

/// Reads of one key and of a range, from the files.
fn reads(runtime: &Runtime, path: &Path, effort: &Effort) -> Result<Vec<Row>> {
    let store = embedded::Store::open(path, StoreOptions::default())?;
    let keys = runtime.block_on(store.range(Range { limit: 20_000, ..Range::below("/registry/") }))?.kvs;
    ensure!(!keys.is_empty(), "nothing was written");
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let start = Instant::now();
        runtime.block_on(async {
            for at in 0..5000 {
                let expected = &keys[at * 7919 % keys.len()];
                let got = store.get(&expected.key, None).await?;
                ensure!(got.as_ref() == Some(expected), "{} reads otherwise", expected.key);
            }
            Ok(())
        })?;
        one.push(5000.0 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        let got = runtime.block_on(store.range(Range { limit: keys.len(), ..Range::below("/registry/") }))?;
        ensure!(got.kvs == keys, "the range reads otherwise");
        many.push(keys.len() as f64 / start.elapsed().as_secs_f64());
    }
    let (one, many): (Series, Series) = (one.into_iter().collect(), many.into_iter().collect());
    Ok(vec![
        Row::at_least("reads of one key, one after the other", one.median(), "/s", 0.0).noted(one.range(0)),
        Row::at_least("keys read as a range", many.median(), "/s", 0.0).noted(many.range(0)),
    ])
}

/// Watches: each of 70 prefixes has one, as kinds have; one prefix changes, and its 50 watches see every change.
fn watches(runtime: &Runtime, path: &Path, effort: &Effort) -> Result<Vec<Row>> {
    const WATCHERS: u64 = 50;
    let count = 40_000 / effort.scale;
    let mut rates = Vec::new();
    for round in 0..effort.rounds as u64 {
        let store = Arc::new(embedded::Store::open(path.join(round.to_string()), StoreOptions::default())?);
        let rate = runtime.block_on(async {
            let mut idle = Vec::new();
            for kind in 0..70 {
                idle.push(store.watch(&format!("/registry/kind{kind}/"), 2).await?);
            }
            let mut tasks = Vec::new();
            for _ in 0..WATCHERS {
                let mut stream = store.watch("/registry/things/", 2).await?;
                tasks.push(tokio::spawn(async move {
                    let (mut seen, mut last) = (0, 0);
                    while seen < count {
                        for event in stream.next().await.context("the watch ended")??.events {
                            ensure!(event.revision() > last, "revision {} after {last}", event.revision());
                            last = event.revision();
                            seen += 1;
                        }
                    }
                    Ok(())
                }));
            }
            let start = Instant::now();
            let writers: Vec<_> = (0..64u64)
                .map(|writer| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        for number in (writer..count).step_by(64) {
                            store.txn(Txn::put_if(key(number), 0, value(number))).await?;
                        }
                        Ok::<_, pagurus_controlplane_store::Error>(())
                    })
                })
                .collect();
            for writer in writers {
                writer.await??;
            }
            for task in tasks {
                task.await??;
            }
            Ok::<_, anyhow::Error>((count * WATCHERS) as f64 / start.elapsed().as_secs_f64())
        })?;
        rates.push(rate);
    }
    let rates: Series = rates.into_iter().collect();
    let note =
        format!("{}; while 64 writers make {count} changes; 70 other prefixes are watched", rates.range(0));
    Ok(vec![Row::at_least("events delivered to 50 watches", rates.median(), "/s", 0.0).noted(note)])
}

/// Opening a store of 300,000 keys of 1 kB.
fn opening(runtime: &Runtime, path: &Path, effort: &Effort) -> Result<Vec<Row>> {
    let count = 300_000 / effort.scale;
    let store = Arc::new(embedded::Store::open(path, StoreOptions::default())?);
    runtime.block_on(async {
        let writers: Vec<_> = (0..1000u64)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in (writer..count).step_by(1000) {
                        store.txn(Txn::put_if(key(number), 0, value(number))).await?;
                    }
                    Ok::<_, pagurus_controlplane_store::Error>(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    drop(store);
    let mut times = Vec::new();
    for _ in 0..effort.rounds {
        let start = Instant::now();
        let store = embedded::Store::open(path, StoreOptions::default())?;
        times.push(start.elapsed().as_secs_f64());
        let last = runtime.block_on(store.get(&key(count - 1), None))?;
        ensure!(last.is_some_and(|last| last.value == value(count - 1)), "the last value is not there");
    }
    let times: Series = times.into_iter().collect();
    Ok(vec![
        Row::at_most(format!("opening {count} keys of 1 kB"), times.median(), "s", 1.0).noted(times.range(2)),
    ])
}
