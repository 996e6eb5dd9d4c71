//! Tells the API server how pods are, that they are gone, and asks it for the tokens they show.
//! Must not decide what to tell.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use pagurus_agent_core::names::{PodName, PodUid};
use pagurus_agent_core::pods::admit::affinity::Labels;
use pagurus_agent_core::pods::spec::{Pod, TokenProjection};
use serde_json::{Value, json};

use crate::index::pods::resource;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Why the API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// The pod is not there any more, or another one of the same name is.
    #[error("pod {0} is gone")]
    Gone(PodName),
    /// It was refused, or not heard.
    #[error("{operation} {object}: {}", chain(source))]
    Failed {
        /// What was asked.
        operation: &'static str,
        /// About what.
        object: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// There was no answer.
    #[error("{operation} {object}: no answer within {} s", ANSWER.as_secs())]
    Silent {
        /// What was asked.
        operation: &'static str,
        /// About what.
        object: String,
    },
    /// The answer makes no sense.
    #[error("{operation} {object}: the answer has no {missing}")]
    Incomplete {
        /// What was asked.
        operation: &'static str,
        /// About what.
        object: String,
        /// What is not there.
        missing: &'static str,
    },
}

/// An error with its causes: the outermost alone often says no more than "it failed".
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

/// A token of a service account.
#[derive(Clone)]
pub struct Token {
    /// The token.
    pub text: String,
    /// When it is no longer good.
    pub expires: Timestamp,
}

/// What a pod's worker wants of the API server.
#[async_trait]
pub trait PodApi: Send + Sync + 'static {
    /// Applies a strategic merge patch to the status; answers the pod that came of it.
    async fn patch_status(&self, name: &PodName, uid: &PodUid, status: Value)
    -> Result<Box<Pod>, ApiFailure>;
    /// Says that nothing is left of the pod.
    async fn delete(&self, name: &PodName, uid: &PodUid) -> Result<(), ApiFailure>;
    /// A new token for the pod's service account, bound to the pod.
    async fn token(&self, pod: &Pod, wanted: &TokenProjection) -> Result<Token, ApiFailure>;
    /// The runtime's handler of a runtime class.
    async fn runtime_handler(&self, class: &str) -> Result<String, ApiFailure>;
    /// The labels of a node.
    async fn node_labels(&self, node: &str) -> Result<Labels, ApiFailure>;
}

/// The API server behind a client.
#[derive(Clone)]
pub struct PodClient {
    client: kube::Client,
}

impl PodClient {
    /// Speaks through this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }
}

async fn ask<T>(
    operation: &'static str,
    object: String,
    answer: impl Future<Output = kube::Result<T>> + Send,
) -> Result<T, ApiFailure> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApiFailure::Failed { operation, object, source: Box::new(source) }),
        Err(_) => Err(ApiFailure::Silent { operation, object }),
    }
}

/// A pod that is not there is gone. One of another identity is a refusal like others: the watch will say what became of it.
fn gone<T>(name: &PodName, result: Result<T, ApiFailure>) -> Result<T, ApiFailure> {
    match result {
        Err(ApiFailure::Failed { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.is_not_found()) => {
            Err(ApiFailure::Gone(name.clone()))
        }
        other => other,
    }
}

#[async_trait]
impl PodApi for PodClient {
    async fn patch_status(
        &self,
        name: &PodName,
        uid: &PodUid,
        status: Value,
    ) -> Result<Box<Pod>, ApiFailure> {
        const OPERATION: &str = "patch the status of pod";
        // The identity in the patch makes it fail on a successor of the same name.
        let patch = json!({"metadata": {"uid": uid.as_str()}, "status": status});
        let pods = self.pods(&name.namespace);
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let call = pods.patch_status(&name.name, &params, &patch);
        let answer = gone(name, ask(OPERATION, name.to_string(), call).await)?;
        let decoded = serde_json::to_value(answer).ok().and_then(|object| Pod::decode(object).ok());
        let incomplete =
            || ApiFailure::Incomplete { operation: OPERATION, object: name.to_string(), missing: "pod" };
        decoded.map(Box::new).ok_or_else(incomplete)
    }

    async fn delete(&self, name: &PodName, uid: &PodUid) -> Result<(), ApiFailure> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.0.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let pods = self.pods(&name.namespace);
        let answer = ask("delete pod", name.to_string(), pods.delete(&name.name, &params)).await;
        match gone(name, answer) {
            Ok(_) | Err(ApiFailure::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn token(&self, pod: &Pod, wanted: &TokenProjection) -> Result<Token, ApiFailure> {
        const OPERATION: &str = "request a token for service account";
        let account =
            if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let audiences = if wanted.audience.is_empty() { json!([]) } else { json!([wanted.audience]) };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": wanted.expiration_seconds.unwrap_or(3600),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name.name, "uid": pod.uid.as_str()},
            },
        });
        let object = format!("{}/{account}", pod.name.namespace);
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", pod.name.namespace);
        let incomplete =
            |missing| ApiFailure::Incomplete { operation: OPERATION, object: object.clone(), missing };
        let body = serde_json::to_vec(&request).map_err(|_| incomplete("request"))?;
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| incomplete("request"))?;
        let answer: Value = ask(OPERATION, object.clone(), self.client.request(request)).await?;
        let text = answer["status"]["token"].as_str().ok_or_else(|| incomplete("token"))?.to_owned();
        let expires = answer["status"]["expirationTimestamp"].as_str().and_then(|time| time.parse().ok());
        Ok(Token { text, expires: expires.ok_or_else(|| incomplete("expiration"))? })
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ApiFailure> {
        const OPERATION: &str = "get runtime class";
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("node.k8s.io", "v1", "RuntimeClass"));
        let classes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = ask(OPERATION, class.to_owned(), classes.get(class)).await?;
        let missing =
            || ApiFailure::Incomplete { operation: OPERATION, object: class.to_owned(), missing: "handler" };
        found.data["handler"].as_str().map(str::to_owned).ok_or_else(missing)
    }

    async fn node_labels(&self, node: &str) -> Result<Labels, ApiFailure> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
        let nodes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = ask("get node", node.to_owned(), nodes.get(node)).await?;
        Ok(found.metadata.labels.unwrap_or_default())
    }
}
