//! Mounts of volumes: memory file systems, and taking everything below a directory away again.
//! Reads what is mounted from the kernel each time; remembers nothing.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::VolumeError;

/// The bytes of a quantity.
pub(super) fn bytes(quantity: &Value) -> Option<i64> {
    Quantity::from_json(quantity).ok().map(|quantity| quantity.value())
}

/// Mounts a memory file system here unless there is one.
pub(super) fn tmpfs(path: &Path, size: Option<i64>, mode: u32) -> Result<(), VolumeError> {
    if mounted()?.iter().any(|place| place == path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options += &format!(",size={size}");
    }
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| VolumeError::io("mount tmpfs on", path)(error.into()))
}

/// Takes away every mount at or below this path, the deepest first. What is in use goes when its last user does.
pub(super) fn unmount_below(path: &Path) -> Result<(), VolumeError> {
    let mut below: Vec<PathBuf> = mounted()?.into_iter().filter(|place| place.starts_with(path)).collect();
    below.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
    for place in below {
        match umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(VolumeError::io("unmount", &place)(error.into())),
        }
    }
    Ok(())
}

/// Whether something is mounted at or below this path.
pub(super) fn is_mounted_below(path: &Path) -> Result<Option<PathBuf>, VolumeError> {
    Ok(mounted()?.into_iter().find(|place| place.starts_with(path)))
}

/// Where something is mounted, in the order of mounting; twice if mounted twice.
fn mounted() -> Result<Vec<PathBuf>, VolumeError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(path).map_err(VolumeError::io("read", path))?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\"), Path::new("/a\\"));
    }
}
