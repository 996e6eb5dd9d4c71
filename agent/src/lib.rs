//! The node agent: one process per node.
//!
//! ```text
//!  API server --watch--> index --> core: desired --+
//!                                                  +--> core: plan (diff) --> actuate --> CRI, CNI, kernel maps
//!  CRI / kernel --list--> observe -> core: observed+                              |
//!  API server <--patch-- report <--- core: status <------- next observation <-----+
//! ```
//!
//! A module may import what lies to its left in its own row, and `pagurus-agent-core`. Only [`run`] sees everything.
//! Stopping the agent, however it happens, stops no container and closes no connection of a pod.

pub mod args;
pub mod config;

pub mod index;

pub mod observe;

pub mod dns;

pub mod actuate;

pub mod lb;

pub mod report;

pub mod serve;

pub mod cleanup;

pub mod inspect;

pub mod process;
pub mod run;
