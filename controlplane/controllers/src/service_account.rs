//! ServiceAccount: every active namespace has the account `default`.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::Context;
use crate::namespace::active;
use crate::runtime::object::{ObjectKey, key_of, namespace};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "service-account-controller";
const ACCOUNT: &str = "default";

struct Controller {
    namespaces: Arc<Store<Namespace>>,
    accounts: Arc<Store<ServiceAccount>>,
    writer: Writer<ServiceAccount>,
}

/// The controller of default service accounts.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let accounts = context.informers.filtered::<ServiceAccount>("metadata.name=default");
    let controller = Controller {
        namespaces: context.informers.all(),
        accounts: accounts.clone(),
        writer: Writer::new(context.client(IDENTITY), accounts),
    };
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.namespaces.on_change(move |change| sink.add(key_of(&change.object().metadata)));
    let sink = queue.clone();
    controller.accounts.on_change(move |change| {
        if let Change::Deleted(account) = change {
            sink.add(ObjectKey::cluster(namespace(&account.metadata)));
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.namespaces.wait_synced().await;
        controller.accounts.wait_synced().await;
        drive(IDENTITY, queue, 4, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let there = self.accounts.get(&ObjectKey::namespaced(&key.name, ACCOUNT)).is_some();
        if there || !self.namespaces.get(&key).is_some_and(|n| active(&n)) {
            return Ok(None);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(ACCOUNT.to_owned()),
                namespace: Some(key.name),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.writer.create(&account).await {
            Err(error) if outcome::already_exists(&error) || outcome::namespace_terminating(&error) => {
                Ok(None)
            }
            other => Ok(other.map(|_| None)?),
        }
    }
}
