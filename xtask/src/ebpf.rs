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

/// What a usable tool chain lacks.
#[derive(Debug)]
pub struct Lack {
    compiler: bool,
    llvm: bool,
    /// bpf-linker itself is missing.
    pub linker: bool,
}

impl Lack {
    /// The Debian packages that bring it.
    pub fn packages(&self) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if self.compiler {
            packages.extend(["rustc-web", "rust-web-src"]);
        }
        if self.linker && self.llvm {
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
        if self.linker {
            parts.push("bpf-linker (`cargo install bpf-linker`, with LLVM 22)");
        }
        f.write_str(&parts.join("; "))
    }
}

fn linker() -> Option<PathBuf> {
    let own = setup::cargo_bin("bpf-linker");
    if own.is_file() { Some(own) } else { process::find("bpf-linker") }
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
        (Some((cargo, rustc, name)), Some(linker)) => Ok(Chain { cargo, rustc, linker, name }),
        (chain, linker) => Err(Lack { compiler: chain.is_none(), llvm, linker: linker.is_none() }),
    }
}

/// Builds bpf-linker against Debian's LLVM.
pub fn install_linker() -> Result<()> {
    println!("setup: building bpf-linker");
    let path = std::env::var("PATH").unwrap_or_default();
    process::run(
        Command::new("cargo")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .env("PATH", format!("/usr/lib/llvm-22/bin:{path}"))
            .args(["install", "--quiet", "bpf-linker", "--no-default-features", "--features", "llvm-22"]),
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
