//! The kubectl programs of this machine: tests that use kubectl as people do run with each of them, as users have all versions.
//!
//! `KUBECTL` names them (programs with `:` between). Without it they are looked for on the `PATH`: `kubectl`, and whatever is named
//! after a version (`kubectl-1.30`, `kubectl1.30`, `kubectl_1.30`). The first is the one for tests that are not about kubectl.
//!
//! Must not know: what is asked with them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A program that says that it is kubectl.
#[derive(Debug, PartialEq, Eq)]
pub struct Kubectl {
    program: PathBuf,
    minor: u32,
}

impl Kubectl {
    /// Every version found, once each.
    ///
    /// # Errors
    /// There is none.
    pub fn all() -> Result<&'static [Self]> {
        static ALL: OnceLock<Vec<Kubectl>> = OnceLock::new();
        let all = ALL.get_or_init(|| {
            let programs = match std::env::var("KUBECTL") {
                Ok(named) => named.split(':').map(PathBuf::from).collect(),
                Err(_) => on_the_path(),
            };
            distinct(programs.into_iter().filter_map(ask).collect())
        });
        if all.is_empty() {
            bail!("there is no kubectl here: neither on the PATH nor named by KUBECTL");
        }
        Ok(all)
    }

    /// The one for tests that are not about kubectl.
    ///
    /// # Errors
    /// There is none.
    pub fn first() -> Result<&'static Self> {
        Self::all().map(|all| &all[0])
    }

    /// N of its version 1.N.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// A command of it.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// Runs a test with every version; says which one failed.
///
/// # Errors
/// The test fails with one of them, or there is none.
pub fn with_each(mut test: impl FnMut(&'static Kubectl) -> Result<()>) -> Result<()> {
    for kubectl in Kubectl::all()? {
        test(kubectl).with_context(|| format!("with kubectl 1.{}", kubectl.minor))?;
    }
    Ok(())
}

/// The program with what it says of itself; what does not answer is told and left out.
fn ask(program: PathBuf) -> Option<Kubectl> {
    match version(&program) {
        Ok(minor) => Some(Kubectl { program, minor }),
        Err(error) => {
            println!("{} is left out: {error:#}", program.display());
            None
        }
    }
}

fn version(program: &Path) -> Result<u32> {
    let out = Command::new(program).args(["version", "--client", "-o", "json"]).output()?;
    let said: Value = serde_json::from_slice(&out.stdout).context("it does not say its version")?;
    let minor = said["clientVersion"]["minor"].as_str().unwrap_or_default();
    minor.trim_end_matches('+').parse().with_context(|| format!("its version is {said}"))
}

/// The first of each version.
fn distinct(all: Vec<Kubectl>) -> Vec<Kubectl> {
    let mut kept: Vec<Kubectl> = Vec::new();
    for kubectl in all {
        if !kept.iter().any(|other| other.minor == kubectl.minor) {
            kept.push(kubectl);
        }
    }
    kept
}

/// `kubectl`, then all that have a version in their name, by that.
fn on_the_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions = Vec::new();
    for directory in std::env::split_paths(&path) {
        // Directories on the PATH that are not there are usual.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if let Some(minor) = named_minor(&entry.file_name().to_string_lossy()) {
                versions.push((minor, entry.path()));
            }
        }
    }
    versions.sort();
    let plain = std::env::split_paths(&path).map(|directory| directory.join("kubectl"));
    plain.filter(|program| program.is_file()).take(1).chain(versions.into_iter().map(|(_, p)| p)).collect()
}

/// N of a program's name such as `kubectl-1.N` or `kubectl1.N.3`.
fn named_minor(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("kubectl")?;
    let rest = rest.strip_prefix(['-', '_']).unwrap_or(rest);
    let rest = rest.strip_prefix('v').unwrap_or(rest).strip_prefix("1.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, minor) in [
            ("kubectl-1.27", Some(27)),
            ("kubectl1.30", Some(30)),
            ("kubectl_1.34.2", Some(34)),
            ("kubectl-v1.36", Some(36)),
            ("kubectl", None),
            ("kubectl-pagurus", None),
            ("kubectl-1.x", None),
            ("oc-1.30", None),
        ] {
            assert_eq!(named_minor(name), minor, "{name}");
        }
    }

    #[test]
    fn each_version_once() {
        let made = |program: &str, minor| Kubectl { program: program.into(), minor };
        let kept = distinct(vec![made("kubectl", 32), made("a", 27), made("b", 32)]);
        assert_eq!(kept, [made("kubectl", 32), made("a", 27)]);
    }
}
