//! Connections: messages with their lengths before them, several at once, answered in whatever order they are ready.
//!
//! Must not know: what is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::server::{Attempt, Server};

/// Connections at once; more wait to be accepted. One client's beyond its share are closed.
const CONNECTIONS: usize = 256;
const CONNECTIONS_OF_ONE: usize = 64;
/// Questions of one connection that are being answered at once.
const PIPELINED: usize = 16;
/// A connection on which no question is finished, and none is being answered, for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(5);
/// The room of a message.
const LIMIT: Option<usize> = Some(u16::MAX as usize);

/// Answers on every connection until cancelled. Questions that have been read by then are answered.
pub(super) async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    let clients = Clients::new(CONNECTIONS_OF_ONE);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a DNS connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = cancel.cancelled() => break,
        };
        let Some(share) = clients.enter(peer.ip().to_canonical()) else { continue };
        let (server, cancel) = (server.clone(), cancel.clone());
        connections.spawn(async move {
            let _share = share;
            if let Err(error) = connection(stream, &server, &cancel).await {
                tracing::debug!(%error, "a DNS connection broke");
            }
        });
    }
    let _ = timeout(super::GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

async fn connection(
    mut stream: TcpStream,
    server: &Server,
    cancel: &CancellationToken,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut own = server.memory();
    let mut received = BytesMut::with_capacity(1024);
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    let mut out = Vec::new();
    let mut idle = tokio::time::Instant::now() + IDLE;
    loop {
        while waiting.len() < PIPELINED
            && let Some(message) = take_message(&mut received)
        {
            let arrived = Instant::now();
            idle = tokio::time::Instant::now() + IDLE;
            out.clear();
            match server.try_answer(&message, LIMIT, &mut own, &mut out) {
                Attempt::Answered => {
                    server.metrics.latency.observe(arrived.elapsed().as_secs_f64());
                    write(&mut stream, &out).await?;
                }
                // Who sends what is no question over a connection does not speak DNS.
                Attempt::Dropped => return Ok(()),
                Attempt::Later => {
                    waiting.push(async move { server.answer_later(&message, LIMIT, arrived).await });
                }
            }
        }
        if !is_open && waiting.is_empty() {
            return Ok(());
        }
        tokio::select! {
            read = timeout_at(idle, stream.read_buf(&mut received)), if is_open && waiting.len() < PIPELINED => match read {
                Ok(Ok(0)) => is_open = false,
                Ok(read) => drop(read?),
                Err(_) if waiting.is_empty() => return Ok(()),
                Err(_) => idle = tokio::time::Instant::now() + IDLE,
            },
            Some(answer) = waiting.next() => {
                write(&mut stream, &answer).await?;
                idle = tokio::time::Instant::now() + IDLE;
            }
            () = cancel.cancelled(), if is_open => is_open = false,
        }
    }
}

/// The next whole message.
fn take_message(received: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes([*received.first()?, *received.get(1)?]));
    if received.len() < 2 + length {
        received.reserve(2 + length - received.len());
        return None;
    }
    received.advance(2);
    Some(received.split_to(length))
}

async fn write(stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
    if length == 0 {
        return Ok(());
    }
    let framed = [&length.to_be_bytes()[..], answer].concat();
    timeout(WRITE, stream.write_all(&framed))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_pieces() {
        let mut received = BytesMut::new();
        let mut taken = Vec::new();
        for byte in [0, 2, 1, 2, 0, 0, 0, 1, 9, 0] {
            received.extend_from_slice(&[byte]);
            taken.extend(take_message(&mut received).map(|message| message.to_vec()));
        }
        assert_eq!(taken, [vec![1, 2], vec![], vec![9]]);
        assert_eq!(received.len(), 1);
    }
}
