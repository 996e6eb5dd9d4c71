//! What the cluster allows pods beyond what makes sense in itself. It must not know who asks: that is for admission.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_schema::table::Resource;
use serde_json::Value;

use crate::resources::fields::Fields;

/// Where objects of a resource have a pod's specification; none if they have none.
pub(crate) fn place(resource: &Resource) -> Option<&'static str> {
    Some(match (&*resource.group, &*resource.plural) {
        ("", "pods") => "spec",
        ("", "podtemplates") => "template.spec",
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "spec.template.spec",
        ("batch", "cronjobs") => "spec.jobTemplate.spec.template.spec",
        _ => return None,
    })
}

/// Refuses privileged containers (`--allow-privileged=false`, which is kube-apiserver's default as well).
pub(crate) fn no_privileged(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let Some(place) = place(resource) else { return Vec::new() };
    let spec = object.at(place);
    let path = place.split('.').fold(Path::default(), |path, name| path.child(name));
    let mut errors = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, container) in spec.items(list).iter().enumerate() {
            if container.flag("securityContext.privileged") {
                let path = path.child(list).index(at).child("securityContext").child("privileged");
                errors.push(FieldError::forbidden(path, "disallowed by cluster policy"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use pagurus_controlplane_schema::table::{FieldKind, Table, TypeId};
    use serde_json::json;

    /// The paths to a pod's specification in a type.
    fn found(id: TypeId, path: &str, depth: usize, out: &mut Vec<String>) {
        let table = Table::builtin();
        for field in &table.type_(id).fields {
            let FieldKind::Object(next) = &field.kind else { continue };
            let path = if path.is_empty() {
                field.json_name.to_string()
            } else {
                format!("{path}.{}", field.json_name)
            };
            if &*table.type_(*next).name == "io.k8s.api.core.v1.PodSpec" {
                out.push(path);
            } else if depth > 0 {
                found(*next, &path, depth - 1, out);
            }
        }
    }

    #[test]
    fn every_resource_with_a_pod_has_its_place() {
        for resource in Table::builtin().resources() {
            let mut paths = Vec::new();
            found(resource.type_id, "", 5, &mut paths);
            assert_eq!(
                paths.first().map(String::as_str),
                place(resource),
                "{} {}",
                resource.group,
                resource.plural
            );
        }
    }

    #[test]
    fn privileged_containers_are_named() {
        let privileged = json!({"name": "a", "securityContext": {"privileged": true}});
        let plain = json!({"name": "b", "securityContext": {"privileged": false}});
        let spec = json!({"containers": [plain, privileged], "initContainers": [privileged]});
        let job = json!({"spec": {"template": {"spec": spec}}});
        let resource = Table::builtin().resource("batch", "v1", "jobs").unwrap();
        let errors: Vec<String> = no_privileged(resource, &job).iter().map(ToString::to_string).collect();
        let error = |at: &str| {
            format!(
                "spec.template.spec.{at}.securityContext.privileged: Forbidden: disallowed by cluster policy"
            )
        };
        assert_eq!(errors, [error("initContainers[0]"), error("containers[1]")]);
    }
}
