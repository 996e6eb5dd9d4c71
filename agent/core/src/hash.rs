//! Hash tables for what there is very much of. Their hasher costs a fraction of the standard library's, which withstands keys that are
//! chosen by somebody who sees how long look-ups take; these keys are names and addresses that users of the API chose.
//!
//! Must not know: what is in them.

use foldhash::fast::RandomState;

/// A map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A set.
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
