//! What is done below requests: frames of HTTP/2 by hand, heads without end, readers of compressed answers that do not read.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use pagurus_tests::eventually::eventually;
use pagurus_tests::server::Server;
use pagurus_tests::wire::Dialer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{MAPS, MIB, against, bounded, create, map};

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A field of a head as it is, without tables (RFC 7541, section 6.2.2); both parts are shorter than 127 bytes.
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The head of a GET.
fn head(path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The beginning of every connection.
fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// Writes as long as the server takes it, at most so many pieces; whether it ended the connection before that.
async fn flood(
    dialer: &Dialer,
    reads: bool,
    pieces: usize,
    piece: impl Fn(usize) -> Vec<u8>,
) -> Result<bool> {
    let (mut reader, mut writer) = tokio::io::split(dialer.stream("h2").await?);
    let answers = tokio::spawn(async move {
        let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
        if reads {
            while let Ok(some @ 1..) = reader.read(&mut buffer).await {
                all += some;
            }
        }
        (reader, all)
    });
    let mut ended = writer.write_all(&preface()).await.is_err();
    for at in 0..pieces {
        // A server that reads no more has had enough too.
        let written = tokio::time::timeout(Duration::from_secs(5), writer.write_all(&piece(at))).await;
        if !matches!(written, Ok(Ok(()))) {
            ended = true;
            break;
        }
    }
    let _ = writer.flush().await;
    answers.abort();
    Ok(ended)
}

/// The server's answer to another client, while it is flooded and after.
async fn still_serves(dialer: &Dialer) -> Result<()> {
    let begun = Instant::now();
    ensure!(dialer.get(&format!("{MAPS}/m")).await?.code == 200, "it serves others");
    ensure!(begun.elapsed() < Duration::from_secs(10), "others wait for {:?}", begun.elapsed());
    Ok(())
}

/// Streams that are opened and reset at once (CVE-2023-44487), settings and pings whose answers nobody reads, heads that never end.
#[test]
fn floods_of_frames() -> Result<()> {
    against(async |server, dialer| {
        create(dialer, MAPS, &map("m")).await?;
        let before = server.memory()?;
        let resets = |at: usize| {
            let stream = 1 + 2 * at as u32;
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(&format!("{MAPS}?watch=1")));
            [open, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
        };
        let ended = flood(dialer, true, 100_000, resets).await?;
        ensure!(ended, "a hundred thousand resets are taken");
        still_serves(dialer).await?;
        bounded("rapid resets", before, server.memory()?, 64 * MIB)?;
        type Piece = fn(usize) -> Vec<u8>;
        let floods: [(&str, Piece); 3] = [
            ("settings", |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100)),
            ("pings", |_| frame(PING, 0, 0, b"12345678").repeat(100)),
            ("a head without end", |at| match at {
                0 => frame(HEADERS, END_STREAM, 1, &head(MAPS)),
                _ => frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100)).repeat(20)),
            }),
        ];
        for (what, piece) in floods {
            // Nobody reads the answers.
            let ended = flood(dialer, false, 3000, piece).await?;
            println!("{what}: the server {}", if ended { "had enough" } else { "took it all" });
            still_serves(dialer).await?;
            bounded(what, before, server.memory()?, 64 * MIB)?;
        }
        Ok(())
    })
}

/// Heads that are too large: refused, or the connection ends.
#[test]
fn heads_without_bound() -> Result<()> {
    against(async |server, dialer| {
        let before = server.memory()?;
        let long = format!("x-long: {}", "y".repeat(2 << 20));
        let many: Vec<String> = (0..5000).map(|at| format!("x-{at}: y")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (what, headers) in [("one long field", vec![long.as_str()]), ("many fields", many)] {
            let answer = dialer.ask(&Method::GET, MAPS, &headers, Bytes::new()).await;
            let code = answer.as_ref().map(|answer| answer.code.as_u16()).ok();
            ensure!(matches!(code, None | Some(431 | 400)), "HTTP/1.1, {what}: {code:?}");
            let mut sender = dialer.http2().await?;
            let request = dialer.request(&Method::GET, MAPS, &headers, Bytes::new())?;
            let code = sender.send_request(request).await.map(|answer| answer.status().as_u16()).ok();
            ensure!(matches!(code, None | Some(431 | 400)), "HTTP/2, {what}: {code:?}");
        }
        // One field of the table, named again and again: small on the wire.
        let mut stream = dialer.stream("h2").await?;
        let value = "z".repeat(120);
        let indexed = [&[0x40, 1, b'x', 120], value.as_bytes()].concat();
        let bomb = [head(MAPS), indexed, vec![0x80 | 62; 16_000]].concat();
        stream
            .write_all(&[preface(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb[..16_000])].concat())
            .await?;
        stream.flush().await?;
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
        ensure!(read.is_ok(), "a head that unpacks to two megabytes is not answered");
        bounded("heads", before, server.memory()?, 32 * MIB)
    })
}

/// Texts that do not compress, in forty objects: lists of 8 MB.
async fn large_lists(server: &mut Server, dialer: &Dialer) -> Result<u64> {
    let mut state = 1_u64;
    for at in 0..40 {
        let text: String = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b' ' + ((state >> 33) % 90) as u8)
            })
            .filter(|c| !matches!(c, '"' | '\\'))
            .collect();
        let mut big = map(&format!("big-{at:03}"));
        big["data"] = json!({"a": text});
        create(dialer, MAPS, &big).await?;
    }
    server.memory()
}

#[test]
fn slow_readers_of_compressed_answers() -> Result<()> {
    against(async |server, dialer| {
        let before = large_lists(server, dialer).await?;
        let mut waiting = Vec::new();
        for at in 0..30 {
            let form = if at % 2 == 0 {
                "accept: application/json"
            } else {
                "accept: application/vnd.kubernetes.protobuf"
            };
            let headers = ["accept-encoding: gzip", form];
            let request = dialer.request(&Method::GET, MAPS, &headers, Bytes::new())?;
            let mut sender = dialer.http1().await?;
            let answer =
                tokio::time::timeout(Duration::from_secs(60), sender.send_request(request)).await??;
            ensure!(answer.status() == 200, "a list is begun");
            ensure!(
                answer.headers().get("content-encoding").is_some_and(|e| e == "gzip"),
                "it is compressed"
            );
            waiting.push((sender, answer));
        }
        bounded("readers of compressed lists who do not read", before, server.memory()?, 96 * MIB)?;
        // Who reads at last gets the whole of it.
        let (_sender, answer) = waiting.swap_remove(0);
        let body = answer.into_body().collect().await.context("read at last")?.to_bytes();
        ensure!(body.len() > 4 << 20 && body.starts_with(b"\x1f\x8b"), "{} bytes", body.len());
        Ok(())
    })
}

/// Clients that go away in the middle of an answer, or of an upgrade.
#[test]
fn clients_that_vanish_while_they_are_answered() -> Result<()> {
    against(async |server, dialer| {
        let before = large_lists(server, dialer).await?;
        let files = server.descriptors()?;
        for round in 0..40 {
            let headers: &[&str] = if round % 2 == 0 { &[] } else { &["accept-encoding: gzip"] };
            let mut sender = dialer.http1().await?;
            let mut answer =
                sender.send_request(dialer.request(&Method::GET, MAPS, headers, Bytes::new())?).await?;
            answer.frame().await.context("the list ended at once")??;
        }
        let upgrade = |path: &str, protocol: &str, words: &str| {
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n{words}")
        };
        let socket = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for round in 0..40 {
            let mut stream = dialer.stream("http/1.1").await?;
            let words = match round % 4 {
                0 => upgrade(&format!("{MAPS}?watch=1"), "websocket", socket),
                1 => upgrade(&format!("{MAPS}?watch=1"), "websocket", &format!("{socket}\r\n")),
                2 => upgrade("/api/v1/namespaces/default/pods/p/exec?command=x&stdout=1", "SPDY/3.1", "\r\n"),
                // Frames of a socket before anybody has agreed to one.
                _ => upgrade(
                    &format!("{MAPS}?watch=1"),
                    "websocket",
                    &format!("{socket}\r\n\u{1}\u{2}{}", "x".repeat(70_000)),
                ),
            };
            stream.write_all(words.as_bytes()).await?;
            stream.flush().await?;
            if round % 8 < 4 {
                let mut some = [0; 64];
                // Half of them wait for the first words of the answer.
                let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut some)).await;
            }
        }
        eventually("all of them are gone", Duration::from_secs(60), || {
            Ok((server.descriptors()? <= files + 2).then_some(()))
        })?;
        bounded("clients that vanished from answers", before, server.memory()?, 128 * MIB)
    })
}
