//! Building the BPF programs: finds the tool chain that is there and says exactly what is missing otherwise.

use crate::{process, setup, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool chain that can build for `bpfel-unknown-none`.
pub struct Chain {
    cargo: Vec<String>,
    rustc: Option<PathBuf>,
    linker: PathBuf,
    /// What it is, for messages.
    pub name: String,
}

/// The version of bpf-linker that links the programs: one that has the flag which [`build`] gives it, and no other, so that the
/// verifier is shown the same instructions wherever they are built.
const LINKER: &str = "0.13.0";

/// What a usable tool chain lacks.
#[derive(Debug)]
pub struct Lack {
    compiler: bool,
    llvm: bool,
    /// There is no bpf-linker of the version that is needed.
    pub linker: Option<LinkerLack>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkerLack {
    /// There is none at all.
    Missing,
    /// There is this one, which says that it is of this version, or does not say it.
    Other(PathBuf, Option<String>),
}

impl LinkerLack {
    /// What is to be done about it; `own` is where it is installed.
    pub fn remedy(&self, own: &Path) -> String {
        let there = match self {
            Self::Missing => return format!("build bpf-linker {LINKER}"),
            Self::Other(path, Some(version)) => format!("{}, which is {version}", path.display()),
            Self::Other(path, None) => format!("{}, which does not say its version", path.display()),
        };
        let is_own = matches!(self, Self::Other(path, _) if path == own);
        format!("build bpf-linker {LINKER}, {} {there}", if is_own { "in place of" } else { "beside" })
    }
}

/// Which of these linkers, in the order in which they would be taken, with what they say to `--version`, is of the version that is needed.
fn choose(found: Vec<(PathBuf, Option<String>)>) -> Result<PathBuf, LinkerLack> {
    let mut lack = LinkerLack::Missing;
    for (path, said) in found {
        let version = said.as_deref().and_then(|said| said.trim().strip_prefix("bpf-linker "));
        if version == Some(LINKER) {
            return Ok(path);
        }
        if lack == LinkerLack::Missing {
            lack = LinkerLack::Other(path, version.map(str::to_owned));
        }
    }
    Err(lack)
}

impl Lack {
    /// The Debian packages that bring it.
    pub fn packages(&self) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if self.compiler {
            packages.extend(["rustc-web", "rust-web-src"]);
        }
        if self.linker.is_some() && self.llvm {
            packages.extend(["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "g++"]);
        }
        packages
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.compiler {
            parts.push("a compiler with the BPF target and its library source (Debian: rustc-web and rust-web-src; rustup: a nightly tool chain with rust-src)");
        }
        let linker = match &self.linker {
            None => None,
            Some(LinkerLack::Missing) => Some(String::new()),
            Some(LinkerLack::Other(path, version)) => {
                let version = version.as_deref().unwrap_or("of a version that it does not say");
                Some(format!("; {} is {version}", path.display()))
            }
        };
        let linker = linker.map(|there| {
            format!(
                "bpf-linker {LINKER} (`cargo install bpf-linker --version {LINKER}`, with LLVM 22{there})"
            )
        });
        parts.extend(linker.as_deref());
        f.write_str(&parts.join("; "))
    }
}

fn linker() -> Result<PathBuf, LinkerLack> {
    let own = setup::cargo_bin("bpf-linker");
    let mut paths: Vec<PathBuf> =
        own.is_file().then_some(own).into_iter().chain(process::find("bpf-linker")).collect();
    paths.dedup();
    let said = |path: &PathBuf| process::output(Command::new(path).arg("--version")).ok();
    choose(paths.into_iter().map(|path| (path.clone(), said(&path))).collect())
}

/// Debian's compiler, with its library source where `-Z build-std` looks for it. Its cargo is not needed: ours drives it.
fn debian_compiler() -> Option<String> {
    let rustc = Path::new("/usr/bin/rustc");
    if !rustc.exists() {
        return None;
    }
    let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists() {
        return None;
    }
    process::output(Command::new(rustc).arg("--version")).ok().map(|v| v.trim().to_owned())
}

fn nightly() -> Option<String> {
    process::find("rustup")?;
    let sysroot = process::output(Command::new("rustc").args(["+nightly", "--print", "sysroot"])).ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    source
        .exists()
        .then(|| process::output(Command::new("rustc").args(["+nightly", "--version"])).ok())
        .flatten()
}

/// The tool chain of this machine, or what it lacks.
pub fn find() -> Result<Chain, Lack> {
    let linker = linker();
    let llvm = !Path::new("/usr/lib/llvm-22/bin/llvm-config").exists();
    let chain = if let Some(version) = debian_compiler() {
        Some((vec!["cargo".to_owned()], Some(PathBuf::from("/usr/bin/rustc")), version))
    } else {
        nightly()
            .map(|version| (vec!["cargo".to_owned(), "+nightly".to_owned()], None, version.trim().to_owned()))
    };
    match (chain, linker) {
        (Some((cargo, rustc, name)), Ok(linker)) => Ok(Chain { cargo, rustc, linker, name }),
        (chain, linker) => Err(Lack { compiler: chain.is_none(), llvm, linker: linker.err() }),
    }
}

/// Builds bpf-linker against Debian's LLVM, and puts it in place of another one of cargo's.
pub fn install_linker() -> Result<()> {
    println!("setup: building bpf-linker {LINKER}");
    let path = std::env::var("PATH").unwrap_or_default();
    process::run(
        Command::new("cargo")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .env("PATH", format!("/usr/lib/llvm-22/bin:{path}"))
            .args(["install", "--quiet", "--force", "bpf-linker", "--version", LINKER])
            .args(["--no-default-features", "--features", "llvm-22"]),
    )
    .context("cannot build bpf-linker")
}

/// Builds every BPF program into one object and puts it where the agent's build looks for it.
pub fn build() -> Result<()> {
    let chain = find().map_err(|lack| {
        anyhow::anyhow!("cannot build the BPF programs: missing {lack}; `cargo xtask setup` installs it")
    })?;
    let target = workspace::target().join("bpf");
    let mut command = Command::new(&chain.cargo[0]);
    command.current_dir(workspace::root()).args(&chain.cargo[1..]);
    // The variables of the cargo that runs us would choose its compiler for the inner build.
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
    ] {
        if !(name == "RUSTUP_TOOLCHAIN" && chain.rustc.is_none()) {
            command.env_remove(name);
        }
    }
    if let Some(rustc) = &chain.rustc {
        command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    // Copies and zeros become loads and stores: as bpf-linker has it by itself, most become calls of functions that go byte by byte,
    // which takes longer than everything else that a program does.
    let copies = "--disable-expand-memcpy-in-order";
    let flags =
        format!("-C linker={} -C link-arg=--btf -C link-arg={copies} -C debuginfo=2", chain.linker.display());
    command
        .env("RUSTFLAGS", flags)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "pagurus-ebpf-programs",
            "--bin",
            "pagurus-ebpf",
        ])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target);
    process::run(&mut command)
        .with_context(|| format!("cannot build the BPF programs with {}", chain.name))?;
    let built = target.join("bpfel-unknown-none/release/pagurus-ebpf");
    let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = workspace::bpf_object();
    // Written only when it changed, so that the agent is not rebuilt for nothing.
    if std::fs::read(&object).ok().as_deref() != Some(&bytes[..]) {
        std::fs::create_dir_all(object.parent().unwrap_or(&object))
            .with_context(|| format!("cannot create the directory of {}", object.display()))?;
        std::fs::write(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers() {
        let own = Path::new("/root/.cargo/bin/bpf-linker");
        let other = |path: &str, version: Option<&str>| {
            Err(LinkerLack::Other(PathBuf::from(path), version.map(str::to_owned)))
        };
        let (mine, systems) = ("/root/.cargo/bin/bpf-linker", "/usr/bin/bpf-linker");
        for (found, want, remedy) in [
            (&[][..], Err(LinkerLack::Missing), "build bpf-linker 0.13.0"),
            (&[(mine, Some("bpf-linker 0.13.0\n"))], Ok(PathBuf::from(mine)), ""),
            // The system's is good enough, though it comes second.
            (
                &[(mine, Some("bpf-linker 0.9.14")), (systems, Some("bpf-linker 0.13.0"))],
                Ok(PathBuf::from(systems)),
                "",
            ),
            (
                &[(mine, Some("bpf-linker 0.13.1\n"))],
                other(mine, Some("0.13.1")),
                "build bpf-linker 0.13.0, in place of /root/.cargo/bin/bpf-linker, which is 0.13.1",
            ),
            (
                &[(systems, None)],
                other(systems, None),
                "build bpf-linker 0.13.0, beside /usr/bin/bpf-linker, which does not say its version",
            ),
        ] {
            let found = found.iter().map(|(path, said)| (PathBuf::from(path), said.map(str::to_owned)));
            let got = choose(found.collect());
            assert_eq!(got.as_ref().err().map(|lack| lack.remedy(own)).unwrap_or_default(), remedy);
            assert_eq!(got, want);
        }
    }
}
