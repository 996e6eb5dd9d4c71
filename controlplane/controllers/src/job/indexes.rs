//! Completion indexes: sets of numbers written as `0-2,5`. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

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
