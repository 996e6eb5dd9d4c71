//! Rows: objects as `uid [namespace/] [!flags] <- owners`, a question, a verdict.

use std::sync::Arc;

use serde_json::json;

use super::super::Meta;
use super::super::kinds::Kind;
use super::*;

/// `uid@namespace:flags<owner1,+owner2`: flags are `d` deleting, `f` foreground, `o` orphan; `+` marks owners that the
/// object blocks.
fn graph(texts: &[&str]) -> (Graph, Vec<String>) {
    let mut graph = Graph::default();
    let mut look = Vec::new();
    for text in texts {
        look = graph.put(Arc::new(Kind::fake()), Arc::new(object(text)));
    }
    (graph, look)
}

fn object(text: &str) -> Meta {
    let (rest, owners) = text.split_once('<').unwrap_or((text, ""));
    let (rest, flags) = rest.split_once(':').unwrap_or((rest, ""));
    let (id, place) = rest.split_once('@').unwrap_or((rest, "ns"));
    let owners: Vec<_> = (owners.split(',').filter(|o| !o.is_empty()))
        .map(|o| {
            let id = o.trim_start_matches('+');
            json!({"apiVersion": "v1", "kind": "X", "name": id, "uid": id, "blockOwnerDeletion": o.starts_with('+')})
        })
        .collect();
    let mut finalizers = Vec::new();
    if flags.contains('f') {
        finalizers.push(FOREGROUND);
    }
    if flags.contains('o') {
        finalizers.push(ORPHAN);
    }
    let mut meta = json!({
        "name": id, "uid": id, "resourceVersion": "1", "ownerReferences": owners, "finalizers": finalizers,
    });
    if place != "-" {
        meta["namespace"] = json!(place);
    }
    if flags.contains('d') {
        meta["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    }
    serde_json::from_value(json!({"metadata": meta})).unwrap()
}

fn show(verdict: &Verdict) -> String {
    let ids = |items: &[Item]| {
        items.iter().map(|i| uid(&i.object.metadata).to_owned()).collect::<Vec<_>>().join(",")
    };
    match verdict {
        Verdict::Nothing => "nothing".to_owned(),
        Verdict::Verify(owner) => format!("verify {}", owner.uid),
        Verdict::Delete(policy) => format!("delete {policy:?}"),
        Verdict::DropOwners(gone) => format!("drop {}", gone.join(",")),
        Verdict::Unblock(items) => format!("unblock {}", ids(items)),
        Verdict::Orphan(items) => format!("orphan {}", ids(items)),
        Verdict::RemoveFinalizer(name) => format!("finish {name}"),
        Verdict::Wake(uids) => format!("wake {}", uids.join(",")),
    }
}

#[test]
fn verdicts() {
    // Objects, owners known to be gone, owners known to be there, who, verdict.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a str, &'a str);
    let rows: &[Row<'_>] = &[
        (&["a"], &[], &[], "a", "nothing"),
        (&["a", "b<a"], &[], &[], "b", "nothing"),
        (&["b<a"], &[], &[], "b", "verify a"),
        (&["b<a"], &["a"], &[], "b", "delete Background"),
        (&["b<a"], &[], &["a"], "b", "nothing"),
        (&["c", "b<a,c"], &["a"], &[], "b", "drop a"),
        (&["a", "b:o<x"], &["x"], &[], "b", "delete Orphan"),
        // An owner in another namespace is no owner; one outside of all is.
        (&["a@other", "b<a"], &[], &[], "b", "verify a"),
        (&["a@-", "b<a"], &[], &[], "b", "nothing"),
        // Background: a deleting owner is still there.
        (&["a:d", "b<a"], &[], &[], "b", "nothing"),
        (&["a:d", "b:d<a"], &[], &[], "b", "nothing"),
        // Foreground: the owner waits, the dependents go first, their own dependents before them.
        (&["a:df", "b<+a"], &[], &[], "a", "wake b"),
        (&["a:df", "b:d<+a"], &[], &[], "a", "wake "),
        (&["a:df", "b<+a"], &[], &[], "b", "delete Background"),
        (&["a:df", "b<+a", "c<+b"], &[], &[], "b", "delete Foreground"),
        (&["a:df", "b<a"], &[], &[], "a", "finish foregroundDeletion"),
        (&["a:df"], &[], &[], "a", "finish foregroundDeletion"),
        (&["a:df", "c", "b<+a,c"], &[], &[], "b", "drop a"),
        (&["a:df<+b", "b<+a"], &[], &[], "b", "unblock a"),
        // Orphans stay.
        (&["a:do", "b<a", "c<a"], &[], &[], "a", "orphan b,c"),
    ];
    for (objects, gone, there, who, expected) in rows {
        let (graph, _) = graph(objects);
        let known = |owner: &str| {
            if gone.contains(&owner) { Some(false) } else { there.contains(&owner).then_some(true) }
        };
        let (_, verdict) = decide(&graph, who, &known).unwrap();
        assert_eq!(show(&verdict), *expected, "{objects:?} {who}");
    }
}

#[test]
fn whom_a_change_concerns() {
    for (objects, expected) in [
        (&["b<a"][..], &["b"][..]),
        (&["a", "b<a"], &[]),
        (&["a", "b<a", "a:d"], &[]),
        (&["a", "b<a", "c<a", "a:df"], &["a", "b", "c"]),
        (&["a:df", "b<+a"], &["b"]),
        (&["a:df", "b<+a", "b"], &["a"]),
        (&["a", "b<a", "a:do"], &["a"]),
    ] {
        assert_eq!(graph(objects).1, expected, "{objects:?}");
    }
    let (mut graph, _) = graph(&["a:df", "b<+a", "c<b", "d<b"]);
    assert_eq!(graph.remove("b"), ["c", "d", "a"]);
    assert!(graph.remove("b").is_empty());
}
