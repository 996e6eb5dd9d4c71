//! Who owns the number of replicas, told twice: on the object that is scaled and on its `Scale`, whose subresource has managers of its own.
//! It must not know kinds.

use super::managed::{Entry, Managed};
use super::set::Set;

/// The version of `Scale`.
const SCALE: &str = "autoscaling/v1";
/// Where a `Scale` has its replicas.
const REPLICAS: &[&str] = &["spec.replicas"];

/// The managers of an object as its `Scale` has them: those that own the replicas, and of nothing else. `path_of` says where a version of
/// the object has its replicas, with dots, if it has.
pub fn seen_by_scale<'p>(parent: &Managed, path_of: impl Fn(&str) -> Option<&'p str>) -> Managed {
    let entries =
        parent.entries.iter().filter(|entry| owns(entry, path_of(&entry.api_version))).map(|entry| Entry {
            api_version: SCALE.to_owned(),
            fields: Set::of_fields(REPLICAS),
            ..entry.clone()
        });
    Managed { entries: entries.collect() }
}

/// The managers of an object after its `Scale` was written in the object's `api_version`: those that lost the replicas do without, and
/// those that got them own them there. A manager whose entry is new to the object has no time, as clients know it.
pub fn kept_by_parent<'p>(
    parent: &Managed,
    scale: &Managed,
    api_version: &str,
    path_of: impl Fn(&str) -> Option<&'p str>,
) -> Managed {
    let mut owners: Vec<&Entry> = scale.entries.iter().collect();
    let mut kept = Managed::default();
    for entry in &parent.entries {
        let path = path_of(&entry.api_version);
        let Some(path) = path.filter(|path| owns(entry, Some(path))) else {
            kept.entries.push(entry.clone());
            continue;
        };
        match owners.iter().position(|owner| owner.same_manager(entry)) {
            Some(at) => {
                owners.remove(at);
                kept.entries.push(entry.clone());
            }
            None => {
                let fields = entry.fields.difference(&Set::of_fields(&[path]));
                kept.entries.push(Entry { fields, ..entry.clone() });
            }
        }
    }
    kept.entries.retain(|entry| !entry.fields.is_empty());
    let replicas = Set::of_fields(REPLICAS);
    for owner in owners.into_iter().filter(|owner| !owner.fields.intersection(&replicas).is_empty()) {
        let Some(path) = path_of(api_version) else { continue };
        let time = parent.find(owner).and_then(|entry| entry.time.clone());
        let entry = Entry {
            api_version: api_version.to_owned(),
            fields: Set::of_fields(&[path]),
            time,
            ..owner.clone()
        };
        // One of the same name stays beside it: the two become one with the next write.
        kept.entries.push(entry);
    }
    kept
}

fn owns(entry: &Entry, path: Option<&str>) -> bool {
    path.is_some_and(|path| !entry.fields.intersection(&Set::of_fields(&[path])).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Operation;

    fn entry(manager: &str, operation: Operation, version: &str, subresource: &str, paths: &[&str]) -> Entry {
        Entry {
            manager: manager.to_owned(),
            operation,
            api_version: version.to_owned(),
            subresource: subresource.to_owned(),
            time: Some("2026-01-02T03:04:05Z".to_owned()),
            fields: Set::of_fields(paths),
        }
    }

    fn path(version: &str) -> Option<&'static str> {
        version.starts_with("apps/").then_some("spec.replicas")
    }

    #[test]
    fn a_scale_sees_the_owners_of_replicas_only() {
        let parent = Managed {
            entries: vec![
                entry("a", Operation::Apply, "apps/v1", "", &["spec.replicas", "spec.paused"]),
                entry("b", Operation::Update, "apps/v1", "", &["spec.paused"]),
                entry("c", Operation::Update, "other/v1", "", &["spec.replicas"]),
            ],
        };
        let seen = seen_by_scale(&parent, path);
        assert_eq!(seen.entries, [entry("a", Operation::Apply, SCALE, "", &["spec.replicas"])]);
        assert_eq!(kept_by_parent(&parent, &seen, "apps/v1", path), parent);
    }

    #[test]
    fn replicas_move_to_who_wrote_the_scale() {
        let parent = Managed {
            entries: vec![
                entry("a", Operation::Apply, "apps/v1", "", &["spec.replicas", "spec.paused"]),
                entry("b", Operation::Apply, "apps/v1", "", &["spec.replicas"]),
            ],
        };
        let scale =
            Managed { entries: vec![entry("h", Operation::Update, SCALE, "scale", &["spec.replicas"])] };
        let mut wanted = entry("h", Operation::Update, "apps/v1", "scale", &["spec.replicas"]);
        wanted.time = None;
        let kept = kept_by_parent(&parent, &scale, "apps/v1", path);
        assert_eq!(kept.entries, [entry("a", Operation::Apply, "apps/v1", "", &["spec.paused"]), wanted]);
    }
}
