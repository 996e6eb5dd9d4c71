//! What load balancers in front of the cluster ask: whether this node has endpoints of a Service (`healthCheckNodePort`), and
//! whether it serves Services at all (`/healthz` and `/livez`, as kube-proxy answers them). An agent that starts answers as the one
//! before did ([`remembered`]) until it knows better: the programs of that one are at work.
//!
//! Must not know: where the figures come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use pagurus_agent_core::services::ServiceName;
use pagurus_agent_datapath::attach;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::NodeContext;
use crate::process::http::{bind, serve};
use crate::report::events::about_node;

mod remembered;

pub use remembered::FILE;
use remembered::Remembered;

/// A port that is taken is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);
/// What load balancers may read the number of endpoints from.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// A Service's health check on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The Service.
    pub service: ServiceName,
    /// Its uid, for events.
    pub uid: Arc<str>,
    /// Its ready endpoints on this node.
    pub endpoints: usize,
}

/// Checks by port.
pub type Checks = BTreeMap<u16, Check>;

/// What is to be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    checks: Checks,
    /// The addresses at which NodePorts are reached; none: all there are.
    addresses: Option<BTreeSet<IpAddr>>,
}

impl Wanted {
    /// Where to listen, and for which check.
    fn places(&self) -> BTreeMap<Place, &Check> {
        let mut places = BTreeMap::new();
        for (port, check) in &self.checks {
            match &self.addresses {
                None => drop(places.insert(Place { port: *port, ip: None }, check)),
                Some(ips) => {
                    places.extend(ips.iter().map(|ip| (Place { port: *port, ip: Some(*ip) }, check)));
                }
            }
        }
        places
    }
}

/// Where to listen; without an address at all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    port: u16,
    ip: Option<IpAddr>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{} at {ip}", self.port),
            None => self.port.fmt(f),
        }
    }
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Health {
    wanted: watch::Sender<Arc<Wanted>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    updated: Timestamp,
    /// The Service maps are as they should be.
    written: bool,
    /// The programs that read them are in place.
    attached: bool,
    /// Nobody is about to take the node away.
    eligible: bool,
    /// The maps and programs of an agent before serve.
    inherited: bool,
}

impl State {
    /// Whether Services are served.
    fn serving(&self) -> bool {
        self.inherited || (self.written && self.attached)
    }
}

impl Default for Health {
    fn default() -> Self {
        let (updated, eligible) = (Timestamp::now(), true);
        let state = State { updated, written: false, attached: false, eligible, inherited: false };
        Self { wanted: watch::Sender::default(), state: Mutex::new(state) }
    }
}

impl Health {
    /// With checks at these addresses only: those at which NodePorts are reached, none as long as they are not known.
    pub fn at_some_addresses() -> Self {
        let this = Self::default();
        this.set_addresses(BTreeSet::new());
        this
    }

    /// Until more is known the answers are those of an agent before, whose programs are at work.
    fn inherit(&self, remembered: Remembered) {
        let Remembered { checks, addresses, eligible, updated } = remembered;
        *self.state.lock() = State { updated, written: false, attached: false, eligible, inherited: true };
        self.set_checks(&checks);
        // Where it is all addresses now, those of before do not count.
        if self.wanted.borrow().addresses.is_some() {
            self.set_addresses(addresses);
        }
    }

    /// What is to be known after a restart besides the checks: when the maps were last written, and whether load balancers may send.
    fn kept(&self) -> (Timestamp, bool) {
        let state = self.state.lock();
        (state.updated, state.eligible)
    }

    /// What is served from now on.
    pub fn set_checks(&self, checks: &Checks) {
        self.want(|wanted| &mut wanted.checks, checks);
    }

    /// Where NodePorts are reached, if that is not everywhere.
    pub fn set_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.want(|wanted| &mut wanted.addresses, &Some(addresses));
    }

    fn want<T: Clone + PartialEq>(&self, part: impl Fn(&mut Wanted) -> &mut T, value: &T) {
        self.wanted.send_if_modified(|now| {
            let mut next = Wanted::clone(now);
            let is_news = part(&mut next) != value;
            if is_news {
                part(&mut next).clone_from(value);
                *now = Arc::new(next);
            }
            is_news
        });
    }

    /// Whether the Service maps are as they should be; called after each time they were written.
    pub fn set_written(&self, written: bool) {
        let mut state = self.state.lock();
        (state.written, state.updated) = (written, Timestamp::now());
    }

    /// The programs are in place.
    pub fn set_attached(&self) {
        let mut state = self.state.lock();
        (state.attached, state.inherited) = (true, false);
    }

    /// Maps or programs of this agent cannot be had: what an agent before has left will not be right for long.
    pub fn set_refused(&self) {
        self.state.lock().inherited = false;
    }

    /// Whether load balancers may send this node new connections.
    pub fn set_eligible(&self, eligible: bool) {
        let before = std::mem::replace(&mut self.state.lock().eligible, eligible);
        if before != eligible {
            // It is kept with the checks.
            self.wanted.send_modify(|_| {});
        }
    }

    /// The answer of kube-proxy's health check.
    fn answer(&self, path: &str) -> Option<Response<Bytes>> {
        let state = self.state.lock();
        let mut text =
            json!({ "lastUpdated": state.updated.to_string(), "currentTime": Timestamp::now().to_string() });
        let healthy = match path {
            // Whether the process works: a node that is being taken away need not restart it.
            "/livez" => state.serving(),
            "/healthz" => {
                text["nodeEligible"] = state.eligible.into();
                state.serving() && state.eligible
            }
            _ => return None,
        };
        Some(response(healthy, text.to_string()))
    }

    /// The answer of a Service's health check; the same at every path.
    fn answer_check(&self, port: u16) -> Option<Response<Bytes>> {
        let wanted = self.wanted.borrow().clone();
        let check = wanted.checks.get(&port)?;
        let serving = self.state.lock().serving();
        let text = json!({
            "service": { "namespace": &*check.service.namespace, "name": &*check.service.name },
            "localEndpoints": check.endpoints,
            "serviceProxyHealthy": serving,
        });
        let mut response = response(check.endpoints > 0 && serving, text.to_string());
        response.headers_mut().insert(WEIGHT, HeaderValue::from(check.endpoints));
        Some(response)
    }
}

fn response(healthy: bool, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Answers at kube-proxy's address and at each Service's port, until cancelled. A port that cannot be had is told and tried again.
pub async fn run(
    context: Arc<NodeContext>,
    health: Arc<Health>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let file = PathBuf::from(FILE);
    if let Some(remembered) = remembered::load(&file).filter(|_| attach::is_attached(&context.config.bpffs)) {
        tracing::info!(checks = remembered.checks.len(), "load balancers are answered as last known");
        health.inherit(remembered);
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(remembered::run(health.clone(), file, cancel.child_token()));
    let mut wanted = health.wanted.subscribe();
    wanted.mark_changed();
    let own = context.config.services.health;
    let (served, told, own_told) = (BTreeMap::new(), BTreeMap::new(), String::new());
    let mut servers = Servers { context, health, tasks, served, told, own, own_told, cancel: cancel.clone() };
    loop {
        let latest = wanted.borrow_and_update().clone();
        // Not one after the other: it is to be tried again if any is refused.
        let refused = !servers.serve_own() | !servers.serve_checks(&latest);
        tokio::select! {
            changed = wanted.changed() => changed.context("the checks of Services ended")?,
            () = tokio::time::sleep(RETRY), if refused => {}
            // A server whose port is no longer wanted.
            Some(ended) = servers.tasks.join_next() => {
                ended.context("a health check of Services panicked").flatten()?;
            }
            () = cancel.cancelled() => break,
        }
    }
    servers.served.clear();
    while let Some(ended) = servers.tasks.join_next().await {
        ended.context("a health check of Services panicked").flatten()?;
    }
    Ok(())
}

/// What listens, and what was told of ports that cannot be had.
struct Servers {
    context: Arc<NodeContext>,
    health: Arc<Health>,
    tasks: JoinSet<anyhow::Result<()>>,
    served: BTreeMap<Place, DropGuard>,
    told: BTreeMap<Place, String>,
    /// kube-proxy's address, as long as it is not served.
    own: Option<SocketAddr>,
    own_told: String,
    cancel: CancellationToken,
}

impl Servers {
    /// Serves kube-proxy's health check; false if its port cannot be had.
    fn serve_own(&mut self) -> bool {
        let Some(address) = self.own else { return true };
        match bind(address) {
            Ok(listener) => {
                self.own = None;
                let health = self.health.clone();
                let answer = move |path: &str, _: &str| health.answer(path);
                let ended = self.cancel.child_token();
                self.tasks.spawn(serve("the health check of Services", listener, answer, ended));
                true
            }
            Err(error) => {
                tell_own(&self.context, &mut self.own_told, address, &error);
                false
            }
        }
    }

    /// Serves these checks and no others; false if a port cannot be had.
    fn serve_checks(&mut self, wanted: &Wanted) -> bool {
        let places = wanted.places();
        self.served.retain(|place, _| places.contains_key(place));
        self.told.retain(|place, _| places.contains_key(place));
        let mut all = true;
        for (place, check) in places {
            if self.served.contains_key(&place) {
                continue;
            }
            let bound = match place.ip {
                Some(ip) => bind(SocketAddr::new(ip, place.port)),
                None => everywhere(place.port),
            };
            match bound {
                Ok(listener) => {
                    self.told.remove(&place);
                    let (health, ended) = (self.health.clone(), self.cancel.child_token());
                    let answer = move |_: &str, _: &str| health.answer_check(place.port);
                    self.tasks.spawn(serve("the health check of a Service", listener, answer, ended.clone()));
                    self.served.insert(place, ended.drop_guard());
                }
                Err(error) => {
                    all = false;
                    tell(&self.context, &mut self.told, place, check, &error);
                }
            }
        }
        all
    }
}

/// All addresses of both families, or of IPv4 on a machine without IPv6.
fn everywhere(port: u16) -> std::io::Result<std::net::TcpListener> {
    match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }
        result => result,
    }
}

fn tell(
    context: &NodeContext,
    told: &mut BTreeMap<Place, String>,
    place: Place,
    check: &Check,
    error: &std::io::Error,
) {
    let message = format!("node {} cannot serve healthCheckNodePort {place}: {error}", context.node_name);
    if told.get(&place) == Some(&message) {
        return;
    }
    tracing::error!(service = %check.service, message);
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(check.service.namespace.to_string()),
        name: Some(check.service.name.to_string()),
        uid: Some(check.uid.to_string()),
        ..ObjectReference::default()
    };
    context.events.warning(&about, "FailedToStartServiceHealthcheck", message.as_str());
    told.insert(place, message);
}

fn tell_own(context: &NodeContext, told: &mut String, address: SocketAddr, error: &std::io::Error) {
    let message = format!(
        "cannot serve the health check of Services on {address}: {error}; is kube-proxy running on this node? Remove it, or give \
         --proxy-healthz-bind-address another port, or 0 for none"
    );
    if *told != message {
        told.clone_from(&message);
        tracing::error!("{message}");
        context.events.warning(
            &about_node(&context.node_name),
            "FailedToStartProxierHealthcheck",
            message.as_str(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoints: usize) -> Check {
        Check { service: ServiceName::new("ns", "web"), uid: "u".into(), endpoints }
    }

    #[test]
    fn answers_as_kube_proxy() {
        let health = Health::default();
        let status = |path: &str| health.answer(path).map(|response| response.status().as_u16());
        assert_eq!((status("/healthz"), status("/livez"), status("/")), (Some(503), Some(503), None));
        health.set_written(true);
        assert_eq!(status("/healthz"), Some(503), "no program reads the maps yet");
        health.set_attached();
        assert_eq!((status("/healthz"), status("/livez")), (Some(200), Some(200)));
        // The node is about to go: load balancers leave it, the process is well.
        health.set_eligible(false);
        assert_eq!((status("/healthz"), status("/livez")), (Some(503), Some(200)));
        health.set_checks(&Checks::from([(31_000, check(2)), (31_001, check(0))]));
        let of = |port| {
            let response = health.answer_check(port)?;
            let weight = response.headers().get(WEIGHT)?.to_str().ok()?.to_owned();
            Some((response.status().as_u16(), weight, String::from_utf8(response.body().to_vec()).ok()?))
        };
        let (status, weight, text) = of(31_000).expect("served");
        assert_eq!((status, weight.as_str()), (200, "2"));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON"),
            json!({"service": {"namespace": "ns", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true})
        );
        assert_eq!(of(31_001).map(|(status, ..)| status), Some(503));
        assert_eq!(of(31_002), None);
        health.set_written(false);
        assert_eq!(of(31_000).map(|(status, ..)| status), Some(503));
    }

    #[test]
    fn where_checks_are_served() {
        let places = |health: &Health| {
            let wanted = health.wanted.borrow().clone();
            wanted.places().keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        let checks = Checks::from([(31_000, check(1)), (31_001, check(0))]);
        let addresses = |list: &[&str]| list.iter().map(|ip| ip.parse().expect("an address")).collect();
        let everywhere = Health::default();
        everywhere.set_checks(&checks);
        assert_eq!(places(&everywhere), ["31000", "31001"]);
        let health = Health::at_some_addresses();
        health.set_checks(&checks);
        assert!(places(&health).is_empty(), "no address is known");
        health.set_addresses(addresses(&["192.0.2.1", "2001:db8::1"]));
        let both =
            ["31000 at 192.0.2.1", "31000 at 2001:db8::1", "31001 at 192.0.2.1", "31001 at 2001:db8::1"];
        assert_eq!(places(&health), both);
        // An agent that starts where the one before was, until it knows its addresses itself.
        let remembered = |list: &[&str]| Remembered {
            checks: checks.clone(),
            addresses: addresses(list),
            eligible: true,
            updated: Timestamp::now(),
        };
        let next = Health::at_some_addresses();
        next.inherit(remembered(&["192.0.2.1"]));
        assert_eq!(places(&next), ["31000 at 192.0.2.1", "31001 at 192.0.2.1"]);
        next.set_addresses(addresses(&[]));
        assert!(places(&next).is_empty());
        // It was told to serve everywhere meanwhile.
        let wide = Health::default();
        wide.inherit(remembered(&["192.0.2.1"]));
        assert_eq!(places(&wide), ["31000", "31001"]);
    }
}
