//! The clients whose stories are judged: they write, list and watch objects of two kinds at once, nodes and custom resources, and note what
//! they hear. Each object is on one of two sides, which label and field selectors tell apart, and its value says on which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt as _};
use pagurus_tests::history::{Event, History, List, Object, Outcome, Told, Wanted, Watch, Write, check};
use pagurus_tests::server::Server;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Dice, Strike, all, under_torment};

/// The objects that the writers fight for, and the writers of each kind.
const KEYS: u64 = 12;
const WRITERS: u64 = 3;
/// The last object that is written: whoever watches has seen everything when it comes.
const END: &str = "end";
/// The side that selectors choose.
const CHOSEN: &str = "left";
const KINDS: [Kind; 2] = [Kind::Node, Kind::Widget];
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    /// A custom resource.
    Widget,
}

impl Kind {
    fn objects(self, client: Client) -> Api<DynamicObject> {
        let resource = |group: &str, kind: &str, plural: &str| ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        match self {
            Kind::Node => Api::all_with(client, &resource("", "Node", "nodes")),
            Kind::Widget => {
                Api::namespaced_with(client, "default", &resource("pagurus.test", "Widget", "widgets"))
            }
        }
    }

    /// The field selector of the chosen side.
    fn field(self) -> &'static str {
        match self {
            Kind::Node => "spec.unschedulable=true",
            Kind::Widget => "spec.side=left",
        }
    }

    /// What an object of that value is made of.
    fn body(self, name: &str, value: &str) -> Value {
        let side = side(value);
        let metadata =
            json!({"name": name, "labels": {"of": "writers", "side": side}, "annotations": {"v": value}});
        match self {
            Kind::Node => {
                json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": side == CHOSEN}})
            }
            Kind::Widget => {
                json!({"apiVersion": "pagurus.test/v1", "kind": "Widget", "metadata": metadata, "spec": {"side": side}})
            }
        }
    }

    fn object(self, name: &str, value: &str, revision: Option<String>) -> kube::Result<DynamicObject> {
        let object: serde_json::Result<DynamicObject> = serde_json::from_value(self.body(name, value));
        let mut object = object.map_err(kube::Error::SerdeError)?;
        object.metadata.resource_version = revision;
        Ok(object)
    }
}

/// The side of an object of that value: the end of it.
fn side(value: &str) -> &str {
    value.rsplit('-').next().unwrap_or_default()
}

/// The definition of the custom resource.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.pagurus.test"},
        "spec": {
            "group": "pagurus.test", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "selectableFields": [{"jsonPath": ".spec.side"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"side": {"type": "string"}}},
                }}},
            }],
        },
    })
}

/// Makes the custom resource and waits until it is served.
async fn define(client: Client) -> Result<()> {
    let ask = |request: http::request::Builder, body: Vec<u8>| anyhow::Ok(request.body(body)?);
    let made = http::Request::post(DEFINITIONS).header("content-type", "application/json");
    client
        .request::<Value>(ask(made, definition().to_string().into_bytes())?)
        .await
        .context("make the definition")?;
    for _ in 0..600 {
        let read = http::Request::get(format!("{DEFINITIONS}/widgets.pagurus.test"));
        let now: Value = client.request(ask(read, Vec::new())?).await?;
        let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the definition is not established")
}

/// Reads one object and all, as a server must be able to whatever its disk says.
pub(super) async fn reads(client: Client) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut read = Ok(());
        for kind in KINDS {
            read = read.and(kind.objects(client.clone()).list(&ListParams::default()).await.map(drop));
        }
        match read {
            Ok(()) => return Ok(()),
            Err(error) if tries == 100 => return Err(error).context("reads do not go on"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn revision(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn seen_object(object: &DynamicObject) -> Object {
    Object {
        value: object.annotations().get("v").cloned().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        revision: revision(object.resource_version()),
    }
}

/// Everything that the clients of a kind have seen, and the clock and counts of all.
#[derive(Default)]
pub(super) struct Seen {
    histories: Mutex<[History; 2]>,
    clock: AtomicU64,
    written: AtomicU64,
    full: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    /// How many writes have been acknowledged.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// How many writes have been refused because there is no room.
    pub(super) fn full(&self) -> u64 {
        self.full.load(Ordering::SeqCst)
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.histories.lock()[kind as usize])
    }

    /// What became of a write. One that found the disk full was not done, and nothing else may be said of it.
    fn outcome<T>(&self, came: &kube::Result<T>, at: impl Fn(&T) -> Option<u64>) -> Outcome {
        match came {
            Ok(done) => {
                self.written.fetch_add(1, Ordering::SeqCst);
                Outcome::Acknowledged(at(done))
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Outcome::Refused,
            Err(kube::Error::Api(status)) if status.message.contains("no space left for") => {
                self.full.fetch_add(1, Ordering::SeqCst);
                Outcome::Refused
            }
            Err(_) => Outcome::Unknown,
        }
    }
}

/// A client that writes.
struct Writer {
    seen: Arc<Seen>,
    kind: Kind,
    objects: Api<DynamicObject>,
}

impl Writer {
    /// Notes a write that was begun at a time and what came of it; gives what was written.
    fn note<T>(
        &self,
        (key, wanted, expected): (&str, Wanted, Option<u64>),
        begun: u64,
        came: kube::Result<T>,
        at: impl Fn(&T) -> Option<u64>,
    ) -> Option<T> {
        let outcome = self.seen.outcome(&came, at);
        let write = Write { key: key.to_owned(), wanted, expected, time: (begun, self.seen.now()), outcome };
        self.seen.with(self.kind, |history| history.writes.push(write));
        came.ok()
    }

    /// Creates, replaces, patches and deletes objects that others write too.
    async fn run(self, number: u64) {
        let (mut dice, mut count) = (Dice(number), 0);
        let mut known: BTreeMap<String, DynamicObject> = BTreeMap::new();
        while !self.seen.is_over() {
            count += 1;
            let key = format!("k{}", dice.below(KEYS));
            let token = format!("{number}-{count}-{}", if dice.below(2) == 0 { CHOSEN } else { "right" });
            let old = known.remove(&key);
            match self.write(&key, &token, old, dice.below(10)).await {
                Some(object) => drop(known.insert(key, object)),
                // A moment, where the server is away.
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn write(
        &self,
        key: &str,
        token: &str,
        old: Option<DynamicObject>,
        choice: u64,
    ) -> Option<DynamicObject> {
        let (kind, objects, begun) = (self.kind, &self.objects, self.seen.now());
        let (put, post) = (Wanted::Put(token.to_owned()), PostParams::default());
        let at = |object: &DynamicObject| Some(seen_object(object).revision);
        match (choice, old) {
            (0..3, Some(old)) => {
                let uid = old.uid().unwrap_or_default();
                let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let came = objects.delete(key, &DeleteParams::default().preconditions(only)).await;
                self.note((key, Wanted::Delete(uid), None), begun, came, |_| None);
                None
            }
            (3..6, Some(old)) => {
                let new = kind.object(key, token, old.resource_version()).ok()?;
                let came = objects.replace(key, &post, &new).await;
                self.note((key, put, Some(seen_object(&old).revision)), begun, came, at)
            }
            (6..8, Some(_)) => {
                let patch = Patch::Merge(kind.body(key, token));
                let came = objects.patch(key, &PatchParams::default(), &patch).await;
                self.note((key, put, None), begun, came, at)
            }
            (8, Some(_)) => {
                let parameters = PatchParams::apply("writers").force();
                let came = objects.patch(key, &parameters, &Patch::Apply(kind.body(key, token))).await;
                self.note((key, put, None), begun, came, at)
            }
            _ => {
                let came = objects.create(&post, &kind.object(key, token, None).ok()?).await;
                let there = matches!(&came, Err(kube::Error::Api(status)) if status.code == 409);
                let made = self.note((key, put, None), begun, came, at);
                if there { objects.get(key).await.ok() } else { made }
            }
        }
    }

    /// The last write of all, again until it is done.
    async fn end(&self) -> Result<()> {
        let value = format!("{END}-{CHOSEN}");
        let object = self.kind.object(END, &value, None)?;
        let begun = self.seen.now();
        let came = self.objects.create(&PostParams::default(), &object).await;
        let what = (END, Wanted::Put(value), None);
        let heard = came.as_ref().err().map(ToString::to_string);
        self.note(what, begun, came, |object| Some(seen_object(object).revision));
        ensure!(heard.is_none(), "the last write: {heard:?}");
        Ok(())
    }
}

/// Lists everything, at once or in pages.
async fn list(seen: Arc<Seen>, kind: Kind, objects: Api<DynamicObject>) {
    let mut round = 0;
    while !seen.is_over() {
        round += 1;
        if let Some(found) = listed(&seen, &objects, if round % 2 == 0 { 0 } else { 5 }).await {
            seen.with(kind, |history| history.lists.push(found));
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// A whole list, in pages of that size; none if it broke off.
async fn listed(seen: &Seen, objects: &Api<DynamicObject>, page: u32) -> Option<List> {
    let mut parameters = ListParams::default().labels("of=writers");
    if page > 0 {
        parameters = parameters.limit(page);
    }
    let mut found = List { fresh_since: Some(seen.now()), ..List::default() };
    loop {
        let part = objects.list(&parameters).await.ok()?;
        let at = revision(part.metadata.resource_version);
        // Pages of different revisions would be told apart here and nowhere else.
        if found.revision != 0 && found.revision != at {
            return Some(List { revision: at, fresh_since: None, ..found });
        }
        found.revision = at;
        found.objects.extend(part.items.iter().map(|object| (object.name_any(), seen_object(object))));
        match part.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Some(found),
        }
    }
}

/// What a watch asks for.
struct Follow {
    name: &'static str,
    labels: &'static str,
    field: Option<&'static str>,
    /// For how many seconds a connection lives.
    seconds: u32,
}

fn follows(kind: Kind) -> [Follow; 4] {
    let follow = |name, labels, field, seconds| Follow { name, labels, field, seconds };
    [
        // One that begins anew often, beside those that only strikes interrupt.
        follow("short", "of=writers", None, 1),
        follow("long", "of=writers", None, 290),
        follow("label", "of=writers,side=left", None, 290),
        follow("field", "of=writers", Some(kind.field()), 2),
    ]
}

/// Watches from a revision on, again from where it was when the connection breaks, until the last object has come.
async fn watch(objects: Api<DynamicObject>, kind: Kind, follow: Follow, after: u64) -> Result<Watch> {
    let whole = follow.labels == "of=writers" && follow.field.is_none();
    let selects = (!whole).then(|| CHOSEN.to_owned());
    let name = format!("{kind:?} {}", follow.name);
    let mut told = Watch { name, after, reached: after, selects, events: Vec::new() };
    let mut parameters = WatchParams::default().labels(follow.labels).timeout(follow.seconds);
    if let Some(field) = follow.field {
        parameters = parameters.fields(field);
    }
    loop {
        let Ok(stream) = objects.watch(&parameters, &told.reached.to_string()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (kind, object) = match event {
                WatchEvent::Added(object) => (Told::Added, object),
                WatchEvent::Modified(object) => (Told::Modified, object),
                WatchEvent::Deleted(object) => (Told::Deleted, object),
                WatchEvent::Bookmark(mark) => {
                    told.reached = told.reached.max(revision(Some(mark.metadata.resource_version)));
                    continue;
                }
                // Nothing is older than a moment here: it must go on where it was.
                WatchEvent::Error(status) => bail!("{} at {}: {}", told.name, told.reached, status.message),
            };
            let event = Event { told: kind, key: object.name_any(), object: seen_object(&object) };
            told.reached = told.reached.max(event.object.revision);
            let end = event.key == END;
            told.events.push(event);
            if end {
                return Ok(told);
            }
        }
    }
}

/// All clients of a kind at once, to the end of their stories.
async fn clients(config: kube::Config, kind: Kind, seen: Arc<Seen>) -> Result<()> {
    let objects = || anyhow::Ok(kind.objects(Client::try_from(config.clone())?));
    let writer = || anyhow::Ok(Writer { seen: seen.clone(), kind, objects: objects()? });
    let start = all(&objects()?, "writers").await?;
    let start = List { revision: revision(start.metadata.resource_version), ..List::default() };
    let watches =
        follows(kind).map(|follow| Ok(tokio::spawn(watch(objects()?, kind, follow, start.revision))));
    let watches = watches.into_iter().collect::<Result<Vec<_>>>()?;
    let mut others = Vec::new();
    for number in 0..WRITERS {
        others.push(tokio::spawn(writer()?.run(number)));
    }
    others.push(tokio::spawn(list(seen.clone(), kind, objects()?)));
    for other in others {
        other.await?;
    }
    writer()?.end().await?;
    let last = listed(&seen, &objects()?, 0).await.context("the last list")?;
    for watch in watches {
        let told = watch.await??;
        seen.with(kind, |history| history.watches.push(told));
    }
    seen.with(kind, |history| {
        history.start = start;
        history.lists.push(last);
    });
    Ok(())
}

/// Runs all clients against a server that is struck again and again, and judges what they saw.
pub(super) fn run(server: &mut Server, seen: &Arc<Seen>, strike: Strike<'_>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = runtime.block_on(async {
        define(server.client().await?).await?;
        server.config().await
    })?;
    let of_all = {
        let (config, seen) = (config, seen.clone());
        async move {
            let [nodes, widgets] = KINDS.map(|kind| clients(config.clone(), kind, seen.clone()));
            futures::try_join!(nodes, widgets).map(drop)
        }
    };
    under_torment(server, of_all, &seen.stop, strike)?;
    let histories = std::mem::take(&mut *seen.histories.lock());
    for (kind, history) in KINDS.iter().zip(&histories) {
        judge(&format!("{kind:?}"), history)?;
    }
    Ok(())
}

fn judge(kind: &str, history: &History) -> Result<()> {
    let count = |wanted: fn(Outcome) -> bool| history.writes.iter().filter(|w| wanted(w.outcome)).count();
    let done = count(|outcome| matches!(outcome, Outcome::Acknowledged(_)));
    let events: Vec<usize> = history.watches.iter().map(|watch| watch.events.len()).collect();
    println!(
        "{kind}: {done} writes acknowledged, {} refused, {} unknown; {} lists; events of each watch: {events:?}",
        count(|outcome| outcome == Outcome::Refused),
        count(|outcome| outcome == Outcome::Unknown),
        history.lists.len(),
    );
    let wrong = check(history);
    ensure!(
        wrong.is_empty(),
        "{kind}: {} things cannot be explained:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    ensure!(done > 100 && history.lists.len() > 20, "{kind}: too little happened for a judgement");
    ensure!(events.iter().all(|events| *events > 50), "{kind}: a watch has hardly seen anything: {events:?}");
    Ok(())
}
