//! Which pods of a Job that goes on are made, and which are too many. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::pods::New;
use super::tracking::{Counts, indexed, limit_per_index, waits_for_failure};
use super::{backoff, indexes};
use crate::runtime::object::{deleting, finished};
use crate::runtime::pods::{BURST, per_node};
use crate::runtime::rank::deletion_order;

/// What a Job has.
pub(super) struct Work<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: &'a [Arc<Pod>],
    /// Those neither finished nor being deleted.
    pub(super) running: &'a [Arc<Pod>],
    pub(super) counts: &'a Counts,
    pub(super) now: Timestamp,
}

/// What to change.
#[derive(Debug, Default)]
pub(super) struct Scale {
    pub(super) retire: Vec<Arc<Pod>>,
    pub(super) create: Vec<New>,
    /// When pods that must wait may be made.
    pub(super) again: Option<Duration>,
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Work<'_> {
    pub(super) fn completions(&self) -> Option<i32> {
        self.job.spec.as_ref().and_then(|s| s.completions)
    }

    /// Whether enough pods have succeeded and nothing runs any more.
    pub(super) fn done(&self) -> bool {
        let enough = match self.completions() {
            Some(completions) => self.counts.succeeded >= completions,
            // Without a number the first success says that the work is done; the others finish theirs.
            None => self.counts.succeeded > 0,
        };
        enough && self.running.is_empty()
    }

    /// How many pods should run.
    fn wanted(&self) -> i32 {
        let parallelism = self.job.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1);
        match self.completions() {
            Some(completions) => {
                let rest = completions - self.counts.succeeded - count(self.counts.given_up.len());
                parallelism.min(rest).max(0)
            }
            None if self.counts.succeeded > 0 => parallelism.min(count(self.running.len())),
            None => parallelism,
        }
    }

    pub(super) fn scale(&self) -> Scale {
        let (mut retire, kept) = self.superfluous();
        let (wanted, held) = (self.wanted(), count(kept.len()));
        if held > wanted {
            let surplus = usize::try_from(held - wanted).unwrap_or(0);
            let crowd = per_node(kept.iter().map(|p| &**p));
            let mut order = kept;
            order.sort_by_cached_key(|p| deletion_order(p, &crowd, self.now));
            retire.extend(order.into_iter().take(surplus));
            return Scale { retire, ..Scale::default() };
        }
        let ending: Vec<&Arc<Pod>> = match waits_for_failure(self.job) {
            true => self.pods.iter().filter(|p| deleting(&p.metadata) && !finished(p)).collect(),
            false => Vec::new(),
        };
        let missing = usize::try_from(wanted - held - count(ending.len())).unwrap_or(0).min(BURST);
        let wait = match limit_per_index(self.job) {
            None if missing > 0 => backoff::left(self.job, self.pods, self.now),
            _ => None,
        };
        if missing == 0 || wait.is_some() {
            return Scale { retire, again: wait, ..Scale::default() };
        }
        let Some(completions) = indexed(self.job) else {
            return Scale { retire, create: vec![New::default(); missing], again: None };
        };
        let taken = kept.iter().chain(ending).filter_map(|p| indexes::of(p)).collect();
        let (create, again) = self.free_indexes(completions, &taken, missing);
        Scale { retire, create, again }
    }

    /// The lowest indexes that need a pod and need not wait; and when the next of those that wait is due.
    fn free_indexes(
        &self,
        completions: i32,
        taken: &BTreeSet<i32>,
        missing: usize,
    ) -> (Vec<New>, Option<Duration>) {
        let limited = limit_per_index(self.job).is_some();
        let (mut create, mut again) = (Vec::new(), None);
        let Counts { completed, given_up, last_failed, .. } = self.counts;
        for index in 0..completions {
            if create.len() == missing {
                break;
            }
            if [taken, completed, given_up].iter().any(|set| set.contains(&index)) {
                continue;
            }
            let last = last_failed.get(&index);
            let wait = last.and_then(|(pod, failures)| backoff::left_for_index(pod, *failures, self.now));
            if let Some(wait) = wait {
                again = again.into_iter().chain([wait]).min();
                continue;
            }
            let failures = last.map(|(_, failures)| *failures).unwrap_or_default();
            create.push(New { index: Some(index), failures: limited.then_some(failures) });
        }
        (create, again)
    }

    /// Active pods that serve no index, or one that is done or already served; and the others.
    fn superfluous(&self) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let Some(completions) = indexed(self.job) else { return (Vec::new(), self.running.to_vec()) };
        let mut served = BTreeSet::new();
        self.running.iter().cloned().partition(|pod| {
            let index = indexes::of(pod).filter(|i| (0..completions).contains(i));
            index.is_none_or(|i| {
                self.counts.completed.contains(&i) || self.counts.given_up.contains(&i) || !served.insert(i)
            })
        })
    }
}
