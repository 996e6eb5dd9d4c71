//! Files that are not as they were written: what is cut, what is refused and with which words.

use std::fs;
use std::path::{Path, PathBuf};

use super::{open, options, put, write};
use crate::embedded::Store;
use crate::{Range, RangeResult, Store as _};

/// The newest log.
fn log(path: &Path) -> PathBuf {
    let names = fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    names.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("log-")).max().unwrap()
}

async fn all(path: &Path) -> RangeResult {
    open(path).range(Range::below("")).await.unwrap()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn refusal(path: &Path) -> String {
    Store::open(path, options()).unwrap_err().to_string()
}

/// A store whose newest log holds two frames; the places where the second begins and ends, and the state after the first.
async fn two_frames() -> (tempfile::TempDir, usize, usize, RangeResult) {
    let dir = tempfile::tempdir().unwrap();
    let big = crate::embedded::Options { log_size: 1 << 20, ..options() };
    let store = Store::open(dir.path(), big.clone()).unwrap();
    write(&store, vec![put("/a", "first"), put("/b", "first")]).await;
    drop(store);
    let begins = fs::metadata(log(dir.path())).unwrap().len() as usize;
    let before = all(dir.path()).await;
    let store = Store::open(dir.path(), big).unwrap();
    write(&store, vec![put("/a", "second"), crate::Op::Delete { key: "/b".into() }]).await;
    drop(store);
    let ends = fs::metadata(log(dir.path())).unwrap().len() as usize;
    (dir, begins, ends, before)
}

#[tokio::test]
async fn an_unfinished_end_is_cut_wherever_it_was_torn() {
    let (dir, begins, ends, before) = two_frames().await;
    let bytes = fs::read(log(dir.path())).unwrap();
    for end in begins..ends {
        let torn = copy(dir.path());
        fs::write(log(torn.path()), &bytes[..end]).unwrap();
        assert_eq!(all(torn.path()).await, before, "cut at byte {end}");
        assert_eq!(fs::metadata(log(torn.path())).unwrap().len() as usize, begins);
        // What is written next has the torn one's place.
        let store = open(torn.path());
        write(&store, vec![put("/c", "x")]).await;
        drop(store);
        assert_eq!(all(torn.path()).await.kvs.len(), 3);
    }
    // Pages that came to the disk out of order: zeros or other bytes in the middle of the last frame.
    for at in begins..ends {
        let torn = copy(dir.path());
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        fs::write(log(torn.path()), &bytes).unwrap();
        assert_eq!(all(torn.path()).await, before, "byte {at}");
    }
}

#[tokio::test]
async fn zeros_that_were_prepared_are_no_damage() {
    let (dir, begins, ends, before) = two_frames().await;
    let bytes = fs::read(log(dir.path())).unwrap();
    let after = all(dir.path()).await;
    for zeros in [1, 11, 12, 500] {
        // The process was killed between two frames.
        let killed = copy(dir.path());
        fs::write(log(killed.path()), [&bytes[..], &vec![0; zeros]].concat()).unwrap();
        assert_eq!(all(killed.path()).await, after, "{zeros} zeros");
        // What is written next takes the place of the zeros, and those that are left are cut off in the end.
        let store = open(killed.path());
        write(&store, vec![put("/c", "x")]).await;
        drop(store);
        let length = fs::metadata(log(killed.path())).unwrap().len();
        assert_eq!(all(killed.path()).await.kvs.len(), after.kvs.len() + 1);
        assert_eq!(fs::metadata(log(killed.path())).unwrap().len(), length);
        // Killed within a frame.
        for end in [begins + 1, (begins + ends) / 2, ends - 1] {
            let torn = copy(dir.path());
            fs::write(log(torn.path()), [&bytes[..end], &vec![0; zeros]].concat()).unwrap();
            assert_eq!(all(torn.path()).await, before, "cut at byte {end}, {zeros} zeros");
        }
    }
}

#[tokio::test]
async fn a_log_without_header_was_never_used() {
    let (dir, ..) = two_frames().await;
    let before = all(dir.path()).await;
    let next = dir.path().join(format!("log-{:020}", 4));
    for half in [&b""[..], b"PAGURUSL", &[0; 36]] {
        fs::write(&next, half).unwrap();
        assert_eq!(all(dir.path()).await, before);
        assert!(!next.exists());
    }
}

#[tokio::test]
async fn damage_is_refused() {
    let (dir, begins, _, _) = two_frames().await;
    let path = log(dir.path());
    let bytes = fs::read(&path).unwrap();
    // Within the first frame, behind which another one is whole.
    for at in 36..begins {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let text = refusal(dir.path());
        assert_eq!(
            text,
            format!(
                "{}: the log is damaged at byte 36; restore the data directory from a copy",
                path.display()
            )
        );
    }
    let mut broken = bytes.clone();
    broken[24] ^= 1;
    fs::write(&path, &broken).unwrap();
    assert_eq!(refusal(dir.path()), format!("{}: the header is damaged (check sum)", path.display()));
    fs::remove_file(&path).unwrap();
    drop(open(dir.path()));
}

#[tokio::test]
async fn missing_files_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..100 {
        write(&store, vec![put(&format!("/k{}", i % 10), vec![b'x'; 50])]).await;
    }
    drop(store);
    let mut logs: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|p| p.to_string_lossy().contains("log-"));
    logs.sort();
    for gone in [&logs[0], &logs[3]] {
        let damaged = copy(dir.path());
        let gone = damaged.path().join(gone.file_name().unwrap());
        fs::remove_file(&gone).unwrap();
        let text = refusal(damaged.path());
        assert!(text.starts_with(gone.to_str().unwrap()), "{text}");
        assert!(text.contains("is missing"), "{text}");
    }
    let store = open(dir.path());
    store.compact(90).await.unwrap();
    crate::embedded::maintain::shrink(&store.shared).unwrap();
    drop(store);
    let snapshot = dir.path().join(format!("snapshot-{:020}", 90));
    let whole = fs::read(&snapshot).unwrap();
    for bytes in [&whole[..whole.len() - 1], &whole[..40], &[&whole[..], b"x"].concat()] {
        fs::write(&snapshot, bytes).unwrap();
        let text = refusal(dir.path());
        assert!(text.starts_with(snapshot.to_str().unwrap()) && text.contains("damaged"), "{text}");
    }
    fs::remove_file(&snapshot).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("log-00000000000000000002: the log with this revision is missing"), "{text}");
}

#[test]
fn foreign_directories_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("letter.txt");
    fs::write(&file, "dear").unwrap();
    let text = refusal(dir.path());
    assert!(text.starts_with(&format!("{}: is in the way", file.display())), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made in it");

    let dir = tempfile::tempdir().unwrap();
    let format = dir.path().join("format");
    for (content, expected) in [
        ("something else", "does not describe a pagurus store"),
        ("pagurus-store 7 0000000000000001\n", "of another version (format 7, this program reads format 1)"),
        ("pagurus-store 1 zz\n", "the store's number is damaged"),
    ] {
        fs::write(&format, content).unwrap();
        let text = refusal(dir.path());
        assert!(text.starts_with(format.to_str().unwrap()) && text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn files_of_two_stores_do_not_mix() {
    let (one, two) = (two_frames().await.0, two_frames().await.0);
    fs::copy(log(one.path()), log(two.path())).unwrap();
    assert!(refusal(two.path()).ends_with("belongs to another store"));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let text = refusal(dir.path());
    assert_eq!(
        text,
        format!("{} is locked: another process uses this data directory", dir.path().join("lock").display())
    );
    drop(store);
    drop(open(dir.path()));
}
