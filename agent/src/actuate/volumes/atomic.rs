//! Writes the files of a volume so that a reader sees all old or all new ones: a directory per version, a link `..data`
//! to the current one, and a link per name to `..data/NAME`. Must not know where the content comes from.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pagurus_agent_core::volumes::payload::Payload;

use super::{VolumeError, group, make_directory, removal};

const CURRENT: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes the directory show these files, and no others. Blocks.
pub(super) fn write(directory: &Path, files: &Payload, owner: Option<i64>) -> Result<(), VolumeError> {
    let current = directory.join(CURRENT);
    let old = fs::read_link(&current).ok();
    let is_same = old.as_ref().is_some_and(|old| shows(&directory.join(old), files, owner));
    if !is_same {
        let version = new_version(directory)?;
        fill(&version, files)?;
        if let Some(owner) = owner {
            group::give_files(&version, owner)?;
        }
        switch(directory, &version)?;
    }
    // Also when the content is the same: the last writer may have died between the two steps.
    link_names(directory, files)?;
    remove_old_versions(directory)
}

/// Whether this version holds just these files.
fn shows(version: &Path, files: &Payload, owner: Option<i64>) -> bool {
    let mut there = BTreeSet::new();
    if collect(version, Path::new(""), &mut there).is_err() {
        return false;
    }
    let wanted: BTreeSet<PathBuf> = files.keys().map(PathBuf::from).collect();
    let same = |(path, file): (&String, &pagurus_agent_core::volumes::payload::File)| {
        let path = version.join(path);
        let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o7777);
        let mode_is_right = mode.is_ok_and(|mode| mode == group::file_mode(file.mode, owner));
        mode_is_right && fs::read(&path).is_ok_and(|data| data == file.data)
    };
    wanted == there && files.iter().all(same)
}

fn collect(directory: &Path, below: &Path, out: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, out)?;
        } else {
            out.insert(path);
        }
    }
    Ok(())
}

/// A new directory, named by the time.
fn new_version(directory: &Path) -> Result<PathBuf, VolumeError> {
    loop {
        let name = Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
        let path = directory.join(name);
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, Permissions::from_mode(0o755))
                    .map_err(VolumeError::io("chmod", &path))?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(VolumeError::io("make directory", &path)(error)),
        }
    }
}

fn fill(version: &Path, files: &Payload) -> Result<(), VolumeError> {
    for (name, file) in files {
        let path = version.join(name);
        if let Some(parent) = path.parent() {
            make_directory(parent, 0o755)?;
        }
        fs::write(&path, &file.data).map_err(VolumeError::io("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))
            .map_err(VolumeError::io("chmod", &path))?;
    }
    Ok(())
}

/// Makes this version the current one, in one step.
fn switch(directory: &Path, version: &Path) -> Result<(), VolumeError> {
    let next = directory.join(NEXT);
    removal::remove(&next)?;
    let name = version.file_name().unwrap_or_default();
    symlink(name, &next).map_err(VolumeError::io("link", &next))?;
    let current = directory.join(CURRENT);
    fs::rename(&next, &current).map_err(VolumeError::io("rename", &current))
}

/// Links for the names that are wanted; links to names that are not are removed.
fn link_names(directory: &Path, files: &Payload) -> Result<(), VolumeError> {
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = directory.join(name);
        let target = Path::new(CURRENT).join(name);
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        symlink(&target, &link).map_err(VolumeError::io("link", &link))?;
    }
    for entry in fs::read_dir(directory).map_err(VolumeError::io("list", directory))?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_ours = fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(CURRENT).join(name));
        if is_ours && !names.contains(name) {
            removal::remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_old_versions(directory: &Path) -> Result<(), VolumeError> {
    let link = directory.join(CURRENT);
    // What is shown stays: if that cannot be told nothing is removed.
    let current = fs::read_link(&link).map_err(VolumeError::io("read link", &link))?;
    for entry in fs::read_dir(directory).map_err(VolumeError::io("list", directory))?.flatten() {
        let name = entry.file_name();
        let is_version =
            name.to_string_lossy().starts_with("..2") && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_version && Path::new(&name) != current {
            removal::remove(&entry.path())?;
        }
    }
    Ok(())
}
