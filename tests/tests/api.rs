//! The API as kubectl uses it: discovery, explain, tables, watches, errors.

use anyhow::Result;
use pagurus_tests::cluster::{Cluster, Namespace, items};
use serde_json::json;

#[test]
fn kubectl_finds_its_way() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let resources = cluster.ok(&["api-resources"])?;
    for kind in ["Pod", "Deployment", "EndpointSlice", "CronJob", "NetworkPolicy", "ClusterRole", "Lease"] {
        assert!(resources.contains(kind), "api-resources lacks {kind}");
    }
    assert!(cluster.ok(&["api-versions"])?.lines().any(|l| l == "apps/v1"));
    let explained = cluster.ok(&["explain", "pod.spec.containers.livenessProbe"])?;
    assert!(explained.contains("failureThreshold") && explained.contains("DESCRIPTION"), "{explained}");
    let nodes = cluster.ok(&["get", "nodes", "-o", "wide"])?;
    for word in ["STATUS", "Ready", "INTERNAL-IP", "CONTAINER-RUNTIME", "containerd://"] {
        assert!(nodes.contains(word), "{nodes}");
    }
    assert!(cluster.ok(&["get", "all", "-A"])?.contains("service/kubernetes"));
    assert_eq!(cluster.ok(&["auth", "can-i", "create", "pods"])?.trim(), "yes");
    let version: serde_json::Value = serde_json::from_str(&cluster.ok(&["get", "--raw", "/version"])?)?;
    assert_eq!(version["minor"], "37");
    Ok(())
}

#[test]
fn bad_input_gets_a_status() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "api-errors")?;
    let n = ns.name.as_str();
    let said = |words: &[&str]| -> Result<String> {
        let out = cluster.kubectl(words)?;
        assert!(!out.status.success(), "{words:?} must fail");
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert!(said(&["-n", n, "get", "pod", "nobody"])?.contains("(NotFound): pods \"nobody\" not found"));
    assert!(said(&["-n", n, "get", "nothings"])?.contains("doesn't have a resource type \"nothings\""));
    cluster.ok(&["-n", n, "create", "configmap", "c"])?;
    assert!(said(&["-n", n, "create", "configmap", "c"])?.contains("configmaps \"c\" already exists"));
    assert!(said(&["-n", n, "create", "configmap", "Upper"])?.contains("Invalid value: \"Upper\""));
    assert!(
        said(&["-n", n, "--as", "somebody", "get", "pods"])?
            .contains("User \"somebody\" cannot list resource \"pods\"")
    );
    Ok(())
}

#[test]
fn labels_patches_and_output_formats() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "api-edit")?;
    let n = ns.name.as_str();
    cluster.ok(&["-n", n, "create", "configmap", "c", "--from-literal=a=1"])?;
    cluster.ok(&["-n", n, "label", "configmap", "c", "x=y"])?;
    cluster.ok(&["-n", n, "patch", "configmap", "c", "-p", r#"{"data":{"b":"2"}}"#])?;
    cluster.ok(&[
        "-n",
        n,
        "patch",
        "configmap",
        "c",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/data/a"}]"#,
    ])?;
    cluster.ok(&["-n", n, "annotate", "configmap", "c", "note=hello"])?;
    assert_eq!(
        cluster.ok(&["-n", n, "get", "configmap", "-l", "x=y", "-o", "jsonpath={.items[*].data}"])?,
        r#"{"b":"2"}"#
    );
    assert!(cluster.ok(&["-n", n, "get", "configmap", "c", "-o", "yaml"])?.contains("note: hello"));
    assert!(cluster.ok(&["-n", n, "describe", "configmap", "c"])?.contains("x=y"));
    Ok(())
}

/// Nobody may believe a door shut that is open.
#[test]
fn what_is_not_enforced_yet_is_told() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "api-admission")?;
    let name = format!("{}.pagurus.test", ns.name);
    let made = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "a.pagurus.test", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "clientConfig": {"url": "https://nowhere.pagurus.test"},
            "rules": [{"operations": ["CREATE"], "apiGroups": ["pagurus.test"], "apiVersions": ["v1"], "resources": ["nothings"]}],
        }],
    });
    cluster.apply(&made)?;
    let told = cluster.wait("an event", 20, |c| {
        let field = format!("involvedObject.name={name}");
        let events = c.get(&["-n", "default", "events", "--field-selector", &field])?;
        Ok(items(&events).iter().any(|event| event["reason"] == "NotEnforced"))
    });
    cluster.ok(&["delete", "validatingwebhookconfiguration", &name])?;
    told
}
