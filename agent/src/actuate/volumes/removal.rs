//! Removes directories, but never anything that is mounted below them: a volume of the node must survive the pod.

use std::io::ErrorKind;
use std::path::Path;

use super::{VolumeError, mounts};

/// Removes a file, a link or a whole directory; what is not there is success. Blocks.
pub(super) fn remove(path: &Path) -> Result<(), VolumeError> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(VolumeError::io("stat", path)(error)),
    };
    let removed = if kind.is_dir() {
        if let Some(place) = mounts::is_mounted_below(path)? {
            return Err(VolumeError::StillMounted(place));
        }
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(VolumeError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
