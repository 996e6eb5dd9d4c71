//! The rules for webhook configurations.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::expressions::Expressions;
use super::rules::{conditions, review_versions, rule};
use super::url::Url;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, label_selector, names, one_of, optional_one_of, required};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
/// Seconds that a webhook may take to answer.
const SECONDS: std::ops::RangeInclusive<i64> = 1..=30;
/// What a URL should look like.
const FORM: &str = "; desired format: https://host[/path]";

/// What is wrong with a configuration of either kind.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("webhooks");
    let hooks = object.items("webhooks");
    for (i, hook) in hooks.iter().enumerate() {
        let path = path.index(i);
        webhook(&mut errors, &path, hook);
        let name = hook.text("name");
        if !name.is_empty() && hooks[..i].iter().any(|other| other.text("name") == name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
    }
    errors
}

fn webhook(errors: &mut Errors, path: &Path, hook: &Value) {
    let name = hook.text("name");
    if required(errors, &path.child("name"), name) {
        names(errors, &path.child("name"), name, labels::fully_qualified_name(name));
    }
    for (i, entry) in hook.items("rules").iter().enumerate() {
        rule(errors, &path.child("rules").index(i), entry, true);
    }
    let of = |field| (path.child(field), hook.some_text(field));
    let (place, policy) = of("failurePolicy");
    optional_one_of(errors, &place, policy, &FAILURE_POLICIES);
    let (place, policy) = of("matchPolicy");
    optional_one_of(errors, &place, policy, &MATCH_POLICIES);
    let (place, policy) = of("reinvocationPolicy");
    optional_one_of(errors, &place, policy, &REINVOCATION_POLICIES);
    match of("sideEffects") {
        (place, None) => errors.push(FieldError::required(place, "must specify one of None, NoneOnDryRun")),
        (place, Some(effects)) => one_of(errors, &place, effects, &SIDE_EFFECTS),
    }
    if let Some(seconds) = hook.some_int("timeoutSeconds")
        && !SECONDS.contains(&seconds)
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, detail));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(errors, &path.child(selector), hook.at(selector), false);
    }
    client(errors, &path.child("clientConfig"), hook.at("clientConfig"));
    review_versions(errors, &path.child("admissionReviewVersions"), hook.at("admissionReviewVersions"));
    let expressions = Expressions::of_webhook();
    conditions(errors, &path.child("matchConditions"), hook.items("matchConditions"), &expressions);
}

/// Where the webhook is.
pub(in crate::resources) fn client(errors: &mut Errors, path: &Path, client: &Value) {
    match (client.some_text("url"), client.has("service")) {
        (Some(url), false) => self::url(errors, &path.child("url"), url),
        (None, true) => service(errors, &path.child("service"), client.at("service")),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn url(errors: &mut Errors, path: &Path, text: &str) {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            errors.push(FieldError::required(path, format!("url must be a valid URL: {error}{FORM}")));
            return;
        }
    };
    if url.scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, url.scheme, detail));
    }
    if url.host.is_empty() {
        errors.push(FieldError::invalid(path, url.host, format!("host must be specified{FORM}")));
    }
    let parts = [
        (url.user, "user information is not permitted in the URL"),
        (url.fragment, "fragments are not permitted in the URL"),
        (url.query, "query parameters are not permitted in the URL"),
    ];
    for (part, detail) in parts {
        if !part.is_empty() {
            errors.push(FieldError::invalid(path, part, detail));
        }
    }
}

fn service(errors: &mut Errors, path: &Path, service: &Value) {
    // kube-apiserver names one of them in the place of the other, which clients see.
    for (field, told) in [("name", "namespace"), ("namespace", "name")] {
        required(errors, &path.child(told), service.text(field));
    }
    if let Some(port) = service.some_int("port") {
        let complaints = labels::port_number(port);
        if !complaints.is_empty() {
            let detail = format!("port is not valid: {}", complaints.join(", "));
            errors.push(FieldError::invalid(path.child("port"), port, detail));
        }
    }
    let (path, text) = (path.child("path"), service.text("path"));
    if text.is_empty() || text == "/" {
        return;
    }
    let Some(rest) = text.strip_prefix('/') else {
        errors.push(FieldError::invalid(path, text, "must start with a '/'"));
        return;
    };
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            errors.push(FieldError::invalid(&path, text, format!("segment[{i}] may not be empty")));
            continue;
        }
        for complaint in labels::dns_subdomain(segment) {
            errors.push(FieldError::invalid(&path, text, format!("segment[{i}]: {complaint}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut hook = json!({
            "name": "a.example.org",
            "clientConfig": {"service": {"namespace": "n", "name": "s", "port": 443}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}],
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "sideEffects": "None", "timeoutSeconds": 10,
            "admissionReviewVersions": ["v1"],
        });
        change(&mut hook);
        let mut errors = Errors::new();
        webhook(&mut errors, &Path::new("w"), &hook);
        let found: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.path, error.body())).collect();
        assert_eq!(found, expected, "{hook}");
    }

    #[test]
    fn webhooks() {
        check(|_| {}, &[]);
        check(
            |hook| hook["name"] = json!("a.org"),
            &[
                "w.name: Invalid value: \"a.org\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(
            |hook| hook["sideEffects"] = json!("Some"),
            &["w.sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
        );
        check(
            |hook| hook["timeoutSeconds"] = json!(31),
            &["w.timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
        );
        check(
            |hook| hook["admissionReviewVersions"] = json!(["v2"]),
            &["w.admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1"],
        );
        check(
            |hook| hook["objectSelector"] = json!({"matchLabels": {"-": "x"}}),
            &[
                "w.objectSelector.matchLabels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        );
        check(
            |hook| {
                hook["matchConditions"] =
                    json!([{"name": "c", "expression": "true"}, {"name": "c", "expression": " "}])
            },
            &[
                "w.matchConditions[1].expression: Required value",
                "w.matchConditions[1].name: Duplicate value: \"c\"",
            ],
        );
    }

    #[test]
    fn places() {
        let with = |client: Value, expected: &[&str]| check(|hook| hook["clientConfig"] = client, expected);
        with(json!({"url": "https://h.example.org:8443/x"}), &[]);
        with(
            json!({"url": "https://h/x", "service": {}}),
            &["w.clientConfig: Required value: exactly one of url or service is required"],
        );
        with(
            json!({"url": "http://u:p@h/x?q=1#f"}),
            &[
                "w.clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "w.clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                "w.clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                "w.clientConfig.url: Invalid value: \"q=1\": query parameters are not permitted in the URL",
            ],
        );
        with(
            json!({"url": "h"}),
            &[
                "w.clientConfig.url: Invalid value: \"\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "w.clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
            ],
        );
        with(
            json!({"url": "https://h:x/"}),
            &[
                "w.clientConfig.url: Required value: url must be a valid URL: parse \"https://h:x/\": invalid port \":x\" after host; desired format: https://host[/path]",
            ],
        );
        let of = |path: &str| json!({"service": {"namespace": "n", "name": "s", "path": path}});
        for good in ["/", "/a", "/a/b/", "/a.b"] {
            with(of(good), &[]);
        }
        with(of("a"), &["w.clientConfig.service.path: Invalid value: \"a\": must start with a '/'"]);
        with(of("//"), &["w.clientConfig.service.path: Invalid value: \"//\": segment[0] may not be empty"]);
        with(
            json!({"service": {"namespace": "n", "name": "", "port": 0}}),
            &[
                "w.clientConfig.service.namespace: Required value",
                "w.clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ],
        );
    }

    #[test]
    fn resources() {
        let with = |resources: &[&str], expected: &[&str]| {
            check(|hook| hook["rules"][0]["resources"] = json!(resources), expected)
        };
        for good in
            [&["*"][..], &["*/*"], &["*", "*/scale"], &["pods", "pods/status"], &["pods/*", "nodes/status"]]
        {
            with(good, &[]);
        }
        with(
            &["*/*", "pods"],
            &[
                "w.rules[0].resources[0]: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
            ],
        );
        with(
            &["*", "pods"],
            &[
                "w.rules[0].resources[0]: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ],
        );
        with(
            &["pods/*", "pods/status"],
            &[
                "w.rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
            ],
        );
        with(
            &["*/scale", "pods/scale"],
            &[
                "w.rules[0].resources[1]: Invalid value: \"pods/scale\": if '*/scale' is present, must not specify pods/scale",
            ],
        );
        check(
            |hook| hook["rules"][0]["operations"] = json!(["*", "CREATE"]),
            &[
                "w.rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ],
        );
    }
}
