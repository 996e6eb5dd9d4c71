//! Follows the definitions: decides on their names in the order in which they come, and gives each its turns, several at a time. One
//! turn serves a definition and tells so in its status; what a turn does is not the business of this module.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use pagurus_controlplane_api::conditions;
use serde_json::Value;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::accept::{self, Taken};
use super::establish::{Done, Failure, GROUP, Job, PLURAL, Serving};
use super::terminate;
use crate::cache::{Cache, CacheError, Cached, Cursor, CursorError};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::resources::extensions::CLEANUP;
use crate::resources::fields::Fields;

/// How many definitions have their turn at the same time: enough that their writes share the store's syncs.
const AT_ONCE: usize = 16;

/// See the module's description.
pub struct Definitions {
    engine: Arc<Engine>,
    objects: Arc<dyn Objects>,
    definitions: Arc<Cache>,
    changes: Cursor,
    known: HashMap<String, Known>,
    taken: Taken,
    waiting: Queue,
    jobs: JoinSet<Done>,
    /// Definitions that are going away.
    endings: JoinSet<()>,
}

/// What was made of a definition.
#[derive(Default)]
struct Known {
    uid: String,
    group: String,
    plural: String,
    /// The revision that had its turn.
    revision: u64,
    serving: Option<Serving>,
    violations: Option<(i64, String)>,
    /// Others have names that it wants.
    conflict: bool,
    /// It must have another turn although it did not change.
    recheck: bool,
    /// It is going away, and its objects must go first.
    ending: bool,
    terminating: bool,
    /// It has its turn now.
    busy: bool,
    /// It changed meanwhile.
    again: bool,
}

/// Names that wait for their turn, each once.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<String>,
    members: HashSet<String>,
}

impl Queue {
    fn push(&mut self, name: &str) {
        if self.members.insert(name.to_owned()) {
            self.order.push_back(name.to_owned());
        }
    }

    fn pop(&mut self) -> Option<String> {
        let name = self.order.pop_front()?;
        self.members.remove(&name);
        Some(name)
    }
}

impl Definitions {
    /// Serves what is established already, so that it is there from the first request on.
    ///
    /// # Errors
    /// Stored objects cannot be read.
    pub async fn start(engine: Arc<Engine>, objects: Arc<dyn Objects>) -> Result<Self, CacheError> {
        let definitions = engine.cache(GROUP, PLURAL).ok_or(CacheError::Gone { asked: 0 })?;
        let (snapshot, changes) = definitions.watch(None)?;
        let mut this = Self {
            engine,
            objects,
            definitions,
            changes,
            known: HashMap::new(),
            taken: Taken::default(),
            waiting: Queue::default(),
            jobs: JoinSet::new(),
            endings: JoinSet::new(),
        };
        let (mut established, mut others) = (VecDeque::new(), Vec::new());
        for cached in snapshot.objects.values() {
            let (definition, name) = (cached.value(), &cached.key.name);
            this.taken.hold(name, definition.text("spec.group"), definition.at("status.acceptedNames"));
            if conditions::is_true(&definition, "Established") {
                established.push_back(name.clone());
            } else {
                others.push(name.clone());
            }
        }
        loop {
            while this.jobs.len() < AT_ONCE
                && let Some(name) = established.pop_front()
            {
                this.begin(&name);
            }
            match this.jobs.join_next().await {
                None => break,
                Some(Ok(Done { result: Err(Failure::Serve(error)), .. })) => return Err(error),
                Some(done) => this.done(done),
            }
        }
        others.iter().for_each(|name| this.waiting.push(name));
        Ok(this)
    }

    /// Follows the definitions until `cancel`, and ends when all that it began has ended.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.dispatch();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(done) = self.jobs.join_next() => self.done(done),
                Some(ended) = self.endings.join_next() => tell_panic(ended.err()),
                changes = self.changes.next() => match changes {
                    Ok(changes) => changes.iter().for_each(|change| self.waiting.push(&change.object.key.name)),
                    Err(CursorError::Overtaken) => self.look_at_all(),
                    Err(CursorError::Ended) => break,
                },
            }
        }
        while let Some(done) = self.jobs.join_next().await {
            tell_panic(done.err());
        }
        while let Some(ended) = self.endings.join_next().await {
            tell_panic(ended.err());
        }
    }

    /// Too much happened at once to be followed.
    fn look_at_all(&mut self) {
        match self.definitions.watch(None) {
            Ok((snapshot, changes)) => {
                self.changes = changes;
                self.known.keys().for_each(|name| self.waiting.push(name));
                snapshot.objects.values().for_each(|cached| self.waiting.push(&cached.key.name));
            }
            Err(error) => error!(%error, "the definitions of custom resources cannot be followed"),
        }
    }

    /// Begins as many turns as there may be at once.
    fn dispatch(&mut self) {
        while self.jobs.len() < AT_ONCE
            && let Some(name) = self.waiting.pop()
        {
            self.begin(&name);
        }
    }

    /// Begins the turn of a definition, if it needs one.
    fn begin(&mut self, name: &str) {
        if let Some(known) = self.known.get_mut(name).filter(|known| known.busy) {
            known.again = true;
            return;
        }
        let cached = self.definitions.get(None, name);
        let gone = |known: &Known| cached.as_ref().is_none_or(|cached| cached.uid != known.uid);
        if self.known.get(name).is_some_and(gone) {
            self.forget(name);
        }
        let Some(cached) = cached else { return };
        let known = self.known.get(name);
        if known.is_some_and(|known| known.revision >= cached.revision && !known.recheck) {
            return;
        }
        let job = self.job(name, &cached);
        self.jobs.spawn(job.run());
    }

    fn job(&mut self, name: &str, cached: &Cached) -> Job {
        let definition = cached.value();
        let group = definition.text("spec.group");
        let accepted = accept::names(name, &definition, &self.taken);
        self.taken.hold(name, group, &accepted.names);
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known::of(&definition));
        known.conflict = accepted.conflict.is_some();
        (known.busy, known.again, known.recheck) = (true, false, false);
        let cleans = definition.texts("metadata.finalizers").any(|f| f == CLEANUP);
        known.ending = cleans && definition.has("metadata.deletionTimestamp");
        Job {
            engine: self.engine.clone(),
            objects: self.objects.clone(),
            name: name.to_owned(),
            definition,
            revision: cached.revision,
            accepted,
            serving: known.serving.clone(),
            violations: known.violations.take(),
        }
    }

    /// A turn is over.
    fn done(&mut self, done: Result<Done, JoinError>) {
        let Done { name, result, serving, violations } = match done {
            Ok(done) => done,
            Err(error) => return tell_panic(Some(error)),
        };
        let Some(known) = self.known.get_mut(&name) else { return };
        known.busy = false;
        known.serving = serving;
        known.violations = violations;
        match result {
            Ok(revision) => {
                known.revision = revision;
                if known.ending && !std::mem::replace(&mut known.terminating, true) {
                    let (engine, uid) = (self.engine.clone(), known.uid.clone());
                    self.endings.spawn(terminate::run(engine, name.clone(), uid));
                }
            }
            Err(_) => (known.again, known.recheck) = (true, true),
        }
        if known.again {
            self.waiting.push(&name);
        }
    }

    /// A definition is gone: so is its resource. Names that it held are free for others.
    fn forget(&mut self, name: &str) {
        self.taken.release(name);
        let Some(known) = self.known.remove(name) else { return };
        self.engine.serve_custom(&known.group, &known.plural, Vec::new());
        if let Some(serving) = known.serving {
            serving.stop.cancel();
        }
        let others = self.known.iter_mut().filter(|(_, other)| other.conflict && other.group == known.group);
        for (other, of) in others {
            of.recheck = true;
            self.waiting.push(other);
        }
    }
}

fn tell_panic(error: Option<JoinError>) {
    if let Some(error) = error {
        error!(%error, "the turn of a definition broke off");
    }
}

impl Known {
    fn of(definition: &Value) -> Self {
        Self {
            uid: definition.text("metadata.uid").to_owned(),
            group: definition.text("spec.group").to_owned(),
            plural: definition.text("spec.names.plural").to_owned(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_wait_once() {
        let mut queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.push(name);
        }
        assert_eq!(queue.pop().as_deref(), Some("a"));
        queue.push("a");
        let rest: Vec<String> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, ["b", "a"]);
    }
}
