//! The figures of a whole cluster: start-up, memory at rest, pod start, Service programming.

use super::{Row, percentile};
use crate::cluster::progress::until;
use crate::cluster::{Cluster, Process, api::Api, down, up};
use crate::{build, images, process, workspace};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The cluster of the measurements.
const NAME: &str = "bench";
/// Pods started one at a time.
const PODS: usize = 30;

/// Measures on a release build; the cluster is removed at the end, also after an error.
pub fn run() -> Result<Vec<Row>> {
    build::run(&build::Options { release: true })?;
    images::build()?;
    let ready = median((0..5).map(|_| control_plane_ready()).collect());
    down::run(&down::Options { name: NAME.to_owned() })?;
    let rows = measure_cluster(ready);
    down::run(&down::Options { name: NAME.to_owned() })?;
    rows
}

fn median(values: Vec<Result<f64>>) -> Result<(f64, String)> {
    let mut values = values.into_iter().collect::<Result<Vec<f64>>>()?;
    values.sort_by(f64::total_cmp);
    let note = format!(
        "median of {}, {:.2} to {:.2}",
        values.len(),
        values.first().copied().unwrap_or_default(),
        values.last().copied().unwrap_or_default()
    );
    Ok((percentile(&values, 0.5), note))
}

/// Seconds from exec with an empty data directory to `/readyz` 200.
fn control_plane_ready() -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let start = Instant::now();
    let mut command = Command::new(workspace::binaries(true).join("pagurus-controlplane"));
    command
        .arg("--data-dir")
        .arg(directory.path())
        .args([
            "--bind-address",
            "127.0.0.1",
            "--secure-port",
            &port.to_string(),
            "--advertise-address",
            "127.0.0.1",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child =
        process::end_with_us(&mut command).spawn().context("cannot start pagurus-controlplane")?;
    let result = until("/readyz answers 200", Duration::from_secs(30), || {
        let out = Command::new("curl")
            .args([
                "--silent",
                "--insecure",
                "--noproxy",
                "*",
                "--write-out",
                "%{http_code}",
                "--output",
                "/dev/null",
            ])
            .arg(format!("https://127.0.0.1:{port}/readyz"))
            .output()?;
        Ok((out.stdout == b"200").then(|| start.elapsed().as_secs_f64()))
    });
    child.kill()?;
    child.wait()?;
    result
}

fn measure_cluster(ready: Result<(f64, String)>) -> Result<Vec<Row>> {
    let options = |nodes| up::Options::for_bench(NAME, nodes);
    let start = Instant::now();
    up::run(&options(3))?;
    let up_seconds = start.elapsed().as_secs_f64();
    let cluster = Cluster::load(NAME)?;
    let api = Api::open(&cluster)?;
    println!("bench: idle for one minute");
    std::thread::sleep(Duration::from_secs(60));
    let control_plane = Process::read(&cluster.directory().join("control-plane.pid"))
        .context("no control plane")
        .and_then(|p| resident(p.pid));
    let agent = largest_agent(&cluster);
    let pods = pod_starts(&api);
    let (p50, p99) = match pods {
        Ok(mut values) => {
            values.sort_by(f64::total_cmp);
            let note = format!("{PODS} pods, {:.0} to {:.0}", values[0], values[values.len() - 1]);
            (Ok((percentile(&values, 0.5), note.clone())), Ok((percentile(&values, 0.99), note)))
        }
        Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
    };
    Ok(vec![
        Row::at_most("control plane, empty data directory, exec to /readyz 200", ready, "s", 1.0),
        Row::at_most(
            "control plane, idle one minute after up, resident",
            control_plane.map(|v| (v, "3 nodes and the demo".into())),
            "MB",
            100.0,
        ),
        Row::at_most("agent idle, resident", agent.map(|v| (v, "the largest of 3".into())), "MB", 40.0),
        Row::at_most(
            "up --nodes 3, nothing to build",
            Ok((up_seconds, "with the demo answering on every node".into())),
            "s",
            15.0,
        ),
        Row::at_most("pod created to Running seen by a watch, p50", p50, "ms", 400.0),
        Row::at_most("pod created to Running seen by a watch, p99", p99, "ms", 1000.0),
        Row::at_most("EndpointSlice event to BPF maps written, p99", programming(&cluster), "ms", 5.0),
    ])
}

/// Resident megabytes (10^6 bytes) of a process.
fn resident(pid: i32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("cannot read the memory of process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The agents of a cluster, by their processes' names below each node's first process.
fn largest_agent(cluster: &Cluster) -> Result<f64> {
    let mut largest: Option<f64> = None;
    for node in cluster.nodes() {
        let init = Process::read(&node.pid_file()).context("a node does not run")?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid))?;
        for pid in children.split_whitespace().filter_map(|p| p.parse::<i32>().ok()) {
            if std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "pagurus-agent")
            {
                let value = resident(pid)?;
                largest = Some(largest.map_or(value, |l| l.max(value)));
            }
        }
    }
    largest.context("no agent runs")
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "pause", "image": images::PAUSE, "imagePullPolicy": "Never"}]
        }
    })
}

/// Milliseconds from the create request to the watch event that shows the pod Running, one pod at a time.
fn pod_starts(api: &Api) -> Result<Vec<f64>> {
    let collection = "/api/v1/namespaces/default/pods";
    let mut values = Vec::with_capacity(PODS);
    for number in 0..PODS {
        let name = format!("start-{number}");
        let mut watch = api
            .watch(&format!("{collection}?watch=1&fieldSelector=metadata.name%3D{name}&timeoutSeconds=60"))?;
        let start = Instant::now();
        api.ensure(collection, &pod(&name))?;
        loop {
            let Some(event) = watch.next_event()? else {
                bail!("the watch of pod {name} ended before it ran")
            };
            if event["object"]["status"]["phase"] == "Running" {
                break;
            }
        }
        values.push(start.elapsed().as_secs_f64() * 1e3);
        api.call("DELETE", &format!("{collection}/{name}"), None, "")?;
    }
    Ok(values)
}

/// The agents' own histogram of the time from an EndpointSlice event to the written maps, while the demo is scaled to and fro.
fn programming(cluster: &Cluster) -> Result<(f64, String)> {
    let api = Api::open(cluster)?;
    for replicas in [5, 3, 6, 2, 3, 5, 3, 6, 2, 3] {
        let scale = json!({"spec": {"replicas": replicas}});
        api.call(
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/echo",
            Some(&scale),
            "application/merge-patch+json",
        )?;
        until("the demo is scaled", Duration::from_secs(60), || {
            let echo = api.get("/apis/apps/v1/namespaces/default/deployments/echo")?;
            Ok((echo["status"]["readyReplicas"] == replicas && echo["status"]["replicas"] == replicas)
                .then_some(()))
        })?;
    }
    let mut buckets: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
    let mut total = 0;
    for node in cluster.nodes() {
        let metrics = api.call("GET", &format!("/api/v1/nodes/{}/proxy/metrics", node.name()), None, "")?;
        if metrics.code != 200 {
            bail!("{} does not show its metrics: {} {}", node.name(), metrics.code, metrics.body);
        }
        for line in
            metrics.body.lines().filter(|l| l.starts_with("pagurus_dataplane_sync_duration_seconds_bucket"))
        {
            let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("+Inf");
            let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            let micros = bound.parse::<f64>().map_or(u64::MAX, |s| (s * 1e6) as u64);
            *buckets.entry(micros).or_default() += count as u64;
            if micros == u64::MAX {
                total += count as u64;
            }
        }
    }
    if total == 0 {
        bail!("the agents' metrics hold no pagurus_dataplane_sync_duration_seconds");
    }
    let (bound, _) = buckets
        .iter()
        .find(|(_, count)| **count as f64 >= 0.99 * total as f64)
        .context("no bucket holds the 99th percentile")?;
    Ok((
        *bound as f64 / 1e3,
        format!("upper bound of the histogram bucket, {total} events on {} nodes", cluster.nodes),
    ))
}
