//! Work queues: each key at most once in line and never twice at work, with delays and exponential back-off.
//!
//! The number of keys bounds the queue. Must not know what the keys stand for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first wait after a failure.
const BASE: Duration = Duration::from_millis(5);
/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(120);

struct Inner<T> {
    line: VecDeque<T>,
    /// In line, or to be put there when its present work ends.
    dirty: HashSet<T>,
    at_work: HashSet<T>,
    /// Delayed keys by due time; only the entry that `due` names counts.
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    due: HashMap<T, (Instant, u64)>,
    tickets: HashMap<u64, T>,
    next_ticket: u64,
    failures: HashMap<T, u32>,
}

/// A work queue of keys.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    wake: Notify,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                line: VecDeque::new(),
                dirty: HashSet::new(),
                at_work: HashSet::new(),
                delayed: BinaryHeap::new(),
                due: HashMap::new(),
                tickets: HashMap::new(),
                next_ticket: 0,
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Inner<T> {
    /// True if a key has come in line.
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.at_work.contains(&key) {
            return false;
        }
        self.line.push_back(key);
        true
    }

    fn delay(&mut self, key: T, until: Instant) {
        if self.due.get(&key).is_some_and(|(due, _)| *due <= until) {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some((_, old)) = self.due.insert(key.clone(), (until, ticket)) {
            self.tickets.remove(&old);
        }
        self.tickets.insert(ticket, key);
        self.delayed.push(Reverse((until, ticket)));
    }

    /// Puts what is due in line and says when to look again.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((due, ticket))) = self.delayed.peek().copied() {
            if !self.tickets.contains_key(&ticket) {
                self.delayed.pop();
                continue;
            }
            if due > now {
                return Some(due);
            }
            self.delayed.pop();
            if let Some(key) = self.tickets.remove(&ticket) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// Puts a key in line, unless it is there.
    pub fn add(&self, key: T) {
        if self.inner.lock().add(key) {
            self.wake.notify_one();
        }
    }

    /// Puts a key in line after a time; an earlier time already set wins.
    pub fn add_after(&self, key: T, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        self.inner.lock().delay(key, Instant::now() + wait);
        self.wake.notify_one();
    }

    /// Puts a key in line after its back-off, which doubles at each failure; returns the number of failures.
    pub fn retry(&self, key: T) -> u32 {
        let mut inner = self.inner.lock();
        let failures = inner.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let count = *failures;
        let wait = BASE.saturating_mul(1 << (count - 1).min(20)).min(LONGEST);
        inner.delay(key, Instant::now() + wait);
        drop(inner);
        self.wake.notify_one();
        count
    }

    /// Ends a key's back-off.
    pub fn forget(&self, key: &T) {
        self.inner.lock().failures.remove(key);
    }

    /// The next key; it counts as at work until `done`.
    pub async fn next(&self) -> T {
        loop {
            let woken = self.wake.notified();
            let due = {
                let mut inner = self.inner.lock();
                let due = inner.advance(Instant::now());
                if let Some(key) = inner.line.pop_front() {
                    inner.dirty.remove(&key);
                    inner.at_work.insert(key.clone());
                    return key;
                }
                due
            };
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// The work on a key has ended; if it was added meanwhile it comes in line again.
    pub fn done(&self, key: &T) {
        let mut inner = self.inner.lock();
        inner.at_work.remove(key);
        if inner.dirty.contains(key) {
            inner.line.push_back(key.clone());
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// How many keys are in line.
    pub fn len(&self) -> usize {
        self.inner.lock().line.len()
    }

    /// Whether no key is in line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_works_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty(), "a is at work and must not be handed out");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(30));
        queue.add_after("late", Duration::from_secs(10));
        queue.add_after("late", Duration::from_secs(20));
        queue.add_after("soon", Duration::from_secs(1));
        assert_eq!(queue.next().await, "soon");
        assert_eq!(queue.next().await, "late");
        assert_eq!((Instant::now() - start).as_secs(), 10);
        queue.done(&"late");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_wait() {
        let queue = Queue::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            queue.retry("a");
            let start = Instant::now();
            queue.next().await;
            queue.done(&"a");
            waits.push((Instant::now() - start).as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"a");
        assert_eq!(queue.retry("a"), 1);
    }
}
