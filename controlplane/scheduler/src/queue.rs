//! Pods that wait for a node: ready to be tried, backing off, or unschedulable until something changes. Pure.
//!
//! A pod that fitted nowhere is not tried again before the cluster has changed in a way that could help it, or five
//! minutes have passed; and no pod is tried again before its back-off is over.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pod::PodInfo;

/// After this time an unschedulable pod is tried again, whatever happened.
const TRIED_ANYWAY: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active { ticket: u64 },
    Backoff { until: Instant },
    Unschedulable { since: Instant },
    Gated,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    state: State,
    attempts: u32,
    /// When the back-off after the last failure ends.
    rested: Instant,
}

/// The waiting pods.
#[derive(Debug)]
pub(crate) struct Queue {
    first: Duration,
    longest: Duration,
    entries: HashMap<String, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<(Instant, String)>,
    /// Failures of pods that have left the queue to be bound.
    attempts: HashMap<String, u32>,
    next_ticket: u64,
}

impl Queue {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            attempts: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// A pod that wants a node is new, or has changed.
    pub(crate) fn put(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        let gated = !pod.gates.is_empty();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry = Entry { pod, state: State::Gated, attempts: 0, rested: now };
            self.entries.insert(uid.clone(), entry);
            if !gated {
                self.activate(&uid);
            }
            return;
        };
        let relieved = pod.relieved_since(&entry.pod);
        let resort = pod.priority != entry.pod.priority;
        let state = entry.state;
        if resort {
            self.leave(&uid);
        }
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        entry.pod = pod;
        match state {
            State::Gated if gated => {}
            _ if gated => {
                self.leave(&uid);
                self.enter(&uid, State::Gated);
            }
            State::Gated => self.activate(&uid),
            State::Unschedulable { .. } if relieved => self.wake_one(&uid, now),
            state if resort => self.enter(&uid, state),
            _ => {}
        }
    }

    /// A pod wants no node any more.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.entries.remove(uid);
        self.attempts.remove(uid);
    }

    /// Whether a pod can be tried at once.
    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether the pod waits here.
    #[cfg(test)]
    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// The uids of all waiting pods.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// The next pod to be tried; it leaves the queue.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.advance(now);
        let (_, _, uid) = self.active.pop_first()?;
        let entry = self.entries.remove(&uid)?;
        self.attempts.insert(uid, entry.attempts + 1);
        Some(entry.pod)
    }

    /// A tried pod fits nowhere.
    pub(crate) fn unschedulable(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.come_back(pod, State::Unschedulable { since: now }, now);
    }

    /// A tried pod could not be bound.
    pub(crate) fn retry(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let attempts = self.attempts.get(&pod.uid).copied().unwrap_or(1);
        let until = now + self.rest(attempts);
        self.come_back(pod, State::Backoff { until }, now);
    }

    /// A tried pod has its node.
    pub(crate) fn settled(&mut self, uid: &str) {
        self.attempts.remove(uid);
    }

    fn come_back(&mut self, pod: Arc<PodInfo>, state: State, now: Instant) {
        let uid = pod.uid.clone();
        let attempts = self.attempts.remove(&uid).unwrap_or(1);
        let rested = now + self.rest(attempts);
        self.entries.insert(uid.clone(), Entry { pod, state: State::Gated, attempts, rested });
        self.enter(&uid, state);
    }

    fn rest(&self, attempts: u32) -> Duration {
        self.first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(self.longest)
    }

    /// The cluster has changed: tries those unschedulable pods again that `helped` picks.
    pub(crate) fn wake(&mut self, now: Instant, mut helped: impl FnMut(&PodInfo) -> bool) {
        let picked: Vec<String> = (self.unschedulable.iter())
            .filter(|(_, uid)| self.entries.get(uid).is_some_and(|e| helped(&e.pod)))
            .map(|(_, uid)| uid.clone())
            .collect();
        for uid in picked {
            self.wake_one(&uid, now);
        }
    }

    fn wake_one(&mut self, uid: &str, now: Instant) {
        let Some(rested) = self.entries.get(uid).map(|e| e.rested) else { return };
        self.leave(uid);
        if rested > now {
            self.enter(uid, State::Backoff { until: rested });
        } else {
            self.activate(uid);
        }
    }

    /// When time alone will change something.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let rested = self.backoff.first().map(|(until, _)| *until);
        let anyway = self.unschedulable.first().map(|(since, _)| *since + TRIED_ANYWAY);
        rested.into_iter().chain(anyway).min()
    }

    fn advance(&mut self, now: Instant) {
        while let Some((_, uid)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.leave(&uid);
            self.activate(&uid);
        }
        while let Some((_, uid)) =
            self.unschedulable.first().filter(|(since, _)| *since + TRIED_ANYWAY <= now).cloned()
        {
            self.leave(&uid);
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.enter(uid, State::Active { ticket });
    }

    fn enter(&mut self, uid: &str, state: State) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.state = state;
        let uid = uid.to_owned();
        match state {
            State::Active { ticket } => {
                self.active.insert((Reverse(entry.pod.priority), ticket, uid));
            }
            State::Backoff { until } => {
                self.backoff.insert((until, uid));
            }
            State::Unschedulable { since } => {
                self.unschedulable.insert((since, uid));
            }
            State::Gated => {}
        }
    }

    fn leave(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        let uid = uid.to_owned();
        match entry.state {
            State::Active { ticket } => {
                self.active.remove(&(Reverse(entry.pod.priority), ticket, uid));
            }
            State::Backoff { until } => {
                self.backoff.remove(&(until, uid));
            }
            State::Unschedulable { since } => {
                self.unschedulable.remove(&(since, uid));
            }
            State::Gated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|g| json!({"name": g})).collect();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"containers": [], "priority": priority, "schedulingGates": gates},
        }));
        Arc::new(PodInfo::new(&pod.unwrap()))
    }

    fn queue() -> (Queue, Instant) {
        (Queue::new(Duration::from_secs(1), Duration::from_secs(10)), Instant::now())
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|p| p.uid.clone()).collect()
    }

    #[test]
    fn priority_then_arrival() {
        let (mut queue, now) = queue();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.put(pod(name, priority, &[]), now);
        }
        queue.put(pod("c", 9, &[]), now);
        queue.remove("a");
        assert_eq!(names(&mut queue, now), ["c", "b", "d"]);
    }

    #[test]
    fn unschedulable_waits_for_help() {
        let (mut queue, now) = queue();
        let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
        queue.put(pod("a", 0, &[]), now);
        let a = queue.pop(now).unwrap();
        queue.unschedulable(a, now);
        assert!(queue.pop(at(60.0)).is_none());
        queue.wake(at(0.5), |_| false);
        queue.wake(at(0.5), |_| true);
        assert!(queue.pop(at(0.9)).is_none(), "the back-off is not over");
        assert_eq!(queue.next_due(), Some(at(1.0)));
        let a = queue.pop(at(1.0)).unwrap();
        queue.unschedulable(a, at(1.0));
        queue.wake(at(5.0), |_| true);
        assert!(queue.pop(at(5.0)).is_some());
    }

    #[test]
    fn tried_anyway_after_five_minutes() {
        let (mut queue, now) = queue();
        queue.put(pod("a", 0, &[]), now);
        let a = queue.pop(now).unwrap();
        queue.unschedulable(a, now);
        assert!(queue.pop(now + Duration::from_secs(299)).is_none());
        assert!(queue.pop(now + Duration::from_secs(300)).is_some());
    }

    #[test]
    fn backoff_doubles_up_to_the_longest() {
        let (mut queue, mut now) = queue();
        queue.put(pod("a", 0, &[]), now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let a = queue.pop(now).unwrap();
            queue.retry(a, now);
            let due = queue.next_due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn gates_hold_back() {
        let (mut queue, now) = queue();
        queue.put(pod("a", 0, &["x"]), now);
        assert!(queue.pop(now).is_none());
        queue.put(pod("a", 0, &[]), now);
        assert_eq!(names(&mut queue, now), ["a"]);
        assert!(!queue.contains("a"));
    }
}
