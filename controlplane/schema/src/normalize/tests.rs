//! The round trip through a typed object, case by case and at random.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::normalize;
use crate::defaults;
use crate::table::{Table, arbitrary};

fn check(kind: [&str; 3], value: Value, expected: Value) {
    let table = Table::builtin();
    let id = table.kind_type(kind[0], kind[1], kind[2]).unwrap();
    let mut out = value;
    normalize(table, id, &mut out);
    assert_eq!(out, expected);
}

#[test]
fn structs_held_by_value_are_written_and_zero_values_dropped() {
    check(
        ["apps", "v1", "Deployment"],
        json!({"metadata": {"name": "x", "labels": {}, "generation": 0}, "spec": {"replicas": 0, "paused": false,
            "selector": {}, "template": {"spec": {"containers": [{"name": "c", "stdin": false, "env": []}], "hostNetwork": false}}}}),
        json!({"metadata": {"name": "x"}, "spec": {"replicas": 0, "selector": {}, "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}}}, "status": {}}),
    );
}

#[test]
fn lists_and_times_without_omission_are_null() {
    check(
        ["rbac.authorization.k8s.io", "v1", "ClusterRole"],
        json!({"metadata": {}}),
        json!({"metadata": {}, "rules": null}),
    );
    check(
        ["discovery.k8s.io", "v1", "EndpointSlice"],
        json!({"addressType": "IPv4", "endpoints": [], "ports": []}),
        json!({"metadata": {}, "addressType": "IPv4", "endpoints": null, "ports": null}),
    );
    check(
        ["", "v1", "Event"],
        json!({"involvedObject": {}}),
        json!({"metadata": {}, "involvedObject": {}, "source": {},
        "firstTimestamp": null, "lastTimestamp": null, "eventTime": null, "reportingComponent": "", "reportingInstance": ""}),
    );
}

#[test]
fn pointers_keep_their_zero() {
    check(
        ["", "v1", "ServiceAccount"],
        json!({"automountServiceAccountToken": false}),
        json!({"metadata": {}, "automountServiceAccountToken": false}),
    );
    check(
        ["", "v1", "PersistentVolumeClaim"],
        json!({"spec": {"storageClassName": "", "volumeName": ""}}),
        json!({"metadata": {}, "spec": {"storageClassName": "", "resources": {}}, "status": {}}),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_second_round_trip_changes_nothing((id, value) in arbitrary::resource()) {
        let table = Table::builtin();
        let mut once = value;
        normalize(table, id, &mut once);
        let mut twice = once.clone();
        normalize(table, id, &mut twice);
        prop_assert_eq!(&twice, &once);
    }

    #[test]
    fn defaults_fill_once((id, value) in arbitrary::resource()) {
        let table = Table::builtin();
        let mut once = value;
        defaults::apply(table, id, &mut once);
        let mut twice = once.clone();
        defaults::apply(table, id, &mut twice);
        prop_assert_eq!(twice, once);
    }
}

#[test]
fn what_was_given_empty_is_known_and_can_be_put_back() {
    let table = Table::builtin();
    let id = table.kind_type("apps", "v1", "Deployment").unwrap();
    let given = json!({"metadata": {"name": "x", "labels": {}, "annotations": {"a/b": ""}}, "spec": {"selector": {}, "template": {
        "metadata": {"labels": {}}, "spec": {"containers": [{"name": "c"}, {"name": "d", "env": []}], "nodeSelector": {"k": "v"}}}}});
    let mut object = given.clone();
    let emptied = super::decoded(table, id, &mut object);
    let mut normal = given.clone();
    normalize(table, id, &mut normal);
    assert_eq!(object, normal);
    assert_eq!(emptied.len(), 3, "{emptied:?}");
    emptied.iter().for_each(|one| one.put_back(&mut object));
    assert_eq!(object["metadata"]["labels"], json!({}));
    assert_eq!(object["spec"]["template"]["metadata"]["labels"], json!({}));
    assert_eq!(object["spec"]["template"]["spec"]["containers"][1]["env"], json!([]));
    normalize(table, id, &mut object);
    assert_eq!(object, normal);
    // What has gone meanwhile, or is there, is left.
    let mut other = json!({"metadata": {"labels": {"a": "b"}}});
    emptied.iter().for_each(|one| one.put_back(&mut other));
    assert_eq!(other, json!({"metadata": {"labels": {"a": "b"}}}));
}

#[test]
fn fields_stand_in_the_order_of_their_names_each_once() {
    let table = Table::builtin();
    for resource in table.resources() {
        let fields = &table.type_(resource.type_id).fields;
        assert!(fields.windows(2).all(|two| two[0].json_name < two[1].json_name), "{}", resource.kind);
    }
}

proptest! {
    #[test]
    fn side_by_side_is_as_if_looked_up(
        (id, value) in arbitrary::resource(),
        unknown in proptest::collection::vec("[a-z]{0,9}", 0..4),
    ) {
        let mut object = value.as_object().unwrap().clone();
        object.extend(unknown.into_iter().map(|name| (name, json!(1))));
        let fields = &Table::builtin().type_(id).fields;
        let expected: Vec<_> = fields.iter().map(|field| object.get(&*field.json_name).cloned()).collect();
        let found = super::side_by_side(fields, &mut object).map(|(_, value)| value.cloned());
        prop_assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
