//! Judges what clients saw of a server while they wrote, listed and watched at the same time: whether there is one order of all writes
//! that explains it.
//!
//! Pure. Each write writes a value that nobody else writes, so that everything seen can be traced to its writer. It must not know how
//! clients talk to the server.

mod selection;

use std::collections::{BTreeMap, BTreeSet};

/// What a write was about to do to its object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// To give it a value that no other write gives.
    Put(String),
    /// To remove the object of this uid.
    Delete(String),
}

/// What its client heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, at this revision where the answer tells it.
    Acknowledged(Option<u64>),
    /// It was not done.
    Refused,
    /// Nobody knows: the connection broke, or the server failed.
    Unknown,
}

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The object's name.
    pub key: String,
    /// What was wanted.
    pub wanted: Wanted,
    /// The revision the object had to be at.
    pub expected: Option<u64>,
    /// When it was sent and when its client heard, on one clock for all clients.
    pub time: (u64, u64),
    /// What the client heard.
    pub outcome: Outcome,
}

/// An object as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its value.
    pub value: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub revision: u64,
}

/// All objects at a revision.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The revision it says it is of.
    pub revision: u64,
    /// When it was asked for, if everything acknowledged before must be in it.
    pub fresh_since: Option<u64>,
    /// The objects by name.
    pub objects: BTreeMap<String, Object>,
}

/// What a watch tells of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is there now.
    Added,
    /// It is another now.
    Modified,
    /// It is gone.
    Deleted,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct Event {
    /// What it tells.
    pub told: Told,
    /// The object's name.
    pub key: String,
    /// The object; of a deletion its last state with the deletion's revision.
    pub object: Object,
}

/// A watch, resumed wherever its connection broke.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Its name in findings.
    pub name: String,
    /// It was to tell everything after this revision,
    pub after: u64,
    /// and up to this one, as far as it is known to have come.
    pub reached: u64,
    /// Only of objects whose value ends with this, if anything: a watch with a selector.
    pub selects: Option<String>,
    /// What it told, in its order.
    pub events: Vec<Event>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct History {
    /// What there was at the beginning.
    pub start: List,
    /// All writes.
    pub writes: Vec<Write>,
    /// All lists after that.
    pub lists: Vec<List>,
    /// All watches.
    pub watches: Vec<Watch>,
}

/// What happened to an object at a revision.
type Entry = (String, Wanted);
/// What happened, by revision.
type Log = BTreeMap<u64, Entry>;

/// Says what cannot be explained; nothing if all is well.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let log = log(history, &mut wrong);
    writes_and_log_agree(&history.writes, &log, &mut wrong);
    time_runs_forward(&history.writes, &log, &mut wrong);
    let states = States::replay(&history.start, &log, &mut wrong);
    expectations_held(&history.writes, &log, &states, &mut wrong);
    for watch in &history.watches {
        match &watch.selects {
            None => watch_is_whole(watch, &log, &states, &mut wrong),
            Some(end) => selection::is_exact(watch, end, &log, &states, &mut wrong),
        }
    }
    let known = acknowledged(&history.writes, &log);
    for list in &history.lists {
        list_is_exact(list, &known, &states, &mut wrong);
    }
    wrong
}

fn entry(event: &Event) -> Entry {
    let wanted = match event.told {
        Told::Deleted => Wanted::Delete(event.object.uid.clone()),
        Told::Added | Told::Modified => Wanted::Put(event.object.value.clone()),
    };
    (event.key.clone(), wanted)
}

/// What all watches together tell; two that tell different things of one revision cannot both be right.
fn log(history: &History, wrong: &mut Vec<String>) -> Log {
    let mut log = Log::new();
    // Where an object leaves a selection, a watch tells of a deletion that was none.
    for watch in history.watches.iter().filter(|watch| watch.selects.is_none()) {
        for event in &watch.events {
            let told = entry(event);
            let known = log.entry(event.object.revision).or_insert_with(|| told.clone());
            if *known != told {
                let revision = event.object.revision;
                wrong.push(format!("{}: revision {revision} is {told:?}, for others {known:?}", watch.name));
            }
        }
    }
    log
}

/// Every acknowledged write happened, once, where its answer says; and nothing happened that nobody wanted.
fn writes_and_log_agree(writes: &[Write], log: &Log, wrong: &mut Vec<String>) {
    let mut happened: BTreeMap<&Entry, Vec<u64>> = BTreeMap::new();
    for (revision, entry) in log {
        happened.entry(entry).or_default().push(*revision);
    }
    let mut wanted: BTreeMap<Entry, Vec<&Write>> = BTreeMap::new();
    for write in writes {
        wanted.entry((write.key.clone(), write.wanted.clone())).or_default().push(write);
    }
    for (entry, revisions) in &happened {
        if revisions.len() > 1 {
            wrong.push(format!("doubled: {entry:?} at the revisions {revisions:?}"));
        }
        let possible = wanted.get(*entry).map(Vec::as_slice).unwrap_or_default();
        if !possible.iter().any(|write| write.outcome != Outcome::Refused) {
            let why = if possible.is_empty() { "nobody wrote it" } else { "its writer was refused" };
            wrong.push(format!("invented: {entry:?} at revision {revisions:?}: {why}"));
        }
    }
    for (entry, writes) in &wanted {
        let acknowledged: Vec<_> = writes
            .iter()
            .filter_map(|write| match write.outcome {
                Outcome::Acknowledged(revision) => Some(revision),
                Outcome::Refused | Outcome::Unknown => None,
            })
            .collect();
        if acknowledged.len() > 1 {
            wrong.push(format!("{entry:?} was acknowledged {} times", acknowledged.len()));
        }
        let Some(revision) = acknowledged.first() else { continue };
        match happened.get(entry) {
            None => wrong.push(format!("lost: {entry:?}, acknowledged at {revision:?}")),
            Some(found) if revision.is_some_and(|revision| !found.contains(&revision)) => {
                wrong.push(format!("{entry:?} was acknowledged at {revision:?} and happened at {found:?}"));
            }
            Some(_) => {}
        }
    }
}

/// The revision at which an acknowledged write happened.
fn revision_of(write: &Write, log: &BTreeMap<&Entry, u64>) -> Option<u64> {
    match write.outcome {
        Outcome::Acknowledged(Some(revision)) => Some(revision),
        Outcome::Acknowledged(None) => log.get(&(write.key.clone(), write.wanted.clone())).copied(),
        Outcome::Refused | Outcome::Unknown => None,
    }
}

fn revisions(log: &Log) -> BTreeMap<&Entry, u64> {
    log.iter().map(|(revision, entry)| (entry, *revision)).collect()
}

/// What was acknowledged before something else began has the smaller revision.
fn time_runs_forward(writes: &[Write], log: &Log, wrong: &mut Vec<String>) {
    let by_entry = revisions(log);
    let mut done: Vec<(u64, u64)> = Vec::new();
    let mut begun: Vec<(u64, u64)> = Vec::new();
    for write in writes {
        if let Some(revision) = revision_of(write, &by_entry) {
            begun.push((write.time.0, revision));
            done.push((write.time.1, revision));
        }
    }
    begun.sort_unstable();
    done.sort_unstable();
    let (mut at, mut newest) = (0, 0);
    for (start, revision) in begun {
        while let Some((_, earlier)) = done.get(at).filter(|(end, _)| *end < start) {
            newest = newest.max(*earlier);
            at += 1;
        }
        if revision <= newest {
            wrong.push(format!("revision {revision} was begun after {newest} was acknowledged"));
        }
    }
}

/// Which objects there were after each revision.
struct States {
    start: u64,
    /// By name: what was there from a revision on.
    objects: BTreeMap<String, BTreeMap<u64, Option<Object>>>,
}

impl States {
    /// Replays what happened; uids are learned from the deletions' and lists' side only, so values and revisions count.
    fn replay(start: &List, log: &Log, wrong: &mut Vec<String>) -> Self {
        let mut states = Self { start: start.revision, objects: BTreeMap::new() };
        for (key, object) in &start.objects {
            states.put(key, start.revision, Some(object.clone()));
        }
        for (revision, (key, wanted)) in log.range(start.revision + 1..) {
            let before = states.at(key, revision - 1);
            let after = match wanted {
                Wanted::Put(value) => {
                    Some(Object { value: value.clone(), uid: String::new(), revision: *revision })
                }
                Wanted::Delete(_) => None,
            };
            if before.is_none() && after.is_none() {
                wrong.push(format!("revision {revision} removed {key}, which was not there"));
            }
            states.put(key, *revision, after);
        }
        states
    }

    fn put(&mut self, key: &str, revision: u64, object: Option<Object>) {
        self.objects.entry(key.to_owned()).or_default().insert(revision, object);
    }

    fn at(&self, key: &str, revision: u64) -> Option<&Object> {
        self.objects.get(key)?.range(..=revision).next_back()?.1.as_ref()
    }

    fn all(&self, revision: u64) -> BTreeMap<&str, (&str, u64)> {
        let there = self.objects.keys().filter_map(|key| self.at(key, revision).map(|o| (key.as_str(), o)));
        there.map(|(key, object)| (key, (object.value.as_str(), object.revision))).collect()
    }
}

/// A write that asked for a revision found it.
fn expectations_held(writes: &[Write], log: &Log, states: &States, wrong: &mut Vec<String>) {
    let by_entry = revisions(log);
    for write in writes {
        let (Some(expected), Some(revision)) = (write.expected, revision_of(write, &by_entry)) else {
            continue;
        };
        let found = states.at(&write.key, revision - 1).map(|object| object.revision);
        if found != Some(expected) {
            let key = &write.key;
            wrong.push(format!(
                "revision {revision} of {key} was written over {found:?}, expected {expected}"
            ));
        }
    }
}

/// A watch tells each event once, in order, with the right word, and leaves none out.
fn watch_is_whole(watch: &Watch, log: &Log, states: &States, wrong: &mut Vec<String>) {
    let name = &watch.name;
    let mut last = watch.after;
    for Event { told, key, object } in &watch.events {
        if object.revision <= last {
            wrong.push(format!("{name}: {told:?} {key} at {} after {last}", object.revision));
        }
        last = last.max(object.revision);
        let before = states.at(key, object.revision.saturating_sub(1));
        let fits = match told {
            Told::Added => before.is_none(),
            Told::Modified => before.is_some(),
            Told::Deleted => before.is_some_and(|before| before.value == object.value),
        };
        if !fits {
            let was = before.map(|before| &before.value);
            wrong.push(format!("{name}: {told:?} {key} at {}, it was {was:?}", object.revision));
        }
    }
    let reached = watch.reached.max(last);
    let told: BTreeSet<u64> = watch.events.iter().map(|event| event.object.revision).collect();
    if reached > watch.after {
        for (revision, entry) in log.range(watch.after + 1..=reached) {
            if !told.contains(revision) {
                wrong.push(format!("{name}: left out {entry:?} at revision {revision}"));
            }
        }
    }
}

/// When each acknowledgement was heard, and the newest revision acknowledged by then.
fn acknowledged(writes: &[Write], log: &Log) -> Vec<(u64, u64)> {
    let by_entry = revisions(log);
    let heard = writes.iter().filter_map(|write| Some((write.time.1, revision_of(write, &by_entry)?)));
    let mut heard: Vec<(u64, u64)> = heard.collect();
    heard.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut heard {
        newest = newest.max(*revision);
        *revision = newest;
    }
    heard
}

/// A list is what there was at its revision, and not older than what was acknowledged before it was asked for.
fn list_is_exact(list: &List, known: &[(u64, u64)], states: &States, wrong: &mut Vec<String>) {
    if list.revision < states.start {
        return;
    }
    let found: BTreeMap<&str, (&str, u64)> =
        list.objects.iter().map(|(key, o)| (key.as_str(), (o.value.as_str(), o.revision))).collect();
    let wanted = states.all(list.revision);
    for key in found.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
        if found.get(*key) != wanted.get(*key) {
            let (has, is) = (found.get(*key), wanted.get(*key));
            wrong.push(format!("a list of revision {} has {key} as {has:?}, it was {is:?}", list.revision));
        }
    }
    let Some(since) = list.fresh_since else { return };
    let before = known.partition_point(|(end, _)| *end < since);
    let newest = known[..before].last().map_or(0, |(_, newest)| *newest);
    if list.revision < newest {
        let revision = list.revision;
        wrong.push(format!(
            "a list is of revision {revision}, {newest} was acknowledged before it was asked for"
        ));
    }
}

#[cfg(test)]
mod tests;
