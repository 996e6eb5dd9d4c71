//! `pagurus-agent cleanup`: nothing of an agent is left on its node.
//!
//! Must not know: how an agent makes what is looked for here.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use pagurus_cni::client;
use pagurus_cni::request::Call;
use pagurus_tests::daemon::{home, tool};
use pagurus_tests::eventually::eventually;
use pagurus_tests::topology::{Host, Node, tcp_server};
use serde_json::{Value, json};

use super::{Cluster, TARGET, service_address, with_cluster};

/// How long what is done may take to be seen.
const SOON: Duration = Duration::from_secs(10);

/// Runs `cleanup` on a node.
fn cleanup(node: &Node, flags: &[&str]) -> Result<Output> {
    let folder = home(node);
    let own = [("--bpffs", node.bpffs.clone()), ("--cni-conf-dir", folder.join("net.d"))];
    let own = own
        .into_iter()
        .chain([("--cni-bin-dir", folder.join("bin")), ("--cgroup-root", node.cgroup.clone())]);
    let own: Vec<String> =
        own.flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect();
    let words: Vec<&str> =
        ["cleanup"].into_iter().chain(own.iter().map(String::as_str)).chain(flags.iter().copied()).collect();
    let mut command = tool(node, &words)?;
    node.host.unhooked().run(|| command.output().context("start cleanup"))
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// What there is of an agent on a node, by the eyes of others.
fn left(node: &Node) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    if node.bpffs.join("pagurus").exists() {
        all.insert("pins".to_owned());
    }
    for family in ["-4", "-6"] {
        let routes = node.host.ip(&[family, "route", "show", "proto", "118"])?;
        all.extend(
            routes.lines().map(|line| format!("route {}", line.split(' ').next().unwrap_or_default())),
        );
        let addresses = node.host.ip(&[family, "-o", "addr", "show", "dev", "lo"])?;
        let ours = ["169.254.53.53", "fd00:5067:72::53"];
        all.extend(ours.iter().filter(|ip| addresses.contains(*ip)).map(|ip| format!("address {ip}")));
    }
    let links = node.host.ip(&["-o", "link"])?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    all.extend(names.filter(|name| name.starts_with("pgr")).map(|name| format!("device {name}")));
    let folder = home(node);
    for below in ["", "net.d", "bin", "lib", "lib/pagurus/attachments"] {
        for entry in fs::read_dir(folder.join(below)).into_iter().flatten() {
            let path = entry?.path();
            let name = path.strip_prefix(&folder).unwrap_or(&path).display().to_string();
            // What the test itself has put there.
            if !["log", "root", "lib", "net.d", "bin", "bin/other"].contains(&name.as_str()) {
                all.insert(format!("file {name}"));
            }
        }
    }
    Ok(all)
}

/// A container of a pod, connected by the plugin.
fn connect(node: &Node, name: &str) -> Result<Host> {
    let host = Host::new(name, None)?;
    let call = Call {
        command: "ADD".into(),
        container_id: format!("{name}-sandbox"),
        netns: format!("/run/netns/{name}"),
        ifname: "eth0".into(),
        args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={name}"),
        config: json!({ "cniVersion": "1.0.0", "name": "pagurus", "type": "pagurus-cni" }),
    };
    let socket = home(node).join("cni.sock").display().to_string();
    client::forward(&socket, &call).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(host)
}

fn is_served(cluster: &Cluster) -> Result<bool> {
    let address = service_address()?;
    // The node's own processes: their sockets are seen by the programs.
    cluster.topology.nodes[0]
        .host
        .run(|| Ok(TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()))
}

#[test]
fn nothing_is_left() {
    with_cluster("agents::cleanup::nothing_is_left", 2, |cluster| {
        let flags = home(&cluster.topology.nodes[0]);
        let conf = flags.join("net.d").display().to_string();
        let arguments = [
            "--pod-network",
            "on",
            "--routing",
            "vxlan",
            "--cluster-dns-server",
            "on",
            "--cni-conf-dir",
            &conf,
        ];
        cluster.create_service(json!({}))?;
        let [own, other] = &cluster.topology.nodes[..] else { anyhow::bail!("two nodes") };
        let _server = tcp_server(&other.host, other.ips.v4.into(), TARGET, "other")?;
        cluster.set_endpoints(&[other])?;
        let before = left(own)?;
        ensure!(before.is_empty(), "{before:?}");
        let nothing = cleanup(own, &[])?;
        ensure!(
            nothing.status.success() && said(&nothing).contains("nothing of an agent"),
            "{}",
            said(&nothing)
        );
        let mut agent = cluster.agent(0, &arguments)?;
        fill(own)?;
        let pod = connect(own, "poda")?;
        eventually("the Service is served", SOON, || Ok(is_served(cluster)?.then_some(())))?;
        eventually("names are kept on disk", SOON, || {
            Ok(home(own).join("dns-names").exists().then_some(()))
        })?;
        // While an agent runs nothing is done.
        let whole = left(own)?;
        let refused = cleanup(own, &[])?;
        let text = said(&refused);
        ensure!(!refused.status.success() && text.contains("an agent runs on this node (process "), "{text}");
        ensure!(left(own)? == whole, "{whole:?}");
        agent.end(Signal::SIGKILL)?;
        looked_at_first(own, &whole)?;
        // The pod's network stays until it is asked for.
        let first = cleanup(own, &[])?;
        let text = said(&first);
        ensure!(first.status.success() && text.contains("it connects test/poda, which runs"), "{text}");
        let kept = left(own)?;
        ensure!(
            kept.len() == 5 && kept.iter().any(|name| name.starts_with("device pgr")),
            "{kept:?}\n{text}"
        );
        let reached = pod.ip(&["-o", "addr", "show", "dev", "eth0"])?;
        ensure!(reached.contains("10.245.1."), "{reached}");
        eventually("the programs are detached", SOON, || Ok((!is_served(cluster)?).then_some(())))?;
        let second = cleanup(own, &["--pods"])?;
        ensure!(second.status.success(), "{}", said(&second));
        ensure!(left(own)?.is_empty(), "{:?}", left(own)?);
        ensure!(home(own).join("bin/other").exists(), "what others have put there stays");
        let third = cleanup(own, &["--pods", "--json"])?;
        let report: Value = serde_json::from_slice(&third.stdout)?;
        ensure!(report["removed"] == json!([]) && report["failed"] == json!([]), "{report}");
        // And a node that an agent comes to again is as good as new.
        let mut agent = cluster.agent(0, &arguments)?;
        eventually("the Service is served again", SOON, || Ok(is_served(cluster)?.then_some(())))?;
        agent.end(Signal::SIGTERM)?;
        let last = cleanup(own, &[])?;
        ensure!(last.status.success() && left(own)?.is_empty(), "{}{:?}", said(&last), left(own)?);
        Ok(())
    });
}

/// The plugin, as the DaemonSet installs it, beside another one.
fn fill(node: &Node) -> Result<()> {
    let folder = home(node).join("bin");
    fs::create_dir(&folder)?;
    for name in ["pagurus-cni", "other"] {
        fs::write(folder.join(name), b"")?;
    }
    Ok(std::os::unix::fs::symlink(Path::new("pagurus-cni"), folder.join("loopback"))?)
}

/// What a dry run says is there, and that it does nothing about it.
fn looked_at_first(node: &Node, whole: &BTreeSet<String>) -> Result<()> {
    let dry = cleanup(node, &["--dry-run", "--json", "--pods"])?;
    ensure!(dry.status.success(), "{}", said(&dry));
    let report: Value = serde_json::from_slice(&dry.stdout)?;
    let kinds: BTreeSet<&str> = report["removed"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|found| found["kind"].as_str())
        .collect();
    for kind in
        ["program", "map", "folder", "process", "address", "route", "device", "file", "CNI configuration"]
    {
        ensure!(kinds.contains(kind), "no {kind} in {report:#}");
    }
    ensure!(report["dryRun"] == true, "{report}");
    let without_lock = |names: &BTreeSet<String>| {
        names.iter().filter(|name| !name.ends_with("agent.lock")).cloned().collect::<BTreeSet<_>>()
    };
    ensure!(without_lock(&left(node)?) == without_lock(whole), "{whole:?}");
    Ok(())
}
