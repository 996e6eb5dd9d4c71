//! An API server that is killed again and again under load: what its clients saw has one explanation, and controllers end up right.
//!
//! A minute long; `PAGURUS_CHURN_SECONDS` makes it longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::core::ObjectList;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use pagurus_tests::history::{Event, History, List, Object, Outcome, Told, Wanted, Watch, Write, check};
use pagurus_tests::server::Server;
use parking_lot::Mutex;
use serde_json::json;

/// How long the server lives between two kills, in milliseconds, in turn.
const LIVES: [u64; 5] = [3000, 500, 4500, 1500, 200];
/// The objects that the writers fight for, and the writers.
const KEYS: u64 = 16;
const WRITERS: u64 = 5;
/// The last object that is written: whoever watches has seen everything when it comes.
const END: &str = "end";
/// How long clients may need to come to the end, once the server stays.
const SETTLE: Duration = Duration::from_secs(60);

fn duration() -> Result<Duration> {
    match std::env::var("PAGURUS_CHURN_SECONDS") {
        Ok(text) => Ok(Duration::from_secs(text.parse().context("PAGURUS_CHURN_SECONDS is no number")?)),
        Err(_) => Ok(Duration::from_secs(25)),
    }
}

/// Kills the server and starts it again while `until` has not come; says how often and how long it was away at most.
fn torment(server: &mut Server, until: Duration) -> Result<()> {
    let (begun, mut kills, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while begun.elapsed() < until {
        std::thread::sleep(Duration::from_millis(LIVES[kills % LIVES.len()]));
        server.kill()?;
        longest = longest.max(server.restart()?);
        kills += 1;
    }
    println!("{kills} kills in {:.0?}, served again after {longest:.1?} at most", begun.elapsed());
    ensure!(!server.said().contains("panicked"), "{}", server.said());
    Ok(())
}

/// Runs clients on a runtime of their own while the server is tormented; they end by themselves once `stop` is set.
fn under_torment<T: Send + 'static>(
    server: &mut Server,
    clients: impl Future<Output = Result<T>> + Send + 'static,
    stop: &AtomicBool,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clients = runtime.spawn(clients);
    let tormented = torment(server, duration()?);
    stop.store(true, Ordering::SeqCst);
    tormented?;
    runtime
        .block_on(async { tokio::time::timeout(SETTLE, clients).await.context("the clients do not end")?? })
}

fn config_map(name: &str, label: (&str, &str), value: &str) -> ConfigMap {
    let mut map =
        ConfigMap { data: Some([("v".to_owned(), value.to_owned())].into()), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map.metadata.labels = Some([(label.0.to_owned(), label.1.to_owned())].into());
    map
}

fn value(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("v")).cloned().unwrap_or_default()
}

fn revision(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn object(map: &ConfigMap) -> Object {
    Object {
        value: value(map),
        uid: map.uid().unwrap_or_default(),
        revision: revision(map.resource_version()),
    }
}

/// Everything that the clients have seen, and the clock of all.
struct Seen {
    history: Mutex<History>,
    clock: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Seen {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Notes a write that was begun at a time and what came of it; gives what was written.
    fn note<T>(
        &self,
        key: &str,
        wanted: Wanted,
        expected: Option<u64>,
        begun: u64,
        came: kube::Result<T>,
        at: impl Fn(&T) -> Option<u64>,
    ) -> Option<T> {
        let outcome = match &came {
            Ok(done) => Outcome::Acknowledged(at(done)),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        let write = Write { key: key.to_owned(), wanted, expected, time: (begun, self.now()), outcome };
        self.history.lock().writes.push(write);
        came.ok()
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

/// Creates, replaces, patches and deletes objects that others write too.
async fn write(seen: Arc<Seen>, maps: Api<ConfigMap>, number: u64) {
    let (mut dice, mut count) = (Dice(number), 0);
    let mut known: BTreeMap<String, ConfigMap> = BTreeMap::new();
    while !seen.is_over() {
        count += 1;
        let key = format!("k{}", dice.below(KEYS));
        let token = format!("{number}-{count}");
        let at = |map: &ConfigMap| Some(object(map).revision);
        let put = Wanted::Put(token.clone());
        let begun = seen.now();
        let done = match (dice.below(10), known.remove(&key)) {
            (0..3, Some(old)) => {
                let uid = old.uid().unwrap_or_default();
                let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let came = maps.delete(&key, &DeleteParams::default().preconditions(only)).await;
                seen.note(&key, Wanted::Delete(uid), None, begun, came, |_| None);
                None
            }
            (3..6, Some(old)) => {
                let new = config_map(&key, ("of", "writers"), &token);
                let new = ConfigMap {
                    metadata: kube::core::ObjectMeta {
                        resource_version: old.resource_version(),
                        ..new.metadata
                    },
                    ..new
                };
                let came = maps.replace(&key, &PostParams::default(), &new).await;
                seen.note(&key, put, Some(object(&old).revision), begun, came, at)
            }
            (6..8, Some(_)) => {
                let patch = Patch::Merge(json!({"data": {"v": token}}));
                let came = maps.patch(&key, &PatchParams::default(), &patch).await;
                seen.note(&key, put, None, begun, came, at)
            }
            (8, Some(_)) => {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key, "labels": {"of": "writers"}}, "data": {"v": token}});
                let came = maps.patch(&key, &PatchParams::apply("writers").force(), &Patch::Apply(map)).await;
                seen.note(&key, put, None, begun, came, at)
            }
            _ => {
                let came =
                    maps.create(&PostParams::default(), &config_map(&key, ("of", "writers"), &token)).await;
                let there = matches!(&came, Err(kube::Error::Api(status)) if status.code == 409);
                let made = seen.note(&key, put, None, begun, came, at);
                if there { maps.get(&key).await.ok() } else { made }
            }
        };
        match done {
            Some(map) => drop(known.insert(key, map)),
            // A moment, where the server is away.
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Lists everything, at once or in pages.
async fn list(seen: Arc<Seen>, maps: Api<ConfigMap>) {
    let mut round = 0;
    while !seen.is_over() {
        round += 1;
        if let Some(found) = listed(&seen, &maps, if round % 2 == 0 { 0 } else { 5 }).await {
            seen.history.lock().lists.push(found);
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// A whole list, in pages of that size; none if it broke off.
async fn listed(seen: &Seen, maps: &Api<ConfigMap>, page: u32) -> Option<List> {
    let mut parameters = ListParams::default().labels("of=writers");
    if page > 0 {
        parameters = parameters.limit(page);
    }
    let mut found = List { fresh_since: Some(seen.now()), ..List::default() };
    loop {
        let part = maps.list(&parameters).await.ok()?;
        let at = revision(part.metadata.resource_version);
        // Pages of different revisions would be told apart here and nowhere else.
        if found.revision != 0 && found.revision != at {
            return Some(List { revision: at, fresh_since: None, ..found });
        }
        found.revision = at;
        found.objects.extend(part.items.iter().map(|map| (map.name_any(), object(map))));
        match part.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Some(found),
        }
    }
}

/// Watches from a revision on, again from where it was when the connection breaks, until the last object has come.
async fn watch(maps: Api<ConfigMap>, name: String, after: u64, timeout: u32) -> Result<Watch> {
    let mut told = Watch { name, after, reached: after, events: Vec::new() };
    let parameters = WatchParams::default().labels("of=writers").timeout(timeout);
    loop {
        let Ok(stream) = maps.watch(&parameters, &told.reached.to_string()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (kind, map) = match event {
                WatchEvent::Added(map) => (Told::Added, map),
                WatchEvent::Modified(map) => (Told::Modified, map),
                WatchEvent::Deleted(map) => (Told::Deleted, map),
                WatchEvent::Bookmark(mark) => {
                    told.reached = told.reached.max(revision(Some(mark.metadata.resource_version)));
                    continue;
                }
                // Nothing is older than a moment here: it must go on where it was.
                WatchEvent::Error(status) => bail!("{} at {}: {}", told.name, told.reached, status.message),
            };
            let event = Event { told: kind, key: map.name_any(), object: object(&map) };
            told.reached = told.reached.max(event.object.revision);
            let end = event.key == END;
            told.events.push(event);
            if end {
                return Ok(told);
            }
        }
    }
}

/// The objects with a label, asked for until the answer is no broken connection.
async fn all(maps: &Api<ConfigMap>, of: &str) -> Result<ObjectList<ConfigMap>> {
    let parameters = ListParams::default().labels(&format!("of={of}"));
    loop {
        match maps.list(&parameters).await {
            Ok(list) => return Ok(list),
            Err(error @ kube::Error::Api(_)) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// All clients of the judge at once.
async fn clients(config: kube::Config, seen: Arc<Seen>) -> Result<History> {
    let maps = || anyhow::Ok(Api::<ConfigMap>::namespaced(Client::try_from(config.clone())?, "default"));
    let own = maps()?;
    let start = all(&own, "writers").await?;
    let start = List { revision: revision(start.metadata.resource_version), ..List::default() };
    let watches = (0..3).map(|number| {
        // One that begins anew often, beside those that only the kills interrupt.
        let timeout = if number == 0 { 1 } else { 290 };
        Ok(tokio::spawn(watch(maps()?, format!("watch {number}"), start.revision, timeout)))
    });
    let watches = watches.collect::<Result<Vec<_>>>()?;
    let mut others = Vec::new();
    for number in 0..WRITERS {
        others.push(tokio::spawn(write(seen.clone(), maps()?, number)));
    }
    for _ in 0..2 {
        others.push(tokio::spawn(list(seen.clone(), maps()?)));
    }
    for other in others {
        other.await?;
    }
    let begun = seen.now();
    let made = maps()?.create(&PostParams::default(), &config_map(END, ("of", "writers"), END)).await;
    seen.note(END, Wanted::Put(END.to_owned()), None, begun, made, |map| Some(object(map).revision))
        .context("the last write")?;
    let last = listed(&seen, &own, 0).await.context("the last list")?;
    let mut told = Vec::new();
    for watch in watches {
        told.push(watch.await??);
    }
    let mut history = std::mem::take(&mut *seen.history.lock());
    history.start = start;
    history.lists.push(last);
    history.watches = told;
    Ok(history)
}

#[test]
fn what_clients_saw_has_one_explanation() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Seen { history: Mutex::default(), clock: AtomicU64::new(1), stop: stop.clone() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = runtime.block_on(server.config())?;
    let history = under_torment(&mut server, clients(config, seen), &stop)?;
    let count = |wanted: fn(Outcome) -> bool| history.writes.iter().filter(|w| wanted(w.outcome)).count();
    let done = count(|outcome| matches!(outcome, Outcome::Acknowledged(_)));
    println!(
        "{done} writes acknowledged, {} refused, {} unknown; {} lists; {} events",
        count(|outcome| outcome == Outcome::Refused),
        count(|outcome| outcome == Outcome::Unknown),
        history.lists.len(),
        history.watches.iter().map(|watch| watch.events.len()).sum::<usize>(),
    );
    let wrong = check(&history);
    ensure!(
        wrong.is_empty(),
        "{} things cannot be explained:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    ensure!(done > 200 && history.lists.len() > 20, "too little happened for a judgement");
    Ok(())
}

const COPY: &str = "pagurus.test/copy";

/// Keeps a copy of every source, and takes it away before the source goes.
async fn reconcile(source: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> Result<Action, std::io::Error> {
    let copy = format!("copy-{}", source.name_any());
    let act = async |event| match event {
        Finalizing::Apply(source) => {
            let source: Arc<ConfigMap> = source;
            let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": copy, "labels": {"of": "copies"}}, "data": {"v": value(&source)}});
            maps.patch(&copy, &PatchParams::apply("copies").force(), &Patch::Apply(wanted)).await?;
            kube::Result::Ok(Action::await_change())
        }
        Finalizing::Cleanup(_) => match maps.delete(&copy, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::await_change()),
            done => done.map(|_| Action::await_change()),
        },
    };
    finalizer(&maps, COPY, source, act).await.map_err(std::io::Error::other)
}

/// The values of all objects with a label, by name.
type Values = BTreeMap<String, String>;

async fn values(maps: &Api<ConfigMap>, of: &str) -> Result<Values> {
    let list = all(maps, of).await?;
    Ok(list.items.iter().map(|map| (map.name_any(), value(map))).collect())
}

/// A controller of the plain kind: lists, watches from there, and lists again when it must; knows what there is.
async fn follow(maps: Api<ConfigMap>, known: Arc<Mutex<Values>>) -> Result<()> {
    loop {
        let list = all(&maps, "sources").await?;
        *known.lock() = list.items.iter().map(|map| (map.name_any(), value(map))).collect();
        let mut at = list.metadata.resource_version.unwrap_or_default();
        'resume: loop {
            let parameters = WatchParams::default().labels("of=sources");
            let Ok(stream) = maps.watch(&parameters, &at).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                match event {
                    WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                        at = map.resource_version().unwrap_or(at);
                        known.lock().insert(map.name_any(), value(&map));
                    }
                    WatchEvent::Deleted(map) => {
                        at = map.resource_version().unwrap_or(at);
                        known.lock().remove(&map.name_any());
                    }
                    WatchEvent::Bookmark(mark) => at = mark.metadata.resource_version,
                    WatchEvent::Error(_) => break 'resume,
                }
            }
        }
    }
}

/// Makes, changes and removes sources until it is over; what there is to be at the end, as far as this client knows.
async fn churn(maps: Api<ConfigMap>, stop: Arc<AtomicBool>) -> u64 {
    let (mut dice, mut done) = (Dice(7), 0);
    while !stop.load(Ordering::SeqCst) {
        let (name, token) = (format!("s{}", dice.below(KEYS)), dice.below(1 << 30).to_string());
        let written = match dice.below(4) {
            0 => maps.delete(&name, &DeleteParams::default()).await.map(drop),
            _ => {
                let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "sources"}}, "data": {"v": token}});
                maps.patch(&name, &PatchParams::apply("churn").force(), &Patch::Apply(wanted)).await.map(drop)
            }
        };
        done += u64::from(written.is_ok());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    done
}

/// Both controllers and the one who churns; at the end the copies are those of the sources, and the plain one knows them all.
async fn controllers(config: kube::Config, stop: Arc<AtomicBool>) -> Result<()> {
    let maps = || anyhow::Ok(Api::<ConfigMap>::namespaced(Client::try_from(config.clone())?, "default"));
    let (own, known) = (maps()?, Arc::new(Mutex::new(Values::new())));
    let plain = tokio::spawn(follow(maps()?, known.clone()));
    let sources = || watcher::Config::default().labels("of=sources");
    let controller = Controller::new(maps()?, sources()).run(
        reconcile,
        |_, _: &std::io::Error, _| Action::requeue(Duration::from_millis(100)),
        Arc::new(maps()?),
    );
    let controller = tokio::spawn(controller.for_each(async |_| ()));
    let done = churn(maps()?, stop).await;
    let settled = async {
        loop {
            let (sources, copies) = (values(&own, "sources").await?, values(&own, "copies").await?);
            let wanted: Values =
                sources.iter().map(|(name, v)| (format!("copy-{name}"), v.clone())).collect();
            if copies == wanted && *known.lock() == sources {
                return anyhow::Ok(sources.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(45), settled).await;
    ensure!(!plain.is_finished() && !controller.is_finished(), "a controller ended");
    plain.abort();
    controller.abort();
    match settled {
        Ok(sources) => println!("{done} writes; {} sources with their copies at the end", sources?),
        Err(_) => bail!(
            "not settled: sources {:?}, copies {:?}, the plain one knows {:?}",
            values(&own, "sources").await?,
            values(&own, "copies").await?,
            known.lock(),
        ),
    }
    ensure!(done > 100, "too little happened: {done} writes");
    Ok(())
}

#[test]
fn controllers_end_up_right() -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = runtime.block_on(server.config())?;
    under_torment(&mut server, controllers(config, stop.clone()), &stop)
}
