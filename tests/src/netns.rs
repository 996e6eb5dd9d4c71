//! Isolation for tests that touch the kernel: each runs as a process of its own, in a network and mount namespace and a
//! cgroup of its own, so that nothing it does is seen outside and nothing stays behind.
//!
//! Must not know: what is tested.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Tells a process of this binary that it is the isolated one: the name of its test.
const MARK: &str = "PAGURUS_ISOLATED_TEST";
/// Where the isolated process finds its cgroup directory.
const CGROUP: &str = "PAGURUS_ISOLATED_CGROUP";

/// What an isolated test has for itself.
#[derive(Debug)]
pub struct Sandbox {
    /// A cgroup2 directory; the test's process is in it.
    pub cgroup: PathBuf,
    /// A mounted BPF file system.
    pub bpffs: PathBuf,
}

/// A cgroup2 directory of our own. When it is dropped, and also when this process ends without that, whatever its end is, everything
/// that is left in it is ended and it is removed: by a process that reads from a pipe of which only we have the other end.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    keeper: Child,
}

impl Cgroup {
    /// Ends the processes of the directory `$1` and removes it with those below it, once nobody can write to standard input any more.
    /// The kernel lets go of a directory a moment after its last process.
    const KEEPER: &str = r#"cat
        [ ! -d "$1" ] || echo 1 > "$1/cgroup.kill"
        for try in $(seq 100); do
            find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$1" ] || exit 0
            sleep 0.1
        done
        exit 1"#;

    fn create(name: &str) -> Result<Self> {
        let path = cgroup2().context("find cgroup2")?.join(name);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", Self::KEEPER, "sh"]).arg(&path);
        // In a group of its own, because whoever ends ours, a terminal or timeout(1), means the test.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = keeper.spawn().context("start who removes the cgroup")?;
        // Whatever comes now, it is removed.
        let this = Self { path, keeper };
        fs::create_dir(&this.path).with_context(|| format!("create {}", this.path.display()))?;
        Ok(this)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        match self.keeper.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("remove {}: it is still there ({status})", self.path.display()),
            Err(error) => eprintln!("remove {}: {error}", self.path.display()),
        }
    }
}

/// Runs `body` in a process of its own, isolated; `name` is the test's path as the test runner prints it. Prints why
/// and returns if the machine does not allow it.
///
/// # Panics
/// The isolated process failed.
pub fn isolated(name: &str, body: impl FnOnce(&Sandbox) -> Result<()>) {
    if std::env::var_os(MARK).is_some_and(|mark| mark == name) {
        let given = std::env::var_os(CGROUP).map(PathBuf::from).context("no cgroup was given");
        if let Err(error) = given.and_then(inside).and_then(|sandbox| body(&sandbox)) {
            panic!("{error:?}");
        }
        return;
    }
    if let Err(reason) = possible() {
        println!("SKIPPED: {reason}");
        return;
    }
    if let Err(error) = outside(name) {
        panic!("{error:?}");
    }
}

/// A process that has isolated itself.
#[derive(Debug)]
pub struct Isolation {
    sandbox: Sandbox,
    cgroup: Cgroup,
}

impl Isolation {
    /// What it has for itself.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        // Out of its cgroup, whose processes are then ended.
        let left = self.cgroup.path.parent().map(|parent| fs::write(parent.join("cgroup.procs"), "0"));
        if let Some(Err(error)) = left {
            eprintln!("leave {}: {error}", self.cgroup.path.display());
        }
    }
}

/// Isolates this process from now on; to be called before it has any other thread.
///
/// # Errors
/// The machine does not allow it.
pub fn isolate() -> Result<Isolation> {
    possible()?;
    let cgroup = Cgroup::create(&format!("pgr-b-{}", std::process::id()))?;
    let procs = cgroup.path.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("join {}", cgroup.path.display()))?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("namespaces of our own")?;
    let sandbox = inside(cgroup.path.clone())?;
    Ok(Isolation { sandbox, cgroup })
}

/// The mount point of cgroup2 on this machine.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().rfind(|line| line.contains(" - cgroup2 "))?;
    mount.split(' ').nth(4).map(PathBuf::from)
}

/// Why isolation is impossible here, if it is.
fn possible() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root");
    ensure!(cgroup2().is_some(), "needs a mounted cgroup2");
    ensure!(Path::new("/sys/fs/bpf").is_dir(), "needs a kernel with BPF");
    ensure!(Path::new("/proc/self/ns/net").exists(), "needs network namespaces");
    ensure!(Command::new("ip").arg("-V").output().is_ok(), "needs the program ip (iproute2)");
    Ok(())
}

/// Starts this test again, in its isolation, and waits for it.
fn outside(name: &str) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let cgroup = Cgroup::create(&format!("pgr-d-{}-{number}", std::process::id()))?;
    let procs = cgroup.path.join("cgroup.procs");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(MARK, name).env(CGROUP, &cgroup.path);
    // SAFETY: between fork and exec only system calls are made; the path was allocated before.
    unsafe {
        command.pre_exec(move || {
            fs::write(&procs, "0")?;
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(io::Error::from)
        });
    }
    let output = command.output().with_context(|| format!("start {name} isolated"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Indented: the inner harness' closing line must not be taken for ours.
    out.lines().for_each(|line| println!("    {line}"));
    if !output.status.success() {
        let said: Vec<String> = err.lines().map(|line| format!("    {line}")).collect();
        bail!("{name}: {}\n{}", output.status, said.join("\n"));
    }
    ensure!(out.contains("1 passed"), "{name} names no test: {out}");
    Ok(())
}

/// Finishes the isolation from inside.
fn inside(cgroup: PathBuf) -> Result<Sandbox> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    let bpffs = PathBuf::from("/sys/fs/bpf");
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).context("mount a BPF file system")?;
    fs::create_dir_all("/run/netns").context("create /run/netns")?;
    mount(Some("netns"), "/run/netns", Some("tmpfs"), MsFlags::empty(), none).context("mount /run/netns")?;
    ip(&["link", "set", "lo", "up"])?;
    Ok(Sandbox { cgroup, bpffs })
}

/// Runs `ip`.
///
/// # Errors
/// What it said.
pub fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

/// Runs a program to its end; its output.
///
/// # Errors
/// What it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
