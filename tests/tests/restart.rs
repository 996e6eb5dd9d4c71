//! `kill -9` of each process in the middle of work: the cluster converges, no acknowledged write is lost, no container is restarted.

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace, items};
use serde_json::{Value, json};

const TOOLBOX: &str = "pagurus.test/toolbox:1";

/// Container ids and restart counts of a namespace's pods: what a restart of ours must not change.
fn containers(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let pods = cluster.get(&["-n", namespace, "pods"])?;
    let mut all: Vec<String> = items(&pods)
        .iter()
        .flat_map(|p| p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default())
        .map(|s| format!("{} {}", s["containerID"], s["restartCount"]))
        .collect();
    all.sort();
    Ok(all)
}

fn deployment(namespace: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
        }}
    })
}

/// The id of a process of the cluster on the host, by its cgroup and name.
fn process(cluster: &Cluster, leaf: &str, name: &str) -> Result<i32> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let unified = mounts
        .lines()
        .find(|l| l.contains(" - cgroup2 "))
        .and_then(|l| l.split(' ').nth(4))
        .context("no cgroup2 is mounted")?;
    let mut directories = vec![std::path::PathBuf::from(format!("{unified}/{}/{leaf}", cluster.fabric()))];
    while let Some(directory) = directories.pop() {
        for pid in std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
            if std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|c| name.starts_with(c.trim()) && !c.trim().is_empty())
            {
                return Ok(pid.parse()?);
            }
        }
        directories
            .extend(std::fs::read_dir(&directory)?.flatten().filter(|e| e.path().is_dir()).map(|e| e.path()));
    }
    anyhow::bail!("no {name} in {leaf} of {}", cluster.name)
}

/// Kills a process and waits until another one has its place.
fn kill(cluster: &Cluster, leaf: &str, name: &str) -> Result<()> {
    let pid = process(cluster, leaf, name)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    cluster.wait(&format!("{name} in {leaf} runs again"), 30, |c| {
        Ok(process(c, leaf, name).is_ok_and(|new| new != pid))
    })
}

#[test]
fn killing_any_process_loses_nothing() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "restart")?;
    let n = ns.name.as_str();
    let _pods = Namespace::new(&cluster, "restart-pods")?;
    cluster.apply(&deployment(n, 4))?;
    cluster.ok(&["-n", n, "rollout", "status", "deployment/d", "--timeout=60s"])?;
    let before = containers(&cluster, n)?;
    assert_eq!(before.len(), 4);
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    for (leaf, name) in [
        ("control-plane", "pagurus-controlplane"),
        (node.as_str(), "pagurus-agent"),
        (node.as_str(), "containerd"),
    ] {
        // In the middle of work: writes are acknowledged up to the moment of the kill, a pod is on its way.
        for i in 0..20 {
            cluster.ok(&["-n", n, "create", "configmap", &format!("{name}-{i}")])?;
        }
        let pod = format!("during-{name}");
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": format!("{n}-pods")},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
        }))?;
        kill(&cluster, leaf, name)?;
        cluster.wait("the API answers", 30, |c| Ok(c.ok(&["get", "--raw", "/readyz"]).is_ok()))?;
        let maps = cluster.get(&["-n", n, "configmaps"])?;
        let kept = items(&maps)
            .iter()
            .filter(|m| m["metadata"]["name"].as_str().is_some_and(|m| m.starts_with(name)))
            .count();
        assert_eq!(kept, 20, "acknowledged writes after the end of {name}");
        cluster.wait("the nodes are Ready", 60, |c| {
            Ok(items(&c.get(&["nodes"])?).iter().all(pagurus_tests::cluster::is_ready))
        })?;
        cluster.ready(&format!("{n}-pods"), &pod)?;
        cluster.wait("the Deployment is whole", 60, |c| {
            Ok(c.get(&["-n", n, "deployment", "d"])?["status"]["readyReplicas"] == 4)
        })?;
        assert_eq!(containers(&cluster, n)?, before, "no container was restarted with {name}");
    }
    Ok(())
}

#[test]
fn a_connection_survives_the_agent() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "restart-connection")?;
    let n = ns.name.as_str();
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    let pod = |name: &str, image: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": n, "labels": {"app": name}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]}
        })
    };
    cluster.apply(&pod("server", "pagurus.test/echo:1"))?;
    cluster.apply(&pod("client", TOOLBOX))?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": n}, "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}}))?;
    cluster.ready(n, "server")?;
    cluster.ready(n, "client")?;
    let address = cluster.get(&["-n", n, "service", "server"])?["spec"]["clusterIP"]
        .as_str()
        .context("no cluster IP")?
        .to_owned();
    let exec = |words: &[&str]| {
        let mut all = vec!["-n", n, "exec", "client", "--"];
        all.extend(words);
        cluster.ok(&all)
    };
    cluster.wait("the Service answers", 20, |_| Ok(exec(&["/probe", "get", &address, "80"]).is_ok()))?;
    // The exec stream ends with the agent that carries it, so the client reports through a file.
    let script =
        format!("(/probe hold {address} 80 8 > /tmp/held 2>&1; echo $? >> /tmp/held) > /dev/null 2>&1 &");
    exec(&["/bin/sh", "-c", &script])?;
    kill(&cluster, &node, "pagurus-agent")?;
    cluster.wait("the connection lived through it", 40, |_| {
        let said = exec(&["/bin/cat", "/tmp/held"])?;
        anyhow::ensure!(!said.contains("ended after"), "{said}");
        Ok(said.trim().ends_with('0') && said.contains("answers on one connection"))
    })?;
    assert_eq!(
        cluster.get(&["-n", n, "pod", "client"])?["status"]["containerStatuses"][0]["restartCount"],
        0
    );
    Ok(())
}
