//! The demo: three echo servers behind a dual-stack Service, and on every node a client pod that is ready only while the Service
//! answers it, over IPv4 and IPv6.

use super::api::Api;
use crate::images;
use anyhow::{Context, Result};
use serde_json::{Value, json};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default";

/// Creates what is not there.
pub fn apply(api: &Api) -> Result<()> {
    api.ensure(&format!("{APPS}/deployments"), &servers())?;
    let service = api.ensure(&format!("{NAMESPACE}/services"), &service())?;
    let addresses: Vec<String> = serde_json::from_value(service["spec"]["clusterIPs"].clone())
        .context("the demo's Service has no cluster IPs")?;
    api.ensure(&format!("{APPS}/daemonsets"), &clients(&addresses)).map(|_| ())
}

fn servers() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "echo", "labels": {"app": "echo"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "echo"}},
            "template": {
                "metadata": {"labels": {"app": "echo"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "echo", "image": images::ECHO, "imagePullPolicy": "Never",
                        "ports": [{"containerPort": 8080, "name": "http"}],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
                        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}}
                    }]
                }
            }
        }
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "echo", "labels": {"app": "echo"}},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "echo"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080}]
        }
    })
}

fn clients(addresses: &[String]) -> Value {
    let mut command = vec!["/probe", "ready", "80"];
    command.extend(addresses.iter().map(String::as_str));
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "client", "labels": {"app": "client"}},
        "spec": {
            "selector": {"matchLabels": {"app": "client"}},
            "template": {
                "metadata": {"labels": {"app": "client"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "client", "image": images::TOOLBOX, "imagePullPolicy": "Never",
                        "readinessProbe": {"exec": {"command": command}, "periodSeconds": 1, "timeoutSeconds": 5},
                        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}}
                    }]
                }
            }
        }
    })
}

/// How many of the nodes the demo answers on.
pub fn answering(api: &Api) -> Result<(u64, u64)> {
    let clients = api.get(&format!("{APPS}/daemonsets/client"))?;
    let servers = api.get(&format!("{APPS}/deployments/echo"))?;
    if servers["status"]["readyReplicas"].as_u64().unwrap_or_default() < 3 {
        return Ok((0, clients["status"]["desiredNumberScheduled"].as_u64().unwrap_or_default()));
    }
    let status = |name: &str| clients["status"][name].as_u64().unwrap_or_default();
    Ok((status("numberReady"), status("desiredNumberScheduled")))
}
