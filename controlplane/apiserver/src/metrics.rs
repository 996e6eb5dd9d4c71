//! What the server counts, under upstream's names where they exist: `/metrics`.

mod labelled;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Response, StatusCode};
use pagurus_controlplane_schema::table::Resource;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::{Engine, Registry as Kinds};
use crate::reply;
use crate::request::{Body, Query, RequestInfo, Verb};
use labelled::Labelled;

const SECONDS: [f64; 19] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 15.0, 30.0, 60.0];

/// A request as the metrics tell it apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    verb: &'static str,
    group: Arc<str>,
    version: Arc<str>,
    resource: Arc<str>,
    subresource: Arc<str>,
    scope: &'static str,
    component: &'static str,
    dry_run: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LongRunningLabels {
    verb: &'static str,
    group: Arc<str>,
    version: Arc<str>,
    resource: Arc<str>,
}

/// The counters of requests, and the registry everything is in.
pub struct Metrics {
    engine: Weak<Engine>,
    registry: Registry,
    requests: Labelled<CountLabels, Counter>,
    durations: Labelled<RequestLabels, Histogram>,
    inflight: Family<InflightLabels, Gauge>,
    long_running: Labelled<LongRunningLabels, Gauge>,
    /// What was served when labels were last let go of.
    known: AtomicU64,
    read_only: AtomicI64,
    mutating: AtomicI64,
}

impl Metrics {
    /// Metrics of a server on that engine.
    pub fn new(engine: &Arc<Engine>) -> Self {
        let mut registry = Registry::default();
        let requests = Labelled::new(Counter::default);
        let durations = Labelled::new(|| Histogram::new(SECONDS));
        let inflight = Family::default();
        let long_running = Labelled::new(Gauge::default);
        registry.register(
            "apiserver_request",
            "Requests by verb, resource, scope and answer code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer, long-running requests excluded",
            durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being answered now, long-running ones excluded",
            inflight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches, logs, execs and proxied connections that are open now",
            long_running.clone(),
        );
        registry.register_collector(Box::new(StoredObjects { engine: Arc::downgrade(engine) }));
        registry.register_collector(Box::new(Process));
        Self {
            engine: Arc::downgrade(engine),
            registry,
            requests,
            durations,
            inflight,
            long_running,
            known: AtomicU64::new(0),
            read_only: AtomicI64::new(0),
            mutating: AtomicI64::new(0),
        }
    }

    /// Counts a request until the guard is dropped.
    pub fn begin(self: &Arc<Self>, info: &RequestInfo, long_running: bool) -> Running {
        let running = Running {
            metrics: self.clone(),
            info: self.labels(info),
            long_running,
            read_only: info.verb.is_read_only(),
        };
        running.add(1);
        running
    }

    /// Counts the answer to a request.
    pub fn answered(&self, running: &Running, query: &Query, code: StatusCode, taken: Option<Duration>) {
        let dry_run = if query.get("dryRun") == Some("All") { "All" } else { "" };
        let request = RequestLabels { dry_run, ..running.info.clone() };
        if let Some(taken) = taken {
            self.durations.with(&request, |times| times.observe(taken.as_secs_f64()));
        }
        self.requests.with(&CountLabels { request, code: code.as_u16().into() }, |count| {
            count.inc();
        });
    }

    /// Answers `/metrics`.
    pub fn serve(&self) -> Response<Body> {
        let kinds = [("readOnly", &self.read_only), ("mutating", &self.mutating)];
        for (request_kind, count) in kinds {
            self.inflight.get_or_create(&InflightLabels { request_kind }).set(count.load(Ordering::Relaxed));
        }
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => {
                reply::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposition(&out))
            }
            Err(fmt::Error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics\n"),
        }
    }
}

impl Metrics {
    /// Lets go of what is told of resources that are not served any more: definitions may come and go for ever.
    fn tidy(&self, kinds: &Kinds) {
        if self.known.swap(kinds.generation(), Ordering::Relaxed) == kinds.generation() {
            return;
        }
        let served = |group: &str, version: &str, resource: &str| {
            resource.is_empty() || kinds.resource(group, version, resource).is_some()
        };
        let asked = |of: &RequestLabels| served(&of.group, &of.version, &of.resource);
        self.requests.retain(|labels, _| asked(&labels.request));
        self.durations.retain(|labels, _| asked(labels));
        // What still runs counts itself off at its end.
        self.long_running
            .retain(|of, count| count.get() != 0 || served(&of.group, &of.version, &of.resource));
    }

    /// Only what the server serves has labels of its own, or strangers could make as many as they like.
    fn labels(&self, info: &RequestInfo) -> RequestLabels {
        let registry = self.engine.upgrade().filter(|_| info.is_resource).map(|engine| engine.registry());
        if let Some(registry) = &registry {
            self.tidy(registry);
        }
        let served = registry.as_ref().and_then(|r| r.resource(&info.group, &info.version, &info.resource));
        let resource = served.map(|served| &served.resource);
        let subresource = info.subresource.as_deref().and_then(|wanted| resource?.subresource(wanted));
        let scope = match (resource, &info.name, &info.namespace) {
            (None, _, _) => "",
            (_, Some(_), _) => "resource",
            (_, None, Some(_)) => "namespace",
            _ => "cluster",
        };
        let of_resource =
            |part: fn(&Resource) -> &Arc<str>| resource.map(|r| part(r).clone()).unwrap_or_default();
        RequestLabels {
            verb: method_name(info.verb),
            group: of_resource(|r| &r.group),
            version: of_resource(|r| &r.version),
            resource: of_resource(|r| &r.plural),
            subresource: subresource.map(|s| s.name.clone()).unwrap_or_default(),
            scope,
            component: "apiserver",
            dry_run: "",
        }
    }
}

/// OpenMetrics text in the older format that upstream answers with: there a counter's description bears the name of its
/// samples, and nothing marks the end.
fn exposition(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(text)) => help = Some((name, text)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                    out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
                }
                out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Running {
    metrics: Arc<Metrics>,
    info: RequestLabels,
    long_running: bool,
    read_only: bool,
}

impl Running {
    fn add(&self, step: i64) {
        if self.long_running {
            let RequestLabels { verb, group, version, resource, .. } = self.info.clone();
            let labels = LongRunningLabels { verb, group, version, resource };
            self.metrics.long_running.with(&labels, |count| {
                count.inc_by(step);
            });
        } else if self.read_only {
            self.metrics.read_only.fetch_add(step, Ordering::Relaxed);
        } else {
            self.metrics.mutating.fetch_add(step, Ordering::Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.add(-1);
    }
}

fn method_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create | Verb::Post => "POST",
        Verb::Update | Verb::Put => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Proxy => "PROXY",
        Verb::Head => "HEAD",
        Verb::Options => "OPTIONS",
        Verb::Other => "other",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    group: Arc<str>,
    resource: Arc<str>,
}

/// How many objects there are, counted when asked.
#[derive(Debug)]
struct StoredObjects {
    engine: Weak<Engine>,
}

impl Collector for StoredObjects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        let counts: Family<ResourceLabels, Gauge> = Family::default();
        for kind in engine.registry().kinds() {
            let labels =
                ResourceLabels { group: kind.resource.group.clone(), resource: kind.resource.plural.clone() };
            let count = kind.cache.snapshot().objects.len();
            counts.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let help = "Number of stored objects";
        let metric =
            encoder.encode_descriptor("apiserver_resource_objects", help, None, counts.metric_type())?;
        counts.encode(metric)
    }
}

/// The process as the kernel sees it.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(usage) = ProcessUsage::read() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(metric)?;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory size in bytes", usage.resident),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes", usage.virtual_size),
            ("process_open_fds", "Number of open file descriptors", usage.open_fds),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let start = ConstGauge::new(usage.start_seconds);
        let help = "Start time of the process since unix epoch in seconds";
        start.encode(encoder.encode_descriptor(
            "process_start_time_seconds",
            help,
            None,
            start.metric_type(),
        )?)
    }
}

struct ProcessUsage {
    cpu_seconds: f64,
    start_seconds: f64,
    resident: i64,
    virtual_size: i64,
    open_fds: i64,
}

/// The kernel's clock tick and page, which are fixed on every platform this runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE: i64 = 4096;

impl ProcessUsage {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the command in parentheses, which may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok())?;
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            start_seconds: boot + ticks(19)? / TICKS_PER_SECOND,
            virtual_size: fields.get(20)?.parse().ok()?,
            resident: fields.get(21)?.parse::<i64>().ok()? * PAGE,
            open_fds: i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_bear_the_names_of_their_samples() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("asked", "How often", counter);
        registry.register("open", "How many", Gauge::<i64>::default());
        let mut open = String::new();
        text::encode(&mut open, &registry).expect("memory");
        let want = "# HELP asked_total How often.\n# TYPE asked_total counter\nasked_total 1\n\
                    # HELP open How many.\n# TYPE open gauge\nopen 0\n";
        assert_eq!(exposition(&open), want);
    }
}
