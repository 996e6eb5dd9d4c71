//! The one object engine: every resource of the table, its cache and its strategy, behind one entry for requests and a few for
//! the server's own writes.
//!
//! It must not know any kind (that is the strategies' business), nor who may do what (that was decided before).

mod expiry;

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::BoxFuture;
use http::Response;
use ipnet::IpNet;
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::table::{Resource, Table};
use pagurus_controlplane_store::Store;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::allocate::{Allocators, ClusterIps, NodePorts};
use crate::cache::{Cache, CacheError};
use crate::request::{Body, Call, UserInfo};
use crate::strategy::Strategy;
use crate::{response, verbs};

pub use crate::registry::{Kind, Registry, Rules, Served, Target};

/// What can be set when an engine starts.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The ranges of ClusterIPs: one, or one per family, the default family first.
    pub service_cluster_ip_ranges: Vec<IpNet>,
    /// The ports that Services may open on nodes.
    pub service_node_ports: std::ops::RangeInclusive<u16>,
    /// Whether containers may be privileged.
    pub allow_privileged: bool,
    /// The largest request body, in bytes.
    pub max_body: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let range = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
        Self {
            service_cluster_ip_ranges: vec![range.into()],
            service_node_ports: 30000..=32767,
            allow_privileged: false,
            max_body: 3 << 20,
        }
    }
}

/// Answers what is not plain storage: reviews, tokens, bindings, evictions, exec, logs, proxies.
#[async_trait]
pub trait Special: Send + Sync + 'static {
    /// Whether this one answers the call.
    fn takes(&self, call: &Call) -> bool;

    /// The answer. `call` has been authorized.
    async fn serve(&self, call: Call, body: Body) -> Response<Body>;
}

/// See the module's description.
pub struct Engine {
    /// The types of the program. Custom resources have tables of their own.
    table: &'static Arc<Table>,
    store: Arc<dyn Store>,
    /// What is served now; see [`Self::serve_custom`].
    registry: ArcSwap<Registry>,
    changing: Mutex<()>,
    allocators: Allocators,
    options: EngineOptions,
    admission: OnceLock<Chain>,
    special: OnceLock<Arc<dyn Special>>,
    /// Watches end with it, and no new work begins.
    cancel: CancellationToken,
    /// The tasks end with it: after the last request, which may wait for what they bring.
    stop: CancellationToken,
    feeds: TaskTracker,
}

impl Engine {
    /// An engine over a store, with all caches loaded. Its watches end with `cancel`; its caches follow the store until
    /// [`Self::ended`] is called, so that requests that are being answered then still see what they wrote.
    pub async fn start(
        store: Arc<dyn Store>,
        options: EngineOptions,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, CacheError> {
        let table = Table::builtin();
        let (feeds, stop) = (TaskTracker::new(), CancellationToken::new());
        let stored = table.resources().iter().filter(|r| is_stored(r) && Arc::ptr_eq(table.storage_of(r), r));
        let started = futures::future::try_join_all(stored.map(|resource| {
            let strategy = Rules::Builtin(crate::resources::strategy(&resource.group, &resource.plural));
            let (store, stop, feeds) = (store.clone(), stop.clone(), &feeds);
            async move {
                let kind = start(resource.clone(), table.clone(), strategy, store, stop, feeds).await?;
                Ok::<_, CacheError>(((resource.group.clone(), resource.plural.clone()), Arc::new(kind)))
            }
        }))
        .await?;
        let engine = Self {
            table,
            store,
            registry: ArcSwap::from_pointee(Registry::builtin(table, &started.into_iter().collect())),
            changing: Mutex::new(()),
            allocators: Allocators {
                cluster_ips: Arc::new(ClusterIps::new(&options.service_cluster_ip_ranges)),
                node_ports: Arc::new(NodePorts::new(options.service_node_ports.clone())),
            },
            options,
            admission: OnceLock::new(),
            special: OnceLock::new(),
            cancel,
            stop,
            feeds,
        };
        engine.restore_allocations();
        let engine = Arc::new(engine);
        engine.feeds.spawn(expiry::run(Arc::downgrade(&engine), engine.stop.clone()));
        Ok(engine)
    }
}

impl Engine {
    /// Sets the admission chain; once, before requests come.
    pub fn set_admission(&self, chain: Chain) {
        if self.admission.set(chain).is_err() {
            tracing::error!("the admission chain was set twice, the first one stays");
        }
    }

    /// Sets who answers what is not plain storage; once, before requests come.
    pub fn set_special(&self, special: Arc<dyn Special>) {
        if self.special.set(special).is_err() {
            tracing::error!("the special handler was set twice, the first one stays");
        }
    }

    /// The admission chain; empty until it is set.
    pub fn admission(&self) -> &Chain {
        self.admission.get_or_init(Chain::default)
    }

    /// The table of types and resources.
    pub fn table(&self) -> &'static Arc<Table> {
        self.table
    }

    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Loads the objects of a custom resource, whose cache then follows the store until the token is cancelled or the engine ends.
    pub async fn start_kind(
        &self,
        resource: Arc<Resource>,
        table: Arc<Table>,
        strategy: Arc<dyn Strategy>,
    ) -> Result<(Kind, CancellationToken), CacheError> {
        let stop = self.stop.child_token();
        let store = self.store.clone();
        let kind = start(resource, table, Rules::Custom(strategy), store, stop.clone(), &self.feeds).await?;
        Ok((kind, stop))
    }

    /// Serves a custom resource in these versions from now on, in place of those it was served in; in none, if there are
    /// none.
    pub fn serve_custom(&self, group: &str, plural: &str, served: Vec<Served>) {
        let _one_at_a_time = self.changing.lock();
        let next = self.registry.load().with_custom(group, plural, served);
        self.registry.store(Arc::new(next));
    }

    /// The store below the caches.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The options it was started with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The allocators of ClusterIPs and NodePorts.
    pub fn allocators(&self) -> &Allocators {
        &self.allocators
    }

    /// Runs what outlives a request: [`Self::ended`] waits for it. It should end with [`Self::cancelled`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.feeds.spawn(task);
    }

    /// Ends when the engine is to end; watches end with it.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Ends the engine's tasks and resolves when they have ended. Requests must not come any more.
    pub async fn ended(&self) {
        self.stop.cancel();
        self.feeds.close();
        self.feeds.wait().await;
    }

    /// The cache of a resource, in whatever version it is served.
    pub fn cache(&self, group: &str, resource: &str) -> Option<Arc<Cache>> {
        self.kind(group, resource).map(|kind| kind.cache.clone())
    }

    /// Resource, rules and cache behind a served resource. Events of both groups are the same objects.
    pub fn kind(&self, group: &str, resource: &str) -> Option<Arc<Kind>> {
        self.registry.load().kind(group, resource).cloned()
    }

    /// Answers a request for a resource. Authorization has been done.
    pub async fn serve(self: &Arc<Self>, call: Call, body: Body) -> Response<Body> {
        if let Some(special) = self.special.get()
            && special.takes(&call)
        {
            return special.clone().serve(call, body).await;
        }
        let answer: BoxFuture<'_, _> = Box::pin(verbs::answer(self, &call, body));
        let answer = answer.await;
        response::finish(&call, answer)
    }

    /// Reads one object with everything that was acknowledged before this call.
    pub async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, ApiError> {
        let target = self.target(gvr)?;
        verbs::get::object(&target, namespace, name).await
    }

    /// Creates an object as `user`, through admission and validation like any request.
    pub async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        object: Value,
        user: &UserInfo,
    ) -> Result<Value, ApiError> {
        let request = verbs::Request::internal(self.target(gvr)?, namespace, None, None, user);
        verbs::create::object(self, &request, object).await
    }

    /// Replaces an object, or one of its subresources, as `user`.
    pub async fn update(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        sub: Option<&str>,
        object: Value,
        user: &UserInfo,
    ) -> Result<Value, ApiError> {
        let request = verbs::Request::internal(self.target(gvr)?, namespace, Some(name), sub, user);
        verbs::update::object(self, &request, object).await
    }

    /// Changes the stored object in place, without defaulting, admission or validation, again until nobody comes
    /// between. For the server's own subresources (binding, eviction); `change` sees the storage version.
    pub async fn modify(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        dry_run: bool,
        change: impl FnMut(&mut Value) -> Result<(), ApiError> + Send,
    ) -> Result<Value, ApiError> {
        let target = self.target(gvr)?;
        verbs::update::modify(self, &target, namespace, name, dry_run, change).await
    }

    /// Deletes an object as `user`; `options` is a DeleteOptions object or null.
    pub async fn delete(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        options: &Value,
        user: &UserInfo,
    ) -> Result<Value, ApiError> {
        let request = verbs::Request::internal(self.target(gvr)?, namespace, Some(name), None, user);
        verbs::delete::object(self, &request, options).await
    }

    /// The resource of a request with what is behind it.
    pub fn target(&self, gvr: &GroupVersionResource) -> Result<Arc<Target>, ApiError> {
        let registry = self.registry.load();
        let served = registry.resource(&gvr.group, &gvr.version, &gvr.resource);
        served.and_then(|served| served.target.clone()).ok_or_else(ApiError::no_such_resource)
    }

    /// Deletes what has expired of a kind: everything written last at or before a revision.
    #[cfg(test)]
    pub(crate) async fn expire(self: &Arc<Self>, group: &str, resource: &str, before: u64) {
        if let Some(kind) = self.kind(group, resource) {
            expiry::expire(self, &kind, before).await;
        }
    }

    /// Tells the allocators what the stored objects hold.
    fn restore_allocations(&self) {
        for kind in self.registry.load().kinds().filter(|kind| kind.strategy.reserves()) {
            for object in kind.cache.list(None) {
                kind.strategy.restore(&self.allocators, &object.value());
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("resources", &self.registry.load().resources().count())
            .finish_non_exhaustive()
    }
}

/// Whether objects of the resource are kept.
fn is_stored(resource: &Resource) -> bool {
    !resource.storage_version_hash.is_empty()
}

/// Loads a kind and begins to follow the store.
async fn start(
    resource: Arc<Resource>,
    table: Arc<Table>,
    strategy: Rules,
    store: Arc<dyn Store>,
    stop: CancellationToken,
    feeds: &TaskTracker,
) -> Result<Kind, CacheError> {
    let prefix = store_prefix(&resource.group, &resource.plural);
    let (cache, feed) = Cache::start(strategy.clone(), prefix, store, stop).await?;
    feeds.spawn(feed);
    Ok(Kind { resource, table, strategy, cache })
}

/// What begins the store keys of a resource.
fn store_prefix(group: &str, plural: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("/registry/{group}/{plural}/")
}
