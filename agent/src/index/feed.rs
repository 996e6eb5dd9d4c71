//! A watch as three calls: an object is there, an object has gone, the list is complete. Restarts of the watch are no
//! business of the index that is fed.
//!
//! Must not know: what is indexed.

use std::fmt::Debug;
use std::marker::PhantomData;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::{Api, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::index::wire::Head;

mod list;
mod watch;

use pagurus_agent_core::hash::HashSet;
use watch::Selection;

/// Namespace and name of an object; the namespace is empty for cluster-wide kinds.
pub type Name = (String, String);

/// Namespace and name in one piece of memory, with the slash between that neither can have: there are very many of them.
type Joined = Box<str>;

/// What happened to one object, or to the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<K> {
    /// The object is there, and like this.
    Set(K),
    /// The object has gone.
    Gone(Name),
    /// Everything there is has been told.
    Complete,
}

/// An object with a name.
pub trait Named {
    /// Its namespace, empty for cluster-wide kinds, and its name.
    fn name(&self) -> (&str, &str);
}

impl<K: Resource> Named for K {
    fn name(&self) -> (&str, &str) {
        let meta = self.meta();
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

/// How objects of a kind are read, and what is kept of them.
pub trait Reader: Send + Sync + 'static {
    /// An object as it lies in the bytes.
    type Raw<'a>: Deserialize<'a>;
    /// What is kept of it.
    type Object: Named + Send + 'static;

    /// Takes what is needed.
    fn read(&self, raw: Self::Raw<'_>) -> Self::Object;

    /// What is to be told of an object of which only this could be read; nothing: as if it were not there.
    fn unreadable(&self, head: &Head<'_>, error: &serde_json::Error) -> Option<Self::Object>;
}

/// Keeps objects as they are.
struct Whole<K>(PhantomData<fn() -> K>);

impl<K> Reader for Whole<K>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    type Raw<'a> = K;
    type Object = K;

    fn read(&self, raw: K) -> K {
        raw
    }

    fn unreadable(&self, _: &Head<'_>, _: &serde_json::Error) -> Option<K> {
        None
    }
}

/// What a watch tells.
#[derive(Debug)]
enum Event<K> {
    /// A list begins.
    Init,
    /// An object of the list.
    InitApply(K),
    /// That was all of it.
    InitDone,
    /// An object is there, and like this.
    Apply(K),
    /// An object has gone.
    Delete(Joined),
}

/// The changes of one kind, without end.
pub struct Feed<K> {
    kind: &'static str,
    events: BoxStream<'static, Result<Event<K>, watch::WatchError>>,
    /// Objects that are there.
    known: HashSet<Joined>,
    /// Objects named by a list that is being read, if one is and something was known before.
    listed: Option<HashSet<Joined>>,
    /// Objects to be told gone.
    gone: Vec<Joined>,
    complete: bool,
    /// When reading and decoding of the last event began.
    arrived: Instant,
}

impl<K> Feed<K>
where
    K: Resource + Debug + Clone + DeserializeOwned + Send + 'static,
{
    /// Watches all objects of a kind.
    pub fn all(kind: &'static str, api: Api<K>) -> Self {
        Self::selected(kind, api, Selection::default())
    }

    /// Watches the objects of a kind whose fields are like this.
    pub fn with_fields(kind: &'static str, api: Api<K>, fields: String) -> Self {
        Self::selected(kind, api, Selection { fields: Some(fields), labels: None })
    }

    /// Watches the objects of a kind whose labels are like this.
    pub fn with_labels(kind: &'static str, api: Api<K>, labels: String) -> Self {
        Self::selected(kind, api, Selection { fields: None, labels: Some(labels) })
    }

    fn selected(kind: &'static str, api: Api<K>, selection: Selection) -> Self {
        let path = api.resource_url().to_owned();
        let events = watch::watch(api.into_client(), path, selection, Whole::<K>(PhantomData));
        Self::of(kind, events.default_backoff())
    }
}

impl<K: Named + Send + 'static> Feed<K> {
    /// Watches all objects of a kind, and keeps of them what the reader does. The kind is that of the API.
    pub fn reading<A>(kind: &'static str, client: kube::Client, reader: impl Reader<Object = K>) -> Self
    where
        A: Resource<DynamicType = ()>,
    {
        let path = A::url_path(&(), None);
        Self::of(kind, watch::watch(client, path, Selection::default(), reader).default_backoff())
    }

    fn of(
        kind: &'static str,
        events: impl Stream<Item = Result<Event<K>, watch::WatchError>> + Send + 'static,
    ) -> Self {
        let (known, arrived) = (HashSet::default(), Instant::now());
        Self { kind, events: events.boxed(), known, listed: None, gone: Vec::new(), complete: false, arrived }
    }

    /// When the last change came: before its bytes were read and decoded.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The next change. Failures of the watch are logged and waited out. Can be cancelled without losing a change.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(name) = self.gone.pop() {
                return Change::Gone(split(&name));
            }
            if std::mem::take(&mut self.complete) {
                return Change::Complete;
            }
            let Self { events, arrived, .. } = self;
            let event = std::future::poll_fn(|context| {
                let begun = Instant::now();
                let polled = events.poll_next_unpin(context);
                if polled.is_ready() {
                    *arrived = begun;
                }
                polled
            });
            match event.await {
                Some(Ok(event)) => {
                    if let Some(change) = self.take(event) {
                        return change;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        kind = self.kind,
                        error = &error as &dyn std::error::Error,
                        "watch failed; trying again"
                    );
                }
                // The watcher never ends of itself.
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, event: Event<K>) -> Option<Change<K>> {
        match event {
            // The first list takes nothing away.
            Event::Init => self.listed = (!self.known.is_empty()).then(HashSet::default),
            Event::InitApply(object) => {
                let name = joined_of(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.known.insert(name);
                return Some(Change::Set(object));
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.gone = self.known.extract_if(|name| !listed.contains(name)).collect();
                }
                self.complete = true;
            }
            Event::Apply(object) => {
                self.known.insert(joined_of(&object));
                return Some(Change::Set(object));
            }
            Event::Delete(name) => {
                self.known.remove(&name);
                return Some(Change::Gone(split(&name)));
            }
        }
        None
    }
}

fn joined(namespace: &str, name: &str) -> Joined {
    [namespace, name].join("/").into()
}

fn joined_of(object: &impl Named) -> Joined {
    let (namespace, name) = object.name();
    joined(namespace, name)
}

fn split(name: &str) -> Name {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    (namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str) -> Service {
        let metadata =
            ObjectMeta { name: Some(name.into()), namespace: Some("ns".into()), ..ObjectMeta::default() };
        Service { metadata, ..Service::default() }
    }

    #[tokio::test]
    async fn a_relist_tells_what_has_gone_meanwhile() {
        let events = [
            Event::Init,
            Event::InitApply(object("a")),
            Event::InitApply(object("b")),
            Event::InitDone,
            Event::Apply(object("c")),
            Event::Delete(joined("ns", "a")),
            Event::Init,
            Event::InitApply(object("c")),
            Event::InitDone,
        ];
        let stream = futures::stream::iter(events.map(Ok)).chain(futures::stream::pending());
        let mut feed = Feed::of("Service", stream);
        let before = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(match feed.next().await {
                Change::Set(object) => format!("+{}", object.metadata.name.unwrap_or_default()),
                Change::Gone((_, name)) => format!("-{name}"),
                Change::Complete => "complete".to_owned(),
            });
        }
        assert!(feed.arrived() >= before);
        assert_eq!(seen, ["+a", "+b", "complete", "+c", "-a", "+c", "-b", "complete"]);
    }
}
