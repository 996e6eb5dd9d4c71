//! Classes that objects get without naming them, or by naming them: DefaultStorageClass, DefaultIngressClass,
//! RuntimeClass; and StorageObjectInUseProtection, which keeps what is in use from vanishing.

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

/// Gives claims without a class the default one.
pub(super) struct DefaultStorageClass {
    pub(super) objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let beta = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";
        let by_annotation = attributes.object.as_deref().is_some_and(|claim| claim.pointer(beta).is_some());
        let Some(spec) =
            attributes.spec_mut().filter(|spec| !by_annotation && lacks(spec, "storageClassName"))
        else {
            return Ok(());
        };
        let annotations = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        if let Some(class) = default_class(&*self.objects, "storage.k8s.io", "storageclasses", &annotations) {
            spec.insert("storageClassName".to_owned(), json!(class));
        }
        Ok(())
    }
}

/// Gives ingresses without a class the default one.
pub(super) struct DefaultIngressClass {
    pub(super) objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("networking.k8s.io", "ingresses") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let by_annotation = "/metadata/annotations/kubernetes.io~1ingress.class";
        let named =
            attributes.object.as_deref().is_some_and(|ingress| ingress.pointer(by_annotation).is_some());
        let Some(spec) = attributes.spec_mut().filter(|spec| !named && lacks(spec, "ingressClassName"))
        else {
            return Ok(());
        };
        let annotations = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) =
            default_class(&*self.objects, "networking.k8s.io", "ingressclasses", &annotations)
        {
            spec.insert("ingressClassName".to_owned(), json!(class));
        }
        Ok(())
    }
}

fn lacks(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_none_or(Value::is_null)
}

/// The newest of the classes that are marked as default; of several of one second, the first by name.
fn default_class(objects: &dyn Objects, group: &str, resource: &str, annotations: &[&str]) -> Option<String> {
    let marked =
        objects.list(group, resource, "").into_iter().map(|stored| stored.parsed()).filter(|class| {
            let of_class = class.pointer("/metadata/annotations");
            annotations.iter().any(|name| of_class.and_then(|a| a.get(*name)) == Some(&json!("true")))
        });
    let text = |class: &Value, pointer: &str| {
        class.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    marked
        .map(|class| (Reverse(text(&class, "/metadata/creationTimestamp")), text(&class, "/metadata/name")))
        .min()
        .map(|(_, name)| name)
}

/// Gives pods what their runtime class says: overhead, node selector, tolerations.
pub(super) struct RuntimeClass {
    pub(super) objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(spec) = attributes.spec_mut() else { return Ok(()) };
        let Some(name) = spec.get("runtimeClassName").and_then(Value::as_str).map(str::to_owned) else {
            if spec.get("overhead").is_some_and(|overhead| !overhead.is_null()) {
                return Err(attributes.forbidden(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                ));
            }
            return Ok(());
        };
        let found = match self.objects.get("node.k8s.io", "runtimeclasses", "", &name) {
            Some(found) => Some(found),
            None => self.objects.fresh("node.k8s.io", "runtimeclasses", "", &name).await,
        };
        let Some(class) = found.map(|stored| stored.parsed()) else {
            return Err(attributes.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")));
        };
        let Some(spec) = attributes.spec_mut() else { return Ok(()) };
        match apply_runtime_class(spec, &class) {
            Ok(()) => Ok(()),
            Err(why) => Err(attributes.forbidden(&why)),
        }
    }
}

fn apply_runtime_class(spec: &mut Map<String, Value>, class: &Value) -> Result<(), String> {
    if let Some(overhead) = class.pointer("/overhead/podFixed") {
        match spec.get("overhead").filter(|given| !given.is_null()) {
            Some(given) if given != overhead => {
                return Err(
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned()
                );
            }
            _ => spec.insert("overhead".to_owned(), overhead.clone()),
        };
    }
    if let Some(selector) = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object) {
        let mut of_pod = spec.get("nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
        for (key, value) in selector {
            if of_pod.get(key).is_some_and(|given| given != value) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or_default(),
                    of_pod[key].as_str().unwrap_or_default()
                ));
            }
            of_pod.insert(key.clone(), value.clone());
        }
        spec.insert("nodeSelector".to_owned(), Value::Object(of_pod));
    }
    if let Some(tolerations) = class.pointer("/scheduling/tolerations").and_then(Value::as_array) {
        let mut of_pod = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let new: Vec<_> =
            tolerations.iter().filter(|toleration| !of_pod.contains(toleration)).cloned().collect();
        of_pod.extend(new);
        spec.insert("tolerations".to_owned(), Value::Array(of_pod));
    }
    Ok(())
}

/// Puts finalizers on claims, volumes and their attribute classes, which a controller takes off when nothing uses them.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.operation != Operation::Create || attributes.subresource.is_some() {
            return Ok(());
        }
        let finalizer = match (&*attributes.resource.group, &*attributes.resource.plural) {
            ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        let metadata = attributes.object.as_deref_mut().and_then(|object| object.get_mut("metadata"));
        let Some(metadata) = metadata.and_then(Value::as_object_mut) else { return Ok(()) };
        let mut finalizers =
            metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(json!(finalizer));
            metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{admit, attributes};
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[tokio::test]
    async fn newest_default_class_is_given() {
        let objects = Arc::new(FakeObjects::default());
        let class = |name: &str, created: &str, default: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created,
                   "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        objects.put("storage.k8s.io/storageclasses", &class("old", "2025-01-01T00:00:00Z", "true"));
        objects.put("storage.k8s.io/storageclasses", &class("new", "2026-01-01T00:00:00Z", "true"));
        objects.put("storage.k8s.io/storageclasses", &class("other", "2027-01-01T00:00:00Z", "false"));
        let plugin = DefaultStorageClass { objects };
        for (spec, want) in [(json!({}), json!("new")), (json!({"storageClassName": ""}), json!(""))] {
            let mut claim = json!({"spec": spec});
            let attributes = attributes(
                Operation::Create,
                ("", "v1", "persistentvolumeclaims"),
                Some("ns"),
                "c",
                &mut claim,
            );
            assert_eq!(admit(&plugin, attributes).await, "");
            assert_eq!(claim["spec"]["storageClassName"], want);
        }
    }

    #[tokio::test]
    async fn runtime_class_is_applied() {
        let objects = Arc::new(FakeObjects::default());
        objects.put(
            "node.k8s.io/runtimeclasses",
            &json!({"metadata": {"name": "rc"}, "overhead": {"podFixed": {"cpu": "50m"}},
                    "scheduling": {"nodeSelector": {"rt": "h"}, "tolerations": [{"key": "rt"}]}}),
        );
        let plugin = RuntimeClass { objects };
        let rows = [
            (
                json!({"runtimeClassName": "rc"}),
                "",
                json!({"runtimeClassName": "rc", "overhead": {"cpu": "50m"}, "nodeSelector": {"rt": "h"}, "tolerations": [{"key": "rt"}]}),
            ),
            (
                json!({"runtimeClassName": "missing"}),
                "pods \"p\" is forbidden: pod rejected: RuntimeClass \"missing\" not found",
                json!({"runtimeClassName": "missing"}),
            ),
            (
                json!({"runtimeClassName": "rc", "overhead": {"cpu": "1"}}),
                "pods \"p\" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                json!({"runtimeClassName": "rc", "overhead": {"cpu": "1"}}),
            ),
        ];
        for (spec, want, after) in rows {
            let mut pod = json!({"spec": spec});
            let attributes = attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            assert_eq!(admit(&plugin, attributes).await, want);
            assert_eq!(pod["spec"], after);
        }
    }
}
