//! One of many: a Lease that one holder renews, and that others take over when it is no longer renewed.
//!
//! Clocks of other machines are not trusted: a lease is over when it has not changed for as long as it is good for, by our own
//! clock. Must not know: what the holder does.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

/// How long a lease is good for without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews it.
const RENEW: Duration = Duration::from_secs(5);
/// How often others look.
const RETRY: Duration = Duration::from_secs(2);
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(4);

/// Our part in the election.
pub(super) struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The lease as last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
    /// Until when we hold it.
    held_until: Option<Instant>,
    next: Instant,
    failures: u32,
}

/// What is to be done with a lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// Another holds it.
    Leave,
    /// Write this.
    Write(Box<Lease>),
}

impl Election {
    pub(super) fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        let (name, identity) = (name.to_owned(), identity.to_owned());
        Self { api, name, identity, seen: None, held_until: None, next: Instant::now(), failures: 0 }
    }

    /// Whether we hold the lease.
    pub(super) fn is_won(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Renews the lease, or takes it if it is to be had; to be called again after the time it returns.
    pub(super) async fn attend(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.next {
            let outcome = tokio::time::timeout(PATIENCE, self.attempt(now)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            match outcome {
                Ok(won) => {
                    self.failures = 0;
                    // What was written counts from before it was sent.
                    self.held_until = won.then_some(now + DURATION);
                }
                Err(error) => {
                    if self.failures == 0 {
                        tracing::warn!(lease = self.name, error, "the lease is neither renewed nor taken");
                    }
                    self.failures += 1;
                }
            }
            self.next = now + if self.is_won() { RENEW } else { RETRY };
        }
        self.next.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
    }

    /// Gives the lease back, so that another can take it at once.
    pub(super) async fn resign(&mut self) {
        if !self.is_won() {
            return;
        }
        self.held_until = None;
        let give = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut()
                && spec.holder_identity.as_ref() == Some(&self.identity)
            {
                spec.holder_identity = None;
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(PATIENCE, give).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease is not given back; it will run out"),
            Err(_) => tracing::debug!("the lease is not given back in time; it will run out"),
        }
    }

    /// Whether we hold the lease after this.
    async fn attempt(&mut self, now: Instant) -> Result<bool, String> {
        let lease = self.api.get_opt(&self.name).await.map_err(|error| format!("get lease: {error}"))?;
        let known = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != known) {
            self.seen = Some((known, now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, at)| *at);
        let is_new = lease.is_none();
        let step = decide(&self.name, &self.identity, lease, now.duration_since(since), Timestamp::now());
        let Step::Write(lease) = step else { return Ok(false) };
        let written = if is_new {
            self.api.create(&PostParams::default(), &lease).await
        } else {
            self.api.replace(&self.name, &PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(true),
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(format!("write lease: {error}")),
        }
    }
}

/// What to do with a lease that has not changed for `unchanged`.
fn decide(name: &str, identity: &str, lease: Option<Lease>, unchanged: Duration, now: Timestamp) -> Step {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let mut lease = lease.unwrap_or(Lease { metadata, spec: None });
    let spec = lease.spec.get_or_insert_default();
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
    let good_for = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let good_for = good_for.map_or(DURATION, Duration::from_secs);
    let is_ours = holder.as_deref() == Some(identity);
    if holder.is_some() && !is_ours && unchanged < good_for {
        return Step::Leave;
    }
    if !is_ours {
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    Step::Write(Box::new(lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Lease { metadata: ObjectMeta::default(), spec: Some(spec) }
    }

    #[test]
    fn who_takes_a_lease() {
        let check = |lease: Option<Lease>, unchanged: u64, transitions: Option<i32>| {
            let now = Timestamp::from_second(1_700_000_000).expect("in range");
            let step = decide("name", "me", lease, Duration::from_secs(unchanged), now);
            let Step::Write(lease) = step else { return assert_eq!(transitions, None) };
            let spec = lease.spec.expect("a spec");
            assert_eq!(spec.holder_identity.as_deref(), Some("me"));
            assert_eq!(spec.renew_time, Some(MicroTime(now)));
            assert_eq!(spec.lease_transitions, transitions);
        };
        check(None, 0, Some(1));
        check(Some(lease(None)), 0, Some(4));
        check(Some(lease(Some(""))), 0, Some(4));
        check(Some(lease(Some("me"))), 0, Some(3));
        check(Some(lease(Some("other"))), 14, None);
        check(Some(lease(Some("other"))), 15, Some(4));
    }
}
