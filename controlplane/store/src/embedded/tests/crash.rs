//! Processes that are killed while they write, and disks that fill up: what was acknowledged is there afterwards.
//!
//! The writing process is this test binary again, running one of the `child_*` tests, which do nothing otherwise.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{options, put};
use crate::embedded::{Options, Store};
use crate::{Error, Range, Revision, Store as _, Txn};

const DIRECTORY: &str = "PAGURUS_STORE_TEST_DIRECTORY";

fn child(test: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embedded::tests::crash::{test}"), "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes without end: eight tasks, each a key of its own and now and then a shared one, and tells what was acknowledged.
#[test]
#[ignore = "the process that `acknowledged_writes_survive_kill` kills"]
fn child_writes_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = Options {
        log_size: 64 << 10,
        snapshot_after: 64 << 10,
        max_history: 500,
        tick: Duration::from_millis(5),
        ..options()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(directory, options).unwrap());
        let tasks = (0..8).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for count in 0_u64.. {
                    let key = format!("/t{task}/{}", count % 50);
                    let value = format!("{key}:{count}:{}", "x".repeat((count % 700) as usize));
                    let txn = Txn {
                        ops: vec![put(&key, value.clone()), put(&format!("/shared/{task}"), value.clone())],
                        ..Txn::default()
                    };
                    let result = store.txn(txn).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ok {} {key} {value}", result.revision).unwrap();
                    out.flush().unwrap();
                }
            })
        });
        futures::future::join_all(tasks).await;
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, (Revision, String)> = HashMap::new();
    let mut newest = 1;
    for round in 0..6 {
        let mut child = child("child_writes_until_killed", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in &mut lines {
            // The last line may be half written.
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split(' ').collect();
            let ["ok", revision, key, value] = words[..] else { continue };
            if !value.starts_with(&format!("{key}:")) {
                continue;
            }
            let revision: Revision = revision.parse().unwrap();
            newest = newest.max(revision);
            let known = acknowledged.entry(key.to_owned()).or_default();
            if revision > known.0 {
                *known = (revision, value.to_owned());
            }
            seen += 1;
            if seen == 300 + 211 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 300, "the writer ended early: {seen}");
        check(dir.path(), &acknowledged, newest).await;
    }
}

async fn check(path: &Path, acknowledged: &HashMap<String, (Revision, String)>, newest: Revision) {
    let store = Store::open(path, options()).unwrap();
    let all = store.range(Range::below("/")).await.unwrap();
    assert!(all.revision >= newest);
    let found: HashMap<_, _> = all.kvs.iter().map(|kv| (kv.key.as_str(), kv)).collect();
    for (key, (revision, value)) in acknowledged {
        let kv = found.get(key.as_str()).unwrap_or_else(|| panic!("{key} of revision {revision} is lost"));
        assert!(kv.mod_revision >= *revision, "{key} fell back to {}", kv.mod_revision);
        if kv.mod_revision == *revision {
            assert_eq!(&*kv.value, value.as_bytes(), "{key}");
        }
        // Both keys of a transaction or none.
        let task = key.split('/').nth(1).unwrap().trim_start_matches('t');
        assert!(found[format!("/shared/{task}").as_str()].mod_revision >= *revision);
    }
}

/// Writes until the file size limit is reached, then on with what fits.
#[test]
#[ignore = "the process that `a_full_disk_refuses_and_loses_nothing` starts"]
fn child_fills_the_disk() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    // A limit on the size of files fails writes as a full disk does, and needs no privileges.
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: plain system calls on this process; the pointer is to a live value.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&directory, Options { log_size: 1 << 30, ..options() }).unwrap();
        let mut refused = 0;
        for count in 0.. {
            let length = if refused == 0 { 3000 } else { 10 };
            let key = format!("/k{count}");
            match store.txn(Txn::put_if(&key, 0, vec![b'x'; length].into())).await {
                Ok(result) => println!("ok {} {key} {length}", result.revision),
                Err(error @ Error::DiskFull { .. }) => {
                    println!("refused {error}");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            if refused > 0 && count % 5 == 0 {
                break;
            }
        }
    });
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = child("child_fills_the_disk", dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    let lines =
        |word: &str| text.lines().filter(|l| l.starts_with(word)).map(str::to_owned).collect::<Vec<_>>();
    let (accepted, refused) = (lines("ok "), lines("refused "));
    assert!(refused[0].contains("no space left for") && refused[0].contains("log-"), "{refused:?}");
    assert!(accepted.last().unwrap().ends_with(" 10"), "small writes go on: {accepted:?}");
    let store = Store::open(dir.path(), options()).unwrap();
    let all = store.range(Range::below("/")).await.unwrap();
    let found = all.kvs.iter().map(|kv| format!("ok {} {} {}", kv.mod_revision, kv.key, kv.value.len()));
    let (mut found, mut accepted) = (found.collect::<Vec<_>>(), accepted);
    found.sort();
    accepted.sort();
    assert_eq!(found, accepted);
}
