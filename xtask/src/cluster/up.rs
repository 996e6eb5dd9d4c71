//! `cargo xtask up`: a cluster on this machine, from nothing or from whatever an earlier `up` left.

use super::api::Api;
use super::claim::{Claim, Standing};
use super::hindrance::Said;
use super::progress::{Progress, until};
use super::{
    Cluster, MAX_NODES, Process, cgroups, check_name, checks, demo, down, hindrance, load, network, rights,
    supervise,
};
use crate::{build, images, workspace};
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The container runtime of the nodes.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Runtime {
    /// Debian's containerd
    Containerd,
    /// pagurus-cri
    Embedded,
}

/// The store of the control plane.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Store {
    /// In the control plane's own process
    Embedded,
    /// An etcd cluster
    Etcd,
}

/// Flags of `up`.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster's name; several run side by side
    #[arg(long, default_value = "default")]
    pub name: String,
    /// How many nodes; without it 1, or as many as the cluster has
    #[arg(long)]
    pub nodes: Option<u8>,
    /// The nodes' container runtime
    #[arg(long, value_enum, default_value = "containerd")]
    runtime: Runtime,
    /// Where the control plane keeps its objects
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
    /// One more flag of the nodes' agents, such as --agent-flag=--routing=vxlan; can be given again. Without --dataplane or
    /// --pod-network the nodes wait for somebody else to connect their pods, and there is no demo
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    agent_flag: Vec<String>,
    /// Leave the demo out
    #[arg(long)]
    pub no_demo: bool,
    /// Optimised binaries: slower to build, faster and smaller to run
    #[arg(long)]
    pub release: bool,
    /// Take the binaries as they are
    #[arg(long)]
    pub no_build: bool,
}

impl Options {
    /// What the benchmarks ask for: release binaries that are built already.
    pub fn for_bench(name: &str, nodes: u8) -> Self {
        Self {
            name: name.to_owned(),
            nodes: Some(nodes),
            runtime: Runtime::Containerd,
            store: Store::Embedded,
            agent_flag: Vec::new(),
            no_demo: false,
            release: true,
            no_build: true,
        }
    }

    /// What the end-to-end suites ask for: the binaries that were just built.
    pub fn for_tests(name: &str, nodes: u8) -> Self {
        Self { release: false, ..Self::for_bench(name, nodes) }
    }
}

/// Starts a cluster and waits until it serves.
pub fn run(options: &Options) -> Result<()> {
    check_name(&options.name)?;
    checks::machine()?;
    if options.runtime == Runtime::Embedded {
        bail!("the embedded runtime (pagurus-cri) is not there yet; use --runtime containerd");
    }
    if options.store == Store::Etcd {
        bail!("the etcd store is not there yet; use --store embedded");
    }
    if options.nodes.is_some_and(|n| n == 0 || n > MAX_NODES) {
        bail!("--nodes takes 1 to {MAX_NODES}");
    }
    if !options.no_build {
        build::run(&build::Options { release: options.release })?;
    }
    let archives = images::build()?;
    let mut progress = Progress::start();
    let mut claim = Claim::take(&options.name)?;
    let Plan { cluster, new } = plan(options, &claim)?;
    let directory = cluster.directory();
    let result = claim.keep(&directory).and_then(|()| cluster.save()).and_then(|()| {
        let listener = new.as_ref().map(|new| &new.listener);
        bring_up(&cluster, listener, options, &archives, &mut progress)
    });
    if let Err(error) = result {
        if new.is_none() {
            eprintln!(
                "what its parts said is in {}; `cargo xtask down --name {}` removes the cluster",
                cluster.logs().display(),
                cluster.name
            );
            return Err(error);
        }
        undo(&cluster, claim);
        return Err(error);
    }
    Ok(())
}

/// Takes back what a first `up` began; the logs stay, for they say more than one line can.
fn undo(cluster: &Cluster, claim: Claim) {
    let directory = cluster.directory();
    let others = |entry: &std::fs::DirEntry| entry.path() != cluster.logs();
    let removed = down::remove(&cluster.name).and_then(|()| {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten().filter(others) {
            let path = entry.path();
            let gone =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    });
    match removed {
        Err(error) => eprintln!("{error:#}; `cargo xtask down --name {}` tries again", cluster.name),
        Ok(()) => {
            // Not if it holds anything.
            let _ = std::fs::remove_dir(cluster.logs());
            if std::fs::remove_dir(&directory).is_err() {
                eprintln!(
                    "what was begun is removed again; what its parts said is kept in {}",
                    cluster.logs().display()
                );
            }
            claim.release();
            down::after_the_last();
        }
    }
}

/// What `up` is to make.
struct Plan {
    cluster: Cluster,
    /// It is not there yet.
    new: Option<New>,
}

/// What a new cluster is given.
struct New {
    /// The API server's socket: held from the moment the port is chosen, so that nobody else chooses it.
    listener: TcpListener,
}

/// The cluster asked for, as a change of the one that is there.
fn plan(options: &Options, claim: &Claim) -> Result<Plan> {
    let name = &options.name;
    let directory = Cluster::directory_of(name);
    claim.check(&directory)?;
    if !directory.join("cluster.json").exists() {
        if down::outside(name) {
            // Namespaces and cgroups are the machine's; without a note their names do not tell checkouts apart.
            if claim.standing(&directory) == Standing::Free {
                bail!(
                    "this machine has parts of another cluster {name}, not made from this checkout; choose another --name, or remove it with `cargo xtask down --name {name}`"
                );
            }
            println!("removing what a cluster {name} without its directory left");
            down::remove(name)?;
        }
        let nodes = options.nodes.unwrap_or(1);
        checks::room(&directory, nodes)?;
        let (port, listener) = free_port()?;
        let (release, agent_flags) = (options.release, options.agent_flag.clone());
        let cluster = Cluster { name: name.clone(), nodes, port, release, agent_flags };
        return Ok(Plan { cluster, new: Some(New { listener }) });
    }
    let mut cluster = Cluster::load(name)?;
    if let Some(nodes) = options.nodes {
        if nodes < cluster.nodes {
            bail!(
                "cluster {} has {} nodes; fewer need `cargo xtask down --name {}` first",
                cluster.name,
                cluster.nodes,
                cluster.name
            );
        }
        cluster.nodes = nodes;
    }
    if !options.agent_flag.is_empty() && options.agent_flag != cluster.agent_flags {
        bail!(
            "the agents of cluster {} have the flags {:?}; others need `cargo xtask down --name {}` first",
            cluster.name,
            cluster.agent_flags,
            cluster.name
        );
    }
    Ok(Plan { cluster, new: None })
}

/// A port for the API server on the host's loopback: 6443 where it is free.
fn free_port() -> Result<(u16, TcpListener)> {
    // Other clusters of this checkout may be stopped and come back to their port.
    let taken: Vec<u16> = std::fs::read_dir(workspace::root().join(".pagurus"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Cluster::load(&entry.file_name().to_string_lossy()).ok())
        .map(|cluster| cluster.port)
        .collect();
    (6443..6543)
        .filter(|port| !taken.contains(port))
        .find_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?)))
        .context("no port of 6443 to 6542 is free on 127.0.0.1 for the API server; end a cluster with `cargo xtask down --name NAME`")
}

fn bring_up(
    cluster: &Cluster,
    listener: Option<&TcpListener>,
    options: &Options,
    archives: &[std::path::PathBuf],
    progress: &mut Progress,
) -> Result<()> {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    progress.say(format!("cluster {}: {} node(s)", cluster.name, cluster.nodes));
    let said = Said::from_now_on(cluster);
    let mut supervisor = start_supervisor(cluster, listener)?;
    progress.say("control plane: starting");
    let api = until("the API server is ready", minutes(2), || {
        if let Some(why) = said.hopeless(supervisor.as_mut())? {
            return Ok(Some(Err(why)));
        }
        let api = Api::open(cluster)?;
        api.ready()?;
        Ok(Some(Ok(api)))
    })??;
    write_kubeconfig(cluster)?;
    // An API server that was killed a moment ago may be on its way back.
    until("the agents' rights are there", minutes(1), || rights::grant(&api).map(Some))?;
    progress.say("nodes: starting their runtimes");
    until("the nodes' runtimes are there", minutes(1), || {
        let running = |node: &super::Node| {
            Process::read(&node.pid_file()).is_some_and(|p| {
                p.alive()
                    && std::path::Path::new(&format!("/proc/{}/root/run/containerd/containerd.sock", p.pid))
                        .exists()
            })
        };
        yet(cluster.nodes().iter().all(running), || Ok(hindrance::of_runtimes(cluster, &said)))
    })?;
    progress.say("nodes: loading images");
    until("the nodes take images", minutes(2), || match load::load(&cluster.nodes(), archives) {
        // Will not pass by itself, unlike a runtime that is not there yet.
        Err(error) if format!("{error:#}").contains("no space left on device") => Ok(Some(Err(error))),
        other => other.map(|()| Some(Ok(()))),
    })??;
    let wanted = cluster.nodes.into();
    if cluster.connects_pods() {
        until("the nodes are Ready", minutes(2), || {
            let ready = ready_nodes(&api)?;
            progress.say(format!("nodes: {ready} of {wanted} Ready"));
            yet(ready >= wanted, || hindrance::of_nodes(cluster, &api))
        })?;
    }
    until("the nodes have ranges of pod addresses", minutes(1), || {
        yet(route_pods(cluster, &api)? >= wanted, || hindrance::of_nodes(cluster, &api))
    })?;
    if !options.no_demo && cluster.connects_pods() {
        progress.say("demo: starting");
        // The namespace's default ServiceAccount may be a moment away.
        until("the demo is taken", minutes(1), || demo::apply(&api).map(Some))?;
        until("the demo answers on every node", minutes(2), || {
            let (answering, nodes) = demo::answering(&api)?;
            progress.say(format!("demo: answers through its Service on {answering} of {wanted} nodes"));
            yet(answering >= wanted && nodes >= wanted, || hindrance::of_pods(&api))
        })?;
    }
    progress.say(format!("cluster {} serves after {:.1} s", cluster.name, progress.seconds()));
    println!("\n    export KUBECONFIG={}\n    kubectl get nodes,pods -A", cluster.kubeconfig().display());
    Ok(())
}

/// Done, or else what it hangs on.
fn yet(done: bool, hindrance: impl FnOnce() -> Result<Option<String>>) -> Result<Option<()>> {
    if done {
        return Ok(Some(()));
    }
    hindrance()?.map_or(Ok(None), |why| Err(anyhow::Error::msg(why)))
}

/// Pods talk to the API server from their own addresses, so the fabric must know the way back. Of how many nodes it does.
fn route_pods(cluster: &Cluster, api: &Api) -> Result<u64> {
    let list = api.get("/api/v1/nodes")?;
    let mut known = 0;
    for object in list["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Ok(node) = cluster.node(name) else { continue };
        let cidrs: Vec<String> =
            serde_json::from_value(object["spec"]["podCIDRs"].clone()).unwrap_or_default();
        network::pod_routes(&node, &cidrs)?;
        known += u64::from(!cidrs.is_empty());
    }
    Ok(known)
}

/// Starts the supervisor unless one runs. A new cluster's gets the socket of the API server.
fn start_supervisor(cluster: &Cluster, listener: Option<&TcpListener>) -> Result<Option<Child>> {
    match supervise::lock(cluster)? {
        None => return Ok(None),
        Some(lock) => drop(lock),
    }
    let cgroup = cgroups::make(&cluster.cgroup(), "supervisor")?;
    let log = supervise::log(&cluster.logs().join("supervisor.log"))?;
    let mut command =
        Command::new(std::env::current_exe().context("cannot find the program of this process")?);
    command
        .args(["supervise", &cluster.name])
        .env("CARGO_MANIFEST_DIR", workspace::root().join("xtask"))
        .env("CARGO_TARGET_DIR", workspace::target())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let socket = listener.map(AsRawFd::as_raw_fd);
    if socket.is_some() {
        command.env("LISTEN_FDS", "1");
    }
    // SAFETY: between fork and exec only system calls on paths and descriptors prepared above.
    unsafe {
        command.pre_exec(move || {
            cgroups::join(&cgroup)?;
            if let Some(socket) = socket {
                supervise::hand_over(socket)?;
            }
            if libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn().context("cannot start the supervisor").map(Some)
}

/// The user's kubeconfig: the administrator's, with the server's address on the host.
fn write_kubeconfig(cluster: &Cluster) -> Result<()> {
    let admin = cluster.data().join("admin.kubeconfig");
    let text = std::fs::read_to_string(&admin).with_context(|| format!("cannot read {}", admin.display()))?;
    let mut config: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is damaged", admin.display()))?;
    let server = config
        .pointer_mut("/clusters/0/cluster/server")
        .with_context(|| format!("{} names no server", admin.display()))?;
    *server = format!("https://127.0.0.1:{}", cluster.port).into();
    let file = cluster.kubeconfig();
    let text = serde_saphyr::to_string(&config).context("cannot write the kubeconfig as YAML")?;
    // Whole or not at all: kubectl may be reading it.
    let new = cluster.directory().join("kubeconfig.new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)))
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// How many nodes are Ready.
pub fn ready_nodes(api: &Api) -> Result<u64> {
    let nodes = api.get("/api/v1/nodes")?;
    let ready = |node: &&serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    Ok(nodes["items"].as_array().map(|items| items.iter().filter(ready).count() as u64).unwrap_or_default())
}
