//! The socket on which the CNI plugin asks for commands: one call and one reply for each connection.
//!
//! Must not know: what a command does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pagurus_cni::Network;
use pagurus_cni::client::{MAX_MESSAGE, Reply};
use pagurus_cni::request::Call;
use pagurus_cni::spec::{DECODING_FAILURE, Error, IO_FAILURE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Commands carried out at once; more wait.
const AT_ONCE: usize = 16;
/// How long a plugin may take to send its call.
const CALL_TIME: Duration = Duration::from_secs(10);

/// Binds the socket, in place of one that an earlier agent left.
pub(super) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    if path.symlink_metadata().is_ok() {
        ensure!(
            std::os::unix::net::UnixStream::connect(path).is_err(),
            "another agent answers at {}; stop it, or give another --cni-socket",
            path.display()
        );
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    // Whoever may connect may rewire every pod.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answers calls until cancelled, signalling `changed` after each that may have connected or disconnected something; a command that has begun is finished.
pub(super) async fn run(
    listener: UnixListener,
    network: Arc<Network>,
    changed: Arc<Notify>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    calls.spawn(answer(stream, network.clone(), changed.clone(), slots.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a call of the CNI plugin");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = calls.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a CNI command panicked");
                }
            }
            () = cancel.cancelled() => break,
        }
    }
    while calls.join_next().await.is_some() {}
    Ok(())
}

async fn answer(mut stream: UnixStream, network: Arc<Network>, changed: Arc<Notify>, slots: Arc<Semaphore>) {
    let reply = match tokio::time::timeout(CALL_TIME, read(&mut stream)).await {
        Ok(Ok(call)) => {
            let _slot = slots.acquire().await;
            let changes = matches!(call.command.as_str(), "ADD" | "DEL" | "GC");
            let reply = carry_out(network, call).await;
            if changes {
                changed.notify_one();
            }
            reply
        }
        Ok(Err(error)) => Reply::Failed(error),
        Err(_) => Reply::Failed(Error::new(IO_FAILURE, "the call did not come in time")),
    };
    let bytes = match serde_json::to_vec(&reply) {
        Ok(bytes) => bytes,
        Err(error) => return tracing::error!(%error, "encode the reply to the CNI plugin"),
    };
    if let Err(error) = stream.write_all(&bytes).await {
        // The runtime has given up; it will call DEL or ADD again.
        tracing::debug!(%error, "the CNI plugin did not wait for its reply");
    }
}

async fn read(stream: &mut UnixStream) -> Result<Call, Error> {
    let mut bytes = Vec::new();
    let read = stream.take(MAX_MESSAGE).read_to_end(&mut bytes).await;
    read.map_err(|error| Error::new(IO_FAILURE, format!("read the call: {error}")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(DECODING_FAILURE, format!("read the call: {error}")))
}

async fn carry_out(network: Arc<Network>, call: Call) -> Reply {
    let (command, container) = (call.command.clone(), call.container_id.clone());
    let started = tokio::time::Instant::now();
    let outcome = tokio::task::spawn_blocking(move || network.handle(&call)).await;
    let elapsed_ms = started.elapsed().as_millis();
    match outcome {
        Ok(Ok(result)) => {
            tracing::debug!(command, container, elapsed_ms, "CNI command done");
            Reply::Done(result)
        }
        Ok(Err(error)) => {
            tracing::warn!(command, container, elapsed_ms, code = error.code, %error, "CNI command failed");
            Reply::Failed(error)
        }
        Err(panic) => Reply::Failed(Error::new(IO_FAILURE, format!("the command panicked: {panic}"))),
    }
}

#[cfg(test)]
mod tests {
    use pagurus_cni::client;
    use pagurus_cni::spec::{INVALID_ENVIRONMENT, NOT_AVAILABLE, TRY_AGAIN_LATER};
    use serde_json::json;

    use super::*;

    fn call(command: &str) -> Call {
        let config = json!({ "cniVersion": "1.1.0", "name": "pagurus", "type": "pagurus-cni" });
        Call { command: command.into(), config, ..Call::default() }
    }

    async fn ask(socket: &Path, call: Call) -> Result<Option<serde_json::Value>, Error> {
        let socket = socket.display().to_string();
        tokio::task::spawn_blocking(move || client::forward(&socket, &call)).await.expect("no panic")
    }

    #[tokio::test]
    async fn calls_are_answered_and_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("run/cni.sock");
        assert_eq!(ask(&socket, call("ADD")).await.expect_err("nobody there").code, TRY_AGAIN_LATER);
        assert_eq!(ask(&socket, call("STATUS")).await.expect_err("nobody there").code, NOT_AVAILABLE);
        drop(bind(&socket).expect("bind"));
        let network = Arc::new(Network::open(&folder.path().join("state")).expect("open"));
        let listener = bind(&socket).expect("in place of the stale one");
        assert!(bind(&socket).is_err(), "a second agent");
        let cancel = CancellationToken::new();
        let server = tokio::spawn(run(listener, network, Arc::default(), cancel.clone()));
        let versions = ask(&socket, call("VERSION")).await.expect("an answer").expect("a result");
        assert_eq!(versions["cniVersion"], "1.1.0");
        assert_eq!(ask(&socket, call("STATUS")).await.expect_err("no ranges").code, NOT_AVAILABLE);
        assert_eq!(ask(&socket, call("JUMP")).await.expect_err("no command").code, INVALID_ENVIRONMENT);
        cancel.cancel();
        server.await.expect("no panic").expect("a clean end");
    }
}
