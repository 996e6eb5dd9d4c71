//! Port-forward in the `channel.k8s.io` way: the ports stand in the query, each has a channel for data and one for errors,
//! and a connection cannot end one half. Clients other than kubectl use it.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::super::reply::Refusal;
use super::super::websocket::{self, Socket};
use super::super::{channels, query};
use super::{CHUNK, Target};

/// More ports would not have channel numbers.
const MAX_PORTS: usize = 127;

/// The ports of the query, in order.
pub(super) fn ports(text: &str) -> Result<Vec<u16>, Refusal> {
    let words = query::pairs(text).filter(|(name, _)| name == "port" || name == "ports");
    let words: Vec<String> =
        words.flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    let parse = |word: &String| {
        let port = word.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| {
            Refusal::bad_request(format!("query parameter \"port\" has the invalid value {word:?}"))
        })
    };
    let ports = words.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    if ports.len() > MAX_PORTS {
        return Err(Refusal::bad_request(format!("more than {MAX_PORTS} ports")));
    }
    Ok(ports)
}

/// Connects the ports and copies until the client goes or every connection has ended.
pub(super) async fn forward(socket: Socket, ports: &[u16], target: &Target) -> anyhow::Result<()> {
    let (mut sink, mut source) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Bytes>(16);
    let mut connections = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.iter().copied().enumerate() {
        let data_channel = u8::try_from(index * 2)?;
        for channel in [data_channel, data_channel + 1] {
            out.send(channels::write(channel, &port.to_le_bytes())).await?;
            // The queue is shorter than many ports.
            while let Ok(message) = outgoing.try_recv() {
                sink.send(Message::Binary(message)).await?;
            }
        }
        let (input, data) = mpsc::channel::<Bytes>(8);
        inputs.push(input);
        let (target, out) = (target.clone(), out.clone());
        connections.spawn(async move { serve_port(&target, port, data_channel, data, out).await });
    }
    drop(out);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            let Some(mut bytes) = websocket::payload(message).filter(|bytes| !bytes.is_empty()) else {
                continue;
            };
            let channel = usize::from(bytes.split_to(1)[0]);
            if channel % 2 == 0
                && let Some(input) = inputs.get(channel / 2)
            {
                // Fails when the connection has ended: then nobody wants it.
                let _ = input.send(bytes).await;
            }
        }
    };
    let outward = async {
        while let Some(message) = outgoing.recv().await {
            sink.send(Message::Binary(message)).await?;
        }
        anyhow::Ok(sink.send(websocket::goodbye()).await?)
    };
    tokio::select! {
        () = inward => Ok(()),
        ended = outward => ended,
    }
}

async fn serve_port(
    target: &Target,
    port: u16,
    channel: u8,
    mut data: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Bytes>,
) {
    let connection = match target.connect(port).await {
        Ok(connection) => connection,
        Err(problem) => {
            let text = target.failure(port, &problem);
            let _ = out.send(channels::write(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = connection.into_split();
    let inward = async {
        while let Some(bytes) = data.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The pod may still have something to say.
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(read @ 1..) = from_pod.read(&mut buffer).await {
            if out.send(channels::write(channel, &buffer[..read])).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        let check = |query: &str, expected: Option<&[u16]>| {
            assert_eq!(ports(query).ok().as_deref(), expected, "{query}");
        };
        check("ports=80", Some(&[80]));
        check("ports=80%2C81&port=82", Some(&[80, 81, 82]));
        check("ports=0", None);
        check("ports=x", None);
        check("", None);
    }
}
