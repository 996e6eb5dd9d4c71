//! Watches: from the past, live, too slow, after compaction and at the end.

use futures::StreamExt;

use super::{open, put, write};
use crate::{Error, Event, Op, Revision, Store as _, WatchStream};

/// The next so many events as `+key@revision` and `-key@revision`.
async fn next(watch: &mut WatchStream, count: usize) -> Vec<String> {
    let mut out = Vec::new();
    while out.len() < count {
        for event in watch.next().await.unwrap().unwrap().events {
            out.push(match event {
                Event::Put(kv) => format!("+{}@{}", kv.key, kv.mod_revision),
                Event::Delete { key, mod_revision } => format!("-{key}@{mod_revision}"),
            });
        }
    }
    out
}

#[tokio::test]
async fn from_the_past_and_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, vec![put("/a/1", "x"), put("/b/1", "x")]).await;
    write(&store, vec![put("/a/2", "x")]).await;
    write(&store, vec![Op::Delete { key: "/a/1".into() }]).await;
    let mut watch = store.watch("/a/", 2).await.unwrap();
    assert_eq!(next(&mut watch, 3).await, ["+/a/1@2", "+/a/2@3", "-/a/1@4"]);
    write(&store, vec![put("/b/2", "x")]).await;
    write(&store, vec![put("/a/3", "x")]).await;
    assert_eq!(next(&mut watch, 1).await, ["+/a/3@6"]);
    // Resumed by another process.
    drop(store);
    assert!(matches!(watch.next().await, Some(Err(Error::Closed(_)))));
    assert!(watch.next().await.is_none());
    let store = open(dir.path());
    let mut watch = store.watch("/a/", 4).await.unwrap();
    assert_eq!(next(&mut watch, 2).await, ["-/a/1@4", "+/a/3@6"]);
    let mut late = store.watch("/a/", 9).await.unwrap();
    for _ in 0..3 {
        write(&store, vec![put("/a/4", "x")]).await;
    }
    assert_eq!(next(&mut late, 1).await, ["+/a/4@9"]);
    store.compact(6).await.unwrap();
    let gone = store.watch("/a/", 6).await.err().unwrap();
    assert_eq!(gone.to_string(), "revision 6 has been compacted, the oldest kept is 7");
    assert!(store.watch("/a/", 7).await.is_ok());
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/", 2).await.unwrap();
    write(&store, vec![put("/k", "x")]).await;
    assert_eq!(next(&mut watch, 1).await.len(), 1);
    for _ in 0..1500 {
        write(&store, vec![put("/k", "x")]).await;
    }
    let got = next(&mut watch, 1500).await;
    let expected: Vec<_> = (3..1503).map(|r: Revision| format!("+/k@{r}")).collect();
    assert_eq!(got, expected);
    write(&store, vec![put("/k", "x")]).await;
    assert_eq!(next(&mut watch, 1).await, ["+/k@1503"]);
}

#[tokio::test]
async fn current_tells_what_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/a/", 2).await.unwrap();
    write(&store, vec![put("/a/1", "x")]).await;
    next(&mut watch, 1).await;
    write(&store, vec![put("/a/1", "x")]).await;
    write(&store, vec![put("/b/1", "x")]).await;
    let current = store.current("/a/").await.unwrap();
    assert_eq!(current.store, 4);
    assert_eq!(next(&mut watch, 1).await, [format!("+/a/1@{}", current.prefix)]);
    assert_eq!(store.current("/c/").await.unwrap().prefix, 4);
}

#[tokio::test]
async fn a_late_watch_hears_how_far_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, vec![put("/a/1", "x")]).await;
    // Between reading the keys below a prefix and watching them, others are written.
    write(&store, vec![put("/b/1", "x")]).await;
    let mut watch = store.watch("/a/", 3).await.unwrap();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!((first.events.len(), first.revision), (0, 3));
    assert_eq!(store.current("/a/").await.unwrap().prefix, 3);
}
