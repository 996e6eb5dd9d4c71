//! From a change of a child to its owners' keys: what every controller of pods or of sets of pods subscribes to.

use std::sync::Arc;

use super::object::{Matcher, Object, ObjectKey, controller_of, key_of, namespace};
use super::queue::Queue;
use super::store::Store;

/// Queues the owner of each `O`'s child that changes, before and after; a child without an owner queues every `O`
/// that could adopt it.
pub fn follow<O, K>(
    children: &Store<K>,
    owners: Arc<Store<O>>,
    queue: Arc<Queue<ObjectKey>>,
    selector: fn(&O) -> Option<Matcher>,
) where
    O: Object<DynamicType = ()>,
    K: Object,
{
    children.on_change(move |change| {
        let now = change.object();
        let before = change.before();
        let owner = owner_key::<O, K>(now);
        if let Some(key) = before.and_then(|b| owner_key::<O, K>(b)).filter(|k| Some(k) != owner.as_ref()) {
            queue.add(key);
        }
        if let Some(key) = owner {
            return queue.add(key);
        }
        let meta = now.meta();
        if controller_of(meta).is_some() {
            return;
        }
        for candidate in owners.in_namespace(namespace(meta)) {
            if selector(&candidate).is_some_and(|s| !s.is_empty() && s.matches(meta)) {
                queue.add(key_of(candidate.meta()));
            }
        }
    });
}

/// The key of the `O` that controls an object.
pub fn owner_key<O, K>(child: &Arc<K>) -> Option<ObjectKey>
where
    O: Object<DynamicType = ()>,
    K: Object,
{
    let owner = controller_of(child.meta())?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == O::kind(&()) && group == O::group(&()))
        .then(|| ObjectKey { namespace: child.meta().namespace.clone(), name: owner.name.clone() })
}

/// Queues every object of a kind that changes.
pub fn follow_self<O: Object>(objects: &Store<O>, queue: Arc<Queue<ObjectKey>>) {
    objects.on_change(move |change| queue.add(key_of(change.object().meta())));
}
