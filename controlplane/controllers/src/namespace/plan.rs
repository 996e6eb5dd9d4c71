//! What to say about a namespace that is being emptied. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};

use super::WAITS;
use super::content::Content;
use crate::runtime::object::time;

/// The status that goes with what was found.
pub(super) fn status(namespace: &Namespace, found: &Content, now: Timestamp) -> NamespaceStatus {
    let mut conditions = (namespace.status.as_ref()).and_then(|s| s.conditions.clone()).unwrap_or_default();
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            found.discovery_error.clone(),
            "DiscoveryFailed",
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            content_failure(found),
            "ContentDeletionFailed",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            remaining(found),
            "SomeResourcesRemain",
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers(found),
            "SomeFinalizersRemain",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    for (kind, trouble, reason, fine) in rows {
        let (status, reason, message) = match trouble {
            Some(text) => ("True", reason, text),
            None => ("False", fine.0, fine.1.to_owned()),
        };
        set(&mut conditions, kind, status, reason, message, now);
    }
    NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) }
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let new = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => {}
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

fn content_failure(found: &Content) -> Option<String> {
    let errors = &found.errors;
    (!errors.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            errors.len(),
            errors.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        )
    })
}

fn remaining(found: &Content) -> Option<String> {
    let list: Vec<String> = (found.remaining.iter())
        .map(|(resource, count)| format!("{resource} has {count} resource instances"))
        .collect();
    (!list.is_empty()).then(|| format!("Some resources are remaining: {}", list.join(", ")))
}

fn finalizers(found: &Content) -> Option<String> {
    let list: Vec<String> = (found.finalizers.iter())
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    (!list.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", list.join(", ")))
}

/// How long until the next look: the longer it has lasted, the longer.
pub(super) fn wait(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (lasted / 8).clamp(WAITS.0, WAITS.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(found: &Content, expected: &[(&str, &str, &str)]) {
        let now = Timestamp::from_second(100).unwrap();
        let status = status(&Namespace::default(), found, now);
        let have: Vec<_> = (status.conditions.iter().flatten())
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.message.as_deref().unwrap()))
            .filter(|(_, status, _)| *status == "True")
            .collect();
        assert_eq!(have, expected);
        let again = Namespace { status: Some(status.clone()), ..Namespace::default() };
        assert_eq!(super::status(&again, found, Timestamp::from_second(200).unwrap()), status);
    }

    #[test]
    fn messages() {
        check(&Content::default(), &[]);
        check(
            &Content {
                remaining: BTreeMap::from([("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)]),
                finalizers: BTreeMap::from([("a/b".to_owned(), 1)]),
                ..Content::default()
            },
            &[
                (
                    "NamespaceContentRemaining",
                    "True",
                    "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
                ),
                (
                    "NamespaceFinalizersRemaining",
                    "True",
                    "Some content in the namespace has finalizers remaining: a/b in 1 resource instances",
                ),
            ],
        );
    }
}
