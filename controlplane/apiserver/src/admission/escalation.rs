//! Nobody writes a role with more rules than they hold, nor binds anybody to such a role, unless they may `escalate` or
//! `bind`. Upstream has this in the storage of roles and bindings; it refuses in the same words.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, Authorizer, Decision, Rule};
use crate::request::GROUP_MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";

/// See the module's description.
pub(super) struct NoEscalation {
    pub(super) authorizer: Arc<Authorizer>,
}

#[async_trait]
impl Plugin for NoEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        let in_group = &*attributes.resource.group == GROUP && attributes.subresource.is_none();
        if !writes || !in_group || attributes.user.in_group(GROUP_MASTERS) {
            return Ok(());
        }
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let why = match &*attributes.resource.plural {
            "roles" | "clusterroles" => self.role(attributes, object),
            "rolebindings" | "clusterrolebindings" => self.binding(attributes, object)?,
            _ => None,
        };
        why.map_or(Ok(()), |why| Err(attributes.forbidden(&why)))
    }
}

impl NoEscalation {
    fn role(&self, attributes: &Attributes<'_>, object: &Value) -> Option<String> {
        let unchanged = |field: &str| attributes.old.is_some_and(|old| old.get(field) == object.get(field));
        if unchanged("rules") && unchanged("aggregationRule")
            || self.may(attributes, "escalate", attributes.name)
        {
            return None;
        }
        let rules = if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
            // What it will hold nobody knows.
            everything()
        } else {
            rules_of(object)
        };
        self.authorizer.escalation(attributes.user, attributes.namespace.unwrap_or_default(), &rules)
    }

    fn binding(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Option<String>, ApiError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/roleRef/kind"), text("/roleRef/name"));
        let namespace = attributes.namespace.unwrap_or_default();
        let same = |field: &str| attributes.old.is_some_and(|old| old.get(field) == object.get(field));
        if same("roleRef") && same("subjects") || self.may_bind(attributes, kind, name) {
            return Ok(None);
        }
        let of = if kind == "Role" { namespace } else { "" };
        let Some(rules) = self.authorizer.role_rules(of, name) else {
            let resource = if kind == "Role" { "roles" } else { "clusterroles" };
            return Err(ApiError::not_found(GROUP, resource, name));
        };
        Ok(self.authorizer.escalation(attributes.user, namespace, &rules))
    }

    fn may_bind(&self, attributes: &Attributes<'_>, kind: &str, name: &str) -> bool {
        let resource = if kind == "Role" { "roles" } else { "clusterroles" };
        self.allows(attributes, "bind", resource, name)
    }

    fn may(&self, attributes: &Attributes<'_>, verb: &str, name: &str) -> bool {
        self.allows(attributes, verb, &attributes.resource.plural, name)
    }

    fn allows(&self, attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let request = authz::Attributes {
            user: attributes.user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "v1",
            resource,
            subresource: "",
            namespace: attributes.namespace.unwrap_or_default(),
            name,
            path: "",
        };
        matches!(self.authorizer.decide(&request), Decision::Allow(_))
    }
}

fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.map(Rule::from_value).collect()
}

fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::{attributes, validate};
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn rule(verb: &str, group: &str, resource: &str) -> Value {
        json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]})
    }

    /// The user `u` of the trial may read pods, and more if the test says so.
    fn plugin(more: Value) -> NoEscalation {
        let objects = FakeObjects::default();
        let mut rules = vec![rule("get", "", "pods")];
        rules.extend(more.as_array().cloned().unwrap_or_default());
        objects.put(&format!("{GROUP}/clusterroles"), &json!({"metadata": {"name": "held"}, "rules": rules}));
        objects.put(
            &format!("{GROUP}/clusterroles"),
            &json!({"metadata": {"name": "secrets"}, "rules": [rule("get", "", "secrets")]}),
        );
        objects.put(
            &format!("{GROUP}/clusterrolebindings"),
            &json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "held"},
                    "subjects": [{"kind": "User", "name": "u"}]}),
        );
        NoEscalation { authorizer: Arc::new(Authorizer::new(Arc::new(objects))) }
    }

    #[tokio::test]
    async fn grants_need_holdings() {
        let role = |rule: Value| json!({"rules": [rule]});
        let bind = |name: &str| json!({"roleRef": {"kind": "ClusterRole", "name": name}, "subjects": []});
        let refused = |resource: &str, what: &str| {
            format!(
                "{resource}.{GROUP} \"x\" is forbidden: user \"u\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{what}"
            )
        };
        let secrets = r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#;
        let rows = [
            ("roles", role(rule("get", "", "pods")), json!([]), String::new()),
            ("roles", role(rule("get", "", "secrets")), json!([]), refused("roles", secrets)),
            (
                "roles",
                role(rule("get", "", "secrets")),
                json!([rule("escalate", GROUP, "roles")]),
                String::new(),
            ),
            ("rolebindings", bind("held"), json!([]), String::new()),
            ("rolebindings", bind("secrets"), json!([]), refused("rolebindings", secrets)),
            ("rolebindings", bind("secrets"), json!([rule("bind", GROUP, "clusterroles")]), String::new()),
            ("rolebindings", bind("gone"), json!([]), format!("clusterroles.{GROUP} \"gone\" not found")),
        ];
        for (resource, mut object, more, want) in rows {
            let attributes =
                attributes(Operation::Create, (GROUP, "v1", resource), Some("ns"), "x", &mut object);
            assert_eq!(validate(&plugin(more), attributes).await, want);
        }
    }
}
