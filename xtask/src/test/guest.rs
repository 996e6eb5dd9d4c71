//! `cargo xtask test --vm`: the suites of the dataplane on another kernel, each test in a process of its own, so that one that hangs or
//! takes the guest with it is known by its name and the others are run all the same.
//!
//! Must not know: how the guest is made.

mod ledger;

use super::guard::Guard;
use crate::{ebpf, process, setup, vm, workspace};
use anyhow::{Context as _, Result, bail};
use ledger::Ledger;
use std::process::{Command, Stdio};

/// The suites that try the dataplane and need no cluster.
const DATAPLANE: &[&str] = &["datapath::", "packets::", "sctp::", "topology::", "features::", "devices::"];
/// How many times slower the emulated machine is taken to be: the suites wait so much longer, and repeat so much less often, what they
/// repeat with random numbers.
const SLOWNESS: u32 = 10;
/// Longer than any test takes in the guest, in seconds.
const LIMIT: u32 = 900;
/// A guest that dies is started again for the tests that are left, so many times.
const DEATHS: usize = 3;

/// Before a test's name: it begins.
const BEGIN: &str = "PAGURUS-VM-TEST ";
/// Before a test's exit code: it is over.
const OVER: &str = "PAGURUS-VM-RESULT ";

/// Runs the tests of the suites of the dataplane whose name holds the filter.
///
/// # Errors
/// One failed, or the guest died in it.
pub fn run(filter: Option<&str>) -> Result<()> {
    setup::run(&setup::Options::for_vm())?;
    ebpf::build()?;
    let folder = vm::folder()?;
    let mut guard = Guard::start()?;
    let copies = tempfile::tempdir_in(&folder)?;
    // Elsewhere, because the path of a socket must be short.
    let scratch = tempfile::tempdir()?;
    guard.directory(copies.path())?;
    guard.directory(scratch.path())?;
    // Under a name of its own, so that a build meanwhile takes nothing away from the guest.
    let copy = copies.path().join("suites");
    let built = suites()?;
    std::fs::hard_link(&built, &copy)
        .with_context(|| format!("cannot link {built} to {}", copy.display()))?;
    let binary = copy.display().to_string();
    let tests = list(&binary, filter)?;
    if tests.is_empty() {
        bail!("no test of {} has a name that holds `{}`", DATAPLANE.join(", "), filter.unwrap_or_default());
    }
    let kernel = vm::Kernel::get()?;
    println!(
        "vm: {} tests on kernel {}; emulated and taken to be {SLOWNESS} times slower: waiting times are multiplied by that, random \
         sequences and numbers of entries divided (PAGURUS_SLOWNESS={SLOWNESS})",
        tests.len(),
        kernel.version()
    );
    let mut ledger = Ledger::new(tests, LIMIT);
    for _ in 0..DEATHS {
        let left = ledger.left();
        if left.is_empty() {
            break;
        }
        let end = vm::run(&kernel, scratch.path(), &script(&binary, &left), |line| {
            if let Some((_, test)) = line.split_once(BEGIN) {
                ledger.begin(test.trim());
            } else if let Some((_, code)) = line.split_once(OVER) {
                ledger.over(code.trim());
            } else {
                ledger.hear(line);
            }
        })?;
        match end {
            vm::End::Code(0) => {}
            vm::End::Code(code) => bail!("the guest's shell ended with code {code}"),
            vm::End::Died(why) => ledger.death(&why),
        }
    }
    ledger.close()
}

/// What runs in the guest.
fn script(binary: &str, tests: &[String]) -> String {
    let mut lines =
        vec!["modprobe sctp".to_owned(), format!("export RUST_BACKTRACE=0 PAGURUS_SLOWNESS={SLOWNESS}")];
    // Seeds, and other numbers that are given by hand.
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("PAGURUS_")) {
        lines.push(format!("export {name}='{}'", value.replace('\'', r"'\''")));
    }
    lines.push(format!("for test in {}; do", tests.join(" ")));
    lines.push(format!("echo \"{BEGIN}$test\""));
    // The isolated processes that a test starts are of its process group, and end with it.
    lines.push(format!("timeout -k 10 {LIMIT} {binary} --exact $test --test-threads=1 --nocapture 2>&1"));
    lines.push(format!("echo \"{OVER}$?\""));
    lines.push("done".to_owned());
    lines.push("true".to_owned());
    lines.join("\n")
}

/// The names of the tests.
fn list(binary: &str, filter: Option<&str>) -> Result<Vec<String>> {
    let said = process::output(Command::new(binary).args(["--list", "--format", "terse"]))?;
    let names = said.lines().filter_map(|line| line.strip_suffix(": test"));
    let of_dataplane = names.filter(|name| DATAPLANE.iter().any(|suite| name.starts_with(suite)));
    Ok(of_dataplane.filter(|name| name.contains(filter.unwrap_or_default())).map(str::to_owned).collect())
}

/// Builds the suites; where they are.
fn suites() -> Result<String> {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).args([
        "test",
        "--locked",
        "--no-run",
        "--package",
        "pagurus-tests",
    ]);
    command.args(["--test", "main", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", process::line(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed", process::line(&command));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut tests = artifacts.filter(|artifact| artifact["target"]["kind"][0] == "test");
    let binary = tests.find_map(|artifact| artifact["executable"].as_str().map(str::to_owned));
    binary.context("cargo named no binary of the suites")
}
