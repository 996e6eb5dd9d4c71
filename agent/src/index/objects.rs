//! The config maps and secrets that this node's pods refer to: one watch for each, as long as a pod refers to it.
//! Must not know what they are used for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::env::{ObjectData, Objects};
use pagurus_agent_core::volumes::needs::Need;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::index::feed::{Change, Feed};

/// How long the first answer about an object may take.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Where the objects that pods refer to come from.
#[async_trait]
pub trait ObjectSource: Send + Sync + 'static {
    /// Says what a pod refers to now. What no pod refers to is forgotten.
    fn claim(&self, pod: &PodUid, namespace: &str, needs: BTreeSet<Need>);

    /// A number that changes when an object changes that the pod refers to.
    fn changes(&self, pod: &PodUid) -> u64;

    /// These objects as they are now; those that do not exist are absent.
    async fn objects(&self, namespace: &str, needs: &BTreeSet<Need>) -> Result<Objects, ObjectsError>;
}

/// The API server did not say in time whether an object exists.
#[derive(Debug, thiserror::Error)]
#[error("read {kind} {namespace}/{name} from the API server: no answer within {} s", FIRST_ANSWER.as_secs())]
pub struct ObjectsError {
    kind: &'static str,
    namespace: String,
    name: String,
}

type Key = (String, Need);
/// `None` until the first answer, then the object if it exists.
type Content = Option<Option<Arc<ObjectData>>>;

/// The objects, watched.
pub struct ObjectWatches {
    client: kube::Client,
    entries: Mutex<HashMap<Key, Entry>>,
    claims: Mutex<HashMap<PodUid, Claim>>,
    on_change: Box<dyn Fn(&PodUid) + Send + Sync>,
    own: std::sync::Weak<Self>,
}

/// What a pod refers to.
struct Claim {
    namespace: String,
    needs: BTreeSet<Need>,
    changes: u64,
}

struct Entry {
    users: HashSet<PodUid>,
    content: watch::Receiver<Content>,
    _watch: DropGuard,
}

impl ObjectWatches {
    /// `on_change` is called for each pod that refers to an object that has changed.
    pub fn new(client: kube::Client, on_change: impl Fn(&PodUid) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            client,
            entries: Mutex::default(),
            claims: Mutex::default(),
            on_change: Box::new(on_change),
            own: own.clone(),
        })
    }

    fn begin(&self, key: &Key) -> Entry {
        let (tell, content) = watch::channel(None);
        let cancel = CancellationToken::new();
        let (kind, name) = kind_and_name(&key.1);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.0, &resource);
        let feed = Feed::with_fields(kind, api, format!("metadata.name={name}"));
        // Owned by the entry: its guard ends the task when nobody refers to the object any more.
        tokio::spawn(keep(feed, tell, key.clone(), self.own.clone(), cancel.clone()));
        Entry { users: HashSet::new(), content, _watch: cancel.drop_guard() }
    }

    fn changed(&self, key: &Key) {
        let users = self.entries.lock().get(key).map(|entry| entry.users.iter().cloned().collect::<Vec<_>>());
        for user in users.into_iter().flatten() {
            if let Some(claim) = self.claims.lock().get_mut(&user) {
                claim.changes += 1;
            }
            (self.on_change)(&user);
        }
    }
}

async fn keep(
    mut feed: Feed<DynamicObject>,
    tell: watch::Sender<Content>,
    key: Key,
    owner: std::sync::Weak<ObjectWatches>,
    cancel: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = feed.next() => change,
        };
        let next = match change {
            Change::Set(object) => Some(Arc::new(decode(&key.1, &object.data))),
            Change::Gone(_) => None,
            // Nothing was told of it: it does not exist.
            Change::Complete if tell.borrow().is_none() => None,
            Change::Complete => continue,
        };
        let is_first = tell.borrow().is_none();
        let is_news = tell.send_if_modified(|content| {
            let is_news = content.as_ref() != Some(&next);
            *content = Some(next);
            is_news
        });
        if is_news && !is_first {
            let Some(owner) = owner.upgrade() else { return };
            owner.changed(&key);
        }
    }
}

fn kind_and_name(need: &Need) -> (&'static str, &str) {
    match need {
        Need::ConfigMap(name) => ("ConfigMap", name),
        Need::Secret(name) => ("Secret", name),
    }
}

fn decode(need: &Need, object: &Value) -> ObjectData {
    let plain = |key: &str| -> BTreeMap<String, Vec<u8>> {
        let entries = object[key].as_object().into_iter().flatten();
        entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.as_bytes().to_vec()))).collect()
    };
    let encoded = |key: &str| -> BTreeMap<String, Vec<u8>> {
        let read = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
        let entries = object[key].as_object().into_iter().flatten();
        entries.filter_map(|(k, v)| Some((k.clone(), read(v.as_str()?)?))).collect()
    };
    match need {
        Need::ConfigMap(_) => ObjectData { data: plain("data"), binary: encoded("binaryData") },
        Need::Secret(_) => ObjectData { data: encoded("data"), binary: BTreeMap::new() },
    }
}

#[async_trait]
impl ObjectSource for ObjectWatches {
    fn claim(&self, pod: &PodUid, namespace: &str, needs: BTreeSet<Need>) {
        let mut claims = self.claims.lock();
        let before = claims.remove(pod);
        let mut entries = self.entries.lock();
        for need in &needs {
            let key = (namespace.to_owned(), need.clone());
            entries.entry(key).or_insert_with_key(|key| self.begin(key)).users.insert(pod.clone());
        }
        let changes = before.as_ref().map_or(0, |claim| claim.changes);
        if let Some(Claim { namespace, needs: old, .. }) = before {
            for need in old.difference(&needs) {
                let key = (namespace.clone(), need.clone());
                if let Some(entry) = entries.get_mut(&key) {
                    entry.users.remove(pod);
                    if entry.users.is_empty() {
                        entries.remove(&key);
                    }
                }
            }
        }
        if !needs.is_empty() {
            claims.insert(pod.clone(), Claim { namespace: namespace.to_owned(), needs, changes });
        }
    }

    fn changes(&self, pod: &PodUid) -> u64 {
        self.claims.lock().get(pod).map_or(0, |claim| claim.changes)
    }

    async fn objects(&self, namespace: &str, needs: &BTreeSet<Need>) -> Result<Objects, ObjectsError> {
        let mut found = Objects::default();
        for need in needs {
            let key = (namespace.to_owned(), need.clone());
            let watched = self.entries.lock().get(&key).map(|entry| entry.content.clone());
            // Not claimed: the pod is on its way out; as if it did not exist.
            let Some(mut watched) = watched else { continue };
            let (kind, name) = kind_and_name(need);
            let unanswered = || ObjectsError { kind, namespace: namespace.to_owned(), name: name.to_owned() };
            let answer = tokio::time::timeout(FIRST_ANSWER, watched.wait_for(Option::is_some)).await;
            let content = answer.map_err(|_| unanswered())?.map_err(|_| unanswered())?.clone();
            if let Some(Some(content)) = content {
                match need {
                    Need::ConfigMap(name) => found.config_maps.insert(name.clone(), content),
                    Need::Secret(name) => found.secrets.insert(name.clone(), content),
                };
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::index::scripted::{Scripted, object};

    const PATH: &str = "/api/v1/namespaces/default/configmaps";

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), what).await.expect("in time")
    }

    #[tokio::test]
    async fn one_watch_for_all_who_refer_to_an_object() {
        let api = Scripted::default();
        let (tell, mut told) = mpsc::unbounded_channel();
        let watches = ObjectWatches::new(api.client(), move |pod: &PodUid| drop(tell.send(pod.clone())));
        let needs = BTreeSet::from([Need::ConfigMap("cm".into())]);
        let (a, b) = (PodUid("a".into()), PodUid("b".into()));
        for pod in [&a, &b, &a] {
            watches.claim(pod, "default", needs.clone());
        }
        // It does not exist.
        let found = soon(watches.objects("default", &needs)).await.unwrap();
        assert!(found.config_maps.is_empty());
        assert_eq!((watches.changes(&a), api.count("watch=true") <= 1), (0, true));
        let appear = async {
            while !api.send(PATH, "ADDED", object("cm", 2, json!({"data": {"k": "v"}}))).await {
                tokio::task::yield_now().await;
            }
        };
        soon(appear).await;
        let woken = BTreeSet::from([soon(told.recv()).await.unwrap(), soon(told.recv()).await.unwrap()]);
        assert_eq!(woken, BTreeSet::from([a.clone(), b.clone()]));
        assert_eq!((watches.changes(&a), watches.changes(&b)), (1, 1));
        let found = soon(watches.objects("default", &needs)).await.unwrap();
        assert_eq!(found.config_maps["cm"].data["k"], b"v");
        // A change of something else in it changes nothing for pods.
        assert!(soon(api.send(PATH, "MODIFIED", object("cm", 3, json!({"data": {"k": "v"}})))).await);
        assert!(soon(api.send(PATH, "DELETED", object("cm", 4, json!({"data": {"k": "v"}})))).await);
        soon(told.recv()).await.unwrap();
        assert_eq!(watches.changes(&a), 2);
        assert!(soon(watches.objects("default", &needs)).await.unwrap().config_maps.is_empty());
        // Nobody refers to it any more: the watch ends.
        for pod in [&a, &b] {
            watches.claim(pod, "default", BTreeSet::new());
        }
        assert!(watches.entries.lock().is_empty());
        let ended = async {
            while api.send(PATH, "ADDED", object("cm", 5, json!({}))).await {
                tokio::task::yield_now().await;
            }
        };
        soon(ended).await;
    }

    #[test]
    fn secrets_are_decoded() {
        let object = json!({"data": {"a": "aGk=", "bad": "%"}, "type": "Opaque"});
        let data = decode(&Need::Secret("s".into()), &object);
        assert_eq!(data.data, BTreeMap::from([("a".to_owned(), b"hi".to_vec())]));
        let object = json!({"data": {"a": "b"}, "binaryData": {"c": "AP8="}});
        let data = decode(&Need::ConfigMap("s".into()), &object);
        assert_eq!(data.get("a"), Some(&b"b".to_vec()));
        assert_eq!(data.get("c"), Some(&vec![0, 255]));
    }
}
