//! Webhook configurations and admission policies.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, existing, items_mut, object_at};
use super::plain::Plain;

mod expressions;
mod policies;
mod rules;
mod url;
pub(in crate::resources) mod webhooks;

/// The strategy of `mutatingwebhookconfigurations`.
pub(crate) static MUTATING_WEBHOOKS: Plain = Plain {
    default: |object| {
        default_webhooks(object);
        for hook in items_mut(object, "webhooks") {
            default(hook, "reinvocationPolicy", "Never");
        }
    },
    cells: webhook_cells,
    validate: webhooks::validate,
    generations: true,
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `validatingwebhookconfigurations`.
pub(crate) static VALIDATING_WEBHOOKS: Plain = Plain {
    default: default_webhooks,
    cells: webhook_cells,
    validate: webhooks::validate,
    generations: true,
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `validatingadmissionpolicies`.
pub(crate) static VALIDATING_POLICIES: Plain = Plain {
    default: default_policy,
    cells: |object, now| policy_cells(object, "spec.validations", now),
    validate: policies::validating,
    generations: true,
    unconditional_update: false,
    status_alone: true,
    ..Plain::NEW
};

/// The strategy of `mutatingadmissionpolicies`.
pub(crate) static MUTATING_POLICIES: Plain = Plain {
    default: default_policy,
    cells: |object, now| policy_cells(object, "spec.mutations", now),
    validate: policies::mutating,
    generations: true,
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `validatingadmissionpolicybindings`.
pub(crate) static VALIDATING_BINDINGS: Plain = Plain { validate: policies::validating_binding, ..BINDINGS };

/// The strategy of `mutatingadmissionpolicybindings`.
pub(crate) static MUTATING_BINDINGS: Plain = Plain { validate: policies::mutating_binding, ..BINDINGS };

const BINDINGS: Plain = Plain {
    default: |object| {
        if let Some(resources) = existing(object, "spec.matchResources") {
            default_match(resources);
        }
    },
    cells: binding_cells,
    generations: true,
    unconditional_update: false,
    ..Plain::NEW
};

fn default_webhooks(object: &mut Value) {
    for hook in items_mut(object, "webhooks") {
        default(hook, "failurePolicy", "Fail");
        default(hook, "matchPolicy", "Equivalent");
        default(hook, "namespaceSelector", json!({}));
        default(hook, "objectSelector", json!({}));
        default(hook, "timeoutSeconds", 10);
        for rule in items_mut(hook, "rules") {
            default(rule, "scope", "*");
        }
        if let Some(service) = existing(hook, "clientConfig.service") {
            default(service, "port", 443);
        }
    }
}

fn default_policy(object: &mut Value) {
    let spec = object_at(object, "spec");
    default(spec, "failurePolicy", "Fail");
    if let Some(constraints) = existing(spec, "matchConstraints") {
        default_match(constraints);
    }
}

fn default_match(constraints: &mut Value) {
    default(constraints, "matchPolicy", "Equivalent");
    default(constraints, "namespaceSelector", json!({}));
    default(constraints, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(constraints, rules) {
            default(rule, "scope", "*");
        }
    }
}

fn webhook_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), json!(object.items("webhooks").len()), cells::age(object, now)]
}

fn policy_cells(object: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let kind = object.at("spec.paramKind");
    let kind = if kind.is_null() {
        "<unset>".to_owned()
    } else {
        format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
    };
    vec![cells::name(object), json!(object.items(rules).len()), kind.into(), cells::age(object, now)]
}

/// A label selector as Go prints the message: the row shows it so.
fn selector_message(selector: &Value) -> String {
    let labels: String = selector
        .entries("matchLabels")
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let expressions: String = selector
        .items("matchExpressions")
        .iter()
        .map(|part| {
            let values: Vec<&str> = part.texts("values").collect();
            let (key, operator) = (part.text("key"), part.text("operator"));
            format!(
                "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},",
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn binding_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let reference = object.at("spec.paramRef");
    let shown = match (reference.text("namespace"), reference.text("name")) {
        (_, "") if reference.has("selector") => selector_message(reference.at("selector")),
        (_, "") => "<unset>".to_owned(),
        // Whether the parameter's kind is one of namespaces cannot be told from here.
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![cells::name(object), object.text("spec.policyName").into(), shown.into(), cells::age(object, now)]
}
