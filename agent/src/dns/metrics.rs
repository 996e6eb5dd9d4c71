//! Figures of DNS.
//!
//! Must not know: how questions are answered.

use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::process::metrics::Metrics;

/// Types that are counted apart, with their numbers; all others are `other`.
const KINDS: [(u16, &str); 9] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (5, "CNAME"),
    (6, "SOA"),
    (16, "TXT"),
    (65, "HTTPS"),
    (255, "ANY"),
];
/// Codes that are counted apart.
const CODES: [(u16, &str); 6] =
    [(0, "NOERROR"), (1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (4, "NOTIMP"), (5, "REFUSED")];
const OTHER: &str = "other";

/// Seconds: a thread's answer takes microseconds, another server's milliseconds.
const BUCKETS: [f64; 14] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 2.5, 5.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    r#type: &'static str,
    code: &'static str,
}

/// What is counted.
#[derive(Clone, Debug)]
pub(super) struct DnsMetrics {
    /// By type and code; looked up once, because it is counted for every question.
    queries: Vec<Counter>,
    /// Questions to others answered from memory.
    pub(super) cache_hits: Counter,
    /// Those answered though their time was over.
    pub(super) stale: Counter,
    /// Questions sent to other servers.
    pub(super) forwarded: Counter,
    /// Those that were not answered, or badly.
    pub(super) upstream_errors: Counter,
    /// Messages that were no questions and had no answer.
    pub(super) dropped: Counter,
    /// From the arrival of a question until its answer is sent.
    pub(super) latency: Histogram,
}

impl DnsMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let family = Family::<Labels, Counter>::default();
        let kinds = KINDS.iter().map(|(_, kind)| *kind).chain([OTHER]);
        let counters = kinds.flat_map(|kind| {
            let codes = CODES.iter().map(|(_, code)| *code).chain([OTHER]);
            codes.map(|code| family.get_or_create_owned(&Labels { r#type: kind, code })).collect::<Vec<_>>()
        });
        let this = Self {
            queries: counters.collect(),
            cache_hits: Counter::default(),
            stale: Counter::default(),
            forwarded: Counter::default(),
            upstream_errors: Counter::default(),
            dropped: Counter::default(),
            latency: Histogram::new(BUCKETS),
        };
        metrics.register("dns", |registry| {
            registry.register("queries", "Questions answered, by type and code", family);
            registry.register(
                "cache_hits",
                "Questions to other servers answered from memory",
                this.cache_hits.clone(),
            );
            registry.register(
                "stale_answers",
                "Answers given after their time, because no server answered",
                this.stale.clone(),
            );
            registry.register("forwarded", "Questions sent to other servers", this.forwarded.clone());
            registry.register(
                "upstream_errors",
                "Questions that a server did not answer, or not well",
                this.upstream_errors.clone(),
            );
            registry.register("dropped", "Messages that no answer was possible to", this.dropped.clone());
            registry.register(
                "answer_duration_seconds",
                "From the arrival of a question until its answer",
                this.latency.clone(),
            );
        });
        this
    }

    /// Counts an answer.
    pub(super) fn count(&self, kind: u16, code: ResponseCode) {
        let kind = KINDS.iter().position(|(number, _)| *number == kind).unwrap_or(KINDS.len());
        let number = u16::from(code);
        let code = CODES.iter().position(|(other, _)| *other == number).unwrap_or(CODES.len());
        if let Some(counter) = self.queries.get(kind * (CODES.len() + 1) + code) {
            counter.inc();
        }
    }
}
