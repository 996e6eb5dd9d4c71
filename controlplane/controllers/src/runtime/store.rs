//! The objects of one kind as last seen: an ordered map with indexes, fed by an informer and by our own writes.
//!
//! A write's answer goes into the store at once (`written`, `removed`), so that the next pass of a controller sees
//! what the last one did although the watch lags. Revisions say which of the two is newer; the uid of an object
//! that we deleted is remembered until the watch confirms it. Must not know any kind.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::object::{Object, ObjectKey, controller_of, key_of, namespace, revision, uid};

/// What happened to an object.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is new.
    Added(&'a Arc<K>),
    /// It differs from before.
    Updated(&'a Arc<K>, &'a Arc<K>),
    /// It is gone; this is its last state.
    Deleted(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The object's latest state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated(_, object) => object,
        }
    }

    /// The state before, if there was one.
    pub fn before(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated(old, _) => Some(old),
            _ => None,
        }
    }
}

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type BeforeAndAfter<K> = (Option<Arc<K>>, Option<Arc<K>>);
type Handler<K> = Arc<dyn Fn(&Change<'_, K>) + Send + Sync>;

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

struct Inner<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: BTreeMap<&'static str, Index<K>>,
    /// The newest revision that the watch has delivered.
    seen: u64,
    /// Uids that we deleted and the watch has not yet reported as gone.
    removed: HashSet<String>,
}

impl<K: Object> Inner<K> {
    fn put(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = key_of(object.meta());
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }

    /// Whether `object` is newer than what is held.
    fn is_news(&self, object: &K) -> bool {
        let meta = object.meta();
        if self.removed.contains(uid(meta)) {
            return false;
        }
        self.objects.get(&key_of(meta)).is_none_or(|held| revision(held.meta()) < revision(meta))
    }
}

/// The index of objects by the uid of their controller; objects without one by `orphans_of(namespace)`.
const OWNER: &str = "owner";

fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// The objects of one kind. Cheap reads, `Arc`s out.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    /// Held over a change and its telling, so that handlers hear of changes in the order in which they happened.
    order: Mutex<()>,
    synced: watch::Sender<bool>,
}

impl<K: Object> Default for Store<K> {
    fn default() -> Self {
        let owner = Index {
            values: Box::new(|object: &K| {
                let meta = object.meta();
                vec![match controller_of(meta) {
                    Some(owner) => owner.uid.clone(),
                    None => orphans_of(namespace(meta)),
                }]
            }),
            keys: HashMap::new(),
        };
        Self {
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                indexes: BTreeMap::from([(OWNER, owner)]),
                seen: 0,
                removed: HashSet::new(),
            }),
            handlers: RwLock::default(),
            order: Mutex::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Object> Store<K> {
    /// Adds an index; two controllers may ask for the same one.
    pub fn add_index(&self, name: &'static str, values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut inner = self.inner.write();
        if inner.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values: Box::new(values), keys: HashMap::new() };
        for (key, object) in &inner.objects {
            index.insert(key, object);
        }
        inner.indexes.insert(name, index);
    }

    /// Calls `handler` at each change from now on, in the order of the changes. It must be quick and must not write.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().push(Arc::new(handler));
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// All objects in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::namespaced(namespace, "");
        let inner = self.inner.read();
        inner
            .objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace.as_deref() == Some(namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects that an index files under `value`.
    pub fn by_index(&self, index: &'static str, value: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let keys = inner.indexes.get(index).and_then(|i| i.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| inner.objects.get(key).cloned()).collect()
    }

    /// The objects whose controller has this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(OWNER, uid)
    }

    /// The objects of a namespace that no controller owns.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.by_index(OWNER, &orphans_of(namespace))
    }

    /// Resolves when the first complete list is in.
    pub async fn wait_synced(&self) {
        // An error means that the sender is gone, which is `self`: it cannot be.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The complete list at a revision. What we wrote later than that stays.
    pub fn replace(&self, objects: Vec<K>, at: u64) {
        let _order = self.order.lock();
        let mut changes = Vec::new();
        {
            let mut inner = self.inner.write();
            let listed: BTreeSet<ObjectKey> = objects.iter().map(|o| key_of(o.meta())).collect();
            let uids: HashSet<&str> = objects.iter().map(|o| uid(o.meta())).collect();
            inner.removed.retain(|gone| uids.contains(gone.as_str()));
            let stale: Vec<ObjectKey> = (inner.objects.iter())
                .filter(|(key, held)| !listed.contains(*key) && revision(held.meta()) <= at)
                .map(|(key, _)| key.clone())
                .collect();
            for key in stale {
                changes.extend(inner.take(&key).map(|old| (Some(old), None)));
            }
            for object in objects {
                if inner.is_news(&object) {
                    let object = Arc::new(object);
                    changes.push((inner.put(object.clone()), Some(object)));
                }
            }
            inner.seen = inner.seen.max(at);
        }
        self.dispatch(&changes);
        self.synced.send_replace(true);
    }

    /// An object from the watch.
    pub fn apply(&self, object: K) {
        let _order = self.order.lock();
        let object = Arc::new(object);
        let old = {
            let mut inner = self.inner.write();
            inner.seen = inner.seen.max(revision(object.meta()));
            if !inner.is_news(&object) {
                return;
            }
            inner.put(object.clone())
        };
        self.dispatch(&[(old, Some(object))]);
    }

    /// A deletion from the watch.
    pub fn delete(&self, object: &K) {
        let _order = self.order.lock();
        let meta = object.meta();
        let key = key_of(meta);
        let old = {
            let mut inner = self.inner.write();
            inner.seen = inner.seen.max(revision(meta));
            inner.removed.remove(uid(meta));
            match inner.objects.get(&key) {
                Some(held) if uid(held.meta()) == uid(meta) => inner.take(&key),
                _ => None,
            }
        };
        self.dispatch(&[(old, None)]);
    }

    /// A bookmark: the watch has reached this revision.
    pub fn reached(&self, revision: u64) {
        let mut inner = self.inner.write();
        inner.seen = inner.seen.max(revision);
    }

    /// The answer to our own create or update. Ignored if the watch has already gone past it.
    pub fn written(&self, object: K) {
        let _order = self.order.lock();
        let object = Arc::new(object);
        let old = {
            let mut inner = self.inner.write();
            if revision(object.meta()) <= inner.seen || !inner.is_news(&object) {
                return;
            }
            inner.put(object.clone())
        };
        self.dispatch(&[(old, Some(object))]);
    }

    /// We deleted this object and the server has let it go.
    pub fn removed(&self, key: &ObjectKey, gone: &str) {
        let _order = self.order.lock();
        let old = {
            let mut inner = self.inner.write();
            match inner.objects.get(key) {
                Some(held) if uid(held.meta()) == gone => {
                    inner.removed.insert(gone.to_owned());
                    inner.take(key)
                }
                _ => None,
            }
        };
        self.dispatch(&[(old, None)]);
    }

    fn dispatch(&self, changes: &[BeforeAndAfter<K>]) {
        let handlers = self.handlers.read().clone();
        for (old, new) in changes {
            let change = match (old, new) {
                (None, Some(new)) => Change::Added(new),
                (Some(old), Some(new)) => Change::Updated(old, new),
                (Some(old), None) => Change::Deleted(old),
                (None, None) => continue,
            };
            for handler in &handlers {
                handler(&change);
            }
        }
    }
}

#[cfg(test)]
mod tests;
