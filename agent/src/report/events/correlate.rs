//! Decides what becomes of an event: a new object, a higher count of one already there, or nothing. Pure: the time is an
//! argument. It must not write anything.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::{Happening, Severity};

/// What the writer is to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Create this event.
    Create(Record),
    /// The event exists: write the new count, time and message.
    Count(Record),
    /// The object has had too many events: none.
    Drop,
}

impl Decision {
    /// The same happening as an event of its own.
    pub(super) fn anew(self) -> Self {
        match self {
            Self::Count(record) => Self::Create(record),
            other => other,
        }
    }
}

/// An event as it is to be in the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) about: ObjectReference,
    pub(super) severity: Severity,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Record {
    /// The namespace events about this object belong in.
    pub(super) fn namespace(&self) -> &str {
        self.about.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    }
}

/// Different messages for one reason within this many seconds become one event ...
const SIMILAR_WINDOW: i64 = 600;
/// ... from this many on.
const SIMILAR_LIMIT: u32 = 10;
/// An object may have this many events at once, and one more every `REFILL` seconds.
const BURST: f64 = 25.0;
const REFILL: f64 = 300.0;
/// Remembered events, groups and objects; the oldest are forgotten.
const MEMORY: usize = 1024;

/// What has been written of late.
#[derive(Default)]
pub(super) struct Correlator {
    written: HashMap<EventKey, Record>,
    similar: HashMap<GroupKey, Group>,
    budgets: HashMap<String, Budget>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct EventKey {
    group: GroupKey,
    message: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    object: String,
    field_path: Option<String>,
    severity: Severity,
    reason: String,
}

struct Group {
    distinct: u32,
    last: Timestamp,
}

struct Budget {
    tokens: f64,
    last: Timestamp,
}

const COMBINED: &str = "(combined from similar events): ";

impl Correlator {
    /// Decides about one happening.
    pub(super) fn decide(&mut self, happening: Happening, now: Timestamp) -> Decision {
        let Happening { about, severity, reason, message, at } = happening;
        let object = object_key(&about);
        if !self.spend(&object, now) {
            return Decision::Drop;
        }
        let group =
            GroupKey { object, field_path: about.field_path.clone(), severity, reason: reason.clone() };
        let mut key = EventKey { group, message: Some(message.clone()) };
        let mut text = message;
        if !self.written.contains_key(&key) && self.too_many_alike(&key.group, now) {
            key.message = None;
            text = format!("{COMBINED}{text}");
        }
        if let Some(record) = self.written.get_mut(&key) {
            record.count = record.count.saturating_add(1);
            record.last = at;
            record.message = text;
            return Decision::Count(record.clone());
        }
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or("unknown"), at.as_nanosecond());
        let record = Record { name, about, severity, reason, message: text, count: 1, first: at, last: at };
        forget_oldest(&mut self.written, |record| record.last);
        self.written.insert(key, record.clone());
        Decision::Create(record)
    }

    /// Takes one event from what the object may still have.
    fn spend(&mut self, object: &str, now: Timestamp) -> bool {
        if !self.budgets.contains_key(object) {
            forget_oldest(&mut self.budgets, |budget| budget.last);
        }
        let budget = self.budgets.entry(object.to_owned()).or_insert(Budget { tokens: BURST, last: now });
        let passed = now.duration_since(budget.last).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + passed / REFILL).min(BURST);
        budget.last = now;
        let allowed = budget.tokens >= 1.0;
        if allowed {
            budget.tokens -= 1.0;
        }
        allowed
    }

    /// Counts one more distinct message of a group and says whether it is over the limit.
    fn too_many_alike(&mut self, key: &GroupKey, now: Timestamp) -> bool {
        if !self.similar.contains_key(key) {
            forget_oldest(&mut self.similar, |group| group.last);
        }
        let group = self.similar.entry(key.clone()).or_insert(Group { distinct: 0, last: now });
        if now.duration_since(group.last).as_secs() > SIMILAR_WINDOW {
            group.distinct = 0;
        }
        group.last = now;
        group.distinct = group.distinct.saturating_add(1);
        group.distinct > SIMILAR_LIMIT
    }
}

fn object_key(about: &ObjectReference) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    [part(&about.kind), part(&about.namespace), part(&about.name), part(&about.uid)].join("/")
}

/// Makes room for one more: drops the older half when the memory is full, so that the search for them is rare.
fn forget_oldest<K: Clone + Eq + std::hash::Hash, V>(
    memory: &mut HashMap<K, V>,
    last: impl Fn(&V) -> Timestamp,
) {
    if memory.len() < MEMORY {
        return;
    }
    let mut times: Vec<Timestamp> = memory.values().map(&last).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    memory.retain(|_, value| last(value) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(name: &str, reason: &str, message: &str, at: Timestamp) -> Happening {
        let about = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        Happening {
            about,
            severity: Severity::Normal,
            reason: reason.to_owned(),
            message: message.to_owned(),
            at,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    /// Feeds (second, reason, message) and compares "create/count N/drop" and the message.
    fn check(input: &[(i64, &str, &str)], expected: &[(&str, i32, &str)]) {
        let mut correlator = Correlator::default();
        let got: Vec<(&str, i32, String)> = input
            .iter()
            .map(|(second, reason, message)| {
                match correlator.decide(happening("p", reason, message, at(*second)), at(*second)) {
                    Decision::Create(record) => ("create", record.count, record.message),
                    Decision::Count(record) => ("count", record.count, record.message),
                    Decision::Drop => ("drop", 0, String::new()),
                }
            })
            .collect();
        let got: Vec<_> =
            got.iter().map(|(what, count, message)| (*what, *count, message.as_str())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn repeated_events_are_counted() {
        check(
            &[(0, "Pulled", "m"), (1, "Pulled", "m"), (2, "Started", "m"), (3, "Pulled", "m")],
            &[("create", 1, "m"), ("count", 2, "m"), ("create", 1, "m"), ("count", 3, "m")],
        );
    }

    #[test]
    fn many_alike_become_one() {
        let messages: Vec<String> = (0..13).map(|n| format!("m{n}")).collect();
        let input: Vec<_> = messages.iter().map(|message| (0, "R", message.as_str())).collect();
        let mut expected: Vec<_> =
            messages[..10].iter().map(|message| ("create", 1, message.as_str())).collect();
        expected.push(("create", 1, "(combined from similar events): m10"));
        expected.push(("count", 2, "(combined from similar events): m11"));
        expected.push(("count", 3, "(combined from similar events): m12"));
        check(&input, &expected);
    }

    #[test]
    fn an_object_has_a_budget_that_refills() {
        let mut correlator = Correlator::default();
        let mut decide =
            |name: &str, second| correlator.decide(happening(name, "R", "m", at(second)), at(second));
        for _ in 0..25 {
            assert_ne!(decide("a", 0), Decision::Drop);
        }
        assert_eq!(decide("a", 1), Decision::Drop);
        assert_ne!(decide("b", 1), Decision::Drop, "another object has its own");
        assert_ne!(decide("a", 302), Decision::Drop);
        assert_eq!(decide("a", 303), Decision::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for n in 0..5000 {
            correlator.decide(happening(&format!("p{n}"), "R", "m", at(n)), at(n));
        }
        assert!(correlator.written.len() <= MEMORY);
        assert!(correlator.similar.len() <= MEMORY);
        assert!(correlator.budgets.len() <= MEMORY);
    }
}
