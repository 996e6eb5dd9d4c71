//! `pagurus-load api`: the figures of an API server; our own, started here with an empty directory, and beside it, in the same
//! run and round by round, any server that a kubeconfig leads to.
//!
//! Must not know: how a part of the table is measured.

mod check;
mod crds;
mod large;
mod lists;
mod memory;
mod subject;
mod table;
mod watches;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::ours;
use crate::row::Row;
use subject::Subject;

/// The parts of the table, in its order, and what each does.
const PARTS: &[(&str, &str)] = &[
    ("ready", "exec of all components to /readyz, empty directory"),
    ("pod", "create a pod of 2.6 kB"),
    ("configmap", "create a ConfigMap of 1 kB"),
    ("get", "GET a pod"),
    ("list", "LIST 2,000 pods as JSON, protobuf and Table"),
    ("patch", "merge patch of a pod"),
    ("apply", "server-side apply of a pod"),
    ("watch", "events to 50 watchers, each with a connection of its own"),
    ("watch-1000", "events to 1,000 watchers"),
    ("memory", "resident memory, empty and after the load of the parts before"),
    ("large-list", "LIST of 300,000 ConfigMaps of 1 kB"),
    ("crds", "1,000 CustomResourceDefinitions with a schema of 20 kB"),
    ("many", "memory and restart with 150,000 pods and 5,000 nodes"),
];

/// Flags of `api`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub struct Options {
    /// Also measure the server that this kubeconfig leads to, beside ours in the same run; may be given several times
    #[arg(long, value_name = "FILE")]
    kubeconfig: Vec<PathBuf>,
    /// The processes of that server, whose CPU time and memory are counted, such as 4711,4712; once for each --kubeconfig
    #[arg(long, value_name = "PID,PID")]
    pids: Vec<String>,
    /// Measure only the servers of --kubeconfig
    #[arg(long)]
    without_ours: bool,
    /// Measure only this part of the table; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Two short rounds of each and a tenth of the objects: only to see that it works
    #[arg(long)]
    quick: bool,
}

/// What `--help` says at its end.
fn help() -> String {
    let parts: Vec<String> = PARTS.iter().map(|(name, what)| format!("  {name:12} {what}")).collect();
    format!(
        "Parts of the table:\n{}\n\n\
        8 clients, each with a connection of its own (HTTP/2, TLS), send one request at a time; the content of every answer is \
        checked. CPU time is what the kernel counted for the server's processes. Each figure is the median of some rounds, its \
        spread stands beside it, and so does what others used of the machine meanwhile: rates are only worth something on an \
        idle one. Of another server the parts large-list and crds are measured only when named with --only, and what can be \
        measured only by starting the server (ready, many) is not.\n\n\
        Examples:\n  cargo xtask bench api --json figures.json\n  cargo xtask bench api --only get --only list\n  \
        cargo xtask bench api --kubeconfig other.kubeconfig --pids $(pgrep -d, 'kube-apiserver|etcd')",
        parts.join("\n")
    )
}

/// How thoroughly is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often each thing is measured.
    pub rounds: usize,
    /// How long each time.
    pub time: Duration,
    /// What large numbers of objects are divided by.
    pub scale: u64,
}

/// What is measured, and how.
pub struct Lab {
    /// The servers; ours first, if it is one of them.
    pub subjects: Vec<Subject>,
    /// How thoroughly.
    pub effort: Effort,
    /// Parts that were named.
    named: Vec<String>,
}

impl Lab {
    /// Whether a part that is a burden for a server that is not ours was asked for by name.
    pub fn is_named(&self, part: &str) -> bool {
        self.named.iter().any(|name| name == part)
    }

    /// A name in the table for a note on the server at this place.
    pub fn name(&self, at: usize) -> &str {
        &self.subjects[at].name
    }
}

/// Measures and prints.
///
/// # Errors
/// The servers cannot be reached; a part that fails is a row without a figure.
pub async fn run(options: Options) -> Result<()> {
    for name in &options.only {
        if !PARTS.iter().any(|(part, _)| part == name) {
            let parts: Vec<&str> = PARTS.iter().map(|part| part.0).collect();
            bail!("there is no part {name:?}; there are: {}", parts.join(", "));
        }
    }
    if options.pids.len() > options.kubeconfig.len() {
        bail!(
            "--pids is given {} times, --kubeconfig {} times",
            options.pids.len(),
            options.kubeconfig.len()
        );
    }
    if options.without_ours && options.kubeconfig.is_empty() {
        bail!("--without-ours needs a --kubeconfig to measure");
    }
    let effort = if options.quick {
        Effort { rounds: 2, time: Duration::from_millis(300), scale: 10 }
    } else {
        Effort { rounds: 5, time: Duration::from_secs(2), scale: 1 }
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut lab = Lab { subjects: Vec::new(), effort, named: options.only.clone() };
    if !options.without_ours {
        lab.subjects.push(Subject::ours(ours::APISERVER).await?);
    }
    for (at, path) in options.kubeconfig.iter().enumerate() {
        lab.subjects.push(Subject::other(path, options.pids.get(at).map(String::as_str)).await?);
    }
    for (name, _) in PARTS.iter().filter(|part| wanted(part.0)) {
        eprintln!("bench: {name}");
        let rows = match part(name, &mut lab).await {
            Ok(rows) => rows,
            Err(error) => vec![Row::failed(*name, &error)],
        };
        for row in rows {
            println!("{}", row.json());
        }
    }
    for subject in &mut lab.subjects {
        subject.leave().await?;
    }
    Ok(())
}

async fn part(name: &str, lab: &mut Lab) -> Result<Vec<Row>> {
    match name {
        "ready" => memory::ready(lab).await,
        "pod" => writes::pods(lab).await,
        "configmap" => writes::config_maps(lab).await,
        "get" => lists::get(lab).await,
        "list" => lists::list(lab).await,
        "patch" => writes::patch(lab).await,
        "apply" => writes::apply(lab).await,
        "watch" => watches::run(lab, 50).await,
        "watch-1000" => watches::run(lab, 1000).await,
        "memory" => memory::load(lab).await,
        "large-list" => large::list(lab).await,
        "crds" => crds::run(lab).await,
        "many" => large::many(lab).await,
        _ => bail!("nobody measures this part"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_part() {
        let text = help();
        assert!(PARTS.iter().all(|(name, what)| text.contains(name) && text.contains(what)));
    }
}
