//! Binds a path inside a volume to a place of its own, for one container. A container that can write to the volume must
//! not be able to lead us out of it, by links or by moving things while we look: the kernel resolves the path below the
//! volume, and what it found is bound by its descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

use super::{VolumeError, make_directory};

/// Binds `path` inside `volume` to `target`; makes a directory of that path if there is nothing. Blocks.
pub fn bind(volume: &Path, path: &str, target: &Path) -> Result<(), VolumeError> {
    let inner = Path::new(path);
    let leaves = inner.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    if leaves {
        return Err(VolumeError::SubPath(path.to_owned()));
    }
    let root = open_root(volume)?;
    let found = resolve(root.as_fd(), inner).map_err(|error| match error.raw_os_error() {
        Some(libc::EXDEV | libc::ELOOP) => VolumeError::SubPath(path.to_owned()),
        _ => VolumeError::io("open subPath", &volume.join(inner))(error),
    })?;
    let is_directory = nix::sys::stat::fstat(&found)
        .map(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
        .map_err(|error| VolumeError::io("stat subPath", &volume.join(inner))(error.into()))?;
    place(target, is_directory)?;
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| VolumeError::io("bind subPath to", target)(error.into()))
}

fn open_root(volume: &Path) -> Result<OwnedFd, VolumeError> {
    nix::fcntl::open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| VolumeError::io("open volume", volume)(error.into()))
}

/// An empty file or directory to mount on, with nothing mounted on it.
fn place(target: &Path, is_directory: bool) -> Result<(), VolumeError> {
    while let Ok(()) = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {}
    if is_directory {
        return make_directory(target, 0o750);
    }
    if let Some(parent) = target.parent() {
        make_directory(parent, 0o750)?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(target)
        .map(drop)
        .map_err(VolumeError::io("make file", target))
}

/// What is at this path below the root; directories that are missing are made, one by one.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match beneath(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut done = std::path::PathBuf::new();
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        let parent = beneath(root, if done.as_os_str().is_empty() { Path::new(".") } else { &done })?;
        done.push(part);
        match mkdirat(&parent, Path::new(part.as_os_str()), Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    beneath(root, path)
}

fn beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, name.as_c_str(), how)?)
}
