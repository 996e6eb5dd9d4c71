//! What the process explains of itself at `/debug/state`: per subsystem what it wants, what it sees and what it has yet
//! to do. It must not know the subsystems; each registers a function.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// The registered subsystems.
#[derive(Clone, Default)]
pub struct DebugState {
    providers: Arc<Mutex<BTreeMap<&'static str, Arc<Provider>>>>,
}

type Provider = dyn Fn() -> Value + Send + Sync;

impl DebugState {
    /// Adds a subsystem. `state` is called for each request; it should be quick, hold no lock for long, and return an
    /// object with the members `desired`, `observed` and `pending` as far as they mean something.
    pub fn register(&self, name: &'static str, state: impl Fn() -> Value + Send + Sync + 'static) {
        self.providers.lock().insert(name, Arc::new(state));
    }

    /// The state of all subsystems, or of the one named. `None` if there is none of that name.
    pub fn collect(&self, only: Option<&str>) -> Option<Value> {
        // The functions run after the lock is released.
        let providers = self.providers.lock().clone();
        match only {
            Some(name) => providers.get(name).map(|state| json!({ name: state() })),
            None => Some(providers.iter().map(|(name, state)| ((*name).to_owned(), state())).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_all_or_one() {
        let debug = DebugState::default();
        debug.register("pods", || json!({"pending": 1}));
        debug.register("services", || json!({"pending": 2}));
        assert_eq!(debug.collect(None), Some(json!({"pods": {"pending": 1}, "services": {"pending": 2}})));
        assert_eq!(debug.collect(Some("pods")), Some(json!({"pods": {"pending": 1}})));
        assert_eq!(debug.collect(Some("nodes")), None);
    }
}
