//! Tests of the embedded store as a whole: against a model, across restarts, after crashes, on damaged files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod damage;
mod model;
mod watching;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{Options, Store};
use crate::{Op, Store as _, Txn, TxnResult};

/// Small files, and no maintenance but when a test asks for it.
fn options() -> Options {
    Options {
        history: Some(Duration::from_secs(3600)),
        max_history: 1_000_000,
        tick: Duration::from_secs(3600),
        log_size: 512,
        prepared: 200,
        snapshot_after: 512,
    }
}

/// Opens a store. A test that starts a process holds every lock of this one for the moment between fork and exec, so a lock is
/// waited for.
fn open(path: &Path) -> Store {
    let start = std::time::Instant::now();
    loop {
        match Store::open(path, options()) {
            Err(crate::Error::Locked { .. }) if start.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now()
            }
            other => return other.unwrap(),
        }
    }
}

fn put(key: &str, value: impl Into<Bytes>) -> Op {
    Op::Put { key: key.to_owned(), value: value.into() }
}

async fn write(store: &Store, ops: Vec<Op>) -> TxnResult {
    let result = store.txn(Txn { ops, ..Txn::default() }).await.unwrap();
    assert!(result.committed);
    result
}

#[tokio::test]
async fn compare_and_swap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = store.txn(Txn::put_if("/a", 0, "1".into())).await.unwrap();
    assert_eq!((made.committed, made.revision), (true, 2));
    let again = store.txn(Txn::put_if("/a", 0, "2".into())).await.unwrap();
    assert!(!again.committed);
    let found = again.found[0].as_ref().unwrap();
    assert_eq!((&*found.value, found.mod_revision, found.version), (&b"1"[..], 2, 1));
    assert!(store.txn(Txn::put_if("/a", 2, "2".into())).await.unwrap().committed);
    assert!(!store.txn(Txn::delete_if("/a", 2)).await.unwrap().committed);
    assert!(store.txn(Txn::delete_if("/a", 3)).await.unwrap().committed);
    assert_eq!(store.get("/a", None).await.unwrap(), None);
    assert_eq!(&*store.get("/a", Some(3)).await.unwrap().unwrap().value, b"2");
    // What changes nothing makes no revision.
    let nothing =
        store.txn(Txn { ops: vec![Op::Delete { key: "/a".into() }], ..Txn::default() }).await.unwrap();
    assert_eq!((nothing.committed, nothing.revision), (true, 4));
    let twice = store.txn(Txn { ops: vec![put("/a", "1"), put("/a", "2")], ..Txn::default() }).await;
    assert_eq!(twice.unwrap_err().to_string(), "invalid transaction: /a is written twice");
}

#[tokio::test]
async fn notes_are_kept_as_long_as_the_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.txn(Txn::put_if("/a", 0, "1".into()).noted("made")).await.unwrap();
    store.txn(Txn::put_if("/a", 2, "2".into())).await.unwrap();
    store.txn(Txn::delete_if("/a", 3).noted("gone")).await.unwrap();
    let again = Txn { ops: vec![put("/a", "3"), put("/b", "b")], note: "both".into(), ..Txn::default() };
    store.txn(again).await.unwrap();
    for _ in 0..2 {
        let found = store.history("/a", None, 9).await.unwrap();
        let notes: Vec<_> = found.writes.iter().map(|w| (w.event.revision(), &*w.note)).collect();
        assert_eq!(notes, [(5, &b"both"[..]), (4, b"gone"), (3, b""), (2, b"made")]);
        assert!(matches!(&found.writes[1].event, crate::Event::Delete { key, .. } if key == "/a"));
        assert_eq!(&*store.history("/b", None, 9).await.unwrap().writes[0].note, b"both");
        assert_eq!(&*store.get("/a", None).await.unwrap().unwrap().value, b"3", "readers do not see it");
        drop(store);
        store = open(dir.path());
    }
    // A snapshot holds states, not who made them.
    for _ in 0..20 {
        write(&store, vec![put("/c", vec![b'x'; 100])]).await;
    }
    let all = store.revision().await.unwrap();
    store.compact(all).await.unwrap();
    super::maintain::shrink(&store.shared).unwrap();
    let left = store.history("/a", None, 9).await.unwrap();
    assert_eq!(
        left.writes.iter().map(|w| (w.event.revision(), &*w.note)).collect::<Vec<_>>(),
        [(5, &b""[..])]
    );
    let long = Txn::put_if("/d", 0, "1".into()).noted(vec![0; 1 << 17]);
    assert!(store.txn(long).await.is_err());
}

#[tokio::test]
async fn many_writers_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let results = futures::future::join_all((0..100).map(|i| {
        let store = &store;
        async move { store.txn(Txn::put_if("/a", 0, i.to_string().into())).await.unwrap() }
    }))
    .await;
    let winner = results.iter().position(|r| r.committed).unwrap();
    assert_eq!(results.iter().filter(|r| r.committed).count(), 1);
    for lost in results.iter().filter(|r| !r.committed) {
        assert_eq!(&*lost.found[0].as_ref().unwrap().value, winner.to_string().as_bytes());
    }
}

#[tokio::test]
async fn snapshots_replace_logs() {
    let dir = tempfile::tempdir().unwrap();
    let names = |prefix: &str| {
        let names =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with(prefix)).count()
    };
    let store = open(dir.path());
    for i in 0..200 {
        write(&store, vec![put(&format!("/k{}", i % 10), vec![b'x'; 50])]).await;
    }
    assert!(names("log-") > 10);
    super::maintain::shrink(&store.shared).unwrap();
    assert_eq!(names("snapshot-"), 0, "nothing is compacted yet");
    store.compact(150).await.unwrap();
    super::maintain::shrink(&store.shared).unwrap();
    assert_eq!(names("snapshot-"), 1);
    let logs = names("log-");
    let newest = store.range(crate::Range::below("/")).await.unwrap();
    assert_eq!(newest.kvs.len(), 10);
    assert!(store.get("/k0", Some(149)).await.unwrap_err().to_string().contains("has been compacted"));
    let old = store.range(crate::Range { at: Some(150), ..crate::Range::below("/") }).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.range(crate::Range::below("/")).await.unwrap(), newest);
    assert_eq!(store.range(crate::Range { at: Some(150), ..crate::Range::below("/") }).await.unwrap(), old);
    store.compact(201).await.unwrap();
    super::maintain::shrink(&store.shared).unwrap();
    assert_eq!(names("snapshot-"), 1);
    assert!(names("log-") < logs);
    drop(store);
    assert_eq!(open(dir.path()).range(crate::Range::below("/")).await.unwrap(), newest);
}
