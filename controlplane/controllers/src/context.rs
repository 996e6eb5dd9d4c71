//! What controllers are started with, and the loop that owns their tasks.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::serde::Serialize;
use kube::Client;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::runtime::informer::Informers;
use crate::runtime::object::Object;
use crate::runtime::recorder::{Recorder, recorder};
use crate::runtime::writer::Writer;
use crate::{ClientFor, ControllersConfig};

/// The client name of the shared informers.
pub const SHARED: &str = "kube-controller-manager";

/// So long after the last one of them ended the other tasks are not waited for any more.
const LAST_WORK: Duration = Duration::from_secs(3);

/// Who a controller is to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// The identity behind a client name: a service account of kube-system, or the component itself for [`SHARED`].
pub fn identity(name: &str) -> Identity {
    if name == SHARED {
        return Identity {
            user: format!("system:{SHARED}"),
            groups: vec!["system:authenticated".to_owned()],
        };
    }
    Identity {
        user: format!("system:serviceaccount:kube-system:{name}"),
        groups: ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// What every controller gets at its start.
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) config: ControllersConfig,
    pub(crate) cancel: CancellationToken,
    client_for: ClientFor,
    background: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Context {
    pub(crate) fn new(client_for: ClientFor, config: ControllersConfig, cancel: CancellationToken) -> Self {
        Self {
            informers: Informers::new(client_for(SHARED), cancel.clone()),
            config,
            cancel,
            client_for,
            background: Mutex::default(),
        }
    }

    /// The client of a controller.
    pub(crate) fn client(&self, name: &str) -> Client {
        (self.client_for)(name)
    }

    /// A writer for objects of a kind with a controller's identity.
    pub(crate) fn writer<K>(&self, name: &str) -> Writer<K>
    where
        K: Object<DynamicType = ()> + DeserializeOwned + Serialize,
    {
        Writer::new(self.client(name), self.informers.all::<K>())
    }

    /// A recorder of events with a controller's identity, which is also the component that they name.
    pub(crate) fn recorder(&self, name: &'static str) -> Recorder {
        self.recorder_as(name, name)
    }

    /// The same for a component whose events have always had another name than the identity that writes them.
    pub(crate) fn recorder_as(&self, identity: &'static str, component: &'static str) -> Recorder {
        let (recorder, task) = recorder(self.client(identity), component, self.cancel.clone());
        self.background.lock().push(task.boxed());
        recorder
    }

    /// Has a task owned and ended with the controllers.
    pub(crate) fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.lock().push(task.boxed());
    }

    /// Runs everything that was started until cancelled.
    pub(crate) async fn run(
        &self,
        controllers: Vec<(&'static str, BoxFuture<'static, ()>)>,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let background = std::mem::take(&mut *self.background.lock());
        for task in self.informers.take_tasks().into_iter().chain(background) {
            tasks.spawn(task.map(|()| "background task"));
        }
        for (name, task) in controllers {
            tasks.spawn(task.map(move |()| name));
        }
        let ended = tokio::select! {
            () = self.cancel.cancelled() => None,
            ended = tasks.join_next() => ended,
        };
        let asked = self.cancel.is_cancelled();
        self.cancel.cancel();
        // Whoever works ends what it does. Who still waits for its first lists, which nobody reads any more, has begun nothing.
        while let Ok(Some(_)) = tokio::time::timeout(LAST_WORK, tasks.join_next()).await {}
        tasks.shutdown().await;
        match ended {
            _ if asked => Ok(()),
            None => Ok(()),
            Some(Ok(name)) => bail!("controller {name} ended by itself"),
            Some(Err(error)) => bail!("a controller failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use kube::client::Body;

    use super::*;

    /// An API server that is never there must not keep controllers from ending.
    #[tokio::test(start_paused = true)]
    async fn controllers_that_wait_for_their_lists_end() {
        let silent = tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
        });
        let client = Client::new(silent, "default");
        let cancel = CancellationToken::new();
        let context =
            Context::new(Arc::new(move |_| client.clone()), ControllersConfig::default(), cancel.clone());
        let pods = context.informers.all::<Pod>();
        let waiting = async move { pods.wait_synced().await }.boxed();
        cancel.cancel();
        let ended =
            tokio::time::timeout(Duration::from_secs(60), context.run(vec![("waiting", waiting)])).await;
        assert!(ended.expect("it ends").is_ok());
    }
}
