//! What an empty cluster holds, made at the first start and kept right at every start: namespaces, RBAC roles and bindings,
//! priority classes, flow control, API services, and the Service `kubernetes` that leads to this server.
//!
//! What to do about an object is a pure function of what is stored and what is wanted (`reconcile`).

mod own;
mod reconcile;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use ipnet::IpNet;
use pagurus_controlplane_api::key::{GroupVersionKind, GroupVersionResource};
use pagurus_controlplane_api::status::{ApiError, Reason};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::engine::Engine;
use crate::engine_objects::EngineObjects;
use crate::health::{Health, Hook};
use crate::objects::Objects as _;
use crate::request::UserInfo;

use reconcile::Action;

/// The generated list; `cargo xtask codegen` makes it.
const OBJECTS: &str = include_str!("bootstrap/v1_37.json");
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// How many objects are written at once; the store commits them together.
const PARALLEL: usize = 64;
/// After how long what failed is tried again: at first, and at most.
const RETRY: Duration = Duration::from_millis(500);
const MOST_RETRY: Duration = Duration::from_secs(15);

/// What the cluster's own objects say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The ranges of ClusterIPs.
    pub service_ranges: Vec<IpNet>,
    /// Where the server is reached by cluster members.
    pub advertise: IpAddr,
    /// Its port.
    pub port: u16,
    /// The CA of clients, PEM.
    pub client_ca: String,
    /// The CA of the front proxy, PEM.
    pub front_proxy_ca: String,
}

/// The first address of a range of ClusterIPs, which is that of the Service `kubernetes`.
pub fn first_address(range: &IpNet) -> IpAddr {
    match range {
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + 1).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + 1).into()),
    }
}

/// The tenth address of a range of ClusterIPs, by custom that of the Service `kube-dns`; a tiny range has none.
fn dns_address(range: &IpNet) -> Option<IpAddr> {
    let address = match range {
        IpNet::V4(net) => IpAddr::V4(u32::from(net.network()).checked_add(10)?.into()),
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).checked_add(10)?.into()),
    };
    range.contains(&address).then_some(address)
}

/// The parts of the work that readiness tells apart, by the kinds that belong to them. Roles come first.
const PARTS: [(&str, &[&str]); 5] = [
    ("rbac/bootstrap-roles", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("scheduling/bootstrap-system-priority-classes", &["PriorityClass"]),
    ("priority-and-fairness-config-producer", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("apiservice-registration-controller", &["APIService"]),
    (
        "start-kubernetes-service-controller",
        &["Service", "Endpoints", "EndpointSlice", "ServiceCIDR", "ConfigMap"],
    ),
];

/// The work to do after a start, and the health checks that wait for it.
#[derive(Debug)]
pub struct Bootstrap {
    engine: Arc<Engine>,
    objects: EngineObjects,
    settings: Settings,
    namespaces: Hook,
    parts: Vec<(Hook, &'static [&'static str])>,
    user: UserInfo,
}

impl Bootstrap {
    /// Prepares; the server is not ready before [`Self::run`] has finished.
    pub fn new(engine: Arc<Engine>, settings: Settings, health: &mut Health) -> Self {
        Self {
            objects: EngineObjects::new(&engine),
            engine,
            settings,
            namespaces: health.hook("start-system-namespaces-controller"),
            parts: PARTS.iter().map(|(name, kinds)| (health.hook(name), *kinds)).collect(),
            user: UserInfo::server(),
        }
    }

    /// Those parts that other components cannot work without: their roles.
    pub fn roles(&self) -> Hook {
        self.parts[0].0.clone()
    }

    /// Makes everything right; what fails is tried again until it succeeds or `cancel` comes.
    pub async fn run(self, cancel: CancellationToken) {
        let work = async {
            self.settle(NAMESPACES.map(own::namespace).to_vec()).await;
            self.namespaces.done();
            let mut objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap_or_else(|error| {
                error!(%error, "the list of bootstrap objects is not readable");
                Vec::new()
            });
            objects.extend(own::objects(&self.settings));
            let parts = self.parts.iter().map(async |(hook, kinds)| {
                let belongs =
                    |object: &&Value| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind));
                self.settle(objects.iter().filter(belongs).cloned().collect()).await;
                hook.done();
            });
            futures::future::join_all(parts).await;
            info!("the cluster's own objects are in place");
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = Box::pin(work) => {}
        }
    }

    async fn settle(&self, mut wanted: Vec<Value>) {
        let mut pause = RETRY;
        loop {
            let outcomes = futures::stream::iter(wanted)
                .map(async |object| self.put_right(&object).await.err().map(|error| (object, error)))
                .buffer_unordered(PARALLEL);
            let failed: Vec<_> = outcomes.filter_map(async |failed| failed).collect().await;
            let Some((object, error)) = failed.first() else { return };
            // One line for all: what fails one of them mostly fails the others too.
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            warn!(
                count = failed.len(),
                kind,
                name,
                error = error.message,
                again_after = ?pause,
                "cannot make the cluster's own objects yet"
            );
            wanted = failed.into_iter().map(|(object, _)| object).collect();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MOST_RETRY);
        }
    }

    async fn put_right(&self, wanted: &Value) -> Result<(), ApiError> {
        let kind = GroupVersionKind::of(wanted).map_err(ApiError::internal)?;
        let registry = self.engine.registry();
        let served = registry.of_kind(&kind.group, &kind.version, &kind.kind);
        let resource = &served.ok_or_else(ApiError::no_such_resource)?.resource;
        let gvr = GroupVersionResource::new(&*resource.group, &*resource.version, &*resource.plural);
        let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let in_namespace = (!namespace.is_empty()).then_some(namespace);
        let stored =
            self.objects.get(&gvr.group, &gvr.resource, namespace, name).map(|stored| stored.value());
        match reconcile::plan(stored.as_ref(), wanted) {
            Action::Nothing => Ok(()),
            Action::Create => self.create(&gvr, in_namespace, wanted).await,
            Action::Update(object) => {
                let updated = self.engine.update(&gvr, in_namespace, name, None, object, &self.user).await;
                updated.map(|_| ())
            }
            Action::Replace => {
                self.engine.delete(&gvr, in_namespace, name, &Value::Null, &self.user).await?;
                self.create(&gvr, in_namespace, wanted).await
            }
        }
    }

    /// Another server may be quicker; then its object stands.
    async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        wanted: &Value,
    ) -> Result<(), ApiError> {
        let mut created = match self.engine.create(gvr, namespace, wanted.clone(), &self.user).await {
            Ok(created) => created,
            Err(error) if error.reason == Reason::AlreadyExists => return Ok(()),
            Err(error) if error.reason == Reason::Invalid && own::may_move(wanted) => {
                let name = wanted.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                warn!(
                    name,
                    error = error.message,
                    "the usual address is not to be had; another one is taken"
                );
                self.engine.create(gvr, namespace, own::at_any_address(wanted), &self.user).await?
            }
            Err(error) => return Err(error),
        };
        let Some(condition) = own::condition(wanted) else { return Ok(()) };
        created["status"] = json!({"conditions": [condition]});
        let name = created.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.engine.update(gvr, namespace, &name, Some("status"), created, &self.user).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use pagurus_controlplane_schema::table::Table;

    use super::*;

    #[test]
    fn dns_has_the_tenth_address() {
        let check = |range: &str, expected: Option<&str>| {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(dns_address(&range.parse().unwrap()), expected, "{range}");
        };
        check("10.96.0.0/12", Some("10.96.0.10"));
        check("fd00:96::/112", Some("fd00:96::a"));
        check("10.96.0.0/29", None);
        let service = json!({"kind": "Service", "metadata": {"name": "kube-dns"}, "spec": {"clusterIP": "10.96.0.10", "type": "ClusterIP"}});
        assert!(own::may_move(&service));
        assert_eq!(own::at_any_address(&service)["spec"], json!({"type": "ClusterIP"}));
    }

    #[test]
    fn generated_objects_are_of_served_kinds() {
        let objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap();
        assert!(objects.len() > 150);
        for object in objects {
            let kind = GroupVersionKind::of(&object).unwrap();
            assert!(Table::builtin().kind(&kind.group, &kind.version, &kind.kind).is_some(), "{kind:?}");
            assert!(PARTS.iter().any(|(_, kinds)| kinds.contains(&kind.kind.as_str())), "{kind:?}");
        }
    }
}
