//! The figures of the API server, ours and others'.
//!
//! Must not know: how they are measured; that is `tests/load`.

use super::{Row, load};
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// Flags of `bench api`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Builds and starts our own server (release, empty directory, API server alone) and measures it; with --kubeconfig another \
server beside it, in the same run, round by round. 8 clients send one request at a time over HTTP/2 and TLS; the content of every \
answer is checked; CPU time is what the kernel counted for the server's processes. Every figure stands beside its target, with \
its spread and what others used of the machine meanwhile: rates are only worth something on an idle one.

Parts: ready, pod, configmap, get, list, patch, apply, watch, watch-1000, memory, large-list, crds, many
(target/release/pagurus-load api --help tells what each is)

Examples:
  cargo xtask bench api --json figures.json
  cargo xtask bench api --only get --only list
  cargo xtask bench api --kubeconfig other.kubeconfig --pids $(pgrep -d, 'kube-apiserver|etcd')")]
pub struct Options {
    /// Also measure the server that this kubeconfig leads to, beside ours; may be given several times
    #[arg(long, value_name = "FILE")]
    kubeconfig: Vec<PathBuf>,
    /// The processes of that server, whose CPU time and memory are counted; once for each --kubeconfig
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

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    load::run(&["pagurus-controlplane"], &arguments(options)?)
}

fn arguments(options: &Options) -> Result<Vec<String>> {
    let Options { kubeconfig, pids, without_ours, only, quick } = options;
    let mut out = vec!["api".to_owned()];
    let mut flag = |name: &str, value: &str| out.extend([name.to_owned(), value.to_owned()]);
    for path in kubeconfig {
        flag("--kubeconfig", path.to_str().context("--kubeconfig is not UTF-8")?);
    }
    pids.iter().for_each(|pids| flag("--pids", pids));
    only.iter().for_each(|part| flag("--only", part));
    out.extend(without_ours.then(|| "--without-ours".to_owned()));
    out.extend(quick.then(|| "--quick".to_owned()));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_handed_on() {
        let options = Options {
            kubeconfig: vec!["a".into()],
            pids: vec!["1,2".to_owned()],
            without_ours: true,
            only: vec!["get".to_owned()],
            quick: true,
        };
        assert_eq!(
            arguments(&options).expect("UTF-8").join(" "),
            "api --kubeconfig a --pids 1,2 --only get --without-ours --quick"
        );
    }
}
