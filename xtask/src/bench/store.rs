//! The figures of the embedded store.
//!
//! Must not know: how they are measured; that is `tests/load`.

use super::{Row, load};
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// Flags of `bench store`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Durable writes (1 kB values) of 1 and 64 writers beside the disk's own sync, measured in the same directory; reads, events to 50 \
watches, opening.

Example:
  cargo xtask bench store --dir /var/lib --json figures.json")]
pub struct Options {
    /// A directory on the disk to measure; a new one in it is used and removed [default: the current one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Two short rounds of each and a tenth of the objects: only to see that it works
    #[arg(long)]
    quick: bool,
}

/// Measures.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    let mut arguments = vec!["store".to_owned()];
    if let Some(dir) = &options.dir {
        arguments.extend(["--dir".to_owned(), dir.to_str().context("--dir is not UTF-8")?.to_owned()]);
    }
    arguments.extend(options.quick.then(|| "--quick".to_owned()));
    load::run(&[], &arguments)
}
