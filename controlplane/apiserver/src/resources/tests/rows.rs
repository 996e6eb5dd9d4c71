//! The table rows of objects in the states that people look for in tables. The cells are those that kubectl's users know from
//! kube-apiserver 1.37.

use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::table::Table;
use serde_json::{Value, json};

use crate::resources::strategy;

/// The row of an object an hour old, but for its name and age.
fn row(group: &str, plural: &str, mut object: Value) -> Vec<Value> {
    let now = time::parse("2024-01-01T01:00:00Z").expect("a time");
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z".into();
    let cells = strategy(group, plural).cells(&object, now);
    cells.into_iter().filter(|cell| cell != "x" && cell != "60m").collect()
}

fn check(group: &str, plural: &str, rows: &[(Value, Value)]) {
    for (object, cells) in rows {
        assert_eq!(&Value::Array(row(group, plural, object.clone())), cells, "{plural}: {object}");
    }
}

#[test]
fn nodes() {
    let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
    check(
        "",
        "nodes",
        &[
            (
                json!({}),
                json!(["Unknown", "<none>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]),
            ),
            (
                json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "infra",
                        "node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/": "none"}},
                    "spec": {"unschedulable": true, "taints": [{"key": "a", "effect": "NoSchedule"}]},
                    "status": {"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": "True"}],
                        "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "fd00::1"},
                            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "1.2.3.4"}],
                        "nodeInfo": {"kubeletVersion": "v1.37.1", "osImage": "Debian", "kernelVersion": "6.12",
                            "architecture": "amd64", "containerRuntimeVersion": "containerd://2"}}}),
                json!([
                    "Ready,SchedulingDisabled",
                    "control-plane,infra,worker",
                    "v1.37.1",
                    "fd00::1",
                    "1.2.3.4",
                    "Debian",
                    "6.12 (amd64)",
                    "containerd://2"
                ]),
            ),
            (
                json!({"status": ready("Unknown")}),
                json!(["NotReady", "<none>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]),
            ),
        ],
    );
}

#[test]
fn jobs() {
    let job = |status: Value, spec: Value| json!({"spec": spec, "status": status});
    let is = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}], "startTime": "2024-01-01T00:58:00Z"});
    let cells = |status: &str, completions: &str, duration: &str| {
        json!([status, completions, duration, "", "", "<none>"])
    };
    let mut rows = vec![
        (job(json!({}), json!({"completions": 3})), cells("Running", "0/3", "")),
        (job(json!({"succeeded": 1}), json!({"parallelism": 4})), cells("Running", "1/1 of 4", "")),
        (job(json!({}), json!({"parallelism": 1})), cells("Running", "0/1", "")),
        (
            job(
                json!({"conditions": [{"type": "Complete", "status": "True"}, {"type": "Suspended", "status": "False"}], "succeeded": 2,
                    "startTime": "2024-01-01T00:10:00Z", "completionTime": "2024-01-01T00:11:05Z"}),
                json!({"completions": 2}),
            ),
            cells("Complete", "2/2", "65s"),
        ),
        (
            json!({"metadata": {"deletionTimestamp": "2024-01-01T00:59:00Z"}, "status": is("Suspended")}),
            cells("Terminating", "0/1", "2m"),
        ),
    ];
    for status in ["Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"] {
        rows.push((job(is(status), json!({"completions": 1})), cells(status, "0/1", "2m")));
    }
    check("batch", "jobs", &rows);
    check(
        "batch",
        "cronjobs",
        &[
            (
                json!({"spec": {"schedule": "@daily"}}),
                json!(["@daily", "<none>", "<unset>", 0, "<none>", "", "", "<none>"]),
            ),
            (
                json!({"spec": {"schedule": "* * * * *", "timeZone": "Europe/Rome", "suspend": true, "jobTemplate": {"spec": {
                        "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
                            {"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}}},
                    "status": {"active": [{}, {}], "lastScheduleTime": "2024-01-01T00:59:50Z"}}),
                json!(["* * * * *", "Europe/Rome", "True", 2, "10s", "c,d", "i,j", "a=b"]),
            ),
        ],
    );
}

#[test]
fn volumes() {
    check(
        "",
        "persistentvolumes",
        &[
            (
                json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteMany"],
                        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"},
                        "storageClassName": "fast", "volumeMode": "Block", "volumeAttributesClassName": "gold"},
                    "status": {"phase": "Failed", "reason": "Gone"}}),
                json!(["1Gi", "RWO,RWX", "Retain", "Failed", "n/c", "fast", "gold", "Gone", "Block"]),
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z",
                        "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
                    "spec": {"capacity": {"storage": "5G"}, "accessModes": ["ReadOnlyMany", "ReadWriteOncePod"],
                        "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "new"},
                    "status": {"phase": "Released"}}),
                json!(["5G", "ROX,RWOP", "Delete", "Terminating", "", "old", "<unset>", "", "<unset>"]),
            ),
        ],
    );
    check(
        "",
        "persistentvolumeclaims",
        &[
            (
                json!({"spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
                    "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]}}),
                json!(["Bound", "v", "2Gi", "RWO", "s", "<unset>", "Filesystem"]),
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Lost"}}),
                json!(["Terminating", "", "", "", "", "<unset>", "<unset>"]),
            ),
        ],
    );
    check(
        "storage.k8s.io",
        "csidrivers",
        &[
            (json!({"spec": {}}), json!([true, false, false, "<unset>", false, "<none>"])),
            (
                json!({"spec": {"attachRequired": false, "podInfoOnMount": true, "storageCapacity": true, "requiresRepublish": true,
                    "tokenRequests": [{"audience": "a"}, {"audience": ""}], "volumeLifecycleModes": ["Persistent", "Ephemeral"]}}),
                json!([false, true, true, "a,", true, "Persistent,Ephemeral"]),
            ),
        ],
    );
}

#[test]
fn addresses() {
    let rule = |host: &str| json!({"host": host});
    let to = |ip: &str| json!({"ip": ip});
    check(
        "networking.k8s.io",
        "ingresses",
        &[
            (json!({"spec": {"rules": [{}]}}), json!(["<none>", "*", "", "80"])),
            (
                json!({"spec": {"ingressClassName": "c", "tls": [{}], "rules": [rule("a"), rule("b"), rule("c")]},
                    "status": {"loadBalancer": {"ingress": [to("9.9.9.9"), {"hostname": "h"}, to("1.1.1.1"), to("9.9.9.9")]}}}),
                json!(["c", "a,b,c", "1.1.1.1,9.9.9.9,h", "80, 443"]),
            ),
            (
                json!({"spec": {"rules": [rule("a"), {}, rule("b"), rule("c"), {}]}}),
                json!(["<none>", "a,b,c + 2 more...", "", "80"]),
            ),
            (json!({"spec": {"rules": [rule("a"), {}, rule("b"), {}]}}), json!(["<none>", "a,b", "", "80"])),
        ],
    );
    let ips: Vec<String> = (1..6).map(|n| format!("10.0.0.{n}")).collect();
    check(
        "discovery.k8s.io",
        "endpointslices",
        &[
            (json!({"addressType": "IPv6"}), json!(["IPv6", "<unset>", "<unset>"])),
            (
                json!({"addressType": "IPv4", "ports": [{"name": "a"}, {"port": 80}, {}, {"port": 81}],
                    "endpoints": [{"addresses": [ips[0]]}, {"addresses": [ips[1]]}, {"addresses": [ips[2]]}, {"addresses": [ips[3], ips[4]]}]}),
                json!(["IPv4", "a,80,* + 1 more...", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."]),
            ),
        ],
    );
    check(
        "",
        "endpoints",
        &[
            (json!({}), json!(["<none>"])),
            (json!({"subsets": [{"addresses": [{"ip": "fd00::1"}]}]}), json!(["fd00::1"])),
            (
                json!({"subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"port": 2}]},
                    {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 3}]}]}),
                json!(["[fd00::1]:1,10.0.0.1:1,[fd00::1]:2 + 1 more..."]),
            ),
        ],
    );
}

#[test]
fn autoscalers() {
    let target = json!({"kind": "Deployment", "name": "d"});
    let metric = |kind: &str, field: &str, target: Value, name: &str| json!({"type": kind, field: {"name": name, "metric": {"name": name}, "target": target}});
    let current =
        |kind: &str, field: &str, current: Value| json!({"type": kind, field: {"current": current}});
    for (spec, status, cell) in [
        (
            metric("Resource", "resource", json!({"averageUtilization": 60}), "cpu"),
            current("Resource", "resource", json!({"averageUtilization": 5, "averageValue": "5m"})),
            "cpu: 5%/60%",
        ),
        (metric("Resource", "resource", json!({}), "cpu"), json!({}), "cpu: <unknown>/<auto>"),
        (
            metric("Resource", "resource", json!({"averageValue": "1Gi"}), "memory"),
            current("Resource", "resource", json!({"averageValue": "10Mi"})),
            "memory: 10Mi/1Gi",
        ),
        (
            metric("ContainerResource", "containerResource", json!({"averageUtilization": 60}), "cpu"),
            current("ContainerResource", "containerResource", json!({"averageUtilization": 7})),
            "cpu: 7%/60%",
        ),
        (
            metric("Pods", "pods", json!({"averageValue": "10"}), "rps"),
            current("Pods", "pods", json!({"averageValue": "3"})),
            "3/10",
        ),
        (
            metric("Object", "object", json!({"value": "10"}), "rps"),
            current("Object", "object", json!({"value": "3"})),
            "3/10",
        ),
        (
            metric("Object", "object", json!({"averageValue": "10"}), "rps"),
            current("Object", "object", json!({"averageValue": "3"})),
            "3/10 (avg)",
        ),
        (metric("External", "external", json!({"averageValue": "10"}), "q"), json!({}), "<unknown>/10 (avg)"),
        (
            metric("External", "external", json!({"value": "10"}), "q"),
            current("External", "external", json!({"value": "2"})),
            "2/10",
        ),
    ] {
        let scaler = json!({"spec": {"scaleTargetRef": target, "metrics": [spec], "minReplicas": 0, "maxReplicas": 9},
            "status": {"currentMetrics": [status], "currentReplicas": 4}});
        check(
            "autoscaling",
            "horizontalpodautoscalers",
            &[(scaler, json!(["Deployment/d", cell, "0", 9, 4]))],
        );
    }
    let many: Vec<Value> =
        (0..4).map(|_| metric("Pods", "pods", json!({"averageValue": "1"}), "m")).collect();
    check(
        "autoscaling",
        "horizontalpodautoscalers",
        &[(
            json!({"spec": {"scaleTargetRef": target, "metrics": many, "maxReplicas": 1}}),
            json!(["Deployment/d", "<unknown>/1, <unknown>/1 + 2 more...", "<unset>", 1, 0]),
        )],
    );
}

#[test]
fn rules_of_the_cluster() {
    check(
        "certificates.k8s.io",
        "certificatesigningrequests",
        &[
            (
                json!({"spec": {"signerName": "a/b", "username": "u"}}),
                json!(["a/b", "u", "<none>", "Pending"]),
            ),
            (
                json!({"spec": {"signerName": "a/b", "username": "u", "expirationSeconds": 86400},
                    "status": {"certificate": "YQ==", "conditions": [{"type": "Approved"}]}}),
                json!(["a/b", "u", "24h", "Approved,Issued"]),
            ),
            (
                json!({"spec": {"signerName": "a/b"}, "status": {"conditions": [{"type": "Approved"}, {"type": "Denied"}, {"type": "Failed"}]}}),
                json!(["a/b", "", "<none>", "Denied,Failed"]),
            ),
        ],
    );
    let reference = |reference: Value| json!({"spec": {"policyName": "p", "paramRef": reference}});
    let bindings = [
        (json!({"spec": {"policyName": "p"}}), json!(["p", "<unset>"])),
        (reference(json!({"name": "a"})), json!(["p", "*/a"])),
        (reference(json!({"name": "a", "namespace": "n"})), json!(["p", "n/a"])),
        (
            reference(json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
                {"key": "k", "operator": "In", "values": ["v", "w"]}]}})),
            json!([
                "p",
                "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[v w],},},}"
            ]),
        ),
    ];
    check("admissionregistration.k8s.io", "validatingadmissionpolicybindings", &bindings);
    check("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", &bindings);
    check(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        &[
            (
                json!({"spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7}}}),
                json!(["Exempt", "<none>", "<none>", "<none>", "<none>"]),
            ),
            (
                json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Queue",
                    "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}}}}),
                json!(["Limited", 0, 64, 8, 50]),
            ),
        ],
    );
    check(
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        &[
            (
                json!({"spec": {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 9}}),
                json!(["l", 9, "<none>", "?"]),
            ),
            (
                json!({"spec": {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 1, "distinguisherMethod": {"type": "ByUser"}},
                    "status": {"conditions": [{"type": "Dangling", "status": "True"}]}}),
                json!(["l", 1, "ByUser", "True"]),
            ),
        ],
    );
    check(
        "",
        "resourcequotas",
        &[(
            json!({"status": {"hard": {"pods": "9", "limits.cpu": "2", "limitsless": "1", "requests.memory": "1Gi"},
                "used": {"pods": "3", "limits.cpu": "500m"}}}),
            json!(["limitsless: 0/1, pods: 3/9, requests.memory: 0/1Gi", "limits.cpu: 500m/2"]),
        )],
    );
    let budget = |spec: Value| json!({"spec": spec, "status": {"disruptionsAllowed": 2}});
    check(
        "policy",
        "poddisruptionbudgets",
        &[
            (budget(json!({"minAvailable": 1})), json!(["1", "N/A", 2])),
            (budget(json!({"maxUnavailable": "30%"})), json!(["N/A", "30%", 2])),
        ],
    );
}

#[test]
fn certificates_of_pods_and_migrations() {
    let request = |status: Value| {
        json!({"spec": {"podName": "p", "serviceAccountName": "s", "nodeName": "n", "signerName": "a/b",
            "unverifiedUserAnnotations": {"a/c": "1"}}, "status": status})
    };
    let is = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    check(
        "certificates.k8s.io",
        "podcertificaterequests",
        &[
            (request(json!({})), json!(["p", "s", "n", "a/b", "Pending", "a/c=1"])),
            (request(is("Issued")), json!(["p", "s", "n", "a/b", "Issued", "a/c=1"])),
            (request(is("Denied")), json!(["p", "s", "n", "a/b", "Denied", "a/c=1"])),
        ],
    );
    let migration = |status: Value| json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}, "status": status});
    check(
        "storagemigration.k8s.io",
        "storageversionmigrations",
        &[
            (migration(json!({})), json!(["deployments.apps", "Pending"])),
            (migration(is("Running")), json!(["deployments.apps", "Running"])),
            (migration(is("Succeeded")), json!(["deployments.apps", "Succeeded"])),
        ],
    );
}

#[test]
fn claims_of_devices() {
    let claim = |deleted: bool, status: Value| match deleted {
        true => json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": status}),
        false => json!({"status": status}),
    };
    check(
        "resource.k8s.io",
        "resourceclaims",
        &[
            (claim(false, json!({})), json!(["pending"])),
            (claim(false, json!({"allocation": {}})), json!(["allocated"])),
            (
                claim(false, json!({"allocation": {}, "reservedFor": [{"name": "p"}]})),
                json!(["allocated,reserved"]),
            ),
            (
                claim(true, json!({"allocation": {}, "reservedFor": [{"name": "p"}]})),
                json!(["deleted,allocated,reserved"]),
            ),
            (claim(true, json!({})), json!(["deleted"])),
        ],
    );
}

#[test]
fn ended_pods_are_marked() {
    let rules = strategy("", "pods");
    let pod = |phase: &str| json!({"status": {"phase": phase}});
    assert_eq!(rules.row_conditions(&pod("Running")), None);
    for (phase, message) in
        [("Succeeded", "The pod has completed successfully."), ("Failed", "The pod failed.")]
    {
        let condition = json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]);
        assert_eq!(rules.row_conditions(&pod(phase)), Some(condition));
    }
}

/// Each row has a cell for each of its columns.
#[test]
fn as_many_cells_as_columns() {
    for resource in Table::builtin().resources() {
        let columns = &resource.columns;
        if columns.is_empty() || &*resource.plural == "componentstatuses" {
            // It cannot be listed, or is nobody's object.
            continue;
        }
        let cells = strategy(&resource.group, &resource.plural)
            .cells(&json!({"metadata": {"name": "x"}}), time::now());
        // The rows of addresses have an age that no column shows (no recorded answer says so or otherwise).
        let more = usize::from(&*resource.plural == "ipaddresses");
        assert_eq!(cells.len(), columns.len() + more, "{}", resource.plural);
    }
}
