//! Who owns whom, by uid. Pure: each change says which objects are to be looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Meta;
use super::kinds::Kind;
use super::plan::{FOREGROUND, ORPHAN};
use crate::runtime::object::{deleting, uid};

/// An object in the graph.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) kind: Arc<Kind>,
    pub(super) object: Arc<Meta>,
}

impl Item {
    /// Whether it is deleted in the foreground and waits for its dependents.
    pub(super) fn waits_for_dependents(&self) -> bool {
        deleting(&self.object.metadata) && has_finalizer(&self.object.metadata, FOREGROUND)
    }

    /// Its owners.
    pub(super) fn owners(&self) -> &[OwnerReference] {
        owners(&self.object)
    }
}

/// Whether the metadata has a finalizer.
pub(super) fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == name)
}

fn owners(object: &Meta) -> &[OwnerReference] {
    object.metadata.owner_references.as_deref().unwrap_or_default()
}

/// All objects and who depends on whom. Dependents may be known before their owners.
#[derive(Default)]
pub(super) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// The object with a uid.
    pub(super) fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// Those that name the uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.items.get(d))
    }

    /// An object is new or has changed. Returns whom to look at.
    pub(super) fn put(&mut self, kind: Arc<Kind>, object: Arc<Meta>) -> Vec<String> {
        let id = uid(&object.metadata).to_owned();
        let item = Item { kind, object: object.clone() };
        let waits = item.waits_for_dependents();
        let old = self.items.insert(id.clone(), item);
        let before: &[OwnerReference] = old.as_ref().map(|o| owners(&o.object)).unwrap_or_default();
        let now = owners(&object);
        let mut look = Vec::new();
        if waits || (deleting(&object.metadata) && has_finalizer(&object.metadata, ORPHAN)) {
            look.push(id.clone());
        }
        if waits {
            look.extend(self.dependents.get(&id).into_iter().flatten().cloned());
        }
        if before != now {
            for lost in before.iter().filter(|b| !now.iter().any(|n| n.uid == b.uid)) {
                self.unlink(&lost.uid, &id);
            }
            for owner in now {
                self.dependents.entry(owner.uid.clone()).or_default().insert(id.clone());
            }
            // An owner may have waited for the reference that is gone or blocks no more.
            look.extend(before.iter().map(|b| b.uid.clone()).filter(|uid| self.waits(uid)));
            if now.iter().any(|owner| !self.items.contains_key(&owner.uid) || self.waits(&owner.uid)) {
                look.push(id);
            }
        }
        look
    }

    /// An object is gone. Returns whom to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(gone) = self.items.remove(uid) else { return Vec::new() };
        for owner in gone.owners() {
            self.unlink(&owner.uid, uid);
        }
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        look.extend(gone.owners().iter().map(|o| o.uid.clone()).filter(|owner| self.waits(owner)));
        look
    }

    fn waits(&self, uid: &str) -> bool {
        self.items.get(uid).is_some_and(Item::waits_for_dependents)
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
