//! `cargo xtask test`: every test; flags narrow it. Ends with one line that counts.

mod fuzz;
pub mod guard;
mod guest;

use crate::cluster::{Cluster, checks, down, up};
use crate::{build, process, setup, workspace};
use anyhow::{Context, Result, bail};
use guard::Guard;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Flags of `test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only the unit and integration tests that need neither root nor a kernel
    #[arg(long)]
    unit: bool,
    /// Only the suites that need root: BPF, CNI, end-to-end
    #[arg(long)]
    system: bool,
    /// Only the suites of the dataplane, on another kernel, in an emulated machine: fetches Debian's kernel and QEMU (120 MB)
    #[arg(long, conflicts_with_all = ["unit", "system"])]
    vm: bool,
    /// Only the fuzz targets, each for a while: installs cargo-fuzz and a C++ compiler, and builds everything once more
    #[arg(long, conflicts_with_all = ["unit", "system", "vm"])]
    fuzz: bool,
    /// How long each fuzz target runs, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, requires = "fuzz")]
    seconds: u64,
    /// Only tests whose name holds this
    filter: Option<String>,
}

/// What the runs of cargo's test harness counted.
#[derive(Default, Debug, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Count {
    /// Takes a line that a suite printed.
    fn hear(&mut self, line: &str) {
        self.add(line);
        if line.starts_with("SKIPPED") {
            // A test that found the machine lacking passes for the harness; it is counted for what it is.
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }

    /// Adds a closing line of the harness: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Runs the tests.
pub fn run(options: &Options) -> Result<()> {
    if options.vm {
        return guest::run(options.filter.as_deref());
    }
    if options.fuzz {
        return fuzz::run(options.filter.as_deref(), options.seconds);
    }
    let mut guard = Guard::start()?;
    let mut count = Count::default();
    let mut failures = Vec::new();
    if !options.system {
        let mut command = cargo_test(options);
        if run_suite(&mut command, &mut guard, &mut count)? {
            failures.push("unit tests");
        }
    }
    if !options.unit {
        match checks::machine() {
            Err(reason) => {
                println!("SKIPPED: the suites of the tests package: {reason:#}");
                count.skipped += 1;
            }
            Ok(()) => {
                setup::run(&setup::Options::default())?;
                build::run(&build::Options::default())?;
                crate::images::build()?;
                if system(options, &mut guard, &mut count)? {
                    failures.push("the suites of the tests package");
                }
            }
        }
    }
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    if !failures.is_empty() || count.failed > 0 {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

/// The cluster of the end-to-end suites.
const CLUSTER: &str = "e2e";

/// Runs the suites of the tests package with a two-node cluster beside them, which is removed whatever comes.
fn system(options: &Options, guard: &mut Guard, count: &mut Count) -> Result<bool> {
    let gone = || down::run(&down::Options { name: CLUSTER.to_owned() });
    gone()?;
    guard.cluster(Some(CLUSTER))?;
    let result = up::run(&up::Options::for_tests(CLUSTER, 2)).and_then(|()| {
        let mut command = Command::new("cargo");
        command
            .current_dir(workspace::root())
            .args(["test", "--locked", "--no-fail-fast", "--package", "pagurus-tests"])
            .args(&options.filter);
        command.args(["--", "--test-threads=1", "--nocapture"]);
        command.env("PAGURUS_XTASK", std::env::current_exe()?);
        command.env("PAGURUS_BINARIES", workspace::binaries(false));
        command.env("PAGURUS_CLUSTER", Cluster::directory_of(CLUSTER));
        run_suite(&mut command, guard, count)
    });
    if !matches!(result, Ok(false)) {
        show_logs(&Cluster::directory_of(CLUSTER).join("logs"));
    }
    gone()?;
    guard.cluster(None)?;
    result
}

/// The end of each log of a cluster in which something failed: it goes with the cluster.
fn show_logs(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("--- {}", entry.path().display());
        lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| println!("{line}"));
    }
}

fn cargo_test(options: &Options) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).args(["test", "--locked", "--no-fail-fast"]).args(&options.filter);
    command
}

/// Runs one call of cargo, passes its output on and counts; true if something failed.
fn run_suite(command: &mut Command, guard: &mut Guard, count: &mut Count) -> Result<bool> {
    let said = process::line(command);
    println!("test: {said}");
    // What it starts is of its group, and ends with us by that.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child =
        process::end_with_us(command).spawn().with_context(|| format!("cannot start `{said}`"))?;
    guard.group(Some(&child))?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        count.hear(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    guard.group(None)?;
    Ok(!status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines() {
        let mut count = Count::default();
        count.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.10s",
        );
        count.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        count.add("something else");
        assert_eq!(count, Count { passed: 4, failed: 2, skipped: 1 });
    }
}
