//! CRI v1: generated types, the runtime as a trait, a client over a unix socket, and (feature `fake`) a fake runtime.
//!
//! Generated types go no further than the edge of the crate that uses them: an agent translates them into its own
//! words in its `observe` and `actuate` layers. This crate must not know pods, plans or the Kubernetes API.

pub mod client;
pub mod error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod runtime;
pub mod v1;

pub use client::Client;
pub use error::{Error, Result};
pub use runtime::Runtime;
