//! The last words of a container: the file that it may have written, or the end of its log. Must not know pods.

use std::path::Path;

use pagurus_agent_core::names::runtime as labels;
use pagurus_cri_api::v1;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// The most that is kept of the file.
const MAX_FILE: u64 = 4096;
/// The most that is kept of the log, in bytes and in lines.
const MAX_LOG: u64 = 2048;
const MAX_LINES: usize = 80;

/// What this container, which has ended, had to say.
pub async fn of(status: &v1::ContainerStatus) -> String {
    let path = status.annotations.get(labels::TERMINATION_MESSAGE_PATH);
    let mount = status.mounts.iter().find(|mount| Some(&mount.container_path) == path);
    let written = match mount {
        Some(mount) => tail(Path::new(&mount.host_path), MAX_FILE).await,
        None => String::new(),
    };
    let policy = status.annotations.get(labels::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    if !written.is_empty() || status.exit_code == 0 {
        return if written.is_empty() { status.message.clone() } else { written };
    }
    if policy == Some("FallbackToLogsOnError") && !status.log_path.is_empty() {
        // A line of the log is longer than what it logs; twice as much is enough for the end.
        let log = tail(Path::new(&status.log_path), MAX_LOG * 2).await;
        let words = logged(&log);
        if !words.is_empty() {
            return words;
        }
    }
    status.message.clone()
}

/// The last so many bytes of a file; nothing if it cannot be read.
async fn tail(path: &Path, most: u64) -> String {
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(most))).await?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read.await.unwrap_or_else(|error| {
        tracing::debug!(path = %path.display(), %error, "no last words");
        String::new()
    })
}

/// What was logged, without times and streams: lines are `TIME STREAM P|F TEXT`.
fn logged(log: &str) -> String {
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    let kept = &lines[lines.len().saturating_sub(MAX_LINES)..];
    let mut out = String::new();
    for line in kept {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some(_), Some(flag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        out += if flag.starts_with('P') { text.trim_end_matches('\n') } else { text };
    }
    let excess = out.len().saturating_sub(usize::try_from(MAX_LOG).unwrap_or(usize::MAX));
    let start = (excess..out.len()).find(|at| out.is_char_boundary(*at)).unwrap_or(out.len());
    out.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_lose_their_heads() {
        let log = "cut off\n2024-01-01T00:00:00Z stdout F one two\n2024-01-01T00:00:00Z stderr P th\n2024-01-01T00:00:00Z stderr F ree\n";
        // The first line has too few words to be one.
        assert_eq!(logged(log), "one two\nthree\n");
    }

    #[test]
    fn only_the_end_is_kept() {
        let log = "t stdout F ä\n".repeat(2000);
        let words = logged(&log);
        assert!(words.len() <= 2048 && words.ends_with("ä\n"));
        assert_eq!(words.lines().count(), MAX_LINES);
    }
}
