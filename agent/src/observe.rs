//! IN: what is really there. Reads, never changes.

pub mod machine;

pub mod containers;
pub mod devices;
mod last_words;
pub(crate) mod netlink;
pub mod pods;
pub mod rivals;
