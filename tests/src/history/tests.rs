//! Good and bad histories for the judge.

use super::*;

fn object(value: &str, revision: u64) -> Object {
    Object { value: value.to_owned(), uid: "u".to_owned(), revision }
}

fn put(key: &str, value: &str, time: (u64, u64), outcome: Outcome) -> Write {
    Write { key: key.to_owned(), wanted: Wanted::Put(value.to_owned()), expected: None, time, outcome }
}

fn event(told: Told, key: &str, value: &str, revision: u64) -> Event {
    Event { told, key: key.to_owned(), object: object(value, revision) }
}

fn list(revision: u64, objects: &[(&str, &str, u64)], fresh_since: Option<u64>) -> List {
    let objects = objects.iter().map(|(key, value, at)| ((*key).to_owned(), object(value, *at))).collect();
    List { revision, fresh_since, objects }
}

const DONE: fn(u64) -> Outcome = |revision| Outcome::Acknowledged(Some(revision));

/// Two objects, one of them changed and removed, a write that nobody heard of, and one that was refused.
fn good() -> History {
    let delete = Write {
        wanted: Wanted::Delete("u".to_owned()),
        ..put("a", "", (50, 60), Outcome::Acknowledged(None))
    };
    let events = vec![
        event(Told::Added, "a", "a1", 11),
        event(Told::Added, "b", "b1", 12),
        event(Told::Modified, "a", "a2", 13),
        event(Told::Modified, "b", "b2", 14),
        event(Told::Deleted, "a", "a2", 15),
    ];
    let watch = |name: &str, after: u64, events: &[Event]| Watch {
        name: name.to_owned(),
        after,
        reached: 15,
        selects: None,
        events: events.to_vec(),
    };
    // Of the values that end with a two: "a" is in it from 13 to 15, "b" comes in at 14.
    let of_twos = Watch {
        selects: Some("2".to_owned()),
        ..watch(
            "twos",
            10,
            &[
                event(Told::Added, "a", "a2", 13),
                event(Told::Added, "b", "b2", 14),
                event(Told::Deleted, "a", "a2", 15),
            ],
        )
    };
    // Of those that end with a one, which all leave it again.
    let of_ones = Watch {
        selects: Some("1".to_owned()),
        ..watch(
            "ones",
            10,
            &[
                event(Told::Added, "a", "a1", 11),
                event(Told::Added, "b", "b1", 12),
                event(Told::Deleted, "a", "a1", 13),
                event(Told::Deleted, "b", "b1", 14),
            ],
        )
    };
    History {
        start: list(10, &[], None),
        writes: vec![
            put("a", "a1", (1, 10), DONE(11)),
            put("b", "b1", (5, 20), DONE(12)),
            Write { expected: Some(11), ..put("a", "a2", (21, 30), DONE(13)) },
            put("b", "b2", (31, 40), Outcome::Unknown),
            put("b", "b3", (41, 45), Outcome::Refused),
            delete,
        ],
        lists: vec![
            list(13, &[("a", "a2", 13), ("b", "b1", 12)], Some(31)),
            list(15, &[("b", "b2", 14)], Some(61)),
            list(11, &[("a", "a1", 11)], None),
        ],
        watches: vec![watch("first", 10, &events), watch("second", 12, &events[2..]), of_twos, of_ones],
    }
}

#[test]
fn a_good_history_is_believed() {
    assert_eq!(check(&good()), Vec::<String>::new());
}

#[test]
fn every_kind_of_wrong_is_found() {
    type Spoil = fn(&mut History);
    let rows: &[(&str, Spoil, &str)] = &[
        (
            "an acknowledged write is lost",
            |h| h.writes.push(put("c", "c1", (70, 80), DONE(16))),
            "lost: (\"c\"",
        ),
        ("a refused write happens", |h| h.writes[3].outcome = Outcome::Refused, "its writer was refused"),
        ("something happens by itself", |h| drop(h.writes.remove(3)), "nobody wrote it"),
        (
            "a write happens twice",
            |h| h.watches[0].events.push(event(Told::Modified, "b", "b2", 16)),
            "doubled:",
        ),
        (
            "a write is elsewhere",
            |h| h.writes[1].outcome = DONE(9),
            "was acknowledged at Some(9) and happened at [12]",
        ),
        (
            "two deletions of one object are acknowledged",
            |h| h.writes.push(h.writes[5].clone()),
            "acknowledged 2 times",
        ),
        ("a watch leaves an event out", |h| drop(h.watches[1].events.remove(1)), "second: left out (\"b\""),
        ("a watch does not come to its end", |h| h.watches[1].events.truncate(1), "second: left out"),
        (
            "a watch repeats itself",
            |h| h.watches[1].events.insert(1, event(Told::Modified, "a", "a2", 13)),
            "at 13 after 13",
        ),
        ("a watch is out of order", |h| h.watches[1].events.swap(0, 1), "second: Modified a at 13 after 14"),
        (
            "two watches tell different things",
            |h| h.watches[1].events[1].object.value = "b9".to_owned(),
            "revision 14 is",
        ),
        (
            "a change is told as a creation",
            |h| h.watches[0].events[2].told = Told::Added,
            "first: Added a at 13, it was Some",
        ),
        (
            "a creation is told as a change",
            |h| h.watches[0].events[0].told = Told::Modified,
            "first: Modified a at 11, it was None",
        ),
        (
            "a deletion shows another state",
            |h| h.watches[0].events[4].object.value = "a1".to_owned(),
            "first: Deleted a at 15",
        ),
        (
            "what was not there is removed",
            |h| h.watches.iter_mut().for_each(|w| w.events.retain(|e| e.told == Told::Deleted)),
            "which was not there",
        ),
        ("a list lacks an object", |h| drop(h.lists[0].objects.remove("b")), "has b as None"),
        (
            "a list has what is gone",
            |h| drop(h.lists[1].objects.insert("a".to_owned(), object("a2", 13))),
            "has a as Some",
        ),
        (
            "a list has an old state",
            |h| drop(h.lists[0].objects.insert("a".to_owned(), object("a1", 11))),
            "has a as Some((\"a1\", 11))",
        ),
        ("a list mixes revisions", |h| h.lists[0].revision = 14, "a list of revision 14 has b"),
        (
            "a list is stale",
            |h| h.lists[2].fresh_since = Some(31),
            "13 was acknowledged before it was asked for",
        ),
        (
            "an object comes into a selection and is told as changed",
            |h| h.watches[2].events[0].told = Told::Modified,
            "twos: (Modified, \"a\", \"a2\") at 13, seen from its selection it is Some((Added",
        ),
        (
            "an object leaves a selection in silence",
            |h| drop(h.watches[3].events.pop()),
            "ones: left out (Deleted, \"b\", \"b1\") at 14",
        ),
        (
            "an object that leaves is shown as it is now",
            |h| h.watches[3].events[2].object.value = "a2".to_owned(),
            "ones: (Deleted, \"a\", \"a2\") at 13, seen from its selection",
        ),
        (
            "a selection tells of others",
            |h| h.watches[2].events.insert(0, event(Told::Added, "b", "b1", 12)),
            "twos: (Added, \"b\", \"b1\") at 12, seen from its selection it is None",
        ),
        (
            "a selection repeats itself",
            |h| h.watches[2].events.insert(1, event(Told::Added, "a", "a2", 13)),
            "twos: Added a at 13 after 13",
        ),
        ("revisions run backwards", |h| h.writes[2].time = (2, 3), "was begun after 13 was acknowledged"),
        ("a precondition is passed over", |h| h.writes[2].expected = Some(10), "expected 10"),
    ];
    for (what, spoil, said) in rows {
        let mut history = good();
        spoil(&mut history);
        let wrong = check(&history);
        assert!(wrong.iter().any(|line| line.contains(said)), "{what}: {wrong:#?}");
    }
}
