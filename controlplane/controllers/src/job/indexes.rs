//! Completion indexes: sets of numbers written as `0-2,5`. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::Action;
use crate::runtime::object::annotation;

/// The annotation and label with a pod's index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads a set, leaving out what is malformed or not below `completions`.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            set.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    set
}

/// Writes a set.
pub(super) fn format(set: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(i32, i32)> = None;
    let mut end = |run: Option<(i32, i32)>| match run {
        Some((first, last)) if first == last => parts.push(first.to_string()),
        Some((first, last)) if first + 1 == last => parts.push(format!("{first},{last}")),
        Some((first, last)) => parts.push(format!("{first}-{last}")),
        None => {}
    };
    for &number in set {
        run = match run {
            Some((first, last)) if last + 1 == number => Some((first, number)),
            other => {
                end(other);
                Some((number, number))
            }
        };
    }
    end(run);
    parts.join(",")
}

/// The annotations with which a pod says how often those of its index have failed before it.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often an index has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i32,
    pub(super) ignored: i32,
}

impl Failures {
    /// Before this pod.
    pub(super) fn before(pod: &Pod) -> Self {
        let read = |name| annotation(&pod.metadata, name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { counted: read(FAILURES), ignored: read(IGNORED) }
    }

    /// After the failure of this pod.
    pub(super) fn after(pod: &Pod, action: &Action) -> Self {
        let mut failures = Self::before(pod);
        let count = if *action == Action::Ignore { &mut failures.ignored } else { &mut failures.counted };
        *count = count.saturating_add(1);
        failures
    }

    pub(super) fn total(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }
}

/// The index of a pod.
pub(super) fn of(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, INDEX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (text, numbers) in [
            ("", vec![]),
            ("3", vec![3]),
            ("0,1", vec![0, 1]),
            ("0-2,5", vec![0, 1, 2, 5]),
            ("1,3-6,8,9", vec![1, 3, 4, 5, 6, 8, 9]),
        ] {
            let set: BTreeSet<i32> = numbers.into_iter().collect();
            assert_eq!(format(&set), text);
            assert_eq!(parse(text, 100), set);
        }
        assert_eq!(parse("0-99999,x,7", 4), BTreeSet::from([0, 1, 2, 3]));
    }
}
