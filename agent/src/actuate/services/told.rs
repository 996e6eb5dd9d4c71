//! What was told about objects by events, so that each problem is told once, for as long as it is there.
//!
//! Must not know: what is a problem.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;

use crate::index::balanced::About;
use crate::report::events::Recorder;

/// So many problems of one object are told in one event.
const SHOWN: usize = 4;

/// What was told.
pub(super) struct Told {
    events: Recorder,
    /// By kind, namespace and name, and by the reason of the event.
    told: HashMap<(String, String, String), HashMap<&'static str, Vec<String>>>,
}

impl Told {
    pub(super) fn new(events: Recorder) -> Self {
        Self { events, told: HashMap::new() }
    }

    /// Whom an event about this object is about.
    pub(super) fn about(kind: &str, version: &str, about: &About) -> ObjectReference {
        ObjectReference {
            api_version: Some(version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(about.namespace.to_string()),
            name: Some(about.name.to_string()),
            uid: Some(about.uid.to_string()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }
    }

    /// Whether nothing was told of any object that is there.
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// All problems of one sort that an object has now.
    pub(super) fn tell(&mut self, about: &ObjectReference, reason: &'static str, problems: Vec<String>) {
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let key = (name(&about.kind), name(&about.namespace), name(&about.name));
        if problems.is_empty() {
            if let Some(told) = self.told.get_mut(&key) {
                told.remove(reason);
                if told.is_empty() {
                    self.told.remove(&key);
                }
            }
            return;
        }
        let told = self.told.entry(key).or_default();
        if told.get(reason) == Some(&problems) {
            return;
        }
        let mut message = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        if problems.len() > SHOWN {
            message.push_str(&format!("; and {} more", problems.len() - SHOWN));
        }
        let (kind, namespace, object) = (name(&about.kind), name(&about.namespace), name(&about.name));
        tracing::warn!(kind, object = format!("{namespace}/{object}"), reason, "{message}");
        self.events.warning(about, reason, message);
        told.insert(reason, problems);
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, kind: &str, namespace: &str, name: &str) {
        self.told.remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
    }
}
