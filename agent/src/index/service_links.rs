//! The Services that containers are told about in their environment, and where pods find the cluster's DNS.
//!
//! Must not know: endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use pagurus_agent_core::pods::env::ServiceLink;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::index::balanced::ServiceReader;
use crate::index::dns::SERVICE as DNS;
use crate::index::feed::{Change, Feed};
use crate::index::wire;

/// How long the start of a container waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// Services by namespace and name, and where the cluster's DNS is.
#[derive(Default)]
struct Known {
    links: BTreeMap<String, BTreeMap<String, ServiceLink>>,
    dns: Option<DnsService>,
}

/// The Service of the cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsService {
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it is served by pods.
    pub has_selector: bool,
}

/// The Services with an address, by namespace and name. Cheap to clone.
#[derive(Clone)]
pub struct ServiceLinks {
    known: Arc<RwLock<Known>>,
    complete: watch::Sender<bool>,
}

impl Default for ServiceLinks {
    fn default() -> Self {
        Self { known: Arc::default(), complete: watch::Sender::new(false) }
    }
}

impl ServiceLinks {
    /// Services that are known from the start.
    pub fn fixed(services: impl IntoIterator<Item = (String, ServiceLink)>) -> Self {
        let this = Self::default();
        for (namespace, link) in services {
            this.known.write().links.entry(namespace).or_default().insert(link.name.clone(), link);
        }
        this.complete.send_replace(true);
        this
    }

    /// The Services that a pod of this namespace is told about: the API server's always, the namespace's if it wants them.
    /// False in the second place if the list of Services is not known yet.
    pub async fn of_pod(&self, namespace: &str, wants_own: bool) -> (Vec<ServiceLink>, bool) {
        let is_known = self.known().await;
        let links = &self.known.read().links;
        let mut out = BTreeMap::new();
        let api = links.get("default").and_then(|services| services.get("kubernetes"));
        out.extend(api.map(|link| (link.name.clone(), link.clone())));
        if wants_own && let Some(own) = links.get(namespace) {
            out.extend(own.iter().map(|(name, link)| (name.clone(), link.clone())));
        }
        (out.into_values().collect(), is_known)
    }

    /// Waits for the first list; false if it does not come soon.
    pub async fn known(&self) -> bool {
        let mut complete = self.complete.subscribe();
        tokio::time::timeout(FIRST_LIST, complete.wait_for(|complete| *complete)).await.is_ok()
    }

    /// The Service of the cluster's DNS, if there is one.
    pub fn dns(&self) -> Option<DnsService> {
        self.known.read().dns.clone()
    }

    /// The address of the API server's Service.
    pub fn api_server(&self) -> Option<String> {
        self.known.read().links.get("default")?.get("kubernetes").map(|link| link.ip.clone())
    }

    /// Takes a Service over as it is now; nothing: pods are told nothing of it.
    pub fn set(&self, namespace: &str, name: &str, linked: Option<Linked>) {
        let Linked { link, dns } = linked.unwrap_or_default();
        let mut known = self.known.write();
        if (namespace, name) == DNS {
            known.dns = dns;
        }
        match link {
            Some(link) => {
                known.links.entry(namespace.to_owned()).or_default().insert(name.to_owned(), link);
            }
            None => {
                if let Some(services) = known.links.get_mut(namespace) {
                    services.remove(name);
                    if services.is_empty() {
                        known.links.remove(namespace);
                    }
                }
            }
        }
    }

    /// Everything there is has been told.
    pub fn set_complete(&self) {
        self.complete.send_replace(true);
    }

    /// Follows the API server until cancelled: on nodes where nothing else does.
    pub async fn run(self, client: kube::Client, cancel: CancellationToken) -> anyhow::Result<()> {
        let reader = ServiceReader { links: true, ..ServiceReader::default() };
        let mut services = Feed::reading::<Service>("Service", client, reader);
        loop {
            let change = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                change = services.next() => change,
            };
            match change {
                Change::Set(object) => {
                    let about = object.about;
                    self.set(&about.namespace, &about.name, object.linked.map(|linked| *linked));
                }
                Change::Gone((namespace, name)) => self.set(&namespace, &name, None),
                Change::Complete => self.set_complete(),
            }
        }
    }
}

/// What pods are told of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// In the environment of containers; nothing if it has no address.
    link: Option<ServiceLink>,
    /// It is that of the cluster's DNS.
    dns: Option<DnsService>,
}

/// What pods are told of this Service, if anything.
pub fn read(object: &wire::Service<'_>) -> Option<Linked> {
    let spec = object.spec.as_ref()?;
    let (namespace, name) = (object.metadata.namespace.as_deref()?, object.metadata.name.as_deref()?);
    let dns = if (namespace, name) == DNS { dns_service(spec) } else { None };
    let link = link(name, spec);
    (link.is_some() || dns.is_some()).then_some(Linked { link, dns })
}

fn dns_service(spec: &wire::ServiceSpec<'_>) -> Option<DnsService> {
    let ips: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    let has_selector = spec.selector.is_some_and(|wire::HasEntries(some)| some);
    (!ips.is_empty()).then_some(DnsService { ips, has_selector })
}

fn link(name: &str, spec: &wire::ServiceSpec<'_>) -> Option<ServiceLink> {
    let ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let port = |port: &wire::ServicePort<'_>| {
        let text =
            |text: &Option<wire::Text<'_>>, default: &str| text.as_deref().unwrap_or(default).to_owned();
        (text(&port.name, ""), port.port, text(&port.protocol, "TCP"))
    };
    let ports = spec.ports.iter().flatten().map(port).collect();
    Some(ServiceLink { name: name.to_owned(), ip: ip.to_owned(), ports })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::index::scripted::Scripted;

    fn object(namespace: &str, name: &str, spec: &Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "2"}, "spec": spec})
    }

    fn linked(namespace: &str, name: &str, spec: &Value) -> Linked {
        let text = object(namespace, name, spec).to_string();
        read(&serde_json::from_str(&text).unwrap()).unwrap_or_default()
    }

    #[test]
    fn headless_services_are_no_links() {
        assert_eq!(linked("ns", "a", &json!({"clusterIP": "None"})).link, None);
        let ports = json!([{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let found = linked("ns", "a", &json!({"clusterIP": "10.0.0.1", "ports": ports})).link.unwrap();
        let port = |name: &str, port, protocol: &str| (name.to_owned(), port, protocol.to_owned());
        assert_eq!((found.name.as_str(), found.ip.as_str()), ("a", "10.0.0.1"));
        assert_eq!(found.ports, [port("", 80, "TCP"), port("dns", 53, "UDP")]);
    }

    #[test]
    fn the_service_of_dns() {
        let links = ServiceLinks::default();
        let check = |spec: Option<Value>, expected: Option<DnsService>| {
            let (namespace, name) = DNS;
            links.set(namespace, name, spec.map(|spec| linked(namespace, name, &spec)));
            assert_eq!(links.dns(), expected);
        };
        let spec = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"]});
        let ips = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        check(Some(spec.clone()), Some(DnsService { ips: ips.clone(), has_selector: false }));
        check(None, None);
        let pods = json!({"clusterIPs": ["10.96.0.10", "fd00::a"], "selector": {"k8s-app": "kube-dns"}});
        check(Some(pods), Some(DnsService { ips: ips.clone(), has_selector: true }));
        let nobodys = json!({"clusterIPs": ["10.96.0.10", "fd00::a"], "selector": {}});
        check(Some(nobodys), Some(DnsService { ips, has_selector: false }));
        check(Some(json!({"clusterIPs": ["None"]})), None);
        assert_eq!(linked("ns", "kube-dns", &spec).dns, None);
    }

    #[tokio::test]
    async fn what_pods_are_told() {
        const PATH: &str = "/api/v1/services";
        let api = Scripted::default();
        let at = |ip: &str| json!({"clusterIP": ip, "ports": [{"port": 80}]});
        api.set(
            PATH,
            vec![object("default", "kubernetes", &at("10.0.0.1")), object("ns", "a", &at("10.0.0.2"))],
        );
        let (links, cancel) = (ServiceLinks::default(), CancellationToken::new());
        let names = async |wants_own| {
            let (found, known) = links.of_pod("ns", wants_own).await;
            (found.into_iter().map(|link| link.name).collect::<Vec<_>>(), known)
        };
        let follow = links.clone().run(api.client(), cancel.clone());
        let ask = async {
            assert_eq!(names(true).await, (vec!["a".to_owned(), "kubernetes".to_owned()], true));
            assert_eq!(names(false).await, (vec!["kubernetes".to_owned()], true));
            assert_eq!(links.api_server().as_deref(), Some("10.0.0.1"));
            for (kind, spec, expected) in [
                ("MODIFIED", json!({"clusterIP": "None"}), 1),
                ("MODIFIED", at("10.0.0.3"), 2),
                ("DELETED", at("10.0.0.3"), 1),
            ] {
                while !api.send(PATH, kind, object("ns", "a", &spec)).await {
                    tokio::task::yield_now().await;
                }
                while names(true).await.0.len() != expected {
                    tokio::task::yield_now().await;
                }
            }
            cancel.cancel();
        };
        let both = async { tokio::join!(follow, ask) };
        let (ended, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        ended.unwrap();
    }
}
