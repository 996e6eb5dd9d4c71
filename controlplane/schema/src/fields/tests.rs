//! Field ownership as its users see it: small stories of creates, updates and applies.

use super::{ApplyError, Form, OneVersion, Set, Versions, Writer, apply, update};
use crate::normalize;
use crate::table::{Table, TypeId};
use serde_json::{Value, json};

fn id(kind: &str) -> TypeId {
    let name = match kind {
        "ConfigMap" => "io.k8s.api.core.v1.ConfigMap",
        "Service" => "io.k8s.api.core.v1.Service",
        _ => "io.k8s.api.apps.v1.Deployment",
    };
    Table::builtin().type_named(name).expect("a served type")
}

fn form(kind: &str) -> Form<'static> {
    Form { table: Table::builtin(), id: id(kind), versions: &OneVersion }
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", now: "2026-01-02T03:04:05Z" }
}

fn written(kind: &str, live: Option<&Value>, new: Value, manager: &str) -> Value {
    let mut new = new;
    normalize(Table::builtin(), id(kind), &mut new);
    update(&form(kind), live, &mut new, &writer(manager), &Set::of_fields(&["status"]));
    new
}

fn applied(
    kind: &str,
    live: Option<&Value>,
    config: Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApplyError> {
    apply(&form(kind), live, &config, &writer(manager), force, &Set::of_fields(&["status"]))
}

/// `manager` -> its fields.
fn owners(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    Value::Object(
        entries
            .iter()
            .map(|e| (e["manager"].as_str().unwrap_or_default().to_owned(), e["fieldsV1"].clone()))
            .collect(),
    )
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

#[test]
fn a_create_owns_what_it_set() {
    let made = written(
        "Deployment",
        None,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}},
            "status": {"replicas": 5}
        }),
        "m",
    );
    let want = json!({"m": {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:replicas": {}, "f:selector": {}, "f:strategy": {"f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}
                }}}
            }
        }
    }});
    assert_eq!(owners(&made), want);
}

#[test]
fn an_update_takes_what_it_changes() {
    let one = written("ConfigMap", None, config_map(json!({"a": "1", "b": "1"})), "u");
    let two = written("ConfigMap", Some(&one), config_map(json!({"a": "2", "b": "1"})), "v");
    let want = json!({"u": {"f:data": {".": {}, "f:b": {}}}, "v": {"f:data": {"f:a": {}}}});
    assert_eq!(owners(&two), want);
    let three = written("ConfigMap", Some(&two), config_map(json!({"a": "2"})), "w");
    assert_eq!(
        owners(&three),
        json!({"u": {"f:data": {}}, "v": {"f:data": {"f:a": {}}}}),
        "what is removed nobody owns"
    );
    let same = written("ConfigMap", Some(&three), config_map(json!({"a": "2"})), "w");
    assert_eq!(owners(&same), owners(&three));
}

#[test]
fn applies_share_conflict_and_prune() {
    let one =
        applied("ConfigMap", None, config_map(json!({"a": "1", "b": "1"})), "m", false).expect("applies");
    assert_eq!(owners(&one), json!({"m": {"f:data": {"f:a": {}, "f:b": {}}}}));
    let conflict =
        applied("ConfigMap", Some(&one), config_map(json!({"a": "2"})), "n", false).expect_err("m owns a");
    assert_eq!(conflict.to_string(), "Apply failed with 1 conflict: conflict with \"m\": .data.a");
    let two = applied("ConfigMap", Some(&one), config_map(json!({"a": "2", "b": "2"})), "n", false)
        .expect_err("m owns both");
    assert_eq!(two.to_string(), "Apply failed with 2 conflicts: conflicts with \"m\":\n- .data.a\n- .data.b");
    let shared = applied("ConfigMap", Some(&one), config_map(json!({"a": "1"})), "n", false)
        .expect("the same value is no conflict");
    assert_eq!(
        owners(&shared),
        json!({"m": {"f:data": {"f:a": {}, "f:b": {}}}, "n": {"f:data": {"f:a": {}}}})
    );
    let left = applied("ConfigMap", Some(&shared), config_map(json!({})), "m", false).expect("applies");
    assert_eq!(left["data"], json!({"a": "1"}), "n still wants a; b was m's alone");
    let forced = applied("ConfigMap", Some(&one), config_map(json!({"a": "2"})), "n", true).expect("forced");
    assert_eq!(
        (&forced["data"]["a"], owners(&forced)),
        (&json!("2"), json!({"m": {"f:data": {"f:b": {}}}, "n": {"f:data": {"f:a": {}}}}))
    );
}

#[test]
fn an_apply_leaves_what_others_updated() {
    let one = written("ConfigMap", None, config_map(json!({"a": "1"})), "u");
    let two = applied("ConfigMap", Some(&one), config_map(json!({"b": "1"})), "m", false).expect("applies");
    let three = applied("ConfigMap", Some(&two), config_map(json!({"c": "1"})), "m", false).expect("applies");
    assert_eq!(three["data"], json!({"a": "1", "c": "1"}));
}

#[test]
fn list_items_meet_by_their_keys() {
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let one =
        applied("Service", None, service(json!([{"name": "a", "port": 80}])), "m", false).expect("applies");
    assert_eq!(
        owners(&one)["m"]["f:spec"]["f:ports"],
        json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}),
        "a key that is left out has its default"
    );
    let two = applied("Service", Some(&one), service(json!([{"name": "b", "port": 81}])), "n", false)
        .expect("applies");
    assert_eq!(two["spec"]["ports"].as_array().map(Vec::len), Some(2));
    let twice =
        applied("Service", None, service(json!([{"port": 80}, {"port": 80, "protocol": "TCP"}])), "m", false);
    assert_eq!(
        twice.expect_err("one key, two items").to_string(),
        ".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]"
    );
}

#[test]
fn what_does_not_fit_the_type_is_told() {
    for (config, want) in [
        (json!({"kind": "ConfigMap", "nope": 1}), ".nope: field not declared in schema"),
        (json!({"data": {"a": 1}}), ".data.a: expected string, got &value.valueUnstructured{Value:1}"),
    ] {
        let error = applied("ConfigMap", None, config.clone(), "m", false).expect_err("refused");
        assert_eq!(error.to_string(), want, "{config}");
    }
}

#[test]
fn many_updaters_become_ancient() {
    let mut object = written("ConfigMap", None, config_map(json!({"k0": "0"})), "m0");
    for i in 1..15 {
        let mut data = object["data"].clone();
        data[format!("k{i}")] = json!("1");
        object = written("ConfigMap", Some(&object), config_map(data), &format!("m{i}"));
    }
    let owners = owners(&object);
    let owners = owners.as_object().expect("a map");
    assert_eq!(owners.len(), 10);
    assert!(owners.contains_key("ancient-changes"));
}

#[test]
fn lists_keep_the_order_of_both() {
    let finalizers = |names: &str| {
        let list: Vec<String> = names.split_whitespace().map(|name| format!("x.io/{name}")).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "finalizers": list}})
    };
    for (live, config, want) in [
        ("a", "b", "a b"),
        ("a b", "a c", "a b c"),
        ("a b", "b c", "a b c"),
        ("a b", "c b", "a c b"),
        ("a b c", "c a", "b c a"),
        ("a b c d", "d x b", "a c d x b"),
        ("a", "", "a"),
        ("", "b a", "b a"),
    ] {
        let made = written("ConfigMap", None, finalizers(live), "other");
        let got = applied("ConfigMap", Some(&made), finalizers(config), "me", true).unwrap();
        assert_eq!(
            got["metadata"]["finalizers"],
            finalizers(want)["metadata"]["finalizers"],
            "{live} + {config}"
        );
    }
}

#[test]
fn the_last_applied_field_leaves_the_name() {
    let config = |finalizers: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "finalizers": finalizers}});
    let mut made = applied("ConfigMap", None, config(json!(["x.io/a"])), "me", false).unwrap();
    made["metadata"]["uid"] = "u".into();
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let left = applied("ConfigMap", Some(&made), bare, "me", false).unwrap();
    assert_eq!(left, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "u"}}));
}

#[test]
fn an_apply_of_an_empty_object_repeated_takes_nothing_away() {
    let live =
        json!({"apiVersion": "v1", "kind": "Node", "spec": {"configSource": {"configMap": {"name": "a"}}}});
    let config = json!({"apiVersion": "v1", "kind": "Node", "spec": {"configSource": {}}});
    let table = Table::builtin();
    let id = table.type_named("io.k8s.api.core.v1.Node").expect("a type");
    let writer = Writer { manager: "a", api_version: "v1", subresource: "", now: "2025-01-02T03:04:05Z" };
    let form = Form { table, id, versions: &OneVersion };
    let apply = |live: &Value| apply(&form, Some(live), &config, &writer, true, &Set::default());
    let once = apply(&live).expect("no conflict");
    assert_eq!(once["spec"]["configSource"]["configMap"]["name"], "a");
    assert_eq!(apply(&once).expect("no conflict"), once);
}

/// Autoscalers as `autoscaling/v1` and `v2`, whose fields have other names.
struct Autoscalers;

fn autoscalers(version: &str) -> Option<&'static std::sync::Arc<crate::table::Resource>> {
    let version = version.strip_prefix("autoscaling/")?;
    Table::builtin().resource("autoscaling", version, "horizontalpodautoscalers")
}

impl Versions for Autoscalers {
    fn type_in(&self, api_version: &str) -> Option<TypeId> {
        autoscalers(api_version).map(|resource| resource.type_id)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let mut object = object.clone();
        crate::convert::convert(Table::builtin(), autoscalers(from)?, autoscalers(to)?, &mut object).ok()?;
        Some(object)
    }
}

fn autoscaler(
    version: &str,
    config: Value,
    live: Option<&Value>,
    manager: &str,
) -> Result<Value, ApplyError> {
    let api_version = format!("autoscaling/{version}");
    let mut config = config;
    config["apiVersion"] = json!(api_version);
    config["kind"] = json!("HorizontalPodAutoscaler");
    config["metadata"] = json!({"name": "x"});
    let id = autoscalers(&api_version).map(|r| r.type_id).expect("a served version");
    let form = Form { table: Table::builtin(), id, versions: &Autoscalers };
    let writer = Writer { api_version: &api_version, ..writer(manager) };
    apply(&form, live, &config, &writer, false, &Set::of_fields(&["status"]))
}

fn seen_in(version: &str, object: &Value) -> Value {
    let from = object["apiVersion"].as_str().expect("a version").to_owned();
    Autoscalers.convert(object, &from, &format!("autoscaling/{version}")).expect("converts")
}

#[test]
fn managers_of_another_version_own_by_that_versions_names() {
    let target = json!({"kind": "Deployment", "name": "d"});
    let v1 =
        json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 80}});
    let one = autoscaler("v1", v1, None, "one").expect("applies");
    let live = seen_in("v2", &one);
    let metrics = |percent: u64| json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]);
    let refused = autoscaler("v2", json!({"spec": {"metrics": metrics(50)}}), Some(&live), "two");
    let refused = refused.expect_err("one owns the target by its name in v1");
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.targetCPUUtilizationPercentage"
    );
    let shared = autoscaler("v2", json!({"spec": {"metrics": metrics(80)}}), Some(&live), "two");
    let shared = shared.expect("the same value");
    assert_eq!(owners(&shared)["one"]["f:spec"]["f:targetCPUUtilizationPercentage"], json!({}));
    assert_eq!(owners(&shared)["two"], json!({"f:spec": {"f:metrics": {}}}));
}

#[test]
fn what_was_applied_in_another_version_is_pruned() {
    let target = json!({"kind": "Deployment", "name": "d"});
    let v1 = json!({"spec": {"maxReplicas": 3, "minReplicas": 2, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 80}});
    let one = autoscaler("v1", v1, None, "one").expect("applies");
    let v2 = json!({"spec": {"maxReplicas": 4, "scaleTargetRef": target}});
    let two = autoscaler("v2", v2, Some(&seen_in("v2", &one)), "one").expect("applies");
    assert_eq!((&two["spec"]["maxReplicas"], two["spec"].get("minReplicas")), (&json!(4), None));
    assert_eq!(two["spec"].get("metrics"), None, "the target of v1 is the metric of v2");
    let entries = two["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 1, "an applier is the same at every version: {entries:?}");
}

#[test]
fn managers_of_a_version_that_is_no_more_own_nothing() {
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "managedFields": [
        {"manager": "old", "operation": "Update", "apiVersion": "v0", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}]},
        "data": {"a": "1"}});
    let new = written("ConfigMap", Some(&live), config_map(json!({"a": "1", "b": "2"})), "u");
    assert_eq!(owners(&new), json!({"u": {"f:data": {"f:b": {}}}}));
}
