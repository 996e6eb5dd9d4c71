//! Answers that are kept: those of the cluster's own names until the index changes, those of other servers by their times
//! to live. Both are bounded.
//!
//! Must not know: who asks, what time it is; the caller says.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::Topic;
use super::body::Body;
use super::index::Generations;

/// The longest that others' answers are believed.
const MOST: u32 = 3600;
/// The same for answers that there is nothing.
const MOST_NEGATIVE: u32 = 300;
/// How long others' failures are remembered, so that they are not asked at once again.
const FAILURE: u32 = 2;

/// Answers of the cluster's own names.
#[derive(Debug)]
pub struct Own {
    answers: HashMap<Box<[u8]>, (Topic, u64, Body)>,
    generations: Generations,
    most: usize,
}

impl Own {
    /// An empty one for at most so many.
    pub fn new(generations: Generations, most: usize) -> Self {
        Self { answers: HashMap::new(), generations, most }
    }

    /// The answer, if it is known and still right.
    pub fn get(&self, key: &[u8]) -> Option<&Body> {
        let (topic, generation, body) = self.answers.get(key)?;
        (self.generations.of(*topic) == *generation).then_some(body)
    }

    /// Keeps an answer. `generation` is what it was before the answer was made.
    pub fn put(&mut self, key: &[u8], topic: Topic, generation: u64, body: Body) {
        if self.answers.len() >= self.most && !self.answers.contains_key(key) {
            let generations = &self.generations;
            self.answers.retain(|_, (topic, generation, _)| generations.of(*topic) == *generation);
            if self.answers.len() >= self.most {
                self.answers.clear();
            }
        }
        self.answers.insert(key.into(), (topic, generation, body));
    }
}

/// Answers of other servers.
#[derive(Debug)]
pub struct Foreign {
    answers: HashMap<Arc<[u8]>, Kept>,
    /// In the order in which they came.
    order: VecDeque<(Arc<[u8]>, u64)>,
    /// Bytes held and the most of them.
    size: usize,
    most: usize,
    /// For so many seconds after its time an answer is good enough if there is no other.
    stale: u64,
    number: u64,
}

#[derive(Debug)]
struct Kept {
    body: Arc<Body>,
    since: u64,
    ttl: u32,
    number: u64,
}

/// What is known of a question to others.
#[derive(Clone, Debug, PartialEq)]
pub enum Hit {
    /// An answer that is so many seconds old.
    Fresh(Arc<Body>, u32),
    /// An answer whose time is over.
    Stale(Arc<Body>),
    /// Nothing.
    Miss,
}

impl Foreign {
    /// An empty one of at most so many bytes, which keeps answers for so many seconds after their time.
    pub fn new(most: usize, stale: u64) -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), size: 0, most, stale, number: 0 }
    }

    /// What is known; `now` is in seconds.
    pub fn get(&self, key: &[u8], now: u64) -> Hit {
        let Some(kept) = self.answers.get(key) else { return Hit::Miss };
        let age = now.saturating_sub(kept.since);
        if age < u64::from(kept.ttl) {
            return Hit::Fresh(kept.body.clone(), u32::try_from(age).unwrap_or(u32::MAX));
        }
        let is_failure = !matches!(kept.body.code(), ResponseCode::NoError | ResponseCode::NXDomain);
        if is_failure || age >= u64::from(kept.ttl) + self.stale {
            return Hit::Miss;
        }
        Hit::Stale(kept.body.clone())
    }

    /// Keeps an answer for as long as it may be believed.
    pub fn put(&mut self, key: &[u8], body: Arc<Body>, now: u64) {
        let ttl = lifetime(&body);
        if ttl == 0 {
            return;
        }
        self.number += 1;
        let key: Arc<[u8]> = key.into();
        self.size += cost(&key, &body);
        let kept = Kept { body, since: now, ttl, number: self.number };
        if let Some(old) = self.answers.insert(key.clone(), kept) {
            self.size -= cost(&key, &old.body);
        }
        self.order.push_back((key, self.number));
        while self.size > self.most {
            let Some((key, number)) = self.order.pop_front() else { break };
            if self.answers.get(&key).is_some_and(|kept| kept.number == number)
                && let Some(kept) = self.answers.remove(&key)
            {
                self.size -= cost(&key, &kept.body);
            }
        }
        // Answers that came again have left their old places behind.
        if self.order.len() > 2 * self.answers.len() + 64 {
            let answers = &self.answers;
            self.order.retain(|(key, number)| answers.get(key).is_some_and(|kept| kept.number == *number));
        }
    }

    /// How many answers are kept, and their bytes.
    pub fn used(&self) -> (usize, usize) {
        (self.answers.len(), self.size)
    }
}

fn cost(key: &[u8], body: &Body) -> usize {
    // The name once, two places of it, the tables' share.
    key.len() + body.size() + 96
}

/// For how long an answer may be believed.
fn lifetime(body: &Body) -> u32 {
    if body.is_truncated() {
        return 0;
    }
    match (body.code(), body.has_answers()) {
        (ResponseCode::NoError, true) => body.ttl().unwrap_or(0).min(MOST),
        (ResponseCode::NoError | ResponseCode::NXDomain, _) => body.negative_ttl().min(MOST_NEGATIVE),
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests;
