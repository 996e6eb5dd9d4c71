//! `cargo xtask setup`: installs what this machine lacks. Idempotent, asks nothing, says what it will do before it does it.

use crate::{ebpf, process};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Flags of `setup`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only say what would be installed
    #[arg(long)]
    dry_run: bool,
    /// Also what `tidy` needs (cargo-deny)
    #[arg(long)]
    tidy: bool,
    /// Also what `bench datapath` compares with: kube-proxy's tools
    #[arg(long)]
    rivals: bool,
    /// Also what `test --vm` needs: a machine in software, and a way to share files with it
    #[arg(long)]
    vm: bool,
    /// Also what `test --fuzz` needs: cargo-fuzz and a C++ compiler
    #[arg(long)]
    fuzz: bool,
}

impl Options {
    /// What `tidy` asks for.
    pub fn for_tidy() -> Self {
        Self { tidy: true, ..Self::default() }
    }

    /// What `bench datapath` asks for.
    pub fn for_rivals() -> Self {
        Self { rivals: true, ..Self::default() }
    }

    /// What `test --fuzz` asks for.
    pub fn for_fuzz() -> Self {
        Self { fuzz: true, ..Self::default() }
    }

    /// What `test --vm` asks for.
    pub fn for_vm() -> Self {
        Self { vm: true, ..Self::default() }
    }
}

/// A program by its name, also where `cargo install` puts it.
pub fn program(name: &str) -> std::path::PathBuf {
    let own = cargo_bin(name);
    if own.is_file() { own } else { process::find(name).unwrap_or(own) }
}

/// What a part of the work needs: a program or file, and the Debian package that brings it.
struct Need {
    present: fn() -> bool,
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need { present: || process::find("cc").is_some(), package: "gcc", why: "links Rust programs" },
    Need {
        present: || Path::new("/usr/include/stdio.h").exists(),
        package: "libc6-dev",
        why: "links Rust programs",
    },
    Need { present: || process::find("ip").is_some(), package: "iproute2", why: "makes the nodes' networks" },
    Need { present: || process::find("nsenter").is_some(), package: "util-linux", why: "enters a node" },
    Need { present: || process::find("curl").is_some(), package: "curl", why: "asks the API server" },
    Need {
        present: || process::find("kubectl").is_some(),
        package: "kubernetes-client",
        why: "kubectl, to talk to the cluster; a newer one that is there is left alone",
    },
    Need { present: || process::find("containerd").is_some(), package: "containerd", why: "runs containers" },
    Need { present: || process::find("runc").is_some(), package: "runc", why: "runs containers" },
    Need { present: static_busybox, package: "busybox-static", why: "the shell of the test image" },
    Need {
        present: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists(),
        package: "ca-certificates",
        why: "cargo's downloads",
    },
];

/// The programs with which kube-proxy gives its rules to the kernel.
const RIVALS: &[Need] = &[
    Need {
        present: || process::find("nft").is_some(),
        package: "nftables",
        why: "kube-proxy's rules, to compare with",
    },
    Need {
        present: || process::find("iptables-nft-restore").is_some(),
        package: "iptables",
        why: "kube-proxy's rules, to compare with",
    },
];

/// What runs another kernel.
const VM: &[Need] = &[
    Need {
        present: || process::find("qemu-system-x86_64").is_some(),
        package: "qemu-system-x86",
        why: "runs another kernel",
    },
    Need {
        present: || Path::new(VIRTIOFSD).exists(),
        package: "qemu-system-common",
        why: "shares files with another kernel (virtiofsd)",
    },
    Need { present: || process::find("depmod").is_some(), package: "kmod", why: "modules of another kernel" },
    Need {
        present: || process::find("cpio").is_some(),
        package: "cpio",
        why: "the first file system of another kernel",
    },
    Need { present: || process::find("xz").is_some(), package: "xz-utils", why: "modules of another kernel" },
];

/// What builds libFuzzer.
const FUZZ: &[Need] =
    &[Need { present: || process::find("c++").is_some(), package: "g++", why: "builds libFuzzer" }];

/// Where Debian's qemu-system-common puts it.
pub const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

fn static_busybox() -> bool {
    Path::new("/var/lib/dpkg/info/busybox-static.list").exists() && Path::new("/bin/busybox").exists()
}

/// The packages this machine lacks, in the order of installation.
fn missing(options: &Options) -> Vec<&'static Need> {
    let rivals = RIVALS.iter().filter(|_| options.rivals);
    let vm = VM.iter().filter(|_| options.vm);
    let fuzz = FUZZ.iter().filter(|_| options.fuzz);
    NEEDS.iter().chain(rivals).chain(vm).chain(fuzz).filter(|need| !(need.present)()).collect()
}

/// Installs what is missing.
pub fn run(options: &Options) -> Result<()> {
    let missing = missing(options);
    let chain = ebpf::find();
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    for need in &missing {
        println!("setup: will install the Debian package {} ({})", need.package, need.why);
    }
    let build_linker = match &chain {
        Ok(_) => false,
        Err(lack) => {
            for package in lack.packages() {
                println!("setup: will install the Debian package {package} (builds the BPF programs)");
                packages.push(package);
            }
            if let Some(lack) = &lack.linker {
                let remedy = lack.remedy(&cargo_bin("bpf-linker"));
                println!("setup: will {remedy}, with cargo (links the BPF programs; about a minute)");
            }
            lack.linker.is_some()
        }
    };
    let deny = options.tidy && process::find("cargo-deny").is_none() && !cargo_bin("cargo-deny").exists();
    if deny {
        println!("setup: will build cargo-deny with cargo (checks dependencies; a few minutes)");
    }
    let fuzz = options.fuzz && process::find("cargo-fuzz").is_none() && !cargo_bin("cargo-fuzz").exists();
    if fuzz {
        println!("setup: will build cargo-fuzz with cargo (runs fuzz targets; a minute)");
    }
    if options.dry_run {
        return Ok(());
    }
    install(&packages)?;
    if build_linker {
        ebpf::install_linker()?;
    }
    if deny {
        process::run(Command::new("cargo").args(["install", "--quiet", "--locked", "cargo-deny"]))?;
    }
    if fuzz {
        process::run(Command::new("cargo").args(["install", "--quiet", "--locked", "cargo-fuzz"]))?;
    }
    ebpf::find().map(|_| ()).map_err(|lack| anyhow::anyhow!("the BPF tool chain is still incomplete: {lack}"))
}

/// Where `cargo install` puts a program.
pub fn cargo_bin(name: &str) -> std::path::PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.unwrap_or_else(|| {
        std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo")
    });
    home.join("bin").join(name)
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "installing {} needs root; run this command as root, or `apt-get install {}` first",
            packages.join(", "),
            packages.join(" ")
        );
    }
    if process::find("apt-get").is_none() {
        bail!(
            "this machine has no apt-get; install by hand what these Debian packages bring: {}",
            packages.join(" ")
        );
    }
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(arguments);
        process::output(&mut command).map(|_| ())
    };
    println!("setup: reading the package lists");
    apt(&["update"]).context("cannot read Debian's package lists; is the network there?")?;
    println!("setup: installing {}", packages.join(" "));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments).context(
        "cannot install them; on Debian 12 apt needs its three usual sources: bookworm, bookworm-updates and bookworm-security",
    )?;
    stop_host_containerd();
    Ok(())
}

/// Debian's package starts a containerd on the host where systemd runs; nodes have their own, so ours is not needed.
fn stop_host_containerd() {
    if Path::new("/run/systemd/system").exists() {
        println!(
            "setup: note: Debian's containerd package may have started a containerd service on this host; the nodes do not use it"
        );
    }
}
