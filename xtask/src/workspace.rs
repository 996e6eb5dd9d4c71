//! Where things are in this checkout. Knows paths only.

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> PathBuf {
    // Set by cargo for `cargo xtask`; a binary started without cargo (supervisor, node) falls back to where it was built.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| root().join("target"))
}

/// The directory of a profile's binaries.
pub fn binaries(release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" })
}

/// The object with all BPF programs, where `agent/datapath/build.rs` looks for it: a build script does not know of a
/// target directory elsewhere.
pub fn bpf_object() -> PathBuf {
    root().join("target/bpf/pagurus-ebpf.o")
}
