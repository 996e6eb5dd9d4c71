//! Files that are there whole or not at all, whenever the machine stops, and what an earlier agent left in them.
//!
//! Must not know: what is in them.

use std::fs::{self, File};
use std::io::{self, Write as _};
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

/// What an earlier agent left in a file, decoded; none if there is no file, or nothing that can be used, which is told. `what` is in it.
pub fn recall<T, E: Into<anyhow::Error>>(
    what: &str,
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let read = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        read => read.map_err(anyhow::Error::from).and_then(|bytes| decode(&bytes).map_err(Into::into)),
    };
    read.inspect_err(|error| {
        let error = format!("{error:#}");
        tracing::warn!(path = %path.display(), error, "{what} of an earlier agent cannot be used");
    })
    .ok()
}

/// Tells of a file that cannot be kept: once, until it can be again.
#[derive(Debug)]
pub struct Keeping {
    what: &'static str,
    told: bool,
}

impl Keeping {
    /// `what` is in the file.
    pub fn new(what: &'static str) -> Self {
        Self { what, told: false }
    }

    /// What an attempt to write it has come to.
    pub fn note(&mut self, written: anyhow::Result<()>) {
        let before = std::mem::replace(&mut self.told, written.is_err());
        if let (Err(error), false) = (written, before) {
            tracing::warn!(
                error = format!("{error:#}"),
                "{} cannot be kept over restarts of the agent",
                self.what
            );
        }
    }
}
