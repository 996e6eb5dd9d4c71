//! The images of the demo and the tests: built from the small programs in `tests/images/`, static, nothing is pulled.

use crate::{process, workspace};
use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sandbox image of the nodes' runtimes.
pub const PAUSE: &str = "pagurus.test/pause:1";
/// The echo server.
pub const ECHO: &str = "pagurus.test/echo:1";
/// A shell (busybox) and the probe client.
pub const TOOLBOX: &str = "pagurus.test/toolbox:1";

/// An image: its programs, and what it runs.
struct Image {
    name: &'static str,
    programs: &'static [&'static str],
    busybox: bool,
    entrypoint: &'static [&'static str],
    command: &'static [&'static str],
}

const IMAGES: &[Image] = &[
    Image { name: PAUSE, programs: &["pause"], busybox: false, entrypoint: &["/pause"], command: &[] },
    Image { name: ECHO, programs: &["echo"], busybox: true, entrypoint: &["/echo"], command: &[] },
    Image {
        name: TOOLBOX,
        programs: &["probe", "echo"],
        busybox: true,
        entrypoint: &[],
        command: &["/bin/sleep", "1000000"],
    },
];

/// The busybox applets that get a name of their own in `/bin`.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "env", "false", "true", "sleep", "ls", "id", "head", "tail", "grep", "hostname",
    "ip", "kill", "mkdir", "mount", "nc", "ps", "pwd", "rm", "seq", "stat", "touch", "test", "tr", "wc",
    "wget", "nslookup", "date", "dd", "df", "sync", "tee", "top", "vi", "sort", "uniq", "tar", "gzip", "cp",
    "mv", "ln", "chmod", "chown", "find", "xargs", "sed", "awk", "cut", "printf", "expr", "timeout",
    "basename", "dirname", "readlink", "du", "md5sum", "od", "uname", "which", "yes", "netstat", "nproc",
    "whoami", "less", "time", "rmdir", "mktemp", "mknod",
];

/// Builds what is out of date and returns the archives.
pub fn build() -> Result<Vec<PathBuf>> {
    let directory = workspace::target().join("images");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    IMAGES.iter().map(|image| build_one(image, &directory)).collect()
}

fn newer(product: &Path, source: &Path) -> bool {
    let time = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    matches!((time(product), time(source)), (Some(product), Some(source)) if product > source)
}

fn compile(name: &str, directory: &Path) -> Result<PathBuf> {
    let source = workspace::root().join(format!("tests/images/{name}.rs"));
    let program = directory.join(name);
    // What a program may consist of besides its own file.
    let parts = [workspace::root().join("tests/src/load/client.rs")];
    if !parts.iter().chain([&source]).all(|source| newer(&program, source)) {
        // Under its name only when it is whole: what was cut off would be newer than its source.
        let new = directory.join(format!("{name}.new"));
        process::run(
            Command::new("rustc")
                .args([
                    "--edition",
                    "2024",
                    "-O",
                    "-C",
                    "target-feature=+crt-static",
                    "-C",
                    "panic=abort",
                    "-C",
                    "strip=symbols",
                    "-o",
                ])
                .arg(&new)
                .arg(&source),
        )?;
        std::fs::rename(&new, &program).with_context(|| format!("cannot write {}", program.display()))?;
    }
    Ok(program)
}

fn build_one(image: &Image, directory: &Path) -> Result<PathBuf> {
    let programs = image.programs.iter().map(|name| compile(name, directory)).collect::<Result<Vec<_>>>()?;
    let file = directory.join(format!("{}.tar", image.name.replace(['/', ':'], "_")));
    let own = workspace::root().join("xtask/src/images.rs");
    if programs.iter().chain([&own]).all(|source| newer(&file, source)) {
        return Ok(file);
    }
    let layer = layer(image, &programs)?;
    let archive = archive(image.name, image.entrypoint, image.command, &layer)?;
    let new = file.with_extension("new");
    std::fs::write(&new, archive)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The header of one entry of a layer or an archive.
pub fn entry(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// The file system of an image: its programs, `/etc/passwd`, `/tmp`, and busybox with its names.
fn layer(image: &Image, programs: &[PathBuf]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut file = |path: &str, mode, bytes: &[u8]| -> Result<()> {
        layer
            .append_data(&mut entry(tar::EntryType::Regular, mode, bytes.len() as u64), path, bytes)
            .context("cannot write a layer")
    };
    for (name, program) in image.programs.iter().zip(programs) {
        file(name, 0o755, &std::fs::read(program)?)?;
    }
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    if image.busybox {
        let busybox = std::fs::read("/bin/busybox")
            .context("cannot read /bin/busybox; `cargo xtask setup` installs busybox-static")?;
        file("bin/busybox", 0o755, &busybox)?;
    }
    for (path, mode) in [("tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755)] {
        layer.append_data(
            &mut entry(tar::EntryType::Directory, mode, 0),
            format!("{path}/"),
            std::io::empty(),
        )?;
    }
    if image.busybox {
        for applet in APPLETS {
            layer.append_link(
                &mut entry(tar::EntryType::Symlink, 0o777, 0),
                format!("bin/{applet}"),
                "busybox",
            )?;
        }
    }
    layer.into_inner().context("cannot write a layer")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A docker archive (`docker save`'s format) of one layer.
pub fn archive(name: &str, entrypoint: &[&str], command: &[&str], layer: &[u8]) -> Result<Vec<u8>> {
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Cmd": command, "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(layer))]},
        "history": [{"created_by": "cargo xtask"}],
    }))?;
    let config_name = format!("{}.json", digest(&config));
    let manifest = serde_json::to_vec(
        &serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]),
    )?;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in
        [(config_name.as_str(), &config[..]), ("layer.tar", layer), ("manifest.json", &manifest[..])]
    {
        archive.append_data(&mut entry(tar::EntryType::Regular, 0o644, bytes.len() as u64), name, bytes)?;
    }
    archive.into_inner().context("cannot write an archive")
}
