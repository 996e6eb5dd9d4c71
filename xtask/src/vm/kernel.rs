//! The guest's kernel: Debian's package, fetched by apt and unpacked, never installed; and the first file system, from which the guest
//! gets to this machine's own.
//!
//! Must not know: how the machine is started.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that depends on the newest kernel of the series; and where there is none, on the newest of all.
const METAPACKAGES: [&str; 2] = ["linux-image-6.12-amd64", "linux-image-amd64"];
/// What the guest needs to mount its root. Other modules come from there.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];
/// The first file system's shell.
const BUSYBOX: &str = "/bin/busybox";

/// An unpacked kernel.
pub struct Kernel {
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// The kernel, fetched if it is not there yet.
    pub fn get() -> Result<Self> {
        let folder = super::folder()?;
        let package = package()?;
        let root = folder.join(&package);
        if !root.join("unpacked").exists() {
            println!(
                "vm: fetching {package} (about 100 MB; unpacked below {}, not installed)",
                folder.display()
            );
            let download = tempfile::tempdir_in(&folder)?;
            process::output(Command::new("apt-get").current_dir(download.path()).args([
                "-qq",
                "-o",
                "APT::Sandbox::User=root",
                "download",
                &package,
            ]))?;
            let archive = entries(download.path())?.into_iter().next().context("apt-get left no package")?;
            process::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
            let made = Self::unpacked(root.clone())?;
            process::output(Command::new("depmod").arg("-b").arg(&made.root).arg(&made.version))?;
            fs::write(root.join("unpacked"), "")?;
        }
        Self::unpacked(root)
    }

    fn unpacked(root: PathBuf) -> Result<Self> {
        let modules = entries(&root.join("lib/modules"))?;
        let [version] = modules.as_slice() else { bail!("{}: no single kernel", root.display()) };
        let version = version.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { root, version })
    }

    /// Where it is unpacked.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its release, as `uname -r` says it there.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The kernel itself.
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The first file system: a shell, the modules for the root, and what runs then.
    pub fn initramfs(&self, folder: &Path, stage: &str) -> Result<PathBuf> {
        let tree = folder.join("first");
        for name in ["bin", "modules", "dev", "proc", "sys", "lower", "rw", "root"] {
            fs::create_dir_all(tree.join(name))?;
        }
        fs::copy(BUSYBOX, tree.join("bin/busybox")).with_context(|| format!("cannot copy {BUSYBOX}"))?;
        for (number, module) in self.modules()?.iter().enumerate() {
            let name = format!("{number:02}.ko");
            let bytes = if module.extension().is_some_and(|extension| extension == "xz") {
                process::bytes(Command::new("xz").arg("-dc").arg(module))?
            } else {
                fs::read(module)?
            };
            fs::write(tree.join("modules").join(name), bytes)?;
        }
        super::write(&tree.join("stage"), stage, 0o755)?;
        super::write(&tree.join("init"), INIT, 0o755)?;
        let image = folder.join("first.cpio");
        let pack = "find . | cpio --quiet -o -H newc > \"$0\"";
        process::output(Command::new("sh").current_dir(&tree).args(["-c", pack]).arg(&image))?;
        Ok(image)
    }

    /// The files of the modules for the root, in the order in which they are loaded; those that are built in have none.
    fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for module in MODULES {
            let said = process::output(Command::new("modprobe").arg("-d").arg(&self.root).args([
                "-S",
                &self.version,
                "--show-depends",
                module,
            ]))?;
            let paths = said.lines().filter_map(|line| line.strip_prefix("insmod "));
            for path in paths.map(|path| PathBuf::from(path.trim())) {
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
        Ok(files)
    }
}

/// The first process of the guest: makes the root and goes there.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t virtiofs -o ro root /lower
$b mount -t tmpfs rw /rw
$b mkdir /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sys /root/sys
$b mount -t devtmpfs dev /root/dev
$b mount -t tmpfs run /root/run
$b mount -t tmpfs tmp /root/tmp
$b mount -t cgroup2 cgroup /root/sys/fs/cgroup
$b mount -t bpf bpf /root/sys/fs/bpf
$b cp /stage /root/run/stage
exec $b switch_root /root /bin/sh /run/stage
"#;

/// The newest kernel package.
fn package() -> Result<String> {
    for name in METAPACKAGES {
        let said = process::output(Command::new("apt-cache").args(["depends", "--important", name]));
        let found = said.unwrap_or_default();
        let depends = found.lines().find_map(|line| line.trim().strip_prefix("Depends:"));
        if let Some(package) = depends {
            return Ok(package.trim().to_owned());
        }
    }
    bail!("apt knows none of {}; read its lists anew (apt-get update)", METAPACKAGES.join(", "))
}

/// What is in a directory.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    read.map(|entry| Ok(entry?.path())).collect()
}
