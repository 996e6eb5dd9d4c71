//! RBAC: who may do what by the roles and bindings there are. The index is pure; `policy` feeds it from the caches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pagurus_controlplane_api::selectors::LabelSelector;
use serde_json::Value;

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::request::UserInfo;

/// A Role or ClusterRole.
#[derive(Debug)]
pub struct Role {
    /// What it allows, in itself.
    pub rules: Vec<Rule>,
    labels: BTreeMap<String, String>,
    /// The selectors of an aggregation rule; none for ordinary roles.
    aggregates: Vec<LabelSelector>,
}

impl Role {
    /// Reads a role.
    pub fn from_value(value: &Value) -> Self {
        let list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        Self {
            rules: list("/rules").map(Rule::from_value).collect(),
            labels: labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
            aggregates: list("/aggregationRule/clusterRoleSelectors")
                .filter_map(|selector| LabelSelector::from_json(selector).ok())
                .collect(),
        }
    }
}

/// Whom a binding names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
pub struct Binding {
    /// Namespace and name, as reasons tell them: `name/namespace` or `name`.
    shown: String,
    /// The subjects, and how reasons tell them.
    subjects: Vec<(Subject, String)>,
    /// `Role` or `ClusterRole`.
    role_kind: String,
    role: String,
}

impl Binding {
    /// Reads a binding; `namespace` is empty for a ClusterRoleBinding.
    pub fn from_value(value: &Value, namespace: &str, name: &str) -> Self {
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subjects = value.get("subjects").and_then(Value::as_array).into_iter().flatten();
        Self {
            shown: if namespace.is_empty() { name.to_owned() } else { format!("{name}/{namespace}") },
            subjects: subjects.filter_map(|subject| read_subject(subject, namespace)).collect(),
            role_kind: text("/roleRef/kind"),
            role: text("/roleRef/name"),
        }
    }
}

fn read_subject(subject: &Value, binding_namespace: &str) -> Option<(Subject, String)> {
    let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    match text("kind") {
        "User" => Some((Subject::User(name.to_owned()), format!("User \"{name}\""))),
        "Group" => Some((Subject::Group(name.to_owned()), format!("Group \"{name}\""))),
        "ServiceAccount" => {
            let namespace = match text("namespace") {
                "" => binding_namespace,
                namespace => namespace,
            };
            let user = format!("system:serviceaccount:{namespace}:{name}");
            Some((Subject::User(user), format!("ServiceAccount \"{name}/{namespace}\"")))
        }
        _ => None,
    }
}

/// Bindings in their order, found by subject.
#[derive(Debug, Default)]
struct Bindings {
    list: Vec<Arc<Binding>>,
    by_subject: HashMap<Subject, Vec<(usize, usize)>>,
}

impl Bindings {
    fn add(&mut self, binding: Arc<Binding>) {
        let at = self.list.len();
        for (n, (subject, _)) in binding.subjects.iter().enumerate() {
            self.by_subject.entry(subject.clone()).or_default().push((at, n));
        }
        self.list.push(binding);
    }

    /// The bindings that name the user, each with the first subject that does, in the bindings' order.
    fn of<'a>(&'a self, user: &UserInfo) -> impl Iterator<Item = (&'a Binding, &'a str)> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.clone())));
        let mut found: Vec<(usize, usize)> =
            subjects.filter_map(|subject| self.by_subject.get(&subject)).flatten().copied().collect();
        found.sort_unstable();
        found.dedup_by_key(|(at, _)| *at);
        found.into_iter().map(|(at, n)| (&*self.list[at], self.list[at].subjects[n].1.as_str()))
    }
}

/// All roles and bindings.
#[derive(Debug, Default)]
pub struct Index {
    cluster_roles: BTreeMap<String, Arc<Role>>,
    roles: HashMap<String, HashMap<String, Arc<Role>>>,
    cluster_bindings: Bindings,
    bindings: HashMap<String, Bindings>,
}

impl Index {
    /// Adds a ClusterRole, or a Role where `namespace` is not empty.
    pub fn add_role(&mut self, namespace: &str, name: &str, role: Arc<Role>) {
        if namespace.is_empty() {
            self.cluster_roles.insert(name.to_owned(), role);
        } else {
            self.roles.entry(namespace.to_owned()).or_default().insert(name.to_owned(), role);
        }
    }

    /// Adds a ClusterRoleBinding, or a RoleBinding where `namespace` is not empty.
    pub fn add_binding(&mut self, namespace: &str, binding: Arc<Binding>) {
        if namespace.is_empty() {
            self.cluster_bindings.add(binding);
        } else {
            self.bindings.entry(namespace.to_owned()).or_default().add(binding);
        }
    }

    /// Decides; a refusal names the roles that bindings refer to and that are not there.
    pub fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let mut missing = Vec::new();
        for found in self.applying(request.user, request.namespace) {
            match self.role(&found) {
                Some(rules) => {
                    if rules.iter().any(|rule| rule.allows(request)) {
                        return Decision::Allow(found.reason());
                    }
                }
                None => missing.push(found.missing()),
            }
        }
        Decision::NoOpinion(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Every rule that holds for the user in the namespace, and whether a role was missing.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<&Rule>, bool) {
        let mut rules = Vec::new();
        let mut incomplete = false;
        for found in self.applying(user, namespace) {
            match self.role(&found) {
                Some(of_role) => rules.extend(of_role),
                None => incomplete = true,
            }
        }
        (rules, incomplete)
    }

    /// The rules of a ClusterRole, those it aggregates included.
    pub fn cluster_role_rules(&self, name: &str) -> Option<Vec<&Rule>> {
        let role = self.cluster_roles.get(name)?;
        let mut rules = Vec::new();
        self.gather(role, &mut vec![name.to_owned()], &mut rules);
        Some(rules)
    }

    /// The rules of a Role.
    pub fn role_rules(&self, namespace: &str, name: &str) -> Option<Vec<&Rule>> {
        Some(self.roles.get(namespace)?.get(name)?.rules.iter().collect())
    }

    fn applying<'a>(&'a self, user: &UserInfo, namespace: &'a str) -> Vec<Applying<'a>> {
        let cluster = self.cluster_bindings.of(user).map(|(binding, subject)| ("", binding, subject));
        let local = self.bindings.get(namespace).map(|bindings| bindings.of(user));
        let local = local.into_iter().flatten().map(|(binding, subject)| (namespace, binding, subject));
        cluster
            .chain(local)
            .map(|(namespace, binding, subject)| Applying { namespace, binding, subject })
            .collect()
    }

    fn role(&self, found: &Applying<'_>) -> Option<Vec<&Rule>> {
        match found.binding.role_kind.as_str() {
            "Role" => self.role_rules(found.namespace, &found.binding.role),
            _ => self.cluster_role_rules(&found.binding.role),
        }
    }

    /// An aggregating role has the rules of the roles it selects, whatever it holds itself.
    fn gather<'a>(&'a self, role: &'a Role, seen: &mut Vec<String>, rules: &mut Vec<&'a Rule>) {
        if role.aggregates.is_empty() {
            rules.extend(&role.rules);
            return;
        }
        for (name, other) in &self.cluster_roles {
            if role.aggregates.iter().any(|selector| selector.matches(&other.labels)) && !seen.contains(name)
            {
                seen.push(name.clone());
                self.gather(other, seen, rules);
            }
        }
    }
}

/// A binding that names the user.
struct Applying<'a> {
    namespace: &'a str,
    binding: &'a Binding,
    subject: &'a str,
}

impl Applying<'_> {
    fn reason(&self) -> String {
        let kind = if self.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let Binding { shown, role_kind, role, .. } = self.binding;
        format!("RBAC: allowed by {kind} \"{shown}\" of {role_kind} \"{role}\" to {}", self.subject)
    }

    fn missing(&self) -> String {
        let Binding { role_kind, role, .. } = self.binding;
        format!("{}.rbac.authorization.k8s.io \"{role}\" not found", role_kind.to_lowercase())
    }
}

#[cfg(test)]
mod tests;
