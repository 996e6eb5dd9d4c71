//! Decisions over small sets of roles and bindings.

use serde_json::json;

use super::*;

fn index() -> Index {
    let mut index = Index::default();
    let cluster_role = |index: &mut Index, name: &str, value: Value| {
        index.add_role("", name, Arc::new(Role::from_value(&value)));
    };
    cluster_role(
        &mut index,
        "reader",
        json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]}),
    );
    cluster_role(
        &mut index,
        "part",
        json!({"metadata": {"labels": {"part": "true"}},
               "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"]}]}),
    );
    cluster_role(
        &mut index,
        "whole",
        json!({"metadata": {"labels": {"part": "true"}}, "rules": null,
               "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "true"}}]}}),
    );
    let role = json!({"rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]});
    index.add_role("ns", "r", Arc::new(Role::from_value(&role)));
    let bind = |index: &mut Index, namespace: &str, name: &str, role: (&str, &str), subject: Value| {
        let value = json!({"roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]});
        index.add_binding(namespace, Arc::new(Binding::from_value(&value, namespace, name)));
    };
    bind(&mut index, "", "cb", ("ClusterRole", "reader"), json!({"kind": "Group", "name": "g"}));
    bind(&mut index, "", "lost", ("ClusterRole", "gone"), json!({"kind": "User", "name": "u"}));
    bind(&mut index, "ns", "b", ("Role", "r"), json!({"kind": "User", "name": "u"}));
    bind(&mut index, "ns", "sa", ("ClusterRole", "whole"), json!({"kind": "ServiceAccount", "name": "s"}));
    index
}

#[test]
fn decisions() {
    let index = index();
    let rows = [
        (
            "u",
            "",
            "list",
            "pods",
            "ns",
            "allow RBAC: allowed by RoleBinding \"b/ns\" of Role \"r\" to User \"u\"",
        ),
        (
            "u",
            "",
            "list",
            "pods",
            "other",
            "no RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found",
        ),
        ("v", "", "list", "pods", "ns", "no "),
        (
            "v",
            "g",
            "get",
            "nodes",
            "",
            "allow RBAC: allowed by ClusterRoleBinding \"cb\" of ClusterRole \"reader\" to Group \"g\"",
        ),
        ("v", "g", "list", "nodes", "", "no "),
        (
            "system:serviceaccount:ns:s",
            "",
            "list",
            "secrets",
            "ns",
            "allow RBAC: allowed by RoleBinding \"sa/ns\" of ClusterRole \"whole\" to ServiceAccount \"s/ns\"",
        ),
        ("system:serviceaccount:ns:s", "", "list", "secrets", "", "no "),
    ];
    for (name, group, verb, resource, namespace, want) in rows {
        let groups = if group.is_empty() { vec![] } else { vec![group.to_owned()] };
        let user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
        let request =
            Attributes { user: &user, verb, resource, namespace, is_resource: true, ..Attributes::default() };
        let got = match index.authorize(&request) {
            Decision::Allow(reason) => format!("allow {reason}"),
            Decision::NoOpinion(reason) => format!("no {reason}"),
        };
        assert_eq!(got, want, "{request:?}");
    }
}

#[test]
fn rules_of_a_user() {
    let index = index();
    let user = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
    let (rules, incomplete) = index.rules_for(&user, "ns");
    let resources: Vec<_> = rules.iter().flat_map(|rule| &rule.resources).collect();
    assert_eq!(resources, ["nodes", "pods"]);
    assert!(incomplete);
}
