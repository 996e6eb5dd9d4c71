//! An API server that is killed, or whose disk or clock fails it, again and again under load: what its clients saw has one explanation, and
//! controllers end up right.
//!
//! Half a minute each; `PAGURUS_CHURN_SECONDS` makes it longer.

mod controllers;
mod judged;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::core::ObjectList;
use kube::{Api, api::ListParams};
use pagurus_tests::clock::Clock;
use pagurus_tests::disk::{Disk, with_disk};
use pagurus_tests::server::Server;
use std::fmt::Debug;

use judged::Seen;

/// How long the server lives between two strikes, in milliseconds, in turn.
const LIVES: [u64; 5] = [3000, 500, 4500, 1500, 200];
/// How long clients may need to come to the end, once the server is left alone.
const SETTLE: Duration = Duration::from_secs(60);
/// Room for what the clients here write, several times.
const DISK: u64 = 48 << 20;

fn duration() -> Result<Duration> {
    match std::env::var("PAGURUS_CHURN_SECONDS") {
        Ok(text) => Ok(Duration::from_secs(text.parse().context("PAGURUS_CHURN_SECONDS is no number")?)),
        Err(_) => Ok(Duration::from_secs(25)),
    }
}

/// What is done to a server: the strike of this number.
type Strike<'a> = &'a mut dyn FnMut(&mut Server, usize) -> Result<()>;

/// Strikes the server again and again while `until` has not come.
fn torment(server: &mut Server, until: Duration, strike: Strike<'_>) -> Result<()> {
    let (begun, mut strikes) = (Instant::now(), 0);
    while begun.elapsed() < until {
        std::thread::sleep(Duration::from_millis(LIVES[strikes % LIVES.len()]));
        strike(server, strikes)
            .with_context(|| format!("strike {strikes}; the log: {}", server.log_end()))?;
        strikes += 1;
    }
    println!("{strikes} strikes in {:.0?}", begun.elapsed());
    ensure!(!server.said().contains("panicked"), "{}", server.said());
    Ok(())
}

/// Runs clients on a runtime of their own while the server is tormented; they end by themselves once `stop` is set.
fn under_torment<T: Send + 'static>(
    server: &mut Server,
    clients: impl Future<Output = Result<T>> + Send + 'static,
    stop: &AtomicBool,
    strike: Strike<'_>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clients = runtime.spawn(clients);
    let tormented = torment(server, duration()?, strike);
    stop.store(true, Ordering::SeqCst);
    tormented?;
    runtime
        .block_on(async { tokio::time::timeout(SETTLE, clients).await.context("the clients do not end")?? })
}

/// Ends it at once and starts it again.
fn killed(server: &mut Server, _: usize) -> Result<()> {
    server.kill()?;
    server.restart()?;
    Ok(())
}

/// The objects with a label, asked for until the answer is no broken connection.
async fn all<K: Clone + DeserializeOwned + Debug>(objects: &Api<K>, of: &str) -> Result<ObjectList<K>> {
    let parameters = ListParams::default().labels(&format!("of={of}"));
    loop {
        match objects.list(&parameters).await {
            Ok(list) => return Ok(list),
            Err(error @ kube::Error::Api(_)) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Numbers that look like chance and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn what_clients_saw_has_one_explanation() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    judged::run(&mut server, &Arc::default(), &mut killed)
}

/// The strike, of four, that leaves nothing but zeros.
const ZEROS: usize = 2;

/// The end of the log that a crash in the middle of a write leaves: some bytes of a frame that nobody was told of.
fn tear(store: &Path, number: usize) -> Result<()> {
    let logs = fs::read_dir(store).context("list the store")?.flatten().map(|entry| entry.path());
    let is_log =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"));
    let newest = logs.filter(is_log).max().context("the store has no log")?;
    let head = [b"PGRf".as_slice(), &5000_u32.to_le_bytes(), &[1, 2, 3, 4]].concat();
    let end = match number % 4 {
        0 => head[..7].to_vec(),
        1 => [head, vec![b'x'; 3000]].concat(),
        ZEROS => vec![0; 4096],
        // As long as it says, but for the check sum.
        _ => [head, vec![1; 5000]].concat(),
    };
    let mut log = File::options().append(true).open(&newest).context("open the newest log")?;
    log.write_all(&end).context("tear the log")
}

#[test]
fn torn_logs_lose_nothing() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    let mut torn = 0;
    let mut strike = |server: &mut Server, number: usize| {
        server.kill()?;
        tear(&server.data().join("store"), number)?;
        // Zeros are what the log is filled with ahead: no damage.
        torn += usize::from(number % 4 != ZEROS);
        server.restart().map(drop)
    };
    judged::run(&mut server, &Arc::default(), &mut strike)?;
    let cut = server.said().matches("the unfinished end of the log is cut off").count();
    ensure!(cut == torn, "{torn} logs were torn and {cut} cut: {}", server.log_end());
    Ok(())
}

/// The disk is full for a while, now and then over a restart: writes are refused in plain words, reads go on, and with room so do writes.
fn full(disk: &Disk, seen: &Seen, server: &mut Server, number: usize) -> Result<()> {
    disk.fill()?;
    let refused = seen.full();
    let begun = Instant::now();
    while seen.full() == refused {
        ensure!(begun.elapsed() < Duration::from_secs(20), "no write is refused on a full disk");
        std::thread::sleep(Duration::from_millis(20));
    }
    if number % 3 == 2 {
        killed(server, number)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { judged::reads(server.client().await?).await })?;
    disk.free()?;
    let written = seen.written();
    while seen.written() == written {
        ensure!(begun.elapsed() < Duration::from_secs(60), "no write is accepted with room on the disk");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_full_disk_loses_nothing() -> Result<()> {
    with_disk(DISK, |disk| {
        let data = disk.path().join("data");
        let Some(mut server) = Server::start_with("apiserver", Some(&data))? else { return Ok(()) };
        let seen = Arc::<Seen>::default();
        let mut strike = |server: &mut Server, number: usize| full(disk, &seen, server, number);
        judged::run(&mut server, &seen, &mut strike)?;
        server.kill()
    })
}

/// Where the clock goes, in seconds from the true time: certificates are good for some minutes before, and for a year.
const TIMES: [i64; 7] = [3600, -200, 30 * 86_400, 30 * 86_400 - 7200, 0, -280, 86_400];

#[test]
fn a_clock_that_jumps_loses_nothing() -> Result<()> {
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let Some(mut server) = Server::start_as("apiserver", None, clock.environment(), &[])? else {
        return Ok(());
    };
    let mut strike = |server: &mut Server, number: usize| {
        clock.set(TIMES[number % TIMES.len()])?;
        if number % 3 == 1 { killed(server, number) } else { Ok(()) }
    };
    judged::run(&mut server, &Arc::default(), &mut strike)
}

#[test]
fn controllers_end_up_right() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = runtime.block_on(server.config())?;
    under_torment(&mut server, controllers::run(config, stop.clone()), &stop, &mut killed)
}
