//! Watches and their restarts, turned into three cases: something is there, something is gone, this is all there is.

use std::collections::HashSet;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// A watch of all objects of a kind.
pub(crate) type Watch<K> = BoxStream<'static, Result<Event<K>, watcher::Error>>;

/// Watches all objects of a kind, with back-off.
pub(crate) fn watch<K>(client: &Client) -> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().boxed()
}

/// What an event means.
pub(crate) enum Step<K> {
    Put(K),
    Gone(K),
    /// A list is complete: what is not in it is gone.
    Listed(HashSet<String>),
    Nothing,
}

/// The state of one watch.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    seen: Option<HashSet<String>>,
    known: bool,
}

impl Listing {
    /// Whether there has been a complete list.
    pub(crate) fn known(&self) -> bool {
        self.known
    }

    /// Takes in an event; `id` tells objects of the kind apart.
    pub(crate) fn take<K>(&mut self, event: Event<K>, id: fn(&K) -> String) -> Step<K> {
        match event {
            Event::Init => {
                self.seen = Some(HashSet::new());
                Step::Nothing
            }
            Event::InitApply(object) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(id(&object));
                }
                Step::Put(object)
            }
            Event::InitDone => {
                self.known = true;
                Step::Listed(self.seen.take().unwrap_or_default())
            }
            Event::Apply(object) => Step::Put(object),
            Event::Delete(object) => Step::Gone(object),
        }
    }
}
