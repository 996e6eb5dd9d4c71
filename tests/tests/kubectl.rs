//! The commands of kubectl that hold a connection open, and those that lead through several controllers, as a user types them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::cluster::{Cluster, Namespace, items};
use pagurus_tests::eventually::eventually;
use pagurus_tests::kubectl;
use serde_json::json;

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const ECHO: &str = "pagurus.test/echo:1";

/// A command that goes on until it is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .context("start")
    }

    /// Its lines as they come: reading them can be given up, unlike reading from the program itself.
    fn lines(&mut self) -> Result<Receiver<String>> {
        let stdout = self.0.stdout.take().context("no standard output")?;
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ =
                BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
        });
        Ok(lines)
    }
}

/// The first line that is as wanted.
fn line(lines: &Receiver<String>, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    loop {
        let line = lines.recv_timeout(Duration::from_secs(30)).with_context(|| format!("no line: {what}"))?;
        if wanted(&line) {
            return Ok(line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test with every kubectl, each in a namespace of its own.
fn with_each(name: &str, test: impl Fn(&Cluster, &str) -> Result<()>) -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    kubectl::with_each(|kubectl| {
        let cluster = cluster.with(kubectl);
        let ns = Namespace::new(&cluster, &format!("{name}-{}", kubectl.minor()))?;
        test(&cluster, &ns.name)
    })
}

fn pod(cluster: &Cluster, namespace: &str, name: &str, image: &str, script: &str) -> Result<()> {
    let command: &[&str] = if script.is_empty() { &[] } else { &["/bin/sh", "-c", script] };
    let mut container = json!({"name": "main", "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]}
    }))?;
    Ok(())
}

#[test]
fn logs_are_followed_to_their_end() -> Result<()> {
    with_each("kubectl-logs", |cluster, n| {
        pod(cluster, n, "p", TOOLBOX, "for i in $(seq 1 5); do echo line $i; sleep 0.3; done")?;
        cluster.wait("the container has started", 30, |c| Ok(c.ok(&["-n", n, "logs", "p"]).is_ok()))?;
        // Ends by itself, with the container.
        let said = cluster.ok(&["-n", n, "logs", "-f", "p"])?;
        assert_eq!(said.lines().collect::<Vec<_>>(), ["line 1", "line 2", "line 3", "line 4", "line 5"]);
        assert_eq!(cluster.ok(&["-n", n, "logs", "p", "--tail=2"])?.lines().count(), 2);
        let said = cluster.ok(&["-n", n, "logs", "-l", "app=p", "--prefix"])?;
        assert!(said.starts_with("[pod/p/main] line 1"), "{said}");
        Ok(())
    })
}

#[test]
fn exec_has_input_a_terminal_and_an_exit_code() -> Result<()> {
    with_each("kubectl-exec", |cluster, n| {
        pod(cluster, n, "p", TOOLBOX, "")?;
        cluster.ready(n, "p")?;
        let mut cat = cluster.command(&["-n", n, "exec", "-i", "p", "--", "cat"])?;
        let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let text = "input\n".repeat(20_000);
        let mut stdin = cat.stdin.take().context("no standard input")?;
        let sent = text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()));
        let mut back = String::new();
        cat.stdout.take().context("no standard output")?.read_to_string(&mut back)?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        assert!(cat.wait()?.success() && back == text, "{} of {} bytes came back", back.len(), text.len());
        let out =
            cluster.kubectl(&["-n", n, "exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        assert_eq!(out.status.code(), Some(7));
        assert_eq!(String::from_utf8_lossy(&out.stdout), "out\n");
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("err\n"));
        if Command::new("script").arg("--version").output().is_err() {
            println!("no program `script` here: exec -t is not tried");
            return Ok(());
        }
        // `script` gives kubectl a terminal; the container's own is another.
        let command = cluster.command(&["-n", n, "exec", "-it", "p", "--", "/bin/busybox", "tty"])?;
        let line: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let out = Command::new("script")
            .args(["-qec", &line.join(" "), "/dev/null"])
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("/dev/pts/"), "{said}");
        Ok(())
    })
}

#[test]
fn attach_cp_and_watch() -> Result<()> {
    with_each("kubectl-attach", |cluster, n| {
        pod(cluster, n, "p", TOOLBOX, "while true; do echo tick; sleep 0.2; done")?;
        cluster.ready(n, "p")?;
        let mut attached = Running::start(&mut cluster.command(&["-n", n, "attach", "p"])?)?;
        let ticks = attached.lines()?;
        for _ in 0..3 {
            line(&ticks, "what the container says", |line| line == "tick")?;
        }
        let directory = tempfile::tempdir()?;
        let (there, back) = (directory.path().join("there"), directory.path().join("back"));
        let bytes: Vec<u8> = (0..300_000u32).flat_map(|number| number.to_le_bytes()).collect();
        std::fs::write(&there, &bytes)?;
        let path = |path: &std::path::Path| path.display().to_string();
        cluster.ok(&["-n", n, "cp", &path(&there), "p:/tmp/file"])?;
        cluster.ok(&["-n", n, "cp", "p:/tmp/file", &path(&back)])?;
        assert!(std::fs::read(&back)? == bytes, "a file survives the way there and back");
        let mut watch =
            Running::start(&mut cluster.command(&["-n", n, "get", "pods", "-w", "--no-headers"])?)?;
        let seen = watch.lines()?;
        line(&seen, "the pod that is there", |line| line.starts_with("p ") && line.contains("Running"))?;
        pod(cluster, n, "done", TOOLBOX, "exit 0")?;
        line(&seen, "a pod that ends", |line| line.starts_with("done ") && line.contains("Completed"))?;
        Ok(())
    })
}

#[test]
fn a_port_is_forwarded() -> Result<()> {
    with_each("kubectl-forward", |cluster, n| {
        pod(cluster, n, "p", ECHO, "")?;
        cluster.ready(n, "p")?;
        let mut forward =
            Running::start(&mut cluster.command(&["-n", n, "port-forward", "pod/p", ":8080"])?)?;
        // Kept: kubectl says a line for each connection and would end if nobody could read it.
        let lines = forward.lines()?;
        let first = line(&lines, "the port", |line| line.contains("127.0.0.1:"))?;
        let port: u16 = first
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split(' ').next())
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("no port in {first:?}"))?;
        for path in ["/one", "/two", "/three"] {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.contains(&format!("p 127.0.0.1 {path}")), "{answer}");
        }
        Ok(())
    })
}

#[test]
fn a_node_is_drained_and_comes_back() -> Result<()> {
    with_each("kubectl-drain", |cluster, n| {
        let nodes = cluster.nodes()?;
        let node = nodes.last().context("no nodes")?.as_str();
        cluster.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": n},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "d"}}, "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
            }}
        }))?;
        cluster.ok(&["-n", n, "rollout", "status", "deployment/d", "--timeout=60s"])?;
        // Whatever comes, the node must take pods again for the other tests.
        let drained =
            cluster.ok(&["drain", node, "--ignore-daemonsets", "--timeout=60s", "--pod-selector=app=d"]);
        let there = cluster.get(&["-n", n, "pods", "--field-selector", &format!("spec.nodeName={node}")]);
        let unschedulable = cluster.ok(&["get", "node", node, "--no-headers"]);
        cluster.ok(&["uncordon", node])?;
        drained?;
        let there = there?;
        let left = items(&there).iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        assert_eq!(left.count(), 0);
        assert!(unschedulable?.contains("Ready,SchedulingDisabled"));
        cluster.ok(&["-n", n, "rollout", "status", "deployment/d", "--timeout=60s"]).map(|_| ())
    })
}

#[test]
fn a_changed_configmap_reaches_its_volume() -> Result<()> {
    with_each("kubectl-config", |cluster, n| {
        cluster.ok(&["-n", n, "create", "configmap", "c", "--from-literal=f=one"])?;
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": n},
            "spec": {"terminationGracePeriodSeconds": 0, "volumes": [{"name": "c", "configMap": {"name": "c"}}],
                "containers": [{"name": "main", "image": TOOLBOX, "volumeMounts": [{"name": "c", "mountPath": "/c"}]}]}
        }))?;
        cluster.ready(n, "p")?;
        let read = || cluster.ok(&["-n", n, "exec", "p", "--", "cat", "/c/f"]);
        assert_eq!(read()?, "one");
        cluster.ok(&["-n", n, "patch", "configmap", "c", "-p", r#"{"data":{"f":"two"}}"#])?;
        eventually("the pod reads what is new", Duration::from_secs(90), || {
            Ok((read()? == "two").then_some(()))
        })
    })
}
