//! The control plane binary: API server, scheduler and controllers in one process.
//!
//! Modules in reading order: what the user typed (`args`), what it means (`config`), the directory all state lives in
//! (`data_dir`), the keys and certificates made in it (`pki`, `kubeconfig`), the sockets (`sockets`), how scheduler and
//! controllers reach the API server (`client`), and the composition root (`run`). Only `run` sees everything.

pub mod apiserver;
pub mod args;
pub mod client;
pub mod config;
pub mod data_dir;
pub mod kubeconfig;
pub mod logging;
pub mod memory;
pub mod pki;
pub mod run;
pub mod shutdown;
pub mod sockets;
