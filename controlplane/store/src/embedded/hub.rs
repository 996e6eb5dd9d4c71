//! Who watches what: hands each committed batch to the watches it concerns.
//!
//! A watch that does not keep up is let go; it reads what it missed from the index and comes back. It must not know how
//! that is done.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::{Batch, Event, Revision};

/// How many batches a watch may be behind before it is let go.
const BACKLOG: usize = 256;

#[derive(Debug)]
struct Watcher {
    prefix: String,
    batches: mpsc::Sender<Batch>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Hub {
    watchers: Vec<Watcher>,
    /// The last revision that changed something below a prefix that is or was watched.
    touched: HashMap<String, Revision>,
    closed: bool,
}

impl Hub {
    /// All batches from now on that concern `prefix`. `current` is the store's revision.
    pub(super) fn subscribe(&mut self, prefix: &str, current: Revision) -> mpsc::Receiver<Batch> {
        let (batches, receiver) = mpsc::channel(BACKLOG);
        self.touched.entry(prefix.to_owned()).or_insert(current);
        if !self.closed {
            self.watchers.push(Watcher { prefix: prefix.to_owned(), batches });
        }
        receiver
    }

    /// The last revision that changed something below the prefix, or a later one.
    pub(super) fn touched(&self, prefix: &str) -> Option<Revision> {
        self.touched.get(prefix).copied()
    }

    /// Hands on what was committed. The events are in the order of their revisions.
    pub(super) fn publish(&mut self, events: &[Event]) {
        for (prefix, touched) in &mut self.touched {
            if let Some(last) = events.iter().rev().find(|e| e.key().starts_with(prefix.as_str())) {
                *touched = last.revision();
            }
        }
        let Some(revision) = events.last().map(Event::revision) else { return };
        self.watchers.retain(|watcher| {
            let concerned = events.iter().filter(|e| e.key().starts_with(watcher.prefix.as_str()));
            let events: Vec<Event> = concerned.cloned().collect();
            if events.is_empty() {
                return !watcher.batches.is_closed();
            }
            watcher.batches.try_send(Batch { events, revision }).is_ok()
        });
    }

    /// Whether all watches have been ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ends all watches, and those to come.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.watchers.clear();
    }
}
