//! What a watch with a selector has to tell: an object that comes into the selection is added, one that leaves it is deleted, whatever it
//! was in truth. It must not know why objects change.

use std::collections::BTreeMap;

use super::{Event, Log, Object, States, Told, Watch};

/// What is to be told at a revision.
type Line<'a> = (Told, &'a str, &'a str);

/// Everything that concerns objects whose values end so is told, once, in order, as it is seen from within the selection; a deletion shows
/// the last state that was in it.
pub(super) fn is_exact(watch: &Watch, end: &str, log: &Log, states: &States, wrong: &mut Vec<String>) {
    let name = &watch.name;
    let mut last = watch.after;
    let mut told: BTreeMap<u64, Line<'_>> = BTreeMap::new();
    for Event { told: word, key, object } in &watch.events {
        if object.revision <= last {
            wrong.push(format!("{name}: {word:?} {key} at {} after {last}", object.revision));
        }
        last = last.max(object.revision);
        told.insert(object.revision, (*word, key, &object.value));
    }
    let wanted: BTreeMap<u64, Line<'_>> = log
        .range(watch.after + 1..)
        .take_while(|(revision, _)| **revision <= watch.reached.max(last))
        .filter_map(|(revision, (key, _))| Some((*revision, line(key, end, *revision, states)?)))
        .collect();
    for (revision, line) in &told {
        match wanted.get(revision) {
            Some(right) if right == line => {}
            right => {
                wrong.push(format!("{name}: {line:?} at {revision}, seen from its selection it is {right:?}"))
            }
        }
    }
    for (revision, line) in wanted.iter().filter(|(revision, _)| !told.contains_key(revision)) {
        wrong.push(format!("{name}: left out {line:?} at {revision}"));
    }
}

fn line<'a>(key: &'a str, end: &str, revision: u64, states: &'a States) -> Option<Line<'a>> {
    let selected = |at: u64| states.at(key, at).filter(|object: &&Object| object.value.ends_with(end));
    match (selected(revision - 1), selected(revision)) {
        (None, None) => None,
        (None, Some(now)) => Some((Told::Added, key, &now.value)),
        (Some(_), Some(now)) => Some((Told::Modified, key, &now.value)),
        (Some(before), None) => Some((Told::Deleted, key, &before.value)),
    }
}
