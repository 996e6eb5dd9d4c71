//! A change of what a running Pod's containers get, through the `resize` subresource.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::{Fields, set};
use crate::resources::pod_spec::quality;
use crate::resources::rules::Errors;
use crate::strategy::keep_all_but;

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Takes the requests, limits and resize policies from the request, all else from what is stored.
pub(super) fn keep_all_but_resources(pod: &mut Value, old: &Value) {
    let asked = pod.at("spec").clone();
    keep_all_but(pod, old, &["metadata"]);
    for list in LISTS {
        for container in crate::resources::fields::items_mut(pod, &format!("spec.{list}")) {
            let name = container.text("name").to_owned();
            let Some(new) = asked.items(list).iter().find(|c| c.text("name") == name) else { continue };
            for part in ["resources", "resizePolicy"] {
                let value = new.at(part);
                set(container, part, (!value.is_null()).then(|| value.clone()));
            }
        }
    }
}

/// What is wrong with the change.
pub(super) fn change(errors: &mut Errors, pod: &Value, old: &Value) {
    for list in LISTS {
        let pairs = pod.at("spec").items(list).iter().zip(old.at("spec").items(list));
        for (i, (new, before)) in pairs.enumerate() {
            let path = Path::new("spec").child(list).index(i).child("resources");
            for kind in ["limits", "requests"] {
                let path = path.child(kind);
                let (new, before) = (new.at("resources").at(kind), before.at("resources").at(kind));
                let gone = |name: &str| new.get(name).is_none();
                let names = before.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                if names.clone().any(gone) {
                    let text = format!("resource {kind} cannot be removed");
                    errors.push(FieldError::forbidden(&path, text));
                }
                let others = new.as_object().into_iter().flatten().filter(|(name, value)| {
                    !matches!(name.as_str(), "cpu" | "memory") && before.get(name.as_str()) != Some(*value)
                });
                if others.count() > 0 {
                    errors.push(FieldError::forbidden("spec", "only cpu and memory resources are mutable"));
                }
            }
        }
    }
    let (now, before) = (quality::class(pod.at("spec")), quality::class(old.at("spec")));
    if now != before {
        let text = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", now, text));
    }
}
