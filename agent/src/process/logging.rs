//! Where log lines go and which: to standard error, filtered.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is a level or a list of `target=level`; `RUST_LOG`, where set, wins.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).with_context(|| format!("read RUST_LOG={text}"))?
        }
        _ => EnvFilter::try_new(filter).with_context(|| format!("read --log {filter}"))?,
    };
    // The client logs every failed call as an error; who made the call says it once, and when it is over.
    let filter = if filter.to_string().contains("kube_client") {
        filter
    } else {
        filter.add_directive("kube_client::client::builder=off".parse()?)
    };
    // The same holds for watches: who watches says what failed.
    let filter = if filter.to_string().contains("kube_runtime") {
        filter
    } else {
        filter.add_directive("kube_runtime::watcher=off".parse()?)
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk must not end the process: the default tells of a failed write by a print that panics when it fails.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
