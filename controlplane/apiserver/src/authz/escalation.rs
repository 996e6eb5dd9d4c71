//! Nobody grants what they do not hold: compares the rules somebody wants to give with the rules they have. Pure.

use std::collections::BTreeMap;

use super::rules::Rule;

/// The least that a rule can say: one verb on one resource (of one name), or on one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Grant<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str> },
    Path(&'a str),
}

/// What of `wanted` the rules held do not cover, as messages show it.
pub(super) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let mut missing: BTreeMap<Grant<'_>, Vec<&str>> = BTreeMap::new();
    for rule in wanted {
        for grant in grants(rule) {
            for verb in &rule.verbs {
                if !held.iter().any(|held| covers(held, verb, &grant)) {
                    let verbs = missing.entry(grant.clone()).or_default();
                    if !verbs.contains(&verb.as_str()) {
                        verbs.push(verb);
                    }
                }
            }
        }
    }
    let mut shown: Vec<String> = missing.iter().map(|(grant, verbs)| show(grant, verbs)).collect();
    shown.sort();
    shown
}

fn grants(rule: &Rule) -> Vec<Grant<'_>> {
    let mut grants: Vec<Grant<'_>> = rule.non_resource_urls.iter().map(|url| Grant::Path(url)).collect();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            if rule.resource_names.is_empty() {
                grants.push(Grant::Resource { group, resource, name: None });
            }
            let named = rule.resource_names.iter();
            grants.extend(named.map(|name| Grant::Resource { group, resource, name: Some(name) }));
        }
    }
    grants
}

fn covers(held: &Rule, verb: &str, grant: &Grant<'_>) -> bool {
    let has = |words: &[String], word: &str| words.iter().any(|w| w == "*" || w == word);
    if !has(&held.verbs, verb) {
        return false;
    }
    match grant {
        Grant::Path(path) => held.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            Some(beginning) => path.trim_end_matches('*').starts_with(beginning),
            None => url == path,
        }),
        Grant::Resource { group, resource, name } => {
            let names = held.resource_names.is_empty()
                || name.is_some_and(|name| held.resource_names.iter().any(|n| n == name));
            let every_resource_of_sub = resource
                .split_once('/')
                .is_some_and(|(_, sub)| held.resources.iter().any(|r| r.strip_prefix("*/") == Some(sub)));
            names && has(&held.api_groups, group) && (has(&held.resources, resource) || every_resource_of_sub)
        }
    }
}

fn show(grant: &Grant<'_>, verbs: &[&str]) -> String {
    let verbs: Vec<String> = verbs.iter().map(|verb| format!("{verb:?}")).collect();
    let verbs = verbs.join(" ");
    match grant {
        Grant::Path(path) => format!("{{NonResourceURLs:[{path:?}], Verbs:[{verbs}]}}"),
        Grant::Resource { group, resource, name: None } => {
            format!("{{APIGroups:[{group:?}], Resources:[{resource:?}], Verbs:[{verbs}]}}")
        }
        Grant::Resource { group, resource, name: Some(name) } => format!(
            "{{APIGroups:[{group:?}], Resources:[{resource:?}], ResourceNames:[{name:?}], Verbs:[{verbs}]}}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_held() {
        let rule = |verbs: Value, groups: Value, resources: Value, names: Value| {
            Rule::from_value(
                &json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}),
            )
        };
        let path = |url: &str| Rule::from_value(&json!({"verbs": ["get"], "nonResourceURLs": [url]}));
        let pods = || rule(json!(["get", "list"]), json!([""]), json!(["pods"]), json!([]));
        let all = || rule(json!(["*"]), json!(["*"]), json!(["*"]), json!([]));
        let one = || rule(json!(["get"]), json!([""]), json!(["pods"]), json!(["a"]));
        let rows = [
            (vec![pods()], vec![pods()], vec![]),
            (vec![all()], vec![pods()], vec![]),
            (vec![], vec![pods()], vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#]),
            (vec![pods()], vec![one()], vec![]),
            (
                vec![one()],
                vec![pods()],
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#],
            ),
            (vec![pods()], vec![all()], vec![r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#]),
            (vec![path("/a/*")], vec![path("/a/b")], vec![]),
            (vec![path("/a")], vec![path("/a/*")], vec![r#"{NonResourceURLs:["/a/*"], Verbs:["get"]}"#]),
        ];
        for (held, wanted, want) in rows {
            assert_eq!(uncovered(&held, &wanted), want, "{held:?} {wanted:?}");
        }
    }
}
