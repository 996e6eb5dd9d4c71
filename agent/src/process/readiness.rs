//! Whether each part of the agent is up. A part registers itself before it starts and says when it is ready; ready as a
//! whole is when all are. It must not know what the parts are.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of every part that registered.
#[derive(Clone)]
pub struct Readiness {
    parts: Arc<watch::Sender<Parts>>,
}

type Parts = BTreeMap<&'static str, Result<(), String>>;

impl Default for Readiness {
    fn default() -> Self {
        Self { parts: Arc::new(watch::Sender::new(Parts::new())) }
    }
}

impl Readiness {
    /// Names parts that will register: until they do, nothing is ready as a whole.
    pub fn expect(&self, names: &[&'static str]) {
        self.parts.send_modify(|parts| {
            for name in names {
                parts.entry(name).or_insert_with(|| Err("starting".to_owned()));
            }
        });
    }

    /// Adds a part, not ready yet.
    pub fn register(&self, name: &'static str) -> Part {
        let part = Part { name, parts: self.parts.clone() };
        part.not_ready("starting");
        part
    }

    /// The state of one part; `None` if there is no such part.
    pub fn part(&self, name: &str) -> Option<Result<(), String>> {
        self.parts.borrow().get(name).cloned()
    }

    /// The state of every part.
    pub fn parts(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.parts.borrow().clone()
    }

    /// Whether every part is ready.
    pub fn all(&self) -> bool {
        self.parts.borrow().values().all(Result::is_ok)
    }

    /// Wakes when a part changed.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<&'static str, Result<(), String>>> {
        self.parts.subscribe()
    }
}

/// The handle by which one part tells its state.
pub struct Part {
    name: &'static str,
    parts: Arc<watch::Sender<Parts>>,
}

impl Part {
    /// This part is up.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// This part is not (or no longer) up, and why.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.parts.send_if_modified(|parts| parts.insert(self.name, state.clone()).as_ref() != Some(&state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let readiness = Readiness::default();
        assert!(readiness.all());
        readiness.expect(&["a"]);
        assert!(!readiness.all());
        let (a, b) = (readiness.register("a"), readiness.register("b"));
        assert!(!readiness.all());
        a.ready();
        assert!(!readiness.all());
        b.ready();
        assert!(readiness.all());
        let mut changes = readiness.changes();
        changes.mark_unchanged();
        b.ready();
        assert!(!changes.has_changed().expect("sender lives"), "the same state again wakes nobody");
        a.not_ready("socket went away");
        assert!(changes.has_changed().expect("sender lives"));
        assert_eq!(readiness.part("a"), Some(Err("socket went away".to_owned())));
        assert_eq!(readiness.part("c"), None);
    }
}
