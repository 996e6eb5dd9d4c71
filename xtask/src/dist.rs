//! `cargo xtask dist`: the image of the node agent, for `deploy/`: the release binaries and the shared libraries they need, nothing
//! else. Must not know: what the agent does with its flags.

use crate::{build, images, process, workspace};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Flags of `dist`.
#[derive(clap::Args)]
pub struct Options {
    /// Name and tag of the image
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("pagurus/agent:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// File to write [default: target/dist/NAME_TAG.tar]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take the debug binaries: larger and slower, and built sooner
    #[arg(long)]
    debug: bool,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
}

/// Programs in the image; the first is what it runs.
const PROGRAMS: [&str; 2] = ["pagurus-agent", "pagurus-cni"];

/// Makes the image.
pub fn run(options: &Options) -> Result<()> {
    if !options.no_build {
        build::run(&build::Options { release: !options.debug })?;
    }
    let binaries = workspace::binaries(!options.debug);
    let programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| binaries.join(name)).collect();
    let mut libraries = BTreeSet::new();
    for program in &programs {
        libraries.extend(shared_libraries(program)?);
    }
    let layer = layer(&programs, &libraries)?;
    let archive = images::archive(&options.image, &["/bin/pagurus-agent"], &[], &layer)?;
    let file = options.out.clone().unwrap_or_else(|| {
        workspace::target().join("dist").join(format!("{}.tar", options.image.replace(['/', ':'], "_")))
    });
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let size = archive.len();
    std::fs::write(&file, archive).with_context(|| format!("cannot write {}", file.display()))?;
    println!("dist: {} ({:.1} MB) holds {}", file.display(), size as f64 / 1e6, options.image);
    Ok(())
}

/// The shared libraries of a program, the dynamic loader among them, where this machine has them.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = process::output(Command::new("ldd").arg(program))
        .with_context(|| format!("cannot list the shared libraries of {}", program.display()))?;
    parse_libraries(&said).with_context(|| format!("shared libraries of {}", program.display()))
}

/// Reads what ldd prints: `name => path (address)`, or `path (address)` for the loader.
fn parse_libraries(said: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.contains("not found") {
            anyhow::bail!("{line}");
        }
        let path = line.split(" => ").last().and_then(|rest| rest.split(" (").next()).unwrap_or_default();
        // The page that the kernel maps into every process has a name and no file.
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// The file system of the image: programs in `/bin`, libraries where the programs look for them, directories to mount on.
fn layer(programs: &[PathBuf], libraries: &BTreeSet<PathBuf>) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode) in [
        ("bin", 0o755),
        ("tmp", 0o1777),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        ("run", 0o755),
        ("etc", 0o755),
        ("var/lib", 0o755),
    ] {
        let header = &mut images::entry(tar::EntryType::Directory, mode, 0);
        layer.append_data(header, format!("{path}/"), std::io::empty()).context("cannot write a layer")?;
    }
    // Runtimes name network namespaces by their old path, which is the same place on every node.
    let header = &mut images::entry(tar::EntryType::Symlink, 0o777, 0);
    layer.append_link(header, "var/run", "/run").context("cannot write a layer")?;
    let programs = programs.iter().map(|path| {
        let name = path.file_name().unwrap_or_default();
        (Path::new("bin").join(name), path)
    });
    let libraries = libraries.iter().map(|path| (path.strip_prefix("/").unwrap_or(path).to_path_buf(), path));
    for (place, source) in programs.chain(libraries) {
        let bytes = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        let header = &mut images::entry(tar::EntryType::Regular, 0o755, bytes.len() as u64);
        layer.append_data(header, place, &bytes[..]).context("cannot write a layer")?;
    }
    layer.into_inner().context("cannot write a layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse_libraries(said).expect("libraries");
        assert_eq!(
            found,
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse_libraries("libx.so => not found\n").is_err());
        assert_eq!(parse_libraries("\tstatically linked\n").expect("none"), Vec::<PathBuf>::new());
    }
}
