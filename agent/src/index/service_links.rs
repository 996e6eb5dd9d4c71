//! The Services that containers are told about in their environment. Must not know endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, watcher};
use pagurus_agent_core::pods::env::ServiceLink;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::index::dns::SERVICE as DNS;

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

    /// Follows the API server until cancelled.
    pub async fn run(self, client: kube::Client, cancel: CancellationToken) -> anyhow::Result<()> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Service"));
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed = Known::default();
        loop {
            let event = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                event = events.next() => event,
            };
            match event {
                None => anyhow::bail!("the watch of Services ended"),
                Some(Err(error)) => tracing::warn!(%error, "watch of Services failed; trying again"),
                Some(Ok(watcher::Event::Init)) => listed = Known::default(),
                Some(Ok(watcher::Event::InitApply(object))) => put(&mut listed, &object, true),
                Some(Ok(watcher::Event::InitDone)) => {
                    *self.known.write() = std::mem::take(&mut listed);
                    self.complete.send_replace(true);
                }
                Some(Ok(watcher::Event::Apply(object))) => put(&mut self.known.write(), &object, true),
                Some(Ok(watcher::Event::Delete(object))) => put(&mut self.known.write(), &object, false),
            }
        }
    }
}

fn put(known: &mut Known, object: &DynamicObject, exists: bool) {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    if (&*namespace, &*name) == DNS {
        known.dns = exists.then(|| dns_service(&object.data)).filter(|service| !service.ips.is_empty());
    }
    let links = &mut known.links;
    match link(&name, &object.data).filter(|_| exists) {
        Some(link) => {
            links.entry(namespace).or_default().insert(name, link);
        }
        None => {
            if let Some(services) = links.get_mut(&namespace) {
                services.remove(&name);
            }
        }
    }
}

fn dns_service(object: &Value) -> DnsService {
    let spec = &object["spec"];
    let ips = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok());
    let has_selector = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    DnsService { ips: ips.collect(), has_selector }
}

/// What containers are told of this Service: nothing if it has no address.
fn link(name: &str, object: &Value) -> Option<ServiceLink> {
    let ip = object["spec"]["clusterIP"].as_str().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let port = |port: &Value| {
        let number = i32::try_from(port["port"].as_i64()?).ok()?;
        let text = |key: &str, default: &str| port[key].as_str().unwrap_or(default).to_owned();
        Some((text("name", ""), number, text("protocol", "TCP")))
    };
    let ports = object["spec"]["ports"].as_array().into_iter().flatten().filter_map(port).collect();
    Some(ServiceLink { name: name.to_owned(), ip: ip.to_owned(), ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headless_services_are_no_links() {
        assert_eq!(link("a", &json!({"spec": {"clusterIP": "None"}})), None);
        let found = link("a", &json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}));
        assert_eq!(found.unwrap().ports, [(String::new(), 80, "TCP".to_owned())]);
    }

    #[test]
    fn the_service_of_dns() {
        let known = |spec: Value, exists| {
            let mut known = Known::default();
            let object = json!({"metadata": {"namespace": "kube-system", "name": "kube-dns"}, "spec": spec});
            put(&mut known, &serde_json::from_value(object).unwrap(), exists);
            known.dns
        };
        let spec = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"]});
        let ips = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        assert_eq!(known(spec.clone(), true), Some(DnsService { ips: ips.clone(), has_selector: false }));
        assert_eq!(known(spec, false), None);
        let pods = json!({"clusterIPs": ["10.96.0.10", "fd00::a"], "selector": {"k8s-app": "kube-dns"}});
        assert_eq!(known(pods, true), Some(DnsService { ips, has_selector: true }));
        assert_eq!(known(json!({"clusterIPs": ["None"]}), true), None);
    }
}
