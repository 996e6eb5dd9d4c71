//! What is wrong is told where its owner looks: events and conditions on objects, and drops with a reason.
//!
//! Must not know: how it is found out.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::daemon::{NODES, SERVICES, tool};
use pagurus_tests::eventually::eventually;
use serde_json::{Value, json};

use super::{Cluster, with_cluster};

/// How long what is done may take to be seen.
const SOON: Duration = Duration::from_secs(20);
/// An address that two want.
const CLAIMED: &str = "203.0.113.77";
const NODE_PORT: u16 = 30_123;

/// Makes a Service; its uid.
fn service(cluster: &Cluster, name: &str, spec: Value) -> Result<String> {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let made = cluster.api.create(SERVICES, &object)?;
    Ok(made["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

/// Messages of the events of one reason about an object, found as `kubectl describe` finds them.
fn told(cluster: &Cluster, uid: &str, reason: &str) -> Result<Vec<String>> {
    let found = cluster.api.select("/api/v1/events", &format!("involvedObject.uid={uid}"))?;
    let events = found.iter().filter(|event| event["reason"] == reason);
    Ok(events.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect())
}

#[test]
fn whoever_owns_it_is_told() {
    with_cluster("agents::told::whoever_owns_it_is_told", 1, |cluster| {
        let spec = |ip: &str| json!({"externalIPs": [ip], "ports": [{"port": 80}]});
        let uids = [service(cluster, "first", spec(CLAIMED))?, service(cluster, "second", spec(CLAIMED))?];
        service(
            cluster,
            "none",
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": NODE_PORT}]}),
        )?;
        let _agent = cluster.agent(0, &[])?;
        eventually("who does not get the address is told", SOON, || {
            let mut messages = Vec::new();
            for uid in &uids {
                messages.push(told(cluster, uid, "AddressInUse")?);
            }
            // Made within one second: either may have it.
            let is_told =
                |to: &[String], other: &str| to.iter().any(|m| m.contains(CLAIMED) && m.contains(other));
            let both = [is_told(&messages[0], "default/second"), is_told(&messages[1], "default/first")];
            ensure!(both[0] != both[1], "{messages:?}");
            Ok(Some(()))
        })?;
        let name = cluster.topology.nodes[0].host.name.clone();
        eventually("the node has its condition", SOON, || {
            let node = cluster.api.get(NODES, &name)?;
            let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            let found = conditions.find(|condition| condition["type"] == "DataplaneReady").context("none")?;
            ensure!(found["status"] == "True" && found["reason"] == "ServingServices", "{found}");
            Ok(Some(()))
        })?;
        refused(cluster)
    });
}

/// A connection from outside that nobody takes, as `pagurus-agent drops` shows it.
fn refused(cluster: &Cluster) -> Result<()> {
    let node = &cluster.topology.nodes[0];
    let bpffs = node.bpffs.display().to_string();
    let follow = ["drops", "--follow", "--json", "--bpffs", &bpffs];
    let mut command = tool(node, &follow)?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("start drops")?;
    let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let (tell, seen) = std::sync::mpsc::channel();
    let reading =
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let to = SocketAddr::new(node.ips.v4.into(), NODE_PORT);
    let shown = eventually("the drop is shown", SOON, || {
        let client = &cluster.topology.client;
        let outcome = client.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)).map(drop)))?;
        let error = outcome.err().context("somebody took it")?;
        ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
        Ok(seen.recv_timeout(Duration::from_millis(500)).ok())
    });
    child.kill()?;
    child.wait()?;
    drop(reading.join());
    let event: Value = serde_json::from_str(&shown?)?;
    ensure!(event["reason"] == "no_endpoint" && event["service"] == "default/none", "{event}");
    ensure!(event["destination"] == to.to_string() && event["protocol"] == "TCP", "{event}");
    let output = tool(node, &["drops", "--json", "--bpffs", &bpffs])?.output()?;
    let counts: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(counts["no_endpoint"].as_u64() > Some(0), "{counts}");
    Ok(())
}
