//! Random histories, compared with a list of all states there ever were.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{open, put};
use crate::{Compare, Error, Op, Range, Revision, Store as _, Txn};

#[derive(Clone, Debug)]
enum Step {
    /// Writes (or with `None` deletes) keys, if a key has been written last at the revision that many back.
    Txn(Vec<(u8, Option<u8>)>, Option<(u8, u64)>),
    Compact(u64),
    Shrink,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..8_u8, prop::option::weighted(0.8, any::<u8>()));
    let step = prop_oneof![
        20 => (prop::collection::vec(write, 1..4), prop::option::of((0..8_u8, 0..6_u64)))
            .prop_map(|(writes, compare)| Step::Txn(writes, compare)),
        2 => (0..12_u64).prop_map(Step::Compact),
        1 => Just(Step::Shrink),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Value, create revision, mod revision, version.
type State = BTreeMap<String, (Bytes, Revision, Revision, u64)>;

#[derive(Default)]
struct Model {
    /// The state at revision 1, 2, ...
    states: Vec<State>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn txn(&mut self, txn: &Txn) -> bool {
        let mut state = self.states.last().unwrap().clone();
        if txn.compares.iter().any(|c| state.get(&c.key).map_or(0, |v| v.2) != c.mod_revision) {
            return false;
        }
        let next = self.revision() + 1;
        let mut changed = false;
        for op in &txn.ops {
            match op {
                Op::Put { key, value } => {
                    let (created, version) = state.get(key).map_or((next, 0), |v| (v.1, v.3));
                    state.insert(key.clone(), (value.clone(), created, next, version + 1));
                    changed = true;
                }
                Op::Delete { key } => changed |= state.remove(key).is_some(),
            }
        }
        if changed {
            self.states.push(state);
        }
        true
    }
}

fn key(number: u8) -> String {
    // Keys of several directories, one the beginning of another.
    format!("/d{}/{}", number % 3, ["k", "key", "k-"][usize::from(number / 3) % 3])
}

fn txn(model: &Model, writes: &[(u8, Option<u8>)], compare: Option<(u8, u64)>) -> Txn {
    let mut ops: Vec<Op> = Vec::new();
    for (number, value) in writes {
        let key = key(*number);
        if ops.iter().all(|op| op.key() != key) {
            ops.push(match value {
                Some(value) => put(&key, vec![*value; usize::from(*value)]),
                None => Op::Delete { key },
            });
        }
    }
    let compares = compare.map(|(number, back)| {
        let key = key(number);
        let known = model.states.last().unwrap().get(&key).map_or(0, |v| v.2);
        Compare { key, mod_revision: if back == 0 { 0 } else { (known + 1).saturating_sub(back) } }
    });
    Txn { compares: compares.into_iter().collect(), ops, ..Txn::default() }
}

async fn compare_all(store: &super::Store, model: &Model) {
    assert_eq!(store.revision().await.unwrap(), model.revision());
    for (at, state) in (1..).zip(&model.states) {
        for prefix in ["/", "/d1/", "/d1/k", "/none"] {
            let got = store.range(Range { at: Some(at), ..Range::below(prefix) }).await;
            if at < model.compacted {
                assert!(matches!(got, Err(Error::Compacted { .. })), "{got:?}");
                continue;
            }
            let got = got.unwrap();
            let kvs = got.kvs.into_iter();
            let got: State =
                kvs.map(|kv| (kv.key, (kv.value, kv.create_revision, kv.mod_revision, kv.version))).collect();
            let expected: State = state
                .iter()
                .filter(|(k, _)| k.starts_with(prefix))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(got, expected, "at {at} below {prefix}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            let mut model = Model { states: vec![State::new()], compacted: 1 };
            for step in steps {
                match step {
                    Step::Txn(writes, compare) => {
                        let txn = txn(&model, &writes, compare);
                        let result = store.txn(txn.clone()).await.unwrap();
                        assert_eq!(result.committed, model.txn(&txn));
                        assert_eq!(result.revision, model.revision());
                    }
                    Step::Compact(back) => {
                        let revision = model.revision().saturating_sub(back).max(1);
                        store.compact(revision).await.unwrap();
                        model.compacted = model.compacted.max(revision);
                    }
                    Step::Shrink => super::super::maintain::shrink(&store.shared).unwrap(),
                    Step::Restart => {
                        drop(store);
                        store = open(dir.path());
                    }
                }
            }
            compare_all(&store, &model).await;
            drop(store);
            compare_all(&open(dir.path()), &model).await;
        });
    }
}

#[tokio::test]
async fn pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..7 {
        super::write(&store, vec![put(&format!("/a/{i}"), "x"), put(&format!("/b/{i}"), "x")]).await;
    }
    let at = Some(store.revision().await.unwrap());
    super::write(&store, vec![put("/a/00", "later")]).await;
    let (mut keys, mut start) = (Vec::new(), None);
    loop {
        let page = store.range(Range { prefix: "/a/".into(), start, limit: 3, at }).await.unwrap();
        assert_eq!(page.count, 7 - keys.len());
        keys.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        if !page.more {
            break;
        }
        start = keys.last().map(|k| format!("{k}\0"));
    }
    assert_eq!(keys, (0..7).map(|i| format!("/a/{i}")).collect::<Vec<_>>());
}
