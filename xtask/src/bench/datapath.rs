//! The figures of the dataplane. They are measured by `pagurus-bench` of the tests package, an optimised program, because this one is not;
//! here it is built with everything it needs, started and listened to.
//!
//! Must not know: what is measured and how.

use super::Row;
use crate::{build, process, setup, workspace};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Measures everything, or one part.
pub fn run(part: Option<&str>) -> Result<Vec<Row>> {
    setup::run(&setup::Options::for_rivals())?;
    build::run(&build::Options { release: true })?;
    let bench = ["--package", "pagurus-tests", "--bin", "pagurus-bench"];
    process::run(
        Command::new("cargo")
            .current_dir(workspace::root())
            .args(["build", "--locked", "--release"])
            .args(bench),
    )?;
    let mut command = Command::new(workspace::binaries(true).join("pagurus-bench"));
    command.args(part).env("PAGURUS_BINARIES", workspace::binaries(true));
    process::end_with_us(command.stdout(Stdio::piped()));
    let mut child = command.spawn().context("cannot start pagurus-bench")?;
    let stdout = child.stdout.take().context("pagurus-bench has no standard output")?;
    let mut rows = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        rows.push(serde_json::from_str(&line).with_context(|| format!("no row of pagurus-bench: {line}"))?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("pagurus-bench failed: {status}");
    }
    Ok(rows)
}
