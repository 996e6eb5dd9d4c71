//! A log file that grows and is moved away: where its last lines begin, reading on, and waiting for more.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::fs::File;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};

const CHUNK: usize = 32 * 1024;

/// An open log file.
pub(super) struct LogFile {
    file: File,
    inode: u64,
    /// Made at the first wait. `None` inside: the kernel gave us none, so we only look now and then.
    watch: Option<Option<AsyncFd<Watch>>>,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl LogFile {
    /// Opens the file at its beginning, or where its last `tail` lines begin.
    pub(super) async fn open(path: &Path, tail: Option<u64>) -> std::io::Result<Self> {
        let mut file = File::open(path).await?;
        file.set_max_buf_size(CHUNK);
        let inode = file.metadata().await?.ino();
        if let Some(lines) = tail {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        Ok(Self { file, inode, watch: None })
    }

    /// The next bytes; `None` at the end of what is there.
    pub(super) async fn read(&mut self) -> std::io::Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let read = self.file.read_buf(&mut buffer).await?;
        Ok((read > 0).then(|| buffer.freeze()))
    }

    /// After the end: if another file has taken the place of this one, and this one has been read out, goes on with that.
    pub(super) async fn follow_rotation(&mut self, path: &Path) -> std::io::Result<bool> {
        let at_path = match tokio::fs::metadata(path).await {
            Ok(metadata) => metadata.ino(),
            // Moved away, and the new one not made yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if at_path == self.inode {
            return Ok(false);
        }
        // The runtime may have written to the old one until it made the new one; the caller has read it to its end
        // before asking, which may have been too early.
        let position = self.file.stream_position().await?;
        if self.file.metadata().await?.len() > position {
            return Ok(true);
        }
        let Self { file, inode, .. } = Self::open(path, None).await?;
        (self.file, self.inode) = (file, inode);
        Ok(true)
    }

    /// Waits until something happens in the file's directory, at most for `limit`.
    pub(super) async fn changed(&mut self, path: &Path, limit: Duration) {
        let watch = self.watch.get_or_insert_with(|| Watch::new(path));
        let event = async {
            match watch {
                Some(watch) => {
                    if let Ok(mut ready) = watch.readable().await {
                        // Only that something happened matters; an empty queue is as good.
                        let _ = ready.get_inner().0.read_events();
                        ready.clear_ready();
                    }
                }
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout(limit, event).await;
    }
}

impl Watch {
    fn new(path: &Path) -> Option<AsyncFd<Self>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE;
        inotify.add_watch(path.parent()?, what).ok()?;
        // SAFETY: the descriptor is the inotify's own; it stays open and the same until the whole is dropped.
        unsafe { AsyncFd::register_with_interest(Self(inotify), Interest::READABLE) }.ok()
    }
}

/// Where the last `lines` lines of a file begin.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut position = end;
    let mut buffer = vec![0; CHUNK];
    while position > 0 {
        let start = position.saturating_sub(CHUNK as u64);
        let length = usize::try_from(position - start).unwrap_or(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut buffer[..length]).await?;
        for (offset, byte) in buffer[..length].iter().enumerate().rev() {
            let after = start + offset as u64 + 1;
            // The end of the last line begins no line.
            if *byte == b'\n' && after < end {
                found += 1;
                if found == lines {
                    return Ok(after);
                }
            }
        }
        position = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("0.log");
        let long = "x".repeat(CHUNK);
        let check = async |content: &str, lines: u64, expected: &str| {
            tokio::fs::write(&path, content).await.expect("writes");
            let mut file = LogFile::open(&path, Some(lines)).await.expect("opens");
            let mut got = Vec::new();
            while let Some(bytes) = file.read().await.expect("reads") {
                got.extend_from_slice(&bytes);
            }
            assert_eq!(String::from_utf8_lossy(&got), expected, "last {lines}");
        };
        check("", 3, "").await;
        check("a\nb\nc\n", 0, "").await;
        check("a\nb\nc\n", 2, "b\nc\n").await;
        check("a\nb\nc", 2, "b\nc").await;
        check("a\nb\n", 9, "a\nb\n").await;
        check("\n\n\n", 2, "\n\n").await;
        check(&format!("{long}\n{long}\nb\n"), 2, &format!("{long}\nb\n")).await;
    }
}
