//! Pods on real nodes: volumes, environment, probes, logs, exec, termination.

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace};
use serde_json::json;

const TOOLBOX: &str = "pagurus.test/toolbox:1";

#[test]
fn a_pod_sees_its_configuration() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-config")?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": ns.name}, "data": {"colour": "red", "file.txt": "one"}}))?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": ns.name}, "stringData": {"word": "xyzzy"}}))?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns.name, "labels": {"tier": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [
                {"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
                {"name": "e", "emptyDir": {}}, {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
            ],
            "initContainers": [{"name": "i", "image": TOOLBOX, "command": ["/bin/sh", "-c", "echo from-init > /e/init"], "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "containers": [{
                "name": "main", "image": TOOLBOX, "command": ["/bin/sh", "-c", "echo started $GREETING; exec sleep 1000"],
                "env": [
                    {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "colour"}}},
                    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
                    {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "GREETING", "value": "$(COLOUR)-$(ME)"}
                ],
                "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}},
                "volumeMounts": [{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}, {"name": "d", "mountPath": "/d"}]
            }]
        }
    }))?;
    cluster.ready(&ns.name, "p")?;
    let pod = cluster.get(&["-n", &ns.name, "pod", "p"])?;
    let ip = pod["status"]["podIP"].as_str().context("the pod has no address")?.to_owned();
    let script =
        "echo $COLOUR $WORD $ME $IP; cat /c/file.txt; echo; cat /s/word; echo; cat /e/init; cat /d/labels";
    let said = cluster.ok(&["-n", &ns.name, "exec", "p", "--", "/bin/sh", "-c", script])?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, [&format!("red xyzzy p {ip}")[..], "one", "xyzzy", "from-init", "tier=\"web\""]);
    let logs = cluster.ok(&["-n", &ns.name, "logs", "p"])?;
    assert_eq!(logs.trim(), "started red-p");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(pod["status"]["podIPs"].as_array().map(Vec::len), Some(2), "dual stack");
    Ok(())
}

#[test]
fn a_pod_sees_the_services_of_its_namespace() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-links")?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db-main", "namespace": ns.name},
        "spec": {"ports": [{"name": "sql", "port": 5432}]}
    }))?;
    let address = |namespace: &str, name: &str| -> Result<String> {
        let service = cluster.get(&["-n", namespace, "service", name])?;
        Ok(service["spec"]["clusterIP"].as_str().context("the Service has no address")?.to_owned())
    };
    let (db, api) = (address(&ns.name, "db-main")?, address("default", "kubernetes")?);
    for (name, wants) in [("linked", true), ("bare", false)] {
        let container =
            json!({"name": "main", "image": TOOLBOX, "command": ["/bin/sh", "-c", "exec sleep 1000"]});
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns.name},
            "spec": {"terminationGracePeriodSeconds": 1, "enableServiceLinks": wants, "containers": [container]}
        }))?;
        cluster.ready(&ns.name, name)?;
        let script = "echo $DB_MAIN_SERVICE_HOST:$DB_MAIN_SERVICE_PORT_SQL $KUBERNETES_SERVICE_HOST";
        let said = cluster.ok(&["-n", &ns.name, "exec", name, "--", "/bin/sh", "-c", script])?;
        let expected = if wants { format!("{db}:5432 {api}") } else { format!(": {api}") };
        assert_eq!(said.trim(), expected, "{name}");
    }
    Ok(())
}

#[test]
fn exit_codes_and_restarts_are_told() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-restart")?;
    let pod = |name: &str, policy: &str, script: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns.name},
            "spec": {"restartPolicy": policy, "containers": [{"name": "main", "image": TOOLBOX, "command": ["/bin/sh", "-c", script]}]}
        })
    };
    cluster.apply(&pod("done", "Never", "exit 0"))?;
    cluster.apply(&pod("failed", "Never", "exit 3"))?;
    cluster.apply(&pod("crashing", "Always", "exit 1"))?;
    cluster.wait("the pods ended as they should", 60, |c| {
        let done = c.get(&["-n", &ns.name, "pod", "done"])?;
        let failed = c.get(&["-n", &ns.name, "pod", "failed"])?;
        let crashing = c.get(&["-n", &ns.name, "pod", "crashing"])?;
        let code = &failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        let waiting = &crashing["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        let restarts =
            crashing["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default();
        Ok(done["status"]["phase"] == "Succeeded"
            && failed["status"]["phase"] == "Failed"
            && *code == 3
            && *waiting == "CrashLoopBackOff"
            && restarts >= 1)
    })
}

#[test]
fn a_failing_liveness_probe_restarts_and_readiness_gates() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-probes")?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns.name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "live", "image": TOOLBOX, "livenessProbe": {"exec": {"command": ["/bin/cat", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 2}},
                {"name": "ready", "image": TOOLBOX, "command": ["/echo", "9000"], "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1}}
            ]
        }
    }))?;
    cluster.wait("the liveness probe restarted its container alone", 60, |c| {
        let pod = c.get(&["-n", &ns.name, "pod", "p"])?;
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let of = |name: &str| statuses.iter().find(|s| s["name"] == name).cloned().unwrap_or_default();
        Ok(of("live")["restartCount"].as_i64().unwrap_or_default() >= 1
            && of("ready")["restartCount"] == 0
            && of("ready")["ready"] == true)
    })
}

#[test]
fn another_image_restarts_the_container() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-image")?;
    let container = |name: &str| json!({"name": name, "image": TOOLBOX});
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns.name},
        "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container("a"), container("b")]}
    }))?;
    cluster.ready(&ns.name, "p")?;
    cluster.ok(&["-n", &ns.name, "set", "image", "pod/p", "a=pagurus.test/echo:1"])?;
    cluster.wait("the container runs the other image, the other container runs on", 60, |c| {
        let pod = c.get(&["-n", &ns.name, "pod", "p"])?;
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let of = |name: &str| statuses.iter().find(|s| s["name"] == name).cloned().unwrap_or_default();
        let (a, b) = (of("a"), of("b"));
        let is_other = a["image"].as_str().is_some_and(|image| image.contains("echo"));
        Ok(is_other && a["restartCount"] == 1 && a["ready"] == true && b["restartCount"] == 0)
    })
}

#[test]
fn deletion_is_graceful() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "pods-delete")?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns.name},
        "spec": {
            "terminationGracePeriodSeconds": 20,
            "containers": [{
                "name": "main", "image": TOOLBOX,
                "command": ["/bin/sh", "-c", "trap 'echo goodbye; exit 0' TERM; while true; do sleep 0.1; done"]
            }]
        }
    }))?;
    cluster.ready(&ns.name, "p")?;
    cluster.ok(&["-n", &ns.name, "delete", "pod", "p", "--wait=false"])?;
    // It ends by the signal, long before the grace period is over.
    cluster.wait("the pod is gone", 12, |c| Ok(c.get(&["-n", &ns.name, "pod", "p"]).is_err()))
}
