//! `up` and `down` as commands: what they refuse and how, what they repair, what they leave. Clusters of their own, one node each.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::cluster::Cluster;
use pagurus_tests::eventually::eventually;

/// The commands for a cluster of a test's own, which is removed with it. Its name begins with `e2e-`, see `pagurus_tests::cluster::Own`.
struct Own {
    name: &'static str,
    xtask: PathBuf,
    clusters: PathBuf,
}

impl Own {
    fn new(name: &'static str) -> Result<Option<Self>> {
        // The shared cluster is the sign that clusters can run here, and that everything is built.
        let Some(shared) = Cluster::shared() else { return Ok(None) };
        let xtask = std::env::var_os("PAGURUS_XTASK").context("no xtask")?.into();
        let clusters = shared.directory().parent().context("no directory of clusters")?.to_owned();
        let own = Self { name, xtask, clusters };
        said(&mut own.down())?;
        Ok(Some(own))
    }

    fn directory(&self) -> PathBuf {
        self.clusters.join(self.name)
    }

    fn up(&self) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(["up", "--no-build", "--no-demo", "--name", self.name]);
        command
    }

    fn down(&self) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(["down", "--name", self.name]);
        command
    }

    /// `up` in a mount namespace of its own, in which `first` has changed the machine.
    fn up_after(&self, first: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{first}; exec \"$0\" \"$@\"")]);
        command.arg(&self.xtask).args(self.up().get_args());
        command
    }

    /// The processes in its cgroup below `leaf`.
    fn processes(&self, leaf: &str) -> Vec<i32> {
        let file = unified().join(format!("pagurus-{}/{leaf}/cgroup.procs", self.name));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn kill(&self, leaf: &str) -> Result<()> {
        for pid in self.processes(leaf) {
            kill(pid)?;
        }
        eventually(&format!("{leaf} is ended"), Duration::from_secs(10), || {
            Ok(self.processes(leaf).is_empty().then_some(()))
        })
    }

    /// What the machine has with the name of this cluster.
    fn traces(&self) -> Vec<String> {
        let mark = format!("pagurus-{}", self.name);
        let names = |directory: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path().display().to_string()).collect()
        };
        let mut all = names(Path::new("/run/netns"));
        all.extend(names(Path::new("/run/pagurus-clusters")).into_iter().map(|p| p.replace("clusters/", "")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
        all.extend(
            cgroups.filter_map(|line| line.split(' ').nth(4)).flat_map(|mount| names(Path::new(mount))),
        );
        all.extend(mounts.lines().map(str::to_owned));
        for process in names(Path::new("/proc")) {
            let line = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if ["supervise", "node-init"].iter().any(|word| line.contains(&format!("{word} {}", self.name))) {
                all.push(format!("{mark} process {line}"));
            }
        }
        all.retain(|name| name.contains(&mark));
        all.extend(self.directory().exists().then(|| self.directory().display().to_string()));
        all
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.down().output();
    }
}

fn kill(pid: i32) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).context("kill")
}

/// The mount point of cgroup2.
fn unified() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    line.and_then(|line| line.split(' ').nth(4)).unwrap_or("/sys/fs/cgroup").into()
}

/// Runs to a good end; what was printed.
fn said(command: &mut Command) -> Result<String> {
    let out = command.output()?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs to a bad end: an exit code that is not 0, and an error of one line with `part` in it.
fn refused(command: &mut Command, part: &str) -> Result<Output> {
    let start = Instant::now();
    let out = command.output()?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.code() == Some(1), "{command:?}: {}: {text}", out.status);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(errors.len() == 1 && text.ends_with('\n') && errors[0].contains(part), "{command:?}: {text}");
    ensure!(start.elapsed() < Duration::from_secs(30), "a refusal comes soon: {:?}", start.elapsed());
    println!("{}", errors[0]);
    Ok(out)
}

#[test]
fn unfit_machines_are_refused_and_nothing_is_left() -> Result<()> {
    let Some(own) = Own::new("e2e-unfit")? else { return Ok(()) };
    let nobody = |command: &mut Command| {
        use std::os::unix::process::CommandExt as _;
        command.uid(65534).gid(65534).output()
    };
    let out = nobody(&mut own.up());
    // The program may lie where only root can go.
    if let Ok(out) = out {
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && text.contains("run this command as root"), "{text}");
    }
    let release = tempfile::NamedTempFile::new()?;
    std::fs::write(release.path(), "6.1.0-13-amd64\n")?;
    let release = release.path().display().to_string();
    let unified = unified().display().to_string();
    let clusters = own.clusters.display().to_string();
    for (first, part) in [
        (format!("mount --bind {release} /proc/sys/kernel/osrelease"), "kernel 6.1.0-13-amd64 is too old"),
        ("mount -t tmpfs none /sys/kernel/btf".to_owned(), "this kernel has no BTF"),
        (format!("umount -l {unified}"), "no cgroup2 file system is mounted"),
        (format!("mount -t tmpfs -o size=2m none {clusters}"), "make room"),
    ] {
        refused(&mut own.up_after(&first), part)?;
        assert_eq!(own.traces(), [""; 0], "after: {first}");
    }
    Ok(())
}

#[test]
fn up_is_repeatable_and_down_leaves_no_trace() -> Result<()> {
    let Some(own) = Own::new("e2e-twice")? else { return Ok(()) };
    assert_eq!(own.traces(), [""; 0]);
    said(&mut own.up())?;
    let before = [own.processes("supervisor"), own.processes("control-plane")];
    assert!(before.iter().all(|processes| !processes.is_empty()));
    assert!(!own.traces().is_empty(), "there is something to look for");
    said(&mut own.up())?;
    assert_eq!(
        [own.processes("supervisor"), own.processes("control-plane")],
        before,
        "nothing was started anew"
    );
    // The same name from elsewhere is another cluster's, which neither command may touch.
    let elsewhere = tempfile::tempdir()?;
    let manifest = elsewhere.path().join("xtask");
    std::fs::create_dir(&manifest)?;
    refused(own.down().env("CARGO_MANIFEST_DIR", &manifest), "of another checkout")?;
    assert_eq!([own.processes("supervisor"), own.processes("control-plane")], before);
    said(&mut own.down())?;
    assert_eq!(own.traces(), [""; 0]);
    assert!(said(&mut own.down())?.contains("there was no cluster"));
    Ok(())
}

#[test]
fn up_repairs_what_was_killed() -> Result<()> {
    let Some(own) = Own::new("e2e-killed")? else { return Ok(()) };
    for milliseconds in [30, 400, 1500] {
        let mut up = own.up().stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Not a wait for a condition: the point is a moment at which nothing in particular is true.
        std::thread::sleep(Duration::from_millis(milliseconds));
        up.kill()?;
        up.wait()?;
        said(&mut own.up())?;
        assert_eq!(own.processes("supervisor").len(), 1);
    }
    // A supervisor that died before it could note what it started: everything is found again, nothing runs twice.
    let (control_plane, note) = (own.processes("control-plane"), own.directory().join("nodes/node-1/pid"));
    let noted = std::fs::read(&note)?;
    own.kill("supervisor")?;
    std::fs::remove_file(&note)?;
    said(&mut own.up())?;
    assert_eq!(std::fs::read(&note)?, noted, "the node is the same");
    assert_eq!(own.processes("control-plane").len(), 1);
    assert_ne!(own.processes("control-plane"), control_plane, "its socket cannot be taken over");
    Ok(())
}

#[test]
fn what_keeps_a_control_plane_from_starting_is_told() -> Result<()> {
    let Some(own) = Own::new("e2e-refused")? else { return Ok(()) };
    said(&mut own.up())?;
    let stop = || own.kill("supervisor").and_then(|()| own.kill("control-plane"));
    stop()?;
    let note: serde_json::Value =
        serde_json::from_slice(&std::fs::read(own.directory().join("cluster.json"))?)?;
    let port = note["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
    let other = eventually("the port is given back", Duration::from_secs(20), || {
        Ok(Some(std::net::TcpListener::bind(("127.0.0.1", port))?))
    })?;
    refused(&mut own.up(), &format!("port {port} of 127.0.0.1"))?;
    drop(other);
    let version = own.directory().join("control-plane/version");
    let good = std::fs::read(&version)?;
    std::fs::write(&version, "pagurus-controlplane 9\n")?;
    refused(&mut own.up(), "has the form \"pagurus-controlplane 9\"")?;
    stop()?;
    std::fs::write(&version, good)?;
    said(&mut own.up())?;
    std::fs::write(own.directory().join("cluster.json"), r#"{"format": 2}"#)?;
    refused(&mut own.up(), "another version of this program wrote it")?;
    said(&mut own.down())?;
    assert_eq!(own.traces(), [""; 0]);
    Ok(())
}
