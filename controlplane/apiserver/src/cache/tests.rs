//! The cache over a real store: currency, paging snapshots, cursors.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use pagurus_controlplane_store::{Txn, embedded};
use serde_json::json;

use super::*;
use crate::registry::{FieldName, named};
use crate::strategy::{Generic, Strategy};

struct Fixture {
    cache: Arc<Cache>,
    store: Arc<dyn Store>,
    _directory: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(embedded::Store::open(directory.path(), embedded::Options::default()).unwrap());
    let prefix = "/registry/core/configmaps/".to_owned();
    let cancel = CancellationToken::new();
    let (cache, feed) = Cache::start(Rules::Builtin(&Generic), prefix, store.clone(), cancel).await.unwrap();
    tokio::spawn(feed);
    Fixture { cache, store, _directory: directory }
}

impl Fixture {
    async fn put(&self, name: &str, expected: u64) -> u64 {
        let object = json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "uid": "u"}});
        let key = self.cache.store_key(&ObjectKey::namespaced("n", name));
        let result = self.store.txn(Txn::put_if(key, expected, stored_bytes(&object))).await.unwrap();
        assert!(result.committed);
        result.revision
    }

    async fn names(&self, snapshot: &Snapshot) -> String {
        let names = snapshot.below(Some("n"), None).map(|(_, o)| o.key.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn current_knows_what_was_acknowledged() {
    let f = fixture().await;
    for i in 0..50 {
        let revision = f.put(&format!("c{i}"), 0).await;
        let now = f.cache.current().await.unwrap();
        assert!(now.revision >= revision);
        assert_eq!(now.get(Some("n"), &format!("c{i}")).unwrap().revision, revision);
    }
}

#[tokio::test]
async fn snapshots_do_not_change() {
    let f = fixture().await;
    f.put("a", 0).await;
    let first = f.cache.current().await.unwrap();
    f.cache.keep(&first);
    let revision = f.put("b", 0).await;
    assert_eq!(f.names(&first).await, "a");
    assert_eq!(f.names(&f.cache.at(first.revision).await.unwrap()).await, "a");
    assert_eq!(f.names(&f.cache.at(revision).await.unwrap()).await, "a b");
    assert_eq!(f.names(&f.cache.not_before(first.revision).await.unwrap()).await, "a b");
    assert!(matches!(f.cache.not_before(revision + 9).await, Err(CacheError::NotYet { .. })));
    f.put("c", 0).await;
    // Not kept in memory: read from the store.
    assert_eq!(f.names(&f.cache.at(revision).await.unwrap()).await, "a b");
    f.store.compact(revision + 1).await.unwrap();
    assert!(matches!(f.cache.at(revision).await, Err(CacheError::Gone { .. })));
}

#[tokio::test]
async fn cursors_see_every_change_once() {
    let f = fixture().await;
    let first = f.put("a", 0).await;
    f.cache.current().await.unwrap();
    let (_, mut all) = f.cache.watch(Some(first - 1)).unwrap();
    let (_, mut later) = f.cache.watch(Some(first)).unwrap();
    f.put("b", 0).await;
    f.put("a", first).await;
    let read = async |cursor: &mut Cursor, count: usize| {
        let mut out = Vec::new();
        while out.len() < count {
            let changes = cursor.next().await.unwrap();
            out.extend(changes.iter().map(|c| format!("{} {}", c.kind.as_str(), c.object.key.name)));
        }
        out
    };
    assert_eq!(read(&mut all, 3).await, ["ADDED a", "ADDED b", "MODIFIED a"]);
    assert_eq!(read(&mut later, 2).await, ["ADDED b", "MODIFIED a"]);
    assert!(matches!(f.cache.watch(Some(0)), Err(CacheError::Gone { .. })));
}

#[tokio::test]
async fn slow_cursors_are_overtaken() {
    let f = fixture().await;
    let mut revision = f.put("a", 0).await;
    f.cache.current().await.unwrap();
    let (_, mut slow) = f.cache.watch(None).unwrap();
    let object = f.cache.get(Some("n"), "a").unwrap();
    for _ in 0..9000 {
        revision += 1;
        let next = Arc::new(object.at_revision(revision));
        f.cache.ring.write().push(Arc::new(Change::new(ChangeKind::Modified, next, Some(object.clone()))));
    }
    assert_eq!(slow.next().await.unwrap_err(), CursorError::Overtaken);
    assert!(matches!(f.cache.watch(Some(revision - 8500)), Err(CacheError::Gone { .. })));
    assert!(f.cache.watch(Some(revision - 100)).is_ok());
}

#[tokio::test]
async fn watches_end_with_what_happened_until_then() {
    let f = fixture().await;
    f.put("a", 0).await;
    f.cache.current().await.unwrap();
    let (_, mut told) = f.cache.watch(None).unwrap();
    let (_, mut idle) = f.cache.watch(None).unwrap();
    f.put("b", 0).await;
    f.cache.current().await.unwrap();
    assert_eq!(idle.next().await.unwrap().len(), 1);
    let waiting = tokio::spawn(async move { idle.next().await.map(drop) });
    f.cache.follow(Rules::Builtin(&Generic));
    let (_, mut later) = f.cache.watch(None).unwrap();
    f.put("c", 0).await;
    f.cache.current().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(CursorError::Ended));
    let names = |changes: Vec<Arc<Change>>| {
        changes.iter().map(|c| c.object.key.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(told.next().await.unwrap()), "b");
    assert_eq!(told.next().await.map(names), Err(CursorError::Ended));
    assert_eq!(names(later.next().await.unwrap()), "c");
}

#[tokio::test]
async fn changes_are_encoded_once() {
    let f = fixture().await;
    let (_, mut cursor) = f.cache.watch(None).unwrap();
    f.put("a", 0).await;
    let change = cursor.next().await.unwrap().remove(0);
    let form = (ChangeKind::Added, 1);
    assert_eq!(change.encoded(form, || Err("cannot")), Err("cannot"));
    let first = change.encoded::<()>(form, || Ok("first".into())).unwrap();
    let second = change.encoded::<()>(form, || unreachable!("encoded already")).unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[tokio::test]
async fn old_changes_and_pages_are_let_go() {
    let f = fixture().await;
    let mut revision = 0;
    for _ in 0..1500 {
        revision = f.put("a", revision).await;
    }
    let now = f.cache.current().await.unwrap();
    f.cache.keep(&now);
    f.put("a", revision).await;
    let holds = |after: u64| f.cache.watch(Some(after)).is_ok();
    let soon = Instant::now() + Duration::from_secs(60);
    f.cache.tidy(soon);
    assert!(holds(1) && f.cache.pages.lock().len() == 1);
    f.cache.tidy(Instant::now() + Duration::from_secs(400));
    assert!(!holds(1) && holds(revision) && f.cache.pages.lock().is_empty());
}

#[tokio::test]
async fn other_rules_index_what_is_there_too() {
    struct ByUid;
    impl Strategy for ByUid {
        fn selectable_fields(&self) -> &[FieldName] {
            const { &[named("metadata.uid")] }
        }

        fn field(&self, object: &serde_json::Value, _name: &str) -> Option<String> {
            object.pointer("/metadata/uid").and_then(serde_json::Value::as_str).map(str::to_owned)
        }
    }
    let f = fixture().await;
    f.put("a", 0).await;
    let before = f.cache.current().await.unwrap();
    assert_eq!(before.get(Some("n"), "a").unwrap().field("metadata.uid"), None);
    f.cache.follow(Rules::Custom(Arc::new(ByUid)));
    f.put("b", 0).await;
    let after = f.cache.current().await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(after.get(Some("n"), name).unwrap().field("metadata.uid"), Some("u"), "{name}");
    }
}
