//! The store against watch events and our own writes in every order.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use super::*;

fn object(name: &str, uid: &str, revision: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            resource_version: Some(revision.to_string()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

enum Step {
    List(Vec<ConfigMap>, u64),
    Apply(ConfigMap),
    Delete(ConfigMap),
    Written(ConfigMap),
    Removed(&'static str, &'static str),
}

fn check(steps: Vec<Step>, held: &[(&str, u64)], changes: &[&str]) {
    let store = Arc::new(Store::<ConfigMap>::default());
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    store.on_change(move |change| {
        let sign = match change {
            Change::Added(_) => '+',
            Change::Updated(..) => '~',
            Change::Deleted(_) => '-',
        };
        sink.lock().push(format!("{sign}{}", change.object().metadata.uid.clone().unwrap_or_default()));
    });
    for step in steps {
        match step {
            Step::List(objects, at) => store.replace(objects, at),
            Step::Apply(o) => store.apply(o),
            Step::Delete(o) => store.delete(&o),
            Step::Written(o) => store.written(o),
            Step::Removed(name, uid) => store.removed(&ObjectKey::namespaced("ns", name), uid),
        }
    }
    let have: Vec<(String, u64)> = (store.list().iter())
        .map(|o| (o.metadata.name.clone().unwrap_or_default(), revision(&o.metadata)))
        .collect();
    let want: Vec<(String, u64)> = held.iter().map(|(n, r)| (n.to_string(), *r)).collect();
    assert_eq!(have, want);
    assert_eq!(*log.lock(), changes);
}

#[test]
fn watch_alone() {
    check(
        vec![
            Step::List(vec![object("a", "A", 3)], 5),
            Step::Apply(object("a", "A", 6)),
            Step::Apply(object("b", "B", 7)),
            Step::Delete(object("a", "A", 8)),
        ],
        &[("b", 7)],
        &["+A", "~A", "+B", "-A"],
    );
}

#[test]
fn our_write_is_seen_once() {
    check(
        vec![Step::List(vec![], 5), Step::Written(object("a", "A", 6)), Step::Apply(object("a", "A", 6))],
        &[("a", 6)],
        &["+A"],
    );
}

#[test]
fn late_answer_to_a_write_makes_no_ghost() {
    check(
        vec![
            Step::List(vec![], 5),
            Step::Apply(object("a", "A", 6)),
            Step::Delete(object("a", "A", 7)),
            Step::Written(object("a", "A", 6)),
        ],
        &[],
        &["+A", "-A"],
    );
}

#[test]
fn our_delete_is_not_undone_by_old_news() {
    check(
        vec![
            Step::List(vec![object("a", "A", 3)], 5),
            Step::Removed("a", "A"),
            Step::Apply(object("a", "A", 6)),
            Step::Delete(object("a", "A", 7)),
            Step::Apply(object("a", "A2", 8)),
        ],
        &[("a", 8)],
        &["+A", "-A", "+A2"],
    );
}

#[test]
fn relist_keeps_newer_writes_and_drops_the_rest() {
    check(
        vec![
            Step::List(vec![object("a", "A", 3), object("b", "B", 4)], 5),
            Step::Written(object("c", "C", 9)),
            Step::List(vec![object("b", "B", 7)], 8),
        ],
        &[("b", 7), ("c", 9)],
        &["+A", "+B", "+C", "-A", "~B"],
    );
}

#[test]
fn indexes_follow() {
    let store = Store::<ConfigMap>::default();
    store.add_index("uid", |o: &ConfigMap| vec![o.metadata.uid.clone().unwrap_or_default()]);
    store.replace(vec![object("a", "A", 1)], 1);
    store.apply(object("a", "A2", 2));
    assert!(store.by_index("uid", "A").is_empty());
    assert_eq!(store.by_index("uid", "A2").len(), 1);
    assert_eq!(store.orphans("ns").len(), 1);
    assert_eq!(store.in_namespace("ns").len(), 1);
    assert!(store.in_namespace("n").is_empty());
}

#[test]
fn changes_are_told_in_their_order() {
    // A write's answer and the watch's news of the end race: who listens must never hear of the end first.
    for round in 0..200 {
        let store = Arc::new(Store::<ConfigMap>::default());
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        store.on_change(move |change| {
            std::thread::yield_now();
            sink.lock().push(matches!(change, Change::Deleted(_)));
        });
        store.apply(object("a", "u", 1));
        std::thread::scope(|scope| {
            scope.spawn(|| store.written(object("a", "u", 2)));
            scope.spawn(|| store.delete(&object("a", "u", 3)));
        });
        assert!(store.is_empty());
        assert_eq!(log.lock().last(), Some(&true), "round {round}: {:?}", log.lock());
    }
}
