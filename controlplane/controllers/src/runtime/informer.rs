//! Informers: one list and watch per kind, shared by all controllers, each feeding a `Store`.
//!
//! The watch resumes where it broke; only an expired revision costs a new list. Managed fields are dropped on the
//! way in: no controller reads them and they are half of many objects.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, pin_mut};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::object::{Object, revision};
use super::outcome;
use super::store::Store;

/// Waits between tries to reach the API server.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Wait after an object that could not be read.
const UNREADABLE_WAIT: Duration = Duration::from_secs(1);
/// A watch that has not ended by then is dead: the server ends it before.
const WATCH_SECONDS: u32 = 290;
const WATCH_DEADLINE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);

/// All informers of the process, by kind and field selector.
pub struct Informers {
    client: Client,
    stores: Mutex<HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>>,
    tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
    cancel: CancellationToken,
}

impl Informers {
    /// None yet; watches will go through `client`.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, stores: Mutex::default(), tasks: Mutex::default(), cancel }
    }

    /// The store of all objects of a kind.
    pub fn all<K>(&self) -> Arc<Store<K>>
    where
        K: Object<DynamicType = ()> + DeserializeOwned,
    {
        self.filtered("")
    }

    /// The store of those objects of a kind that a field selector matches (all, if it is empty).
    pub fn filtered<K>(&self, fields: &str) -> Arc<Store<K>>
    where
        K: Object<DynamicType = ()> + DeserializeOwned,
    {
        let mut stores = self.stores.lock();
        let key = (TypeId::of::<K>(), fields.to_owned());
        if let Some(held) = stores.get(&key).cloned().and_then(|s| s.downcast::<Store<K>>().ok()) {
            return held;
        }
        let store = Arc::new(Store::<K>::default());
        stores.insert(key, store.clone());
        let api = Api::<K>::all(self.client.clone());
        let feed = Feed { api, fields: fields.to_owned(), store: store.clone(), trim: |_| {} };
        self.tasks.lock().push(feed.run(self.cancel.clone()).boxed());
        store
    }

    /// The watches of the kinds asked for so far, to be run.
    pub fn take_tasks(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.tasks.lock())
    }
}

/// One list and watch, and where it leads.
pub struct Feed<K: Object> {
    /// What to watch.
    pub api: Api<K>,
    /// A field selector, or empty.
    pub fields: String,
    /// Where objects go.
    pub store: Arc<Store<K>>,
    /// Drops what nobody reads.
    pub trim: fn(&mut K),
}

/// Whether the answer came and could not be read. (The client takes a line of a watch that it cannot read for a
/// `Status` in which nothing is set.)
fn unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.reason.is_empty() && status.message.is_empty(),
        _ => false,
    }
}

enum End {
    /// Watch again from the last revision.
    Resume,
    /// The revision is gone: list again.
    Expired,
    /// An object cannot be read: list again, without it.
    Unreadable(String),
    Failed(String),
}

impl<K: Object + DeserializeOwned> Feed<K> {
    /// Lists and watches until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.forever() => {}
        }
    }

    async fn forever(self) {
        let what = self.api.resource_url().to_owned();
        let mut wait = FIRST_WAIT;
        let mut failures = 0_u32;
        let mut from = None;
        loop {
            let end = match from {
                None => match self.list().await {
                    Ok(at) => {
                        from = Some(at);
                        End::Resume
                    }
                    Err(error) if unreadable(&error) => End::Unreadable(error.to_string()),
                    Err(error) => End::Failed(format!("list: {}", outcome::message(&error))),
                },
                Some(ref mut at) => self.watch(at).await,
            };
            match end {
                End::Resume => (wait, failures) = (FIRST_WAIT, 0),
                End::Expired => from = None,
                End::Unreadable(error) => {
                    tracing::warn!(%what, "informer: an object is skipped: {error}");
                    match self.list_readable().await {
                        Ok(at) => from = Some(at),
                        Err(error) => tracing::debug!(%what, "informer: list: {}", outcome::message(&error)),
                    }
                    // The next change of such an object comes here again: not too often.
                    tokio::time::sleep(UNREADABLE_WAIT).await;
                }
                End::Failed(error) => {
                    failures += 1;
                    if failures > 5 {
                        tracing::warn!(%what, failures, "informer: {error}");
                    } else {
                        tracing::debug!(%what, failures, "informer: {error}");
                    }
                    tokio::time::sleep(wait.mul_f64(rand::random_range(0.75..1.25))).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    fn keep(&self, mut object: K) -> K {
        object.meta_mut().managed_fields = None;
        (self.trim)(&mut object);
        object
    }

    fn list_params(&self) -> ListParams {
        let params = ListParams::default();
        if self.fields.is_empty() { params } else { params.fields(&self.fields) }
    }

    /// Lists object by object, leaving out those that cannot be read: one bad object must not hide all others.
    async fn list_readable(&self) -> Result<u64, kube::Error> {
        let request = kube::core::Request::new(self.api.resource_url()).list(&self.list_params());
        let request = request.map_err(kube::Error::BuildRequest)?;
        let list: Value = self.api.clone().into_client().request(request).await?;
        let at = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let at = at.and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut readable = Vec::new();
        for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            match K::deserialize(item) {
                Ok(object) => readable.push(self.keep(object)),
                Err(error) => {
                    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                    tracing::debug!(what = self.api.resource_url(), name, "informer: unreadable: {error}");
                }
            }
        }
        self.store.replace(readable, at);
        Ok(at)
    }

    async fn list(&self) -> Result<u64, kube::Error> {
        let list = self.api.list(&self.list_params()).await?;
        let at = list.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        self.store.replace(list.items.into_iter().map(|o| self.keep(o)).collect(), at);
        Ok(at)
    }

    async fn watch(&self, at: &mut u64) -> End {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        if !self.fields.is_empty() {
            params = params.fields(&self.fields);
        }
        let stream = match self.api.watch(&params, &at.to_string()).await {
            Ok(stream) => stream,
            Err(error) if outcome::expired(&error) => return End::Expired,
            Err(error) => return End::Failed(format!("watch: {}", outcome::message(&error))),
        };
        pin_mut!(stream);
        let deadline = tokio::time::Instant::now() + WATCH_DEADLINE;
        let mut progress = false;
        loop {
            let event = match tokio::time::timeout_at(deadline, stream.next()).await {
                // A stream that ends at once, again and again, must not spin.
                Ok(None) if !progress => return End::Failed("watch ended without an event".to_owned()),
                Ok(None) | Err(_) => return End::Resume,
                Ok(Some(Err(error))) if unreadable(&error) => return End::Unreadable(error.to_string()),
                Ok(Some(Err(error))) => return End::Failed(format!("watch: {error}")),
                Ok(Some(Ok(event))) => event,
            };
            progress = true;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *at = (*at).max(revision(object.meta()));
                    self.store.apply(self.keep(object));
                }
                WatchEvent::Deleted(object) => {
                    *at = (*at).max(revision(object.meta()));
                    self.store.delete(&object);
                }
                WatchEvent::Bookmark(mark) => {
                    *at = (*at).max(mark.metadata.resource_version.parse().unwrap_or(0));
                    self.store.reached(*at);
                }
                WatchEvent::Error(status) => return Self::ended_by(&status),
            }
        }
    }

    fn ended_by(status: &Status) -> End {
        if status.code == 410 { End::Expired } else { End::Failed(format!("watch: {}", status.message)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;
    use crate::runtime::object::name;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    async fn create(server: &Arc<FakeApi>, name: &str) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::<Pod>::namespaced(server.client(), "ns").create(&Default::default(), &pod).await.unwrap();
    }

    async fn until(store: &Store<Pod>, names: &[&str]) {
        let have = || store.list().iter().map(|p| name(&p.metadata).to_owned()).collect::<Vec<_>>();
        for _ in 0..1000 {
            if have() == names {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {names:?}, but {:?}", have());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_object_hides_no_other() {
        let server = FakeApi::new();
        create(&server, "a").await;
        create(&server, "b").await;
        let cancel = CancellationToken::new();
        let informers = Informers::new(server.client(), cancel.clone());
        let pods = informers.all::<Pod>();
        let tasks: Vec<_> = informers.take_tasks().into_iter().map(tokio::spawn).collect();
        until(&pods, &["a", "b"]).await;
        // By watch.
        server.change("pods", "ns/a", |pod| pod["spec"] = json!("not a spec"));
        create(&server, "c").await;
        until(&pods, &["b", "c"]).await;
        // By list.
        let again = Informers::new(server.client(), cancel.clone());
        let listed = again.all::<Pod>();
        let more: Vec<_> = again.take_tasks().into_iter().map(tokio::spawn).collect();
        until(&listed, &["b", "c"]).await;
        // It comes back when it can be read.
        server.change("pods", "ns/a", |pod| pod["spec"] = json!({"containers": []}));
        until(&pods, &["a", "b", "c"]).await;
        cancel.cancel();
        for task in tasks.into_iter().chain(more) {
            task.await.unwrap();
        }
    }
}
