//! Root CA publisher: every active namespace has the config map `kube-root-ca.crt`, with which pods know the API
//! server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::Context;
use crate::namespace::active;
use crate::runtime::object::{ObjectKey, annotation, key_of, namespace, set_annotation};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "root-ca-cert-publisher";
const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
    such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
    Kubernetes clusters.";

struct Controller {
    namespaces: Arc<Store<Namespace>>,
    maps: Arc<Store<ConfigMap>>,
    writer: Writer<ConfigMap>,
    root_ca: String,
}

/// The publisher of the root certificates.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let maps = context.informers.filtered::<ConfigMap>("metadata.name=kube-root-ca.crt");
    let controller = Controller {
        namespaces: context.informers.all(),
        maps: maps.clone(),
        writer: Writer::new(context.client(IDENTITY), maps),
        root_ca: context.config.service_account_ca.clone(),
    };
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.namespaces.on_change(move |change| sink.add(key_of(&change.object().metadata)));
    let sink = queue.clone();
    controller.maps.on_change(move |change| {
        sink.add(ObjectKey::cluster(namespace(&change.object().metadata)));
    });
    let cancel = context.cancel.clone();
    async move {
        controller.namespaces.wait_synced().await;
        controller.maps.wait_synced().await;
        drive(IDENTITY, queue, 4, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// What a namespace's map shall be: `None` if it is right already.
fn plan(namespace: &str, there: Option<&ConfigMap>, root_ca: &str) -> Option<ConfigMap> {
    let data = BTreeMap::from([("ca.crt".to_owned(), root_ca.to_owned())]);
    let right = there.is_some_and(|map| {
        map.data.as_ref() == Some(&data) && annotation(&map.metadata, DESCRIPTION).is_some()
    });
    if right {
        return None;
    }
    let mut map = there.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    set_annotation(&mut map.metadata, DESCRIPTION, TEXT);
    map.data = Some(data);
    Some(map)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        if !self.namespaces.get(&key).is_some_and(|n| active(&n)) {
            return Ok(None);
        }
        let there = self.maps.get(&ObjectKey::namespaced(&key.name, NAME));
        let Some(map) = plan(&key.name, there.as_deref(), &self.root_ca) else { return Ok(None) };
        let result =
            if there.is_some() { self.writer.replace(&map).await } else { self.writer.create(&map).await };
        match result {
            Err(error) if outcome::namespace_terminating(&error) => Ok(None),
            other => Ok(other.map(|_| None)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_and_leaves_alone() {
        let made = plan("ns", None, "PEM").unwrap();
        assert_eq!(made.data.as_ref().unwrap()["ca.crt"], "PEM");
        assert_eq!(plan("ns", Some(&made), "PEM"), None);
        assert!(plan("ns", Some(&made), "NEW").is_some());
        let mut damaged = made.clone();
        damaged.data.as_mut().unwrap().insert("x".to_owned(), String::new());
        assert_eq!(plan("ns", Some(&damaged), "PEM"), Some(made));
    }
}
