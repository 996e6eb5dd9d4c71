//! The words every component shares: keys, quantities, selectors, statuses.
//!
//! Objects are plain `serde_json::Value`s; the modules here read and write the parts that mean the same in every
//! kind. Nothing in this crate does I/O, knows a kind's rules (but for what quotas count), or reads a clock other than
//! through [`time::now`].

pub mod ages;
pub mod conditions;
pub mod field;
pub mod formats;
pub mod go;
pub mod key;
pub mod labels;
pub mod owner;
pub mod quantity;
pub mod quota;
pub mod regexp;
pub mod selectors;
pub mod status;
pub mod time;
