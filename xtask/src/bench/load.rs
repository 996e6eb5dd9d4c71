//! Figures that `pagurus-load` measures: a program of its own, because it is optimised and speaks TLS, and this one does neither.
//!
//! Must not know: what is measured and how.

use super::Row;
use crate::{process, workspace};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Builds the load generator and these packages, starts it with these arguments, and collects its rows.
pub fn run(packages: &[&str], arguments: &[String]) -> Result<Vec<Row>> {
    let mut build = Command::new("cargo");
    build.current_dir(workspace::root()).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "pagurus-load",
    ]);
    for package in packages {
        build.args(["--package", package]);
    }
    process::run(&mut build)?;
    let mut command = Command::new(workspace::binaries(true).join("pagurus-load"));
    command.args(arguments);
    process::end_with_us(command.stdout(Stdio::piped()));
    let mut child = command.spawn().context("cannot start pagurus-load")?;
    let stdout = child.stdout.take().context("pagurus-load has no standard output")?;
    let mut rows = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        rows.push(serde_json::from_str(&line).with_context(|| format!("no row of pagurus-load: {line}"))?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("pagurus-load failed: {status}");
    }
    Ok(rows)
}
