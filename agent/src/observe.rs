//! IN: what is really there. Reads, never changes.
