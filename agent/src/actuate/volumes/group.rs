//! Gives volumes to the group of the pod (`fsGroup`). Must not follow links.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;

use super::VolumeError;

/// The permissions of a file of API content, once a group has it.
pub(super) fn file_mode(mode: u32, owner: Option<i64>) -> u32 {
    if owner.is_some() { mode | ((mode & 0o400) >> 3) } else { mode }
}

/// Gives an empty directory to a group: its members write, and what they make stays with the group.
pub(super) fn give_directory(path: &Path, group: i64) -> Result<(), VolumeError> {
    chgrp(path, group)?;
    let mode = fs::metadata(path).map_err(VolumeError::io("stat", path))?.permissions().mode();
    let wanted = (mode & 0o7777) | 0o2770;
    if wanted == mode & 0o7777 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(VolumeError::io("chmod", path))
}

/// Gives all files below a directory to a group, to read.
pub(super) fn give_files(directory: &Path, group: i64) -> Result<(), VolumeError> {
    chgrp(directory, group)?;
    for entry in fs::read_dir(directory).map_err(VolumeError::io("list", directory))?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            give_files(&path, group)?;
            continue;
        }
        chgrp(&path, group)?;
        let mode = fs::metadata(&path).map_err(VolumeError::io("stat", &path))?.permissions().mode() & 0o7777;
        let wanted = Permissions::from_mode(file_mode(mode, Some(group)));
        fs::set_permissions(&path, wanted).map_err(VolumeError::io("chmod", &path))?;
    }
    Ok(())
}

fn chgrp(path: &Path, group: i64) -> Result<(), VolumeError> {
    let group = u32::try_from(group).unwrap_or(u32::MAX);
    lchown(path, None, Some(group)).map_err(VolumeError::io("chgrp", path))
}
