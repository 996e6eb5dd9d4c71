//! Logs: lines on standard error, filtered by `RUST_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging; a second call does nothing.
pub fn start() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn,kube_runtime=warn,hyper=warn,rustls=warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk must not end the process: the default tells of a failed write by a print that panics when it fails.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .finish();
    // Fails only if a subscriber is set already, as in tests that run twice in a process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
