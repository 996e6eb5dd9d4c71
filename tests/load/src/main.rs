//! The load generator: measures API servers (`api`) and the embedded store (`store`) and writes a row of JSON for each figure
//! to standard output, what goes on to standard error. `cargo xtask bench` builds it, starts it and prints the table.
//!
//! It is a process of its own, so that what it uses is not counted as the server's.

mod api;
mod client;
mod drive;
mod kubeconfig;
mod objects;
mod ours;
mod process;
mod row;
mod store;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures API servers and the embedded store.
#[derive(Debug, Parser)]
#[command(name = "pagurus-load")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// API servers: rate, latency and the CPU time of the server's processes for each operation
    Api(api::Options),
    /// The embedded store: durable writes, reads, watches, opening
    Store(store::Options),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.what {
        What::Api(options) => runtime.block_on(api::run(options)),
        What::Store(options) => store::run(&runtime, &options),
    }
}
