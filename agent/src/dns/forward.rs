//! Questions to other servers: each asked once however many clients wait for it, the answers kept.
//!
//! Must not know: how servers are reached, what the cluster's own names mean.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable as _;
use pagurus_agent_core::dns::body::Body;
use pagurus_agent_core::dns::cache::{Foreign, Hit};
use pagurus_agent_core::dns::query::{ForeignKey, Query, foreign_key};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::DnsMetrics;
use super::upstream::{Asked, Upstreams};

/// Bytes of others' answers that are kept.
const CACHE: usize = 4 << 20;
/// For so many seconds after its time an answer is given if no server answers.
const STALE: u64 = 3600;
/// The time to live of such an answer.
const STALE_TTL: u32 = 30;
/// How long clients wait for a server while there is such an answer.
const PATIENCE: Duration = Duration::from_millis(1800);
/// Different questions to others at once.
const FLIGHTS: usize = 1024;

/// An answer, how many seconds old it is, and for how many seconds it is good at least.
pub(super) type Outcome = (Arc<Body>, u32, u32);

/// Asks other servers. Clones share everything.
#[derive(Clone)]
pub(super) struct Forwarder(Arc<Shared>);

struct Shared {
    upstreams: Upstreams,
    cache: Mutex<Foreign>,
    flights: Mutex<HashMap<Box<[u8]>, watch::Receiver<Landing>>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    metrics: DnsMetrics,
    start: Instant,
}

/// What a question came to: nothing yet, or an answer, or none.
type Landing = Option<Option<Arc<Body>>>;

impl Forwarder {
    pub(super) fn new(upstreams: Upstreams, metrics: DnsMetrics, cancel: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            upstreams,
            cache: Mutex::new(Foreign::new(CACHE, STALE)),
            flights: Mutex::default(),
            tasks: TaskTracker::new(),
            cancel,
            metrics,
            start: Instant::now(),
        }))
    }

    /// An answer that is kept and still good, for a key as [`Query::key`] makes it.
    pub(super) fn known(&self, key: &[u8], query: &Query<'_>) -> Option<(Arc<Body>, u32)> {
        match self.0.cache.lock().get(&wished(key, query), self.now()) {
            Hit::Fresh(body, age) => Some((body, age)),
            Hit::Stale(_) | Hit::Miss => None,
        }
    }

    /// Whether this question is one that we have sent out ourselves, to see whether it comes back.
    pub(super) fn saw(&self, name: &Name) -> bool {
        self.0.upstreams.saw(name)
    }

    /// Finds out whether a server leads back to us; the sign is a question of ours that arrives.
    pub(super) async fn look_for_loops(&self) {
        self.0.upstreams.look_for_loops().await;
    }

    /// Ends what is on its way.
    pub(super) async fn finish(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// For `/debug/state`.
    pub(super) fn explain(&self) -> serde_json::Value {
        let (answers, bytes) = self.0.cache.lock().used();
        serde_json::json!({
            "upstreams": self.0.upstreams.explain(),
            "cached": { "answers": answers, "bytes": bytes },
            "waiting": self.0.flights.lock().len(),
        })
    }

    /// The answer of others about this name, for a query of the type and with the wishes of this one.
    pub(super) async fn ask(&self, name: &Name, query: &Query<'_>) -> Outcome {
        let Ok(mut wire) = name.to_lowercase().to_bytes() else { return failed() };
        wire.extend(&query.question[query.question.len() - 4..query.question.len() - 2]);
        let key = wished(&wire, query);
        let hit = self.0.cache.lock().get(&key, self.now());
        let stale = match hit {
            Hit::Fresh(body, age) => return (body, age, 0),
            Hit::Stale(body) => Some(body),
            Hit::Miss => None,
        };
        let Some(mut landing) = self.fly(&key, wire, query) else {
            return stale.map_or_else(failed, |body| self.stale(body));
        };
        let landed = async {
            landing.wait_for(Option::is_some).await.ok().and_then(|landing| landing.clone().flatten())
        };
        let Some(old) = stale else {
            return landed.await.map_or_else(failed, |body| (body, 0, 0));
        };
        // Where every server has just failed, nobody has to wait for the next failure.
        let patience = if self.0.upstreams.are_failing() { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, landed).await {
            Ok(Some(body)) if matches!(body.code(), ResponseCode::NoError | ResponseCode::NXDomain) => {
                (body, 0, 0)
            }
            _ => self.stale(old),
        }
    }

    fn stale(&self, body: Arc<Body>) -> Outcome {
        self.0.metrics.stale.inc();
        (body, u32::MAX, STALE_TTL)
    }

    /// Joins those who wait for the same answer, or is the first of them. `None` if there are too many questions already.
    fn fly(&self, key: &[u8], wire: Vec<u8>, query: &Query<'_>) -> Option<watch::Receiver<Landing>> {
        let mut flights = self.0.flights.lock();
        if let Some(landing) = flights.get(key) {
            return Some(landing.clone());
        }
        if flights.len() >= FLIGHTS {
            return None;
        }
        let (tell, landing) = watch::channel(None);
        flights.insert(key.into(), landing.clone());
        drop(flights);
        let (this, key): (_, Box<[u8]>) = (self.clone(), key.into());
        let asked = Asked {
            wire,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.flags.checking_disabled,
        };
        self.0.tasks.spawn(async move {
            let answer = tokio::select! {
                answer = this.0.upstreams.exchange(&asked, &this.0.metrics) => answer.map(Arc::new),
                () = this.0.cancel.cancelled() => None,
            };
            this.keep(&key, answer.clone());
            this.0.flights.lock().remove(&key);
            tell.send_replace(Some(answer));
        });
        Some(landing)
    }

    fn keep(&self, key: &[u8], answer: Option<Arc<Body>>) {
        let body = answer.unwrap_or_else(|| Arc::new(Body::plain(ResponseCode::ServFail)));
        let is_good = matches!(body.code(), ResponseCode::NoError | ResponseCode::NXDomain);
        let mut cache = self.0.cache.lock();
        // A failure does not take the place of an answer that was good once.
        if is_good || matches!(cache.get(key, self.now()), Hit::Miss) {
            cache.put(key, body, self.now());
        }
    }

    fn now(&self) -> u64 {
        self.0.start.elapsed().as_secs()
    }
}

fn wished(key: &[u8], query: &Query<'_>) -> ForeignKey {
    foreign_key(key, query.edns.is_some_and(|edns| edns.dnssec_ok), query.flags.checking_disabled)
}

fn failed() -> Outcome {
    (Arc::new(Body::plain(ResponseCode::ServFail)), 0, 0)
}
