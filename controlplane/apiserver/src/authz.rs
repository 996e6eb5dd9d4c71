//! Authorization: may this user do this. The groups of all power, then the nodes' own rules, then RBAC.
//!
//! It reads roles and bindings from the caches; it must not know bodies of requests.

mod escalation;
mod node;
mod policy;
mod rbac;
mod rules;

use std::sync::Arc;

use pagurus_controlplane_api::status::ApiError;

use crate::objects::Objects;
use crate::request::{GROUP_MASTERS, RequestInfo, UserInfo};

pub use rules::Rule;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "RBAC's own words; empty where they do not apply")]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

static NOBODY: UserInfo = UserInfo {
    name: String::new(),
    uid: String::new(),
    groups: Vec::new(),
    extra: std::collections::BTreeMap::new(),
};

impl Default for Attributes<'_> {
    fn default() -> Self {
        Self {
            user: &NOBODY,
            verb: "",
            is_resource: false,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
        }
    }
}

impl<'a> Attributes<'a> {
    /// What a request asks for.
    pub fn of_request(info: &'a RequestInfo, user: &'a UserInfo) -> Self {
        Self {
            user,
            verb: info.verb.as_str(),
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: info.subresource.as_deref().unwrap_or_default(),
            namespace: info.namespace.as_deref().unwrap_or_default(),
            name: info.name.as_deref().unwrap_or_default(),
            path: &info.path,
        }
    }

    /// The refusal, in upstream's words.
    pub fn forbidden(&self, reason: &str) -> ApiError {
        let Self { user, verb, group, namespace, .. } = self;
        let mut why = if self.is_resource {
            let resource = match self.subresource {
                "" => self.resource.to_owned(),
                sub => format!("{}/{sub}", self.resource),
            };
            let place = match *namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            format!(
                "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}",
                user.name
            )
        } else {
            format!("User \"{}\" cannot {verb} path \"{}\"", user.name, self.path)
        };
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        ApiError::forbidden(group, self.resource, self.name, &why)
    }
}

/// The answer, with the reason to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(String),
    /// Nobody said yes.
    NoOpinion(String),
}

/// Decides by the stored roles and bindings.
pub struct Authorizer {
    policy: policy::Policy,
    objects: Arc<dyn Objects>,
}

impl Authorizer {
    /// An authorizer over those objects.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { policy: policy::Policy::new(objects.clone()), objects }
    }

    /// Decides.
    pub fn decide(&self, request: &Attributes<'_>) -> Decision {
        if request.user.in_group(GROUP_MASTERS) {
            return Decision::Allow(String::new());
        }
        let index = self.policy.current();
        let mut reasons = Vec::new();
        if let Some(node) = node::name_of(request.user) {
            match node::decide(node, request, &index, &*self.objects) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                allow => return allow,
            }
        }
        match index.authorize(request) {
            Decision::NoOpinion(reason) => {
                reasons.extend((!reason.is_empty()).then_some(reason));
                Decision::NoOpinion(reasons.join(", "))
            }
            allow => allow,
        }
    }

    /// Decides; a refusal is the error to answer.
    pub fn check(&self, request: &Attributes<'_>) -> Result<(), ApiError> {
        match self.decide(request) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(request.forbidden(&reason)),
        }
    }

    /// Why the user may not give those rules to somebody, if they may not: they do not hold them all in the namespace.
    pub fn escalation(&self, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Option<String> {
        let (held, _) = self.rules_for(user, namespace);
        let missing = escalation::uncovered(&held, wanted);
        if missing.is_empty() {
            return None;
        }
        let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        Some(format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        ))
    }

    /// The rules of a Role (where `namespace` is not empty) or ClusterRole, those it aggregates included.
    pub fn role_rules(&self, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        let index = self.policy.current();
        let rules = if namespace.is_empty() {
            index.cluster_role_rules(name)
        } else {
            index.role_rules(namespace, name)
        };
        rules.map(|rules| rules.into_iter().cloned().collect())
    }

    /// Every rule that holds for the user in the namespace, and whether some could not be found.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, bool) {
        let everything = user.in_group(GROUP_MASTERS).then(|| {
            let all = || vec!["*".to_owned()];
            [
                Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
            ]
        });
        let index = self.policy.current();
        let (rules, incomplete) = index.rules_for(user, namespace);
        (everything.into_iter().flatten().chain(rules.into_iter().cloned()).collect(), incomplete)
    }
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let user = UserInfo { name: "u".into(), ..UserInfo::default() };
        let pods = Attributes {
            user: &user,
            verb: "list",
            is_resource: true,
            resource: "pods",
            namespace: "ns",
            ..Attributes::default()
        };
        let rows = [
            (
                pods,
                "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\"",
            ),
            (
                Attributes {
                    verb: "patch",
                    group: "apps",
                    resource: "deployments",
                    subresource: "scale",
                    name: "x",
                    namespace: "",
                    ..pods
                },
                "deployments.apps \"x\" is forbidden: User \"u\" cannot patch resource \"deployments/scale\" in API group \"apps\" at the cluster scope",
            ),
            (
                Attributes { user: &user, verb: "get", path: "/metrics", ..Attributes::default() },
                "forbidden: User \"u\" cannot get path \"/metrics\"",
            ),
        ];
        for (request, want) in rows {
            assert_eq!(request.forbidden("").message, want);
        }
    }
}
