//! RBAC's policy rules: what one says, and whether it covers a request. Pure.

use serde_json::Value;

use super::Attributes;

const ALL: &str = "*";

/// One policy rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// What may be done.
    pub verbs: Vec<String>,
    /// The groups of the resources.
    pub api_groups: Vec<String>,
    /// The resources, with subresources as `pods/log`.
    pub resources: Vec<String>,
    /// The only names it covers, all if empty.
    pub resource_names: Vec<String>,
    /// The paths that are no resources; `*` at the end covers what begins so.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Reads a rule; what is mistyped counts as absent, as nothing else can be stored.
    pub fn from_value(value: &Value) -> Self {
        let texts = |field: &str| {
            let items = value.get(field).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !covers(&self.verbs, request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.covers_path(request.path);
        }
        covers(&self.api_groups, request.group)
            && self.covers_resource(request.resource, request.subresource)
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == request.name))
    }

    fn covers_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|rule| {
            if rule == ALL {
                return true;
            }
            if subresource.is_empty() {
                return rule == resource;
            }
            match rule.split_once('/') {
                Some((ALL, sub)) => sub == subresource,
                Some((of, sub)) => of == resource && sub == subresource,
                None => false,
            }
        })
    }

    fn covers_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => url == path,
        })
    }
}

fn covers(words: &[String], word: &str) -> bool {
    words.iter().any(|w| w == ALL || w == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_cover() {
        let get = |group, resource, subresource, name| Attributes {
            verb: "get",
            group,
            resource,
            subresource,
            name,
            is_resource: true,
            ..Attributes::default()
        };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let pods =
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale", "services/proxy"]});
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]});
        let rows = [
            (&pods, get("", "pods", "", "x"), true),
            (&pods, get("", "pods", "log", "x"), false),
            (&pods, get("", "deployments", "scale", "x"), true),
            (&pods, get("", "services", "proxy", "x"), true),
            (&pods, get("", "services", "", "x"), false),
            (&pods, get("apps", "pods", "", "x"), false),
            (&pods, Attributes { verb: "list", ..get("", "pods", "", "") }, false),
            (&named, get("apps", "deployments", "status", "a"), true),
            (&named, get("apps", "deployments", "", "b"), false),
            (&named, get("apps", "deployments", "", ""), false),
            (&named, path("/healthz"), false),
            (&urls, path("/healthz"), true),
            (&urls, path("/healthz/x"), false),
            (&urls, path("/api/v1"), true),
            (&urls, path("/api"), false),
        ];
        for (rule, request, want) in rows {
            assert_eq!(Rule::from_value(rule).allows(&request), want, "{rule} {request:?}");
        }
    }
}
