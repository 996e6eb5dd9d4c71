//! `kill -9` of each process in the middle of work: the cluster converges, no acknowledged write is lost, no container is restarted.

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace, are_ready, items};
use pagurus_tests::witness::Witness;
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

/// The ids of the processes of the cluster on the host, by their cgroup and name.
fn processes(cluster: &Cluster, leaf: &str, name: &str) -> Result<Vec<i32>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let unified = mounts
        .lines()
        .find(|l| l.contains(" - cgroup2 "))
        .and_then(|l| l.split(' ').nth(4))
        .context("no cgroup2 is mounted")?;
    let mut directories = vec![std::path::PathBuf::from(format!("{unified}/{}/{leaf}", cluster.fabric()))];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for pid in std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
            // The kernel keeps the first 15 letters.
            if std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|c| name.starts_with(c.trim()) && (c.trim().len() == 15 || c.trim() == name))
            {
                found.push(pid.parse()?);
            }
        }
        // A cgroup may go while we look.
        directories.extend(
            std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir()),
        );
    }
    Ok(found)
}

/// The only process of that name.
pub(crate) fn process(cluster: &Cluster, leaf: &str, name: &str) -> Result<i32> {
    processes(cluster, leaf, name)?
        .first()
        .copied()
        .with_context(|| format!("no {name} in {leaf} of {}", cluster.name))
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
        cluster.wait("the nodes are Ready", 60, |c| Ok(are_ready(&c.get(&["nodes"])?)))?;
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

/// A pod on this node that is looked at by probes.
fn probed(namespace: &str, name: &str, node: &str) -> Value {
    let page = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "pagurus.test/echo:1", "readinessProbe": page, "livenessProbe": page,
        }]}
    })
}

/// How many readiness probes the agent of a node has found good since it started.
fn good_probes(cluster: &Cluster, node: &str) -> Result<u64> {
    let metrics = cluster.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics")])?;
    let wanted = |line: &&str| {
        line.starts_with("prober_probe_total{") && line.contains("Readiness") && line.contains("successful")
    };
    let line = metrics.lines().find(wanted).context("no readiness probe was good yet")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

#[test]
fn a_restart_of_the_agent_or_the_runtime_flips_nothing() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "restart-flips")?;
    let n = ns.name.as_str();
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    for name in ["a", "b", "c"] {
        cluster.apply(&probed(n, name, &node))?;
    }
    for name in ["a", "b", "c"] {
        cluster.ready(n, name)?;
    }
    let before = containers(&cluster, n)?;
    let pods = Witness::of(&cluster, &["-n", n, "pods"])?;
    let nodes = Witness::of(&cluster, &["nodes"])?;
    for name in ["pagurus-agent", "pagurus-agent", "containerd"] {
        kill(&cluster, &node, name)?;
        // The agent has found its pods again and has made up its mind about each of them.
        let since = if name == "containerd" { good_probes(&cluster, &node)? } else { 0 };
        cluster.wait("the probes go on", 40, |c| Ok(good_probes(c, &node)? >= since + 6))?;
        cluster.wait("the node's agent is ready", 40, |c| {
            Ok(c.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/healthz")])? == "ok")
        })?;
    }
    pods.all_was_ready()?;
    nodes.all_was_ready()?;
    assert_eq!(containers(&cluster, n)?, before, "no container was restarted");
    Ok(())
}

/// The process that holds a pod's namespaces, and its parent, which carries all processes of the pod.
fn carriers(cluster: &Cluster, node: &str, namespace: &str, pod: &str) -> Result<(i32, i32)> {
    let object = cluster.get(&["-n", namespace, "pod", pod])?;
    let uid = object["metadata"]["uid"].as_str().context("a pod without uid")?.to_owned();
    let mine = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|c| c.contains(&format!("/pod{uid}/")))
    };
    let pause = processes(cluster, node, "pause")?
        .into_iter()
        .find(|pid| mine(*pid))
        .context("the pod has no process of its own")?;
    let status = std::fs::read_to_string(format!("/proc/{pause}/status"))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).context("no parent")?.trim().parse()?;
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm"))?;
    anyhow::ensure!(name.starts_with("containerd-shim"), "the pod is carried by {name}");
    Ok((pause, parent))
}

#[test]
fn what_carries_one_pod_takes_no_other_along() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "restart-carriers")?;
    let n = ns.name.as_str();
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    for name in ["victim", "bystander"] {
        cluster.apply(&probed(n, name, &node))?;
    }
    for name in ["victim", "bystander"] {
        cluster.ready(n, name)?;
    }
    let others = Witness::of(&cluster, &["-n", n, "-l=app=bystander", "pods"])?;
    let id = |c: &Cluster, name: &str| -> Result<String> {
        let pod = c.get(&["-n", n, "pod", name])?;
        Ok(pod["status"]["containerStatuses"][0]["containerID"].as_str().context("no container")?.to_owned())
    };
    let bystander = id(&cluster, "bystander")?;
    for shim in [true, false] {
        let before = id(&cluster, "victim")?;
        let (pause, parent) = carriers(&cluster, &node, n, "victim")?;
        let killed = if shim { parent } else { pause };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL)?;
        cluster.wait("the pod runs anew", 60, |c| Ok(id(c, "victim")? != before))?;
        cluster.ready(n, "victim")?;
        assert!(carriers(&cluster, &node, n, "victim")?.0 != pause, "the pod has a new sandbox");
    }
    others.all_was_ready()?;
    assert_eq!(id(&cluster, "bystander")?, bystander, "the other pod runs on");
    Ok(())
}

#[test]
fn a_runtime_killed_while_pods_start() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "restart-starts")?;
    let n = ns.name.as_str();
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    cluster.apply(&probed(n, "bystander", &node))?;
    cluster.ready(n, "bystander")?;
    let before = containers(&cluster, n)?;
    let others = Witness::of(&cluster, &["-n", n, "-l=app=bystander", "pods"])?;
    let mut many = deployment(n, 8);
    many["spec"]["template"]["spec"]["nodeName"] = node.as_str().into();
    cluster.apply(&many)?;
    // Some run, the others are on their way.
    cluster.wait("a pod of many runs", 30, |c| {
        Ok(items(&c.get(&["-n", n, "pods", "-l=app=d"])?).iter().any(|p| p["status"]["phase"] == "Running"))
    })?;
    kill(&cluster, &node, "containerd")?;
    cluster.wait("the Deployment is whole", 90, |c| {
        Ok(c.get(&["-n", n, "deployment", "d"])?["status"]["readyReplicas"] == 8)
    })?;
    others.all_was_ready()?;
    let after = containers(&cluster, n)?;
    assert!(before.iter().all(|container| after.contains(container)), "the pod that was there runs on");
    // What was made by halves goes with the pods.
    let pods = cluster.get(&["-n", n, "pods", "-l=app=d"])?;
    let uids: Vec<String> =
        items(&pods).iter().filter_map(|p| p["metadata"]["uid"].as_str().map(str::to_owned)).collect();
    cluster.ok(&["-n", n, "delete", "deployment", "d", "--wait=true"])?;
    cluster.wait("nothing is left of them", 60, |c| {
        let left = c.on_node(&node, &["ls", "/var/lib/kubelet/pods"])?;
        let attached = c.on_node(&node, &["sh", "-c", "cat /var/lib/pagurus/attachments/*"])?;
        Ok(!uids.iter().any(|uid| left.contains(uid)) && !attached.contains(&format!("{n}/d-")))
    })
}
