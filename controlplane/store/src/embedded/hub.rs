//! Who watches what: hands each committed batch to the watches it concerns.
//!
//! A watch that does not keep up is let go; it reads what it missed from the index and comes back. It must not know how
//! that is done.

use std::collections::BTreeMap;
use std::ops::Bound;

use tokio::sync::mpsc;

use crate::{Batch, Event, Revision};

/// How many batches a watch may be behind before it is let go.
const BACKLOG: usize = 256;

/// A prefix that is or was watched.
#[derive(Debug)]
struct Watched {
    watchers: Vec<mpsc::Sender<Batch>>,
    /// The last revision that changed something below it.
    touched: Revision,
    /// What of the batch that is being published is for its watchers.
    events: Vec<Event>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Hub {
    prefixes: BTreeMap<String, Watched>,
    closed: bool,
}

impl Hub {
    /// All batches from now on that concern `prefix`. `current` is the store's revision.
    pub(super) fn subscribe(&mut self, prefix: &str, current: Revision) -> mpsc::Receiver<Batch> {
        let (batches, receiver) = mpsc::channel(BACKLOG);
        if !self.prefixes.contains_key(prefix) {
            // Prefixes come and go; of those that nobody watches any more nothing need be known.
            self.prefixes.retain(|_, watched| watched.watchers.iter().any(|watcher| !watcher.is_closed()));
        }
        let new = || Watched { watchers: Vec::new(), touched: current, events: Vec::new() };
        let watched = self.prefixes.entry(prefix.to_owned()).or_insert_with(new);
        watched.watchers.retain(|watcher| !watcher.is_closed());
        if !self.closed {
            watched.watchers.push(batches);
        }
        receiver
    }

    /// The last revision that changed something below the prefix, or a later one.
    pub(super) fn touched(&self, prefix: &str) -> Option<Revision> {
        self.prefixes.get(prefix).map(|watched| watched.touched)
    }

    /// Hands on what was committed. The events are in the order of their revisions.
    pub(super) fn publish(&mut self, events: &[Event]) {
        let Some(revision) = events.last().map(Event::revision) else { return };
        let mut concerned: Vec<String> = Vec::new();
        for event in events {
            for_each_prefix(&mut self.prefixes, event.key(), |prefix, watched| {
                watched.touched = event.revision();
                if !watched.watchers.is_empty() {
                    if watched.events.is_empty() {
                        concerned.push(prefix.to_owned());
                    }
                    watched.events.push(event.clone());
                }
            });
        }
        for prefix in concerned {
            let Some(watched) = self.prefixes.get_mut(&prefix) else { continue };
            let mut events = std::mem::take(&mut watched.events);
            let mut left = watched.watchers.len();
            watched.watchers.retain(|watcher| {
                left -= 1;
                let events = if left == 0 { std::mem::take(&mut events) } else { events.clone() };
                watcher.try_send(Batch { events, revision }).is_ok()
            });
        }
    }

    /// Whether all watches have been ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ends all watches, and those to come.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.prefixes.values_mut().for_each(|watched| watched.watchers.clear());
    }
}

/// Calls `each` with every prefix of `key` that there is, the longest first. Costs some look-ups however many others there are: the
/// last text not after a key is a prefix of it, or shares no more with it than any shorter prefix can.
fn for_each_prefix<T>(prefixes: &mut BTreeMap<String, T>, key: &str, mut each: impl FnMut(&str, &mut T)) {
    let mut end = key.len();
    loop {
        let range = (Bound::Unbounded, Bound::Included(&key[..end]));
        let Some((last, value)) = prefixes.range_mut::<str, _>(range).next_back() else { return };
        let shared = shared_length(last, key);
        if shared == last.len() {
            each(last, value);
            // What is left is shorter.
            let Some(shorter) = before(key, shared) else { return };
            end = shorter;
        } else {
            end = shared;
        }
    }
}

/// How many bytes two texts have in common at their beginnings, whole characters only.
fn shared_length(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=same).rev().find(|at| a.is_char_boundary(*at) && b.is_char_boundary(*at)).unwrap_or(0)
}

/// Where the character before a place begins; none before the first.
fn before(text: &str, at: usize) -> Option<usize> {
    (0..at).rev().find(|at| text.is_char_boundary(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event((key, revision): (&str, Revision)) -> Event {
        Event::Delete { key: key.to_owned(), mod_revision: revision }
    }

    proptest! {
        #[test]
        fn prefixes_are_found_as_by_looking_at_all(
            prefixes in proptest::collection::btree_set("[ab\u{e4}/]{0,5}", 0..12),
            keys in proptest::collection::vec("[ab\u{e4}/]{0,7}", 1..6),
        ) {
            let mut map: BTreeMap<String, ()> = prefixes.iter().map(|p| (p.clone(), ())).collect();
            for key in &keys {
                let mut found = Vec::new();
                for_each_prefix(&mut map, key, |prefix, ()| found.push(prefix.to_owned()));
                let mut expected: Vec<&String> = prefixes.iter().filter(|p| key.starts_with(p.as_str())).collect();
                expected.reverse();
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", key);
            }
        }

        #[test]
        fn every_watch_gets_what_is_below_its_prefix(
            prefixes in proptest::collection::vec("[ab]{0,3}", 1..8),
            batches in proptest::collection::vec(proptest::collection::vec("[ab]{0,5}", 1..6), 1..6),
        ) {
            let mut hub = Hub::default();
            let mut receivers: Vec<_> = prefixes.iter().map(|p| hub.subscribe(p, 1)).collect();
            let mut revision = 1;
            for keys in &batches {
                let events: Vec<Event> = keys.iter().map(|key| { revision += 1; event((key, revision)) }).collect();
                hub.publish(&events);
                for (prefix, receiver) in prefixes.iter().zip(&mut receivers) {
                    let expected: Vec<Event> =
                        events.iter().filter(|e| e.key().starts_with(prefix.as_str())).cloned().collect();
                    let got = receiver.try_recv().ok();
                    let wanted = Batch { events: expected.clone(), revision };
                    prop_assert_eq!(got, (!expected.is_empty()).then_some(wanted));
                    if let Some(last) = expected.last() {
                        prop_assert_eq!(hub.touched(prefix), Some(last.revision()));
                    }
                }
            }
        }
    }

    #[test]
    fn prefixes_that_nobody_watches_are_forgotten() {
        let mut hub = Hub::default();
        let kept = hub.subscribe("kept", 1);
        for round in 0..100 {
            drop(hub.subscribe(&format!("gone-{round}"), 1));
        }
        assert_eq!((hub.prefixes.len(), hub.touched("kept"), kept.is_closed()), (2, Some(1), false));
    }

    #[test]
    fn who_is_slow_or_gone_is_let_go() {
        let mut hub = Hub::default();
        let mut slow = hub.subscribe("a", 1);
        drop(hub.subscribe("a", 1));
        for revision in 2..BACKLOG as u64 + 4 {
            hub.publish(&[event(("ab", revision))]);
        }
        let mut got = 0;
        while slow.try_recv().is_ok() {
            got += 1;
        }
        assert_eq!((got, slow.is_closed()), (BACKLOG, true));
        hub.close();
        assert!(hub.is_closed() && hub.subscribe("a", 9).try_recv().is_err());
    }
}
