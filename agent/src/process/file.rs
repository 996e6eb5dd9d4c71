//! Files that are there whole or not at all, whenever the machine stops.
//!
//! Must not know: what is in them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// Puts the bytes in the file's place.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let next = path.with_extension("next");
    let shown = next.display();
    let mut file = File::create(&next).with_context(|| format!("create {shown}"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("write {shown}"))?;
    fs::rename(&next, path).with_context(|| format!("rename {shown}"))?;
    let folder_file = File::open(folder).and_then(|folder| folder.sync_all());
    folder_file.with_context(|| format!("write {}", folder.display()))
}
