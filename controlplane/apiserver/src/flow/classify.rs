//! Which FlowSchema a request belongs to, and so which priority level: the first that matches, by precedence, then by name
//! (flowcontrol.apiserver.k8s.io/v1, KEP-1040). It must not know how requests are queued.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{GROUP, level};
use crate::cache::Cache;
use crate::engine::Engine;
use crate::request::{RequestInfo, UserInfo};

const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Knows the FlowSchemas as they are.
pub struct Classifier {
    stored: Option<(Arc<Cache>, Arc<Cache>)>,
    known: ArcSwap<Known>,
}

/// The schemas in their order, and of which revisions of schemas and levels they are.
#[derive(Default)]
struct Known {
    of: (u64, u64),
    schemas: Vec<Schema>,
}

/// What a request is told of its flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    schema: HeaderValue,
    level: HeaderValue,
}

struct Schema {
    precedence: i64,
    name: String,
    flow: Flow,
    spec: Value,
}

impl Classifier {
    /// A classifier over the engine's FlowSchemas.
    pub fn new(engine: &Engine) -> Self {
        let stored =
            engine.cache(GROUP, "flowschemas").zip(engine.cache(GROUP, "prioritylevelconfigurations"));
        Self { stored, known: ArcSwap::default() }
    }

    /// The flow of a request; none as long as no schema is for it.
    pub fn flow(&self, info: &RequestInfo, user: &UserInfo) -> Option<Flow> {
        let (schemas, levels) = self.stored.as_ref()?;
        let of = (schemas.revision(), levels.revision());
        let mut known = self.known.load_full();
        if known.of != of {
            known = Arc::new(Known { of, schemas: read(schemas, levels) });
            self.known.store(known.clone());
        }
        let schema = known.schemas.iter().find(|schema| matches(&schema.spec, info, user))?;
        Some(schema.flow.clone())
    }
}

impl Flow {
    /// Tells it the client.
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA, self.schema);
        headers.insert(LEVEL, self.level);
    }
}

/// The schemas whose level exists; the others count for nothing.
fn read(schemas: &Cache, levels: &Cache) -> Vec<Schema> {
    let mut out: Vec<Schema> = Vec::new();
    for stored in schemas.list(None) {
        let value = stored.value();
        let Some(of) = levels.get(None, level(&value)) else { continue };
        let (Ok(schema), Ok(level)) = (HeaderValue::from_str(&stored.uid), HeaderValue::from_str(&of.uid))
        else {
            continue;
        };
        out.push(Schema {
            precedence: value.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or(0),
            name: stored.key.name.to_string(),
            flow: Flow { schema, level },
            spec: value["spec"].clone(),
        });
    }
    out.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
    out
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a list names something, or everything.
fn names(rule: &Value, field: &str, wanted: &str) -> bool {
    list(rule, field).filter_map(Value::as_str).any(|name| name == "*" || name == wanted)
}

fn matches(spec: &Value, info: &RequestInfo, user: &UserInfo) -> bool {
    list(spec, "rules").any(|rule| {
        list(rule, "subjects").any(|subject| is_subject(subject, user))
            && if info.is_resource {
                list(rule, "resourceRules").any(|rule| is_resource(rule, info))
            } else {
                list(rule, "nonResourceRules").any(|rule| is_path(rule, info))
            }
    })
}

fn is_subject(subject: &Value, user: &UserInfo) -> bool {
    let of = |field: &str| subject.get(field).unwrap_or(&Value::Null);
    match text(subject, "kind") {
        "User" => matches!(text(of("user"), "name"), name if name == "*" || name == user.name),
        "Group" => matches!(text(of("group"), "name"), name if name == "*" || user.in_group(name)),
        "ServiceAccount" => {
            let account = user.name.strip_prefix("system:serviceaccount:").and_then(|a| a.split_once(':'));
            let (namespace, name) =
                (text(of("serviceAccount"), "namespace"), text(of("serviceAccount"), "name"));
            account.is_some_and(|(n, a)| n == namespace && (name == "*" || name == a))
        }
        _ => false,
    }
}

fn is_resource(rule: &Value, info: &RequestInfo) -> bool {
    let place = match info.namespace.as_deref().unwrap_or_default() {
        "" => rule.get("clusterScope") == Some(&Value::Bool(true)),
        namespace => names(rule, "namespaces", namespace),
    };
    place
        && names(rule, "verbs", info.verb.as_str())
        && names(rule, "apiGroups", &info.group)
        && names(rule, "resources", &info.resource_path())
}

fn is_path(rule: &Value, info: &RequestInfo) -> bool {
    let fits = |url: &str| match url.strip_suffix('*') {
        Some(beginning) => info.path.starts_with(beginning),
        None => url == info.path,
    };
    names(rule, "verbs", info.verb.as_str())
        && list(rule, "nonResourceURLs").filter_map(Value::as_str).any(fits)
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("schemas", &self.known.load().schemas.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_asks_for_what() {
        let spec = |subject: Value, rule: Value| {
            let rules =
                if rule.get("nonResourceURLs").is_some() { "nonResourceRules" } else { "resourceRules" };
            json!({"rules": [{"subjects": [subject], rules: [rule]}]})
        };
        let anybody = json!({"kind": "Group", "group": {"name": "system:authenticated"}});
        let account = |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": name}});
        let pods = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "pods/log"], "namespaces": ["ns"]});
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
        let here = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]});
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/livez", "/apis/*"]});
        let rows = [
            (spec(anybody.clone(), pods.clone()), "/api/v1/namespaces/ns/pods", true),
            (spec(anybody.clone(), pods.clone()), "/api/v1/namespaces/other/pods", false),
            (spec(anybody.clone(), pods.clone()), "/api/v1/namespaces/ns/pods/x/log", false),
            (spec(anybody.clone(), pods), "/api/v1/namespaces/ns/secrets", false),
            (spec(anybody.clone(), all.clone()), "/apis/apps/v1/namespaces/ns/deployments/x/scale", true),
            (spec(anybody.clone(), all.clone()), "/api/v1/nodes", true),
            (spec(anybody.clone(), here), "/api/v1/nodes", false),
            (spec(anybody.clone(), all.clone()), "/livez", false),
            (spec(anybody.clone(), paths.clone()), "/livez", true),
            (spec(anybody.clone(), paths.clone()), "/livez/ping", false),
            (spec(anybody, paths), "/apis/apps", true),
            (spec(account("*"), all.clone()), "/api/v1/nodes", true),
            (spec(account("robot"), all.clone()), "/api/v1/nodes", true),
            (spec(account("other"), all.clone()), "/api/v1/nodes", false),
            (spec(json!({"kind": "User", "user": {"name": "*"}}), all.clone()), "/api/v1/nodes", true),
            (spec(json!({"kind": "User", "user": {"name": "robot"}}), all), "/api/v1/nodes", false),
        ];
        let user = UserInfo::service_account("ns", "robot", "u");
        for (spec, path, want) in rows {
            let info = RequestInfo::parse(&Method::GET, &path.parse().expect("path")).expect("info");
            assert_eq!(matches(&spec, &info, &user), want, "{path} {spec}");
        }
    }
}
