//! `cargo xtask build`: the BPF object, then every binary.

use crate::{ebpf, process, setup, workspace};
use anyhow::Result;
use std::process::Command;

/// Flags of `build`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Optimised binaries, into target/release/
    #[arg(long)]
    pub release: bool,
}

/// The packages whose binaries make a cluster, and the kubectl plugin.
const PACKAGES: &[&str] =
    &["pagurus-controlplane", "pagurus-agent", "pagurus-cni", "pagurus-controlplane-kubectl"];

/// Builds everything.
pub fn run(options: &Options) -> Result<()> {
    setup::run(&setup::Options::default())?;
    println!("build: BPF programs");
    ebpf::build()?;
    println!("build: {} ({})", PACKAGES.join(", "), if options.release { "release" } else { "debug" });
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).args(["build", "--locked"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    if options.release {
        command.arg("--release");
    }
    process::run(&mut command)
}
