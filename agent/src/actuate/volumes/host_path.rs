//! Checks that what is at a hostPath is what was wanted, and makes it where that was asked for.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use pagurus_agent_core::pods::spec::HostPath;

use super::{VolumeError, make_directory};

/// Checks, or makes, what is at this path. Blocks.
pub fn check(source: &HostPath) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    match source.kind.as_str() {
        "DirectoryOrCreate" => make_directory(path, 0o755)?,
        "FileOrCreate" if !path.exists() => {
            let made = fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path);
            made.map_err(VolumeError::io("make file", path))?;
        }
        _ => {}
    }
    let wanted = match source.kind.as_str() {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        other => return Err(VolumeError::Unsupported(format!("hostPath of type {other}"))),
    };
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    let fits = kind.is_ok_and(|kind| match wanted {
        "a directory" => kind.is_dir(),
        "a file" => kind.is_file(),
        "a socket file" => kind.is_socket(),
        "a character device" => kind.is_char_device(),
        _ => kind.is_block_device(),
    });
    if fits { Ok(()) } else { Err(VolumeError::HostPath { path: path.to_owned(), wanted }) }
}
