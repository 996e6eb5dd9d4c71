//! The DaemonSet of `deploy/` on a cluster whose own agents do without a dataplane: installed, used, updated and taken away.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::cluster::{Cluster, Namespace, Own, are_ready, items};
use serde_json::{Value, json};

use super::upgrade::{Served, load, serve};

const NAME: &str = "daemonset/pagurus-agent";
/// What a load balancer gets.
const POOL: &str = "10.88.0.240";

fn file(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The manifest with what its head says is to be made one's own, and DNS by this agent.
fn manifest() -> Result<String> {
    let mut text = file("pagurus-agent.yaml")?;
    for (theirs, ours) in [
        ("https://kind-control-plane:6443", "https://10.88.0.1:6443"),
        ("clusterCIDR: 10.244.0.0/16", "clusterCIDR: 10.244.0.0/16,fd10:244::/56"),
        ("--cluster-dns-server=off", "--cluster-dns-server=on"),
    ] {
        ensure!(text.contains(theirs), "deploy/pagurus-agent.yaml has no {theirs:?} any more");
        text = text.replace(theirs, ours);
    }
    Ok(text)
}

fn apply(cluster: &Cluster, text: &str, flags: &[&str]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    let path = file.path().display().to_string();
    cluster.ok(&[&["apply", "-f", &path], flags].concat())
}

/// The image, made of the binaries of this run, in every node's runtime.
fn image(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("agent.tar").display().to_string();
    cluster.xtask(&["dist", "--debug", "--no-build", "--out", &archive])?;
    cluster.xtask(&["load", "--name", &cluster.name, &archive]).map(drop)
}

/// A process called kube-proxy on a node.
struct Rival(Child);

impl Rival {
    fn start(cluster: &Cluster, node: &str, folder: &Path) -> Result<Self> {
        let program = folder.join("kube-proxy");
        fs::copy("/bin/sleep", &program)?;
        let pid = super::restart::process(cluster, node, "containerd")?.to_string();
        let mut command = Command::new("nsenter");
        // With the host's files, in the node's process namespace, where it is seen.
        command.args(["--target", &pid, "--pid"]).arg(&program).arg("600");
        Ok(Self(command.spawn().context("start a kube-proxy")?))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // nsenter waits for its child, which is the one to be ended.
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        for child in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            if let Ok(child) = child.parse() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::SIGKILL);
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages of the Node's events of one reason.
fn told(cluster: &Cluster, node: &str, reason: &str) -> Result<Vec<String>> {
    let events =
        cluster.get(&["-A", "events", "--field-selector", &format!("involvedObject.name={node}")])?;
    let of_reason = items(&events).iter().filter(|event| event["reason"] == reason);
    Ok(of_reason.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect())
}

fn rolled_out(cluster: &Cluster) -> Result<()> {
    cluster.ok(&["-n", "kube-system", "rollout", "status", NAME, "--timeout=60s"])?;
    cluster.wait("the nodes are Ready", 30, |c| Ok(are_ready(&c.get(&["nodes"])?)))
}

/// Names and load balancers: the rest is asked all the time by the clients of the load.
fn names_and_balancers(cluster: &Cluster, namespace: &str, served: &Served) -> Result<()> {
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pagurus-load-balancer", "namespace": "kube-system"},
        "data": {"pools": json!([{"name": "few", "ranges": [POOL]}]).to_string()}
    }))?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "balanced", "namespace": namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]}
    }))?;
    cluster.wait("the load balancer answers", 30, |c| {
        let service = c.get(&["-n", namespace, "service", "balanced"])?;
        ensure!(service["status"]["loadBalancer"]["ingress"][0]["ip"] == POOL, "{}", service["status"]);
        Ok(c.probe(&c.outside(), &["get", POOL, "80"])?.starts_with("echo-"))
    })?;
    let url = format!("http://echo.{namespace}.svc.cluster.local/");
    let words = ["-n", namespace, "exec", &served.client.name, "--", "wget", "-q", "-O", "-", &url];
    cluster.wait("a name leads to its Service", 20, |c| Ok(c.ok(&words)?.starts_with("echo-")))
}

#[test]
fn installed_updated_and_taken_away() -> Result<()> {
    let Some(own) = Own::up("e2e-daemonset", 2, &["--dataplane=off", "--cluster-dns=10.96.0.10"])? else {
        return Ok(());
    };
    let cluster: &Cluster = &own;
    let nodes = cluster.nodes()?;
    image(cluster)?;
    let manifest = manifest()?;
    apply(cluster, &manifest, &["--dry-run=server"])?;
    let folder = tempfile::tempdir()?;
    let rival = Rival::start(cluster, &nodes[0], folder.path())?;
    apply(cluster, &manifest, &[])?;
    rolled_out(cluster)?;
    cluster.wait("a kube-proxy beside is told", 20, |c| {
        let messages = told(c, &nodes[0], "KubeProxyFound")?;
        Ok(messages.iter().any(|message| {
            message.contains("kube-proxy runs on this node (process ")
                && message.contains("delete daemonset kube-proxy")
        }))
    })?;
    ensure!(told(cluster, &nodes[1], "KubeProxyFound")?.is_empty(), "there is none on {}", nodes[1]);
    drop(rival);
    let ns = Namespace::new(cluster, "served")?;
    let served = serve(cluster, &ns.name)?;
    names_and_balancers(cluster, &ns.name, &served)?;
    // Another version, with maps of another layout, one node after the other.
    let traffic = load(cluster, &served)?;
    let patch = json!([{
        "op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--conntrack-max=400000"
    }]);
    cluster.ok(&["-n", "kube-system", "patch", NAME, "--type=json", "-p", &patch.to_string()])?;
    rolled_out(cluster)?;
    // And gone: programs and maps stay.
    cluster.ok(&["-n", "kube-system", "delete", NAME, "--wait=true", "--cascade=foreground"])?;
    cluster.wait("the agents are gone", 30, |c| {
        let label = "app.kubernetes.io/name=pagurus-agent";
        Ok(items(&c.get(&["-n", "kube-system", "pods", "-l", label])?).is_empty())
    })?;
    let report = traffic.finish()?;
    println!("{report}");
    report.nothing_lost()?;
    // The instructions for taking it away detach every program, and leave nothing else.
    let (ip, port, _) = served.outside[0];
    let words = ["refusal", &ip.to_string(), &port.to_string()];
    ensure!(cluster.probe(&cluster.outside(), &words).is_err(), "served without an agent");
    apply(cluster, &file("pagurus-cleanup.yaml")?, &[])?;
    let done = ["-n", "kube-system", "rollout", "status", "daemonset/pagurus-cleanup", "--timeout=60s"];
    cluster.ok(&done)?;
    for node in &nodes {
        for path in ["/sys/fs/bpf/pagurus", "/etc/cni/net.d/10-pagurus.conflist", "/run/pagurus/dns-names"] {
            cluster.on_node(node, &["test", "!", "-e", path])?;
        }
        let addresses = cluster.on_node(node, &["ip", "addr", "show", "dev", "lo"])?;
        ensure!(!addresses.contains("169.254.53.53"), "{addresses}");
    }
    cluster.wait("nothing is served any more", 10, |c| Ok(c.probe(&c.outside(), &words)?.contains("refused")))
}

#[test]
fn kind_is_told_to_leave_services_and_pods_to_us() -> Result<()> {
    let kind: Value = serde_saphyr::from_str(&file("kind.yaml")?)?;
    assert_eq!(kind["apiVersion"], "kind.x-k8s.io/v1alpha4");
    assert_eq!(kind["kind"], "Cluster");
    assert_eq!(kind["networking"]["kubeProxyMode"], "none");
    assert_eq!(kind["networking"]["disableDefaultCNI"], true);
    // The DaemonSet must be told the same range of pods, and where the API server is: kind names nodes so.
    let manifest = file("pagurus-agent.yaml")?;
    let range = kind["networking"]["podSubnet"].as_str().context("no podSubnet")?;
    assert!(manifest.contains(&format!("clusterCIDR: {range}\n")), "{range}");
    let roles: Vec<&str> =
        kind["nodes"].as_array().into_iter().flatten().filter_map(|node| node["role"].as_str()).collect();
    assert_eq!(roles.first(), Some(&"control-plane"));
    assert!(manifest.contains("server: https://kind-control-plane:6443"));
    Ok(())
}
