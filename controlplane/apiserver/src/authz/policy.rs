//! Keeps the RBAC index in step with the caches: it is rebuilt when one of the four resources has changed, and objects
//! that have not changed are not read again.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::rbac::{Binding, Index, Role};
use crate::objects::{Objects, Stored};

const GROUP: &str = "rbac.authorization.k8s.io";
const RESOURCES: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// The index and what it was made from.
pub(super) struct Policy {
    objects: Arc<dyn Objects>,
    snapshot: ArcSwap<Snapshot>,
    /// What was read before; also lets one rebuild at a time happen.
    known: Mutex<Known>,
}

struct Snapshot {
    generations: [u64; 4],
    index: Arc<Index>,
}

#[derive(Default)]
struct Known {
    roles: HashMap<(String, String), (u64, Arc<Role>)>,
    bindings: HashMap<(String, String), (u64, Arc<Binding>)>,
}

impl Policy {
    pub(super) fn new(objects: Arc<dyn Objects>) -> Self {
        let mut known = Known::default();
        let snapshot = ArcSwap::from_pointee(build(&*objects, &mut known));
        Self { objects, snapshot, known: Mutex::new(known) }
    }

    /// The index over everything stored now.
    pub(super) fn current(&self) -> Arc<Index> {
        let snapshot = self.snapshot.load();
        if snapshot.generations == generations(&*self.objects) {
            return snapshot.index.clone();
        }
        let mut known = self.known.lock();
        let snapshot = self.snapshot.load();
        if snapshot.generations == generations(&*self.objects) {
            return snapshot.index.clone();
        }
        let built = build(&*self.objects, &mut known);
        let index = built.index.clone();
        self.snapshot.store(Arc::new(built));
        index
    }
}

fn generations(objects: &dyn Objects) -> [u64; 4] {
    RESOURCES.map(|resource| objects.generation(GROUP, resource))
}

/// Reads the generations first: a change in between makes the next request build once more.
fn build(objects: &dyn Objects, known: &mut Known) -> Snapshot {
    let generations = generations(objects);
    let mut index = Index::default();
    let mut now = Known::default();
    for stored in RESOURCES[..2].iter().flat_map(|resource| objects.list(GROUP, resource, "")) {
        let role = reuse(&known.roles, &stored, |stored| Role::from_value(&stored.value()));
        index.add_role(&stored.namespace, &stored.name, role.clone());
        now.roles.insert((stored.namespace, stored.name), (stored.revision, role));
    }
    for stored in RESOURCES[2..].iter().flat_map(|resource| objects.list(GROUP, resource, "")) {
        let binding = reuse(&known.bindings, &stored, |stored| {
            Binding::from_value(&stored.value(), &stored.namespace, &stored.name)
        });
        index.add_binding(&stored.namespace, binding.clone());
        now.bindings.insert((stored.namespace, stored.name), (stored.revision, binding));
    }
    *known = now;
    Snapshot { generations, index: Arc::new(index) }
}

fn reuse<T>(
    known: &HashMap<(String, String), (u64, Arc<T>)>,
    stored: &Stored,
    read: impl Fn(&Stored) -> T,
) -> Arc<T> {
    match known.get(&(stored.namespace.clone(), stored.name.clone())) {
        Some((revision, item)) if *revision == stored.revision => item.clone(),
        _ => Arc::new(read(stored)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::{Attributes, Decision};
    use crate::objects::fake::FakeObjects;
    use crate::request::UserInfo;

    #[test]
    fn follows_changes() {
        let objects = Arc::new(FakeObjects::default());
        let policy = Policy::new(objects.clone());
        let user = UserInfo { name: "u".into(), ..UserInfo::default() };
        let request = Attributes {
            user: &user,
            verb: "get",
            is_resource: true,
            resource: "pods",
            ..Attributes::default()
        };
        assert_eq!(policy.current().authorize(&request), Decision::NoOpinion(String::new()));
        objects.put(
            "rbac.authorization.k8s.io/clusterroles",
            &json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        );
        objects.put(
            "rbac.authorization.k8s.io/clusterrolebindings",
            &json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                    "subjects": [{"kind": "User", "name": "u"}]}),
        );
        assert!(matches!(policy.current().authorize(&request), Decision::Allow(_)));
    }
}
