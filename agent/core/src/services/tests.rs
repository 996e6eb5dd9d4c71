//! Compiling Services: rows of Service and slices, and where their frontends lead.
#![allow(clippy::unwrap_used, reason = "tests")]
