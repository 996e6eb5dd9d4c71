//! The store's log reader: whatever is in the files after a crash, opening them is a store or a clear error, and a store that opens
//! can be written and opens again as it was.
//!
//! Input: records of well formed frames (two bytes of length before each), then bytes as they are: a torn end. The check sums are made
//! here, so that what lies behind them is met at all.

use bytes::Bytes;
use pagurus_controlplane_store::embedded::{Options, Store};
use pagurus_controlplane_store::{Range, RangeResult, Store as _, Txn};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The files of a store with one write in it.
struct Template {
    format: Vec<u8>,
    log_name: String,
    log: Vec<u8>,
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let directory = directory();
        drop(write(&open(directory.path()).expect("an empty directory becomes a store")));
        let log = std::fs::read_dir(directory.path()).expect("the store's directory");
        let name =
            |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let log = log
            .filter_map(|e| Some(e.ok()?.path()))
            .find(|path| name(path).starts_with("log-"))
            .expect("a log");
        let read = |path: &Path| std::fs::read(path).expect("a file of the store");
        Template { format: read(&directory.path().join("format")), log_name: name(&log), log: read(&log) }
    })
}

/// In memory, where the machine has such a place: nothing here is to survive.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

fn open(path: &Path) -> pagurus_controlplane_store::Result<Store> {
    Store::open(path, Options::default())
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

fn all(store: &Store) -> RangeResult {
    block(store.range(Range::below(""))).expect("what a store has opened can be read")
}

fn write(store: &Store) -> RangeResult {
    let before = all(store).kvs.into_iter().find(|kv| kv.key == "/new").map_or(0, |kv| kv.mod_revision);
    let done = block(store.txn(Txn::put_if("/new", before, Bytes::from_static(b"x")))).expect("a write");
    assert!(done.committed, "nobody else writes");
    all(store)
}

/// The frame around some records.
fn frame(records: &[u8]) -> Vec<u8> {
    let mut frame = b"PGRf".to_vec();
    frame.extend((records.len() as u32).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&frame);
    sum.update(records);
    frame.extend(sum.finalize().to_le_bytes());
    frame.extend_from_slice(records);
    frame
}

/// See the module.
pub(crate) fn store_log(data: &[u8]) {
    let template = template();
    let (mut log, mut rest) = (template.log.clone(), data);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let Some((records, after)) = after.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
            break;
        };
        log.extend(frame(records));
        rest = after;
    }
    log.extend_from_slice(rest);
    let directory = directory();
    let put = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).expect("a file");
    put("format", &template.format);
    put(&template.log_name, &log);
    let Ok(store) = open(directory.path()) else { return };
    let found = all(&store);
    assert!(
        found.kvs.iter().any(|kv| kv.key == "/new") || !data.is_empty(),
        "what was acknowledged is there"
    );
    let written = write(&store);
    drop(store);
    let again = open(directory.path()).expect("a store that was open opens again");
    assert_eq!(all(&again), written, "a store after opening it again");
}

pub(crate) fn store_log_seeds() -> Vec<Vec<u8>> {
    let write = |key: &str, created: u64, modified: u64, version: u64, value: &[u8]| {
        let mut out = Vec::new();
        [created, modified, version].iter().for_each(|number| out.extend(number.to_le_bytes()));
        out.extend((key.len() as u32).to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
        out
    };
    let txn = |revision: u64, writes: &[Vec<u8>]| {
        let mut out = vec![1];
        out.extend(revision.to_le_bytes());
        out.extend((writes.len() as u64).to_le_bytes());
        writes.iter().for_each(|write| out.extend_from_slice(write));
        out
    };
    let framed = |records: &[u8]| [&(records.len() as u16).to_le_bytes()[..], records].concat();
    let next = template_revision() + 1;
    let first = txn(next, &[write("/a", next, next, 1, b"value"), write("/new", next - 1, next, 2, b"y")]);
    let second = txn(next + 1, &[write("/a", 0, next + 1, 0, b"")]);
    let compacted = [&[2][..], &next.to_le_bytes()].concat();
    vec![
        framed(&first),
        [framed(&first), framed(&second), framed(&compacted)].concat(),
        framed(&[first.clone(), second.clone(), compacted].concat()),
        [framed(&first), b"PGRf\x20\0\0\0torn".to_vec()].concat(),
    ]
}

fn template_revision() -> u64 {
    let directory = directory();
    let store = open(directory.path()).expect("an empty directory becomes a store");
    write(&store).revision
}
