//! Drives a queue: takes keys, runs the reconciler on up to so many at once, and decides about the next try.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::outcome;
use super::queue::Queue;

/// What a pass over one key came to: `Some` asks for another pass after that time.
pub type Outcome = anyhow::Result<Option<Duration>>;

/// Runs `reconcile` for the keys of `queue` until cancelled, at most `width` at a time, then lets those at work end.
pub async fn drive<T, F, Fut>(
    name: &'static str,
    queue: Arc<Queue<T>>,
    width: usize,
    cancel: CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Display + Debug + Send,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Outcome> + Send,
{
    let mut at_work = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            key = queue.next(), if at_work.len() < width => {
                let pass = AssertUnwindSafe(reconcile(key.clone())).catch_unwind();
                at_work.push(Box::pin(async move { (key, pass.await) }));
            }
            Some((key, result)) = at_work.next() => settle(name, &queue, key, result),
        }
    }
    while at_work.next().await.is_some() {}
}

fn settle<T>(name: &str, queue: &Queue<T>, key: T, result: std::thread::Result<Outcome>)
where
    T: Clone + Eq + Hash + Display,
{
    match result {
        Ok(Ok(again)) => {
            queue.forget(&key);
            if let Some(wait) = again {
                queue.add_after(key.clone(), wait);
            }
        }
        Ok(Err(error)) => {
            let api = error.downcast_ref::<kube::Error>();
            let race = api.is_some_and(outcome::conflict);
            let error = api.map_or_else(|| format!("{error:#}"), outcome::message);
            let failures = queue.retry(key.clone());
            if race || failures < 3 {
                tracing::debug!(controller = name, %key, failures, "pass failed: {error}");
            } else {
                tracing::warn!(controller = name, %key, failures, "pass failed: {error}");
            }
        }
        Err(panic) => {
            let text = (panic.downcast_ref::<String>().map(String::as_str))
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            tracing::error!(controller = name, %key, "pass panicked: {text}");
            queue.retry(key.clone());
        }
    }
    queue.done(&key);
}
