//! Puts the BPF object where the crate embeds it: the built one, or an empty stand-in.
//!
//! `PAGURUS_EBPF_OBJECT` names the object; without it `target/bpf/pagurus-ebpf.o` of the workspace is taken if it is
//! there. Otherwise an empty file is embedded, so that `cargo check` and `cargo test` need no BPF tool chain; the
//! loader then says at run time that there are no programs. Must not know: how the object is built (`cargo xtask build`).

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PAGURUS_EBPF_OBJECT");
    let out = PathBuf::from(variable("OUT_DIR")?).join("pagurus-ebpf.o");
    match object()? {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            fs::copy(&object, &out).map_err(|error| format!("copy {}: {error}", object.display()))?;
        }
        None => fs::write(&out, []).map_err(|error| format!("write {}: {error}", out.display()))?,
    }
    Ok(())
}

/// The built object, if there is one.
fn object() -> Result<Option<PathBuf>, String> {
    if let Some(path) = env::var_os("PAGURUS_EBPF_OBJECT").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            return Err(format!("PAGURUS_EBPF_OBJECT={}: no such file", path.display()));
        }
        return Ok(Some(path));
    }
    let manifest = variable("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).ancestors().nth(2).ok_or("the crate is not two folders deep")?;
    let folder = workspace.join("target/bpf");
    let path = folder.join("pagurus-ebpf.o");
    if path.is_file() {
        return Ok(Some(path));
    }
    // Cargo looks at the folder, so the object is noticed once it is built; a missing one would rebuild every time.
    fs::create_dir_all(&folder).map_err(|error| format!("create {}: {error}", folder.display()))?;
    println!("cargo::rerun-if-changed={}", folder.display());
    Ok(None)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
