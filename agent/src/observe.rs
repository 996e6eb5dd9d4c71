//! IN: what is really there. Reads, never changes.

pub mod machine;

pub mod containers;
mod last_words;
pub mod pods;
