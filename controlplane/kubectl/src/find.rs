//! Which resource a user means by a word, from the server's discovery. Pure.

use anyhow::{Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// A resource as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    group: String,
    version: String,
    plural: String,
    namespaced: bool,
}

impl Resource {
    /// The path of an object.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let within =
            if self.namespaced { format!("/namespaces/{}", escape(namespace)) } else { String::new() };
        format!("{root}{within}/{}/{}", self.plural, escape(name))
    }

    /// The object as kubectl names it: `deployments.apps/web`.
    pub fn shown(&self, name: &str) -> String {
        match self.group.as_str() {
            "" => format!("{}/{name}", self.plural),
            group => format!("{}.{group}/{name}", self.plural),
        }
    }
}

/// The resource that a word means: plural, singular, short name or kind, also with a group, or version and group, after a dot. The
/// groups' order, then that of their versions, decides between several, as with kubectl.
pub fn resource(discoveries: &[Value; 2], word: &str) -> Result<Resource> {
    let lower = word.to_lowercase();
    let (name, place) = lower.split_once('.').unwrap_or((lower.as_str(), ""));
    for group in discoveries.iter().flat_map(|d| list(&d["items"])) {
        for version in list(&group["versions"]) {
            let (group, version_name) = (text(&group["metadata"]["name"]), text(&version["version"]));
            if !is_at(place, group, version_name) {
                continue;
            }
            let found = list(&version["resources"]).iter().find(|resource| is_called(resource, name));
            if let Some(found) = found {
                return Ok(Resource {
                    group: group.to_owned(),
                    version: version_name.to_owned(),
                    plural: text(&found["resource"]).to_owned(),
                    namespaced: found["scope"] == "Namespaced",
                });
            }
        }
    }
    bail!("the server doesn't have a resource type {word:?}")
}

/// Whether what follows the name means this group: nothing, `group`, its beginning up to a dot, `version.group`.
fn is_at(place: &str, group: &str, version: &str) -> bool {
    let is_group =
        |place: &str| place == group || group.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
    place.is_empty()
        || is_group(place)
        || place.strip_prefix(version).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_group)
        || (group.is_empty() && place.trim_end_matches('.') == version)
}

fn is_called(resource: &Value, name: &str) -> bool {
    let named = ["resource", "singularResource"].iter().any(|field| text(&resource[*field]) == name);
    let kind = text(&resource["responseKind"]["kind"]).to_lowercase() == name;
    named || kind || list(&resource["shortNames"]).iter().any(|short| text(short) == name)
}

/// A text; empty if it is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; none of anything else.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn discoveries() -> [Value; 2] {
        let resource = |plural: &str, kind: &str, short: &[&str], scope: &str| {
            json!({"resource": plural, "singularResource": kind.to_lowercase(), "scope": scope,
                "responseKind": {"kind": kind}, "shortNames": short})
        };
        let group = |name: &str, versions: Value| json!({"metadata": {"name": name}, "versions": versions});
        let version = |name: &str, resources: Vec<Value>| json!({"version": name, "resources": resources});
        let events = || resource("events", "Event", &["ev"], "Namespaced");
        [
            json!({"items": [group("", json!([version("v1", vec![
                events(), resource("nodes", "Node", &["no"], "Cluster"),
            ])]))]}),
            json!({"items": [
                group("apps", json!([version("v1", vec![resource("deployments", "Deployment", &["deploy"], "Namespaced")])])),
                group("events.k8s.io", json!([version("v1", vec![events()])])),
                group("autoscaling", json!([
                    version("v2", vec![resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "Namespaced")]),
                    version("v1", vec![resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "Namespaced")]),
                ])),
            ]}),
        ]
    }

    #[test]
    fn words() {
        let deployment = "/apis/apps/v1/namespaces/n/deployments/x";
        for (word, path) in [
            ("deployments", deployment),
            ("deployment", deployment),
            ("deploy", deployment),
            ("Deployment", deployment),
            ("deployments.apps", deployment),
            ("deployments.v1.apps", deployment),
            ("no", "/api/v1/nodes/x"),
            ("nodes.v1.", "/api/v1/nodes/x"),
            ("ev", "/api/v1/namespaces/n/events/x"),
            ("events.events.k8s.io", "/apis/events.k8s.io/v1/namespaces/n/events/x"),
            ("events.events", "/apis/events.k8s.io/v1/namespaces/n/events/x"),
            ("hpa", "/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers/x"),
            ("hpa.v1.autoscaling", "/apis/autoscaling/v1/namespaces/n/horizontalpodautoscalers/x"),
        ] {
            assert_eq!(resource(&discoveries(), word).unwrap().path("n", "x"), path, "{word}");
        }
        for word in ["", "nothings", "deployments.batch", "nodes.apps", "event.s"] {
            assert!(resource(&discoveries(), word).is_err(), "{word}");
        }
    }

    #[test]
    fn names_are_escaped_and_shown() {
        let found = resource(&discoveries(), "deploy").unwrap();
        assert_eq!(found.path("n", "a/b"), "/apis/apps/v1/namespaces/n/deployments/a%2Fb");
        assert_eq!(found.shown("web"), "deployments.apps/web");
    }
}
