//! ServiceAccount: every pod has an account that is there, its image pull secrets, and a token where it wants one.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::objects::{Objects, Stored};

const DEFAULT_ACCOUNT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR_ANNOTATION: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// One hour, and seven seconds by which such tokens are told from those that ask for an hour.
const TOKEN_SECONDS: u64 = 3607;

/// See the module's description.
pub(super) struct ServiceAccount {
    pub(super) objects: Arc<dyn Objects>,
}

impl ServiceAccount {
    async fn account(&self, namespace: &str, name: &str) -> Option<Stored> {
        match self.objects.get("", "serviceaccounts", namespace, name) {
            Some(found) => Some(found),
            // It may have been made a moment ago.
            None => self.objects.fresh("", "serviceaccounts", namespace, name).await,
        }
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let namespace = attributes.namespace.unwrap_or_default();
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        if pod.pointer(MIRROR_ANNOTATION).is_some() {
            return match mirror_pod_mistake(pod) {
                Some(mistake) => Err(attributes.forbidden(mistake)),
                None => Ok(()),
            };
        }
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let asked = spec.get("serviceAccountName").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = asked.unwrap_or(DEFAULT_ACCOUNT).to_owned();
        let Some(account) = self.account(namespace, &name).await else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            );
            return Err(attributes.forbidden(&why));
        };
        let account = account.parsed();
        spec.insert("serviceAccountName".to_owned(), json!(name));
        spec.insert("serviceAccount".to_owned(), json!(name));
        let wants_token = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
        let account_wants = account.get("automountServiceAccountToken").and_then(Value::as_bool);
        if wants_token.or(account_wants).unwrap_or(true) {
            mount_token(spec);
        }
        let has_secrets =
            spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|s| !s.is_empty());
        if let Some(secrets) = account.get("imagePullSecrets").filter(|_| !has_secrets) {
            spec.insert("imagePullSecrets".to_owned(), secrets.clone());
        }
        Ok(())
    }
}

/// Mirror pods show what a node runs by itself; they can hold nothing of the API.
fn mirror_pod_mistake(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    let account = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    if !account.is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        if volume.get("secret").is_some() {
            return Some("a mirror pod may not reference secrets");
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        if sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some()) {
            return Some("a mirror pod may not use ServiceAccountToken volume projections");
        }
    }
    None
}

/// Mounts a token volume where nothing is mounted at its place yet; the volume comes with the first mount.
fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = volumes.filter_map(|volume| volume.get("name")?.as_str()).collect();
    let existing = names.iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(|name| (*name).to_owned());
    let is_new = existing.is_none();
    let volume = existing.unwrap_or_else(|| free_name(&names));
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount.get("mountPath").is_some_and(|path| path == MOUNT_PATH)) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && is_new {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if volumes.is_null() {
            *volumes = json!([]);
        }
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn free_name(taken: &[&str]) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    loop {
        let suffix: String =
            (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
        let name = format!("{VOLUME_PREFIX}{suffix}");
        if !taken.contains(&name.as_str()) {
            return name;
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
            "defaultMode": 0o644,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::trial::{admit, attributes};
    use super::*;
    use crate::objects::fake::FakeObjects;

    async fn admitted(mut pod: Value) -> (Value, String) {
        let objects = Arc::new(FakeObjects::default());
        let account = |name: &str| json!({"metadata": {"namespace": "ns", "name": name}});
        objects.put("/serviceaccounts", &account("default"));
        let mut quiet = account("quiet");
        quiet["automountServiceAccountToken"] = json!(false);
        quiet["imagePullSecrets"] = json!([{"name": "pull"}]);
        objects.put("/serviceaccounts", &quiet);
        let plugin = ServiceAccount { objects };
        let attributes = attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
        let error = admit(&plugin, attributes).await;
        (pod, error)
    }

    #[tokio::test]
    async fn default_account_and_token() {
        let elsewhere = json!([{"name": "mine", "mountPath": MOUNT_PATH}]);
        let (pod, error) = admitted(json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": elsewhere}],
            "initContainers": [{"name": "i"}],
        }}))
        .await;
        assert_eq!(error, "");
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "default");
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5);
        assert_eq!(spec["volumes"][0]["projected"]["defaultMode"], 420);
        let mount = json!([{"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"], elsewhere);
    }

    #[tokio::test]
    async fn account_may_decline_and_lend() {
        let (pod, error) =
            admitted(json!({"spec": {"serviceAccountName": "quiet", "containers": [{"name": "a"}]}})).await;
        assert_eq!(error, "");
        assert!(pod["spec"].get("volumes").is_none());
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    }

    #[tokio::test]
    async fn refusals() {
        let (_, error) = admitted(json!({"spec": {"serviceAccountName": "none", "containers": []}})).await;
        assert_eq!(
            error,
            "pods \"p\" is forbidden: error looking up service account ns/none: serviceaccount \"none\" not found"
        );
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
                            "spec": {"volumes": [{"name": "v", "secret": {}}]}});
        assert_eq!(
            admitted(mirror).await.1,
            "pods \"p\" is forbidden: a mirror pod may not reference secrets"
        );
    }
}
