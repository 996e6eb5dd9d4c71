//! `cargo xtask tidy`: the house rules that a program can check.

use crate::{process, setup, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Flags of `tidy`.
#[derive(clap::Args)]
pub struct Options {
    /// Only the checks that read files: no formatter, clippy or cargo-deny
    #[arg(long)]
    files: bool,
}

/// The most lines a source file may have.
const MAX_LINES: usize = 600;
/// File names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "misc", "common", "mod"];
/// Crates that must not be seen by a crate of ours: (ours, forbidden, why).
const IMPORTS: &[(&str, &[&str], &str)] = &[
    ("agent/core", &["kube", "k8s_openapi", "aya", "tonic", "tokio"], "decisions do no I/O"),
    ("controlplane/schema", &["kube", "tokio", "hyper", "k8s_openapi"], "the type table does no I/O"),
    ("controlplane/api", &["kube", "tokio", "hyper", "k8s_openapi"], "words do no I/O"),
    (
        "controlplane/store",
        &["kube", "k8s_openapi", "pagurus_controlplane_schema", "hyper"],
        "the store knows keys and bytes only",
    ),
    ("controlplane/apiserver", &["kube", "aya", "tonic"], "the server is nobody's client"),
    (
        "controlplane/scheduler",
        &["pagurus_controlplane_apiserver", "pagurus_controlplane_store"],
        "it meets the API server at the API",
    ),
    (
        "controlplane/controllers",
        &["pagurus_controlplane_apiserver", "pagurus_controlplane_store"],
        "they meet the API server at the API",
    ),
    (
        "controlplane/kubectl",
        &["pagurus_controlplane_apiserver", "pagurus_controlplane_store", "pagurus_controlplane_schema"],
        "it is a client of the API like any other",
    ),
    (
        "agent",
        &["aya", "pagurus_controlplane_apiserver", "pagurus_controlplane_store"],
        "only agent/datapath touches BPF",
    ),
    ("cni", &["kube", "aya", "pagurus_agent_core"], "the plugin is a thin client"),
];

/// Checks everything and lists what is wrong.
pub fn run(options: &Options) -> Result<()> {
    let mut problems = Vec::new();
    let sources = sources()?;
    for file in sources.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        check_source(file, &mut problems)?;
    }
    for manifest in sources.iter().filter(|f| f.ends_with("Cargo.toml")) {
        check_manifest(manifest, &mut problems)?;
    }
    check_imports(&sources, &mut problems)?;
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} house rule(s) broken", problems.len());
    }
    println!("tidy: {} files follow the house rules", sources.len());
    if options.files {
        return Ok(());
    }
    setup::run(&setup::Options::for_tidy())?;
    let cargo = |arguments: &[&str]| {
        process::run(Command::new("cargo").current_dir(workspace::root()).args(arguments))
    };
    println!("tidy: format");
    cargo(&["fmt", "--all", "--check"])?;
    println!("tidy: clippy");
    cargo(&[
        "clippy",
        "--locked",
        "--all-targets",
        "--workspace",
        "--exclude",
        "pagurus-ebpf-programs",
        "--",
        "--deny",
        "warnings",
    ])?;
    println!("tidy: cargo-deny");
    process::run(Command::new(setup::program("cargo-deny")).current_dir(workspace::root()).args([
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// Every file git tracks or would.
fn sources() -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let list = process::output(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    Ok(list.lines().map(|line| root.join(line)).filter(|file| file.is_file()).collect())
}

fn shown(file: &Path) -> String {
    file.strip_prefix(workspace::root()).unwrap_or(file).display().to_string()
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn check_source(file: &Path, problems: &mut Vec<String>) -> Result<()> {
    let (text, name) = (read(file)?, shown(file));
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("{name}: {lines} lines; split it by its nouns ({MAX_LINES} at most)"));
    }
    if !text.lines().next().is_some_and(|line| line.starts_with("//!")) {
        problems.push(format!("{name}: the first line does not say what the file is for (//!)"));
    }
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        problems.push(format!("{name}: name the noun; {stem:?} says nothing"));
    }
    Ok(())
}

fn check_manifest(file: &Path, problems: &mut Vec<String>) -> Result<()> {
    let text = read(file)?;
    let inherits = text.contains("[lints]\nworkspace = true") || text.contains("[workspace]");
    // A fuzz target is a workspace of its own, as cargo-fuzz wants it.
    if !inherits {
        problems.push(format!("{}: does not inherit the workspace's lints", shown(file)));
    }
    Ok(())
}

/// The folder of the package a file belongs to: the nearest one above it with a manifest.
fn package(file: &Path) -> Option<String> {
    let directory = file.ancestors().skip(1).find(|d| d.join("Cargo.toml").is_file())?;
    Some(shown(directory))
}

fn check_imports(sources: &[PathBuf], problems: &mut Vec<String>) -> Result<()> {
    for file in sources.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let Some(package) = package(file) else { continue };
        let Some((_, forbidden, why)) = IMPORTS.iter().find(|(ours, ..)| *ours == package) else { continue };
        let text = read(file)?;
        for word in *forbidden {
            let path = format!("{word}::");
            let used = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| mentions(line, &path));
            if used {
                problems.push(format!("{}: uses {word}, which {package} must not: {why}", shown(file)));
            }
        }
    }
    Ok(())
}

/// Whether a line names the path as a whole word.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words() {
        for (line, used) in [
            ("use kube::Client;", true),
            ("use my_kube::Client;", false),
            ("crate::kube::x()", false),
            ("a(kube::b)", true),
        ] {
            assert_eq!(mentions(line, "kube::"), used, "{line}");
        }
    }
}
