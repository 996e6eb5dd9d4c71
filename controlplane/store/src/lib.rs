//! Revisions and watches behind one trait, and the embedded store that implements it in one directory.
//!
//! The trait is the part of etcd v3 that an API server needs: read at a revision, compare-and-swap, watch from a
//! revision, compact. This crate must not know what a value means: no JSON, no kinds, no resources.

mod error;
mod revision;

pub mod embedded;

pub use error::{Error, Result};
pub use revision::{
    Batch, Compare, Current, Event, History, KeyValue, Op, Past, Range, RangeResult, Revision, Txn,
    TxnResult, WatchStream,
};

use async_trait::async_trait;

/// A key-value store with revisions. Every committed transaction that writes makes the next revision.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value of `key` now, or as it was at revision `at`.
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>>;

    /// The keys below a prefix in byte order, all as they were at one revision.
    async fn range(&self, range: Range) -> Result<RangeResult>;

    /// What is still known of the writes of `key` before revision `before` (`None`: of all), at most `limit` of them. The cost
    /// is that of what is returned.
    async fn history(&self, key: &str, before: Option<Revision>, limit: usize) -> Result<History>;

    /// Applies the operations if every comparison holds. When it returns `committed`, the operations are on disk.
    async fn txn(&self, txn: Txn) -> Result<TxnResult>;

    /// The changes below `prefix` with a revision of `from` or later, in order, each once.
    /// Fails with [`Error::Compacted`] when `from` is no longer kept.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream>;

    /// How far a reader fed by a watch on `prefix` must have come to know everything that was acknowledged before this
    /// call. A store that sends progress only when asked asks its watches here.
    async fn current(&self, prefix: &str) -> Result<Current>;

    /// The revision of the newest transaction.
    async fn revision(&self) -> Result<Revision>;

    /// Forgets what was overwritten or deleted up to `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;
}
