//! The words of the store: revisions, versions of keys, ranges, transactions, events. No behaviour beyond that.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

use crate::Result;

/// A point in the history of the whole store. The empty store is at revision 1; each writing transaction adds one.
pub type Revision = u64;

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision that made the key.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How often the key was written since it was made, starting with 1.
    pub version: u64,
}

/// What to read: keys below `prefix`, from `start` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys that are not before this one (a whole key, prefix included).
    pub start: Option<String>,
    /// At most this many keys; 0 means all.
    pub limit: usize,
    /// The revision to read at; `None` means now.
    pub at: Option<Revision>,
}

impl Range {
    /// All keys below `prefix`, now.
    pub fn below(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys, in byte order.
    pub kvs: Vec<KeyValue>,
    /// The revision that was read.
    pub revision: Revision,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys there are from `start` on, the ones cut off included.
    pub count: usize,
}

/// A condition of a transaction: the last revision that wrote `key` is `mod_revision`, 0 for a key that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// The revision it must have been written at.
    pub mod_revision: Revision,
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// Removes a key; removing one that is not there does nothing.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Comparisons and what to do when they all hold. A key may be written once in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Done when they hold.
    pub ops: Vec<Op>,
    /// Keys to read when they do not.
    pub otherwise: Vec<String>,
    /// What the writer has to say of its writes. Only [`crate::Store::history`] tells it, for as long as it knows them.
    pub note: Bytes,
}

impl Txn {
    /// Writes `key` if its last write was at `mod_revision` (0: if it is not there).
    pub fn put_if(key: impl Into<String>, mod_revision: Revision, value: Bytes) -> Self {
        let key = key.into();
        Self {
            compares: vec![Compare { key: key.clone(), mod_revision }],
            otherwise: vec![key.clone()],
            ops: vec![Op::Put { key, value }],
            note: Bytes::new(),
        }
    }

    /// Removes `key` if its last write was at `mod_revision`.
    pub fn delete_if(key: impl Into<String>, mod_revision: Revision) -> Self {
        let key = key.into();
        Self {
            compares: vec![Compare { key: key.clone(), mod_revision }],
            otherwise: vec![key.clone()],
            ops: vec![Op::Delete { key }],
            note: Bytes::new(),
        }
    }

    /// The same with a note.
    pub fn noted(self, note: impl Into<Bytes>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the comparisons held and the operations are on disk.
    pub committed: bool,
    /// The revision of the transaction, or the store's when nothing was written.
    pub revision: Revision,
    /// The keys of `otherwise`, in its order, when the comparisons did not hold.
    pub found: Vec<Option<KeyValue>>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put(KeyValue),
    /// The key was removed.
    Delete {
        /// The key.
        key: String,
        /// The revision that removed it.
        mod_revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(kv) => kv.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

/// Changes that a watch delivers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in the order of their revisions; empty for mere progress.
    pub events: Vec<Event>,
    /// Everything up to this revision has been delivered.
    pub revision: Revision,
}

/// See [`crate::Store::watch`]. Ends after the first error.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch>> + Send>>;

/// See [`crate::Store::current`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The store's revision.
    pub store: Revision,
    /// No change below the prefix lies after this revision and up to `store`.
    pub prefix: Revision,
}

/// A write as the history knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The write.
    pub event: Event,
    /// What its writer said of it, see [`Txn::note`]; empty if nothing.
    pub note: Bytes,
}

/// What is kept of the writes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The writes, the newest first.
    pub writes: Vec<Past>,
    /// Whether there are older ones that the limit cut off.
    pub more: bool,
    /// What was overwritten or deleted up to this revision is forgotten.
    pub compacted: Revision,
}
