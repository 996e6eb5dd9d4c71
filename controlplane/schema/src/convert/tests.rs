//! Conversions there and back.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::convert;
use crate::table::Table;

fn there(from: [&str; 3], to: [&str; 3], object: &Value) -> Value {
    let table = Table::builtin();
    let resource = |[group, version, plural]: [&str; 3]| table.resource(group, version, plural).unwrap();
    let mut out = object.clone();
    convert(table, resource(from), resource(to), &mut out).unwrap();
    out
}

const HPA_V1: [&str; 3] = ["autoscaling", "v1", "horizontalpodautoscalers"];
const HPA_V2: [&str; 3] = ["autoscaling", "v2", "horizontalpodautoscalers"];

#[test]
fn a_cpu_target_of_v1_is_a_metric_of_v2() {
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "targetCPUUtilizationPercentage": 80},
        "status": {"currentReplicas": 0, "desiredReplicas": 0}});
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]},
        "status": {"currentMetrics": null, "desiredReplicas": 0}});
    assert_eq!(there(HPA_V1, HPA_V2, &v1), v2);
    assert_eq!(there(HPA_V2, HPA_V1, &v2), v1);
}

#[test]
fn what_v1_has_no_field_for_travels_in_annotations() {
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "r"},
                    "target": {"type": "Value", "value": "2k"}}}]},
        "status": {"desiredReplicas": 2, "currentReplicas": 2,
            "conditions": [{"type": "ScalingActive", "status": "True", "lastTransitionTime": null}],
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "1"}}}]}});
    let v1 = there(HPA_V2, HPA_V1, &v2);
    assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 7);
    assert_eq!(v1["metadata"]["annotations"].as_object().unwrap().len(), 4);
    assert_eq!(there(HPA_V1, HPA_V2, &v1), v2);
}

#[test]
fn events_of_both_groups_are_stored_as_core_events() {
    let table = Table::builtin();
    let events = table.resource("events.k8s.io", "v1", "events").unwrap();
    let object = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"}, "action": "a", "reason": "r",
        "eventTime": "2025-01-02T03:04:05.000006Z", "note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c",
        "reportingInstance": "i", "type": "Normal", "deprecatedSource": {}, "deprecatedFirstTimestamp": null,
        "deprecatedLastTimestamp": null});
    let mut stored = object.clone();
    convert(table, events, table.storage_of(events), &mut stored).unwrap();
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(stored["message"], "n");
    assert_eq!(stored["involvedObject"], json!({"kind": "Pod"}));
    assert_eq!(stored["reportingComponent"], "c");
    convert(table, table.storage_of(events), events, &mut stored).unwrap();
    assert_eq!(stored, object);
}

#[test]
fn unlike_kinds_do_not_convert() {
    let table = Table::builtin();
    let (pods, nodes) =
        (table.resource("", "v1", "pods").unwrap(), table.resource("apps", "v1", "deployments").unwrap());
    let error = convert(table, pods, nodes, &mut json!({})).unwrap_err();
    assert_eq!(error.to_string(), "cannot convert v1, kind Pod to apps/v1, kind Deployment");
}

#[test]
fn every_resource_converts_to_its_stored_form() {
    let table = Table::builtin();
    for resource in table.resources() {
        let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind});
        convert(table, resource, table.storage_of(resource), &mut object).unwrap();
        convert(table, table.storage_of(resource), resource, &mut object).unwrap();
        assert_eq!(object["apiVersion"], resource.api_version());
    }
}
