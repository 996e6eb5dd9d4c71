//! What no well-behaved client sends: each gets the right Status or a closed connection, and the server stays as big as it was.

mod definitions;
mod protocol;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use pagurus_tests::eventually::eventually;
use pagurus_tests::server::Server;
use pagurus_tests::wire::{Answer, Dialer, whole};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MIB: u64 = 1 << 20;
/// A whole test takes no longer: an answer that does not come is a failure.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test against a server of its own, which lives to the end of it.
fn against(run: impl AsyncFnOnce(&mut Server, &Dialer) -> Result<()>) -> Result<()> {
    let Some(mut server) = Server::start()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let dialer = Dialer::of(&server).await?;
        eventually_ready(&dialer).await?;
        tokio::time::timeout(LIMIT, run(&mut server, &dialer))
            .await
            .context("the test did not end in time")??;
        ensure!(!server.has_ended(), "the server ended: {}", server.log_end());
        ensure!(!server.said().contains("panicked"), "{}", server.said());
        ensure!(dialer.get("/readyz").await?.code == 200, "the server serves no more");
        Ok(())
    })
}

async fn eventually_ready(dialer: &Dialer) -> Result<()> {
    let begun = Instant::now();
    while dialer.get("/readyz").await.map_or(0, |answer| answer.code.as_u16()) != 200 {
        ensure!(begun.elapsed() < LIMIT, "the server does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// An answer must be a Status of this code whose message holds these words.
fn is_status(what: &str, answer: &Answer, code: u16, words: &str) -> Result<()> {
    let status = answer.json();
    let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(600)]).into_owned();
    ensure!(answer.code == code, "{what}: {} instead of {code}: {shown}", answer.code);
    ensure!(status["kind"] == "Status" && status["code"] == code, "{what}: no Status: {shown}");
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(message.contains(words), "{what}: {message:?} does not say {words:?}");
    Ok(())
}

/// No row of a table went wrong.
fn none(wrong: &[anyhow::Error]) -> Result<()> {
    let lines: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    ensure!(lines.is_empty(), "{} rows are wrong:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

async fn create(dialer: &Dialer, path: &str, object: &Value) -> Result<Answer> {
    let answer =
        dialer.ask(&Method::POST, path, &["content-type: application/json"], object.to_string()).await?;
    ensure!(answer.code == 201, "create: {}", String::from_utf8_lossy(&answer.body));
    Ok(answer)
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const CBOR: &str = "application/cbor";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// One after the other so often.
fn times(part: &[u8], count: usize) -> Vec<u8> {
    part.repeat(count)
}

/// A protobuf field with bytes.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A ConfigMap in Kubernetes' protobuf around this message.
fn enveloped(kind: &str, message: &[u8]) -> Vec<u8> {
    let (version, kind) = (field(1, b"v1"), field(2, kind.as_bytes()));
    [b"k8s\0".to_vec(), field(1, &[version, kind].concat()), field(2, message)].concat()
}

/// Aliases of aliases: two to the power of sixty strings.
fn laughs() -> Vec<u8> {
    let mut text = "a0: &a0 [lol, lol]\n".to_owned();
    for at in 1..60 {
        text.push_str(&format!("a{at}: &a{at} [*a{0}, *a{0}]\n", at - 1));
    }
    text.into_bytes()
}

#[test]
fn bodies_that_are_no_objects() -> Result<()> {
    let huge = format!("{{\"data\": {{\"a\": \"{}\"}}}}", "x".repeat(4 << 20)).into_bytes();
    let inner = map("utf").to_string().into_bytes();
    let at = inner.windows(3).position(|w| w == b"\"1\"").context("a value")?;
    let broken_text = [&inner[..=at], b"\xff\xfe", &inner[at + 2..]].concat();
    let no_text = field(2, &[field(1, b"k"), field(2, b"\xff\xfe")].concat());
    let deep = (0..5000).fold(Vec::new(), |inner, _| field(1, &inner));
    let rows: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        ("over 3 MiB", JSON, huge.clone(), 413, "limit is 3145728"),
        ("over 3 MiB of YAML", YAML, huge.clone(), 413, "limit is 3145728"),
        ("over 3 MiB of CBOR", CBOR, huge.clone(), 413, "limit is 3145728"),
        ("over 3 MiB of protobuf", PROTOBUF, huge, 413, "limit is 3145728"),
        ("nothing", JSON, Vec::new(), 400, ""),
        (
            "JSON that ends early",
            JSON,
            b"{\"kind\": \"ConfigMap\", \"met".to_vec(),
            400,
            "unexpected end of JSON input",
        ),
        ("JSON that is something else", JSON, b"<html>".to_vec(), 400, "invalid character '<'"),
        ("a list", JSON, b"[]".to_vec(), 400, "cannot unmarshal array"),
        (
            "another kind",
            JSON,
            json!({"apiVersion": "v1", "kind": "Pod"}).to_string().into_bytes(),
            400,
            "cannot be handled as a ConfigMap",
        ),
        ("a field of another type", JSON, b"{\"data\": 1}".to_vec(), 400, "cannot unmarshal number"),
        ("YAML that is none", YAML, b"a: [".to_vec(), 400, ""),
        ("protobuf without its beginning", PROTOBUF, b"\x01\x02".to_vec(), 400, "expected prefix"),
        ("protobuf that ends early", PROTOBUF, b"k8s\0\x0a\xff\x01".to_vec(), 400, ""),
        ("protobuf with a wrong field", PROTOBUF, enveloped("ConfigMap", b"\x0f\x01"), 400, ""),
        ("nested JSON", JSON, times(b"[", 100_000), 400, "exceeded max depth"),
        ("nested objects", JSON, times(b"{\"a\":", 50_000), 400, "exceeded max depth"),
        ("nested YAML", YAML, times(b"[", 100_000), 400, ""),
        ("nested YAML blocks", YAML, times(b"- ", 100_000), 400, ""),
        ("aliases of aliases", YAML, laughs(), 400, "excessive aliasing"),
        ("nested protobuf", PROTOBUF, enveloped("ConfigMap", &deep), 400, ""),
        ("protobuf text that is none", PROTOBUF, enveloped("ConfigMap", &no_text), 400, ""),
        ("JSON text that is none", JSON, broken_text.clone(), 400, ""),
        ("YAML text that is none", YAML, broken_text, 400, ""),
        ("CBOR that ends early", CBOR, b"\xd9\xd9\xf7\xa1".to_vec(), 400, ""),
        ("CBOR that is something else", CBOR, b"{}".to_vec(), 400, ""),
        ("nested CBOR", CBOR, times(b"\x81", 100_000), 400, ""),
        ("nested CBOR maps", CBOR, times(b"\xa1\x41a", 100_000), 400, ""),
        ("CBOR with a key twice", CBOR, b"\xa2\x41a\x01\x41a\x01".to_vec(), 400, "duplicate"),
        (
            "CBOR that promises more than there is",
            CBOR,
            b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            400,
            "",
        ),
        ("CBOR without end", CBOR, b"\xbf".to_vec(), 400, ""),
        ("CBOR text that is none", CBOR, b"\xa1\x44kind\x62\xff\xfe".to_vec(), 400, ""),
        ("an unknown type", "text/html", b"x".to_vec(), 415, ""),
    ];
    against(async |server, dialer| {
        let (before, mut wrong) = (server.memory()?, Vec::new());
        for (what, kind, body, code, words) in &rows {
            let kind = format!("content-type: {kind}");
            let answer =
                dialer.ask(&Method::POST, MAPS, &[&kind, "accept: application/json"], body.clone()).await;
            let answer = answer.with_context(|| (*what).to_owned())?;
            wrong.extend(is_status(what, &answer, *code, words).err());
        }
        none(&wrong)?;
        bounded("bodies", before, server.memory()?, 96 * MIB)
    })
}

/// What the server has grown by, at most.
fn bounded(what: &str, before: u64, after: u64, most: u64) -> Result<()> {
    let grown = after.saturating_sub(before);
    println!("{what}: {:.1} MiB more than {:.1}", grown as f64 / MIB as f64, before as f64 / MIB as f64);
    ensure!(grown <= most, "{what}: the server grew by {} MiB, {} are allowed", grown / MIB, most / MIB);
    Ok(())
}

#[test]
fn keys_given_twice() -> Result<()> {
    against(async |_, dialer| {
        let body = |name: &str| {
            format!("{{\"metadata\": {{\"name\": \"{name}\"}}, \"data\": {{\"a\": \"1\", \"a\": \"2\"}}}}")
        };
        let ask = async |name: &str, validation: &str| {
            let path = format!("{MAPS}?fieldValidation={validation}");
            dialer.ask(&Method::POST, &path, &["content-type: application/json"], body(name)).await
        };
        is_status("strict", &ask("strict", "Strict").await?, 400, "duplicate field \"data.a\"")?;
        let warned = ask("warn", "Warn").await?;
        let warning = warned.headers.get("warning").and_then(|text| text.to_str().ok()).unwrap_or_default();
        ensure!(warned.code == 201 && warning.contains("duplicate field"), "{} {warning:?}", warned.code);
        let ignored = ask("ignore", "Ignore").await?;
        ensure!(ignored.code == 201 && ignored.json()["data"]["a"] == "2", "the last one counts");
        ensure!(!ignored.headers.contains_key("warning"), "nobody is warned");
        Ok(())
    })
}

#[test]
fn tokens_selectors_and_options_made_up() -> Result<()> {
    let rows = [
        ("continue=abc", 400, "continue key is not valid"),
        ("continue=e30", 400, "continue key is not valid"),
        (
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiIn0",
            400,
            "continue key is not valid",
        ),
        (
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTk5OTk5OTksInN0YXJ0IjoiYVx1MDAwMCJ9",
            504,
            "Too large resource version",
        ),
        ("limit=many", 400, "strconv.ParseInt"),
        ("labelSelector=a%20in", 400, "unable to parse requirement"),
        ("labelSelector=a+in+(b", 400, "unable to parse requirement"),
        ("labelSelector=-a=b", 400, "unable to parse requirement"),
        ("fieldSelector=spec.nothing=1", 400, "is not a known field selector"),
        ("fieldSelector=metadata.name", 400, "invalid selector"),
        ("resourceVersion=abc", 400, "Invalid value: \"abc\""),
        ("resourceVersion=-1", 400, "Invalid value: \"-1\""),
        ("resourceVersion=1&resourceVersionMatch=Sometimes", 422, "Unsupported value: \"Sometimes\""),
        ("resourceVersionMatch=Exact", 422, "is forbidden unless resourceVersion is provided"),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, "is forbidden for resourceVersion"),
        ("resourceVersion=99999999&resourceVersionMatch=Exact", 504, "Too large resource version"),
        ("watch=1&timeoutSeconds=soon", 400, "strconv.ParseInt"),
        ("watch=1&sendInitialEvents=true", 422, "resourceVersionMatch"),
    ];
    against(async |_, dialer| {
        let mut wrong = Vec::new();
        for (query, code, words) in rows {
            let answer = dialer.get(&format!("{MAPS}?{query}")).await?;
            wrong.extend(is_status(query, &answer, code, words).err());
        }
        none(&wrong)?;
        // A selector of three megabytes does not fit into a request's head.
        let long = dialer.get(&format!("{MAPS}?labelSelector={}", "a,".repeat(1 << 20))).await;
        ensure!(long.as_ref().map_or(true, |answer| answer.code == 431), "{long:?}");
        Ok(())
    })
}

#[test]
fn patches_without_bound() -> Result<()> {
    let copies: Vec<Value> =
        (0..40).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/b"})).collect();
    let copies = [vec![json!({"op": "add", "path": "/data/a", "value": "x".repeat(1000)})], copies].concat();
    let deeper = [
        json!({"op": "add", "path": "/b", "value": {}}),
        json!({"op": "move", "from": "/data", "path": "/b/a"}),
        json!({"op": "move", "from": "/b", "path": "/data"}),
    ];
    let nested = (0..5000).fold("1".to_owned(), |inner, _| format!("{{\"a\":{inner}}}"));
    const PATCH: &str = "application/json-patch+json";
    const MERGE: &str = "application/merge-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    const APPLY: &str = "application/apply-patch+yaml";
    let rows: Vec<(&str, &str, String, u16, &str)> = vec![
        ("copies of copies", PATCH, Value::Array(copies).to_string(), 422, ""),
        (
            "deeper and deeper",
            PATCH,
            Value::Array(deeper.iter().cycle().take(9999).cloned().collect()).to_string(),
            422,
            "",
        ),
        (
            "too many operations",
            PATCH,
            Value::Array((0..10_001).map(|_| json!({"op": "test", "path": "/a"})).collect()).to_string(),
            413,
            "maximum operations",
        ),
        ("no list", PATCH, "{}".to_owned(), 400, "cannot unmarshal object"),
        (
            "a pointer without end",
            PATCH,
            json!([{"op": "add", "path": "/a".repeat(200_000), "value": 1}]).to_string(),
            422,
            "",
        ),
        (
            "a place that there cannot be",
            PATCH,
            json!([{"op": "add", "path": "/metadata/finalizers/99999999999999999999", "value": "a"}])
                .to_string(),
            422,
            "",
        ),
        (
            "a value into itself",
            PATCH,
            json!([{"op": "move", "from": "/data", "path": "/data/a/b"}]).to_string(),
            422,
            "",
        ),
        (
            "an escape that is none",
            PATCH,
            json!([{"op": "test", "path": "/data/~2", "value": 1}]).to_string(),
            422,
            "",
        ),
        ("no JSON", MERGE, "{".to_owned(), 400, ""),
        ("no object", MERGE, "[1]".to_owned(), 400, "cannot unmarshal array"),
        ("nested", MERGE, nested.clone(), 400, ""),
        ("nested", STRATEGIC, nested.clone(), 400, ""),
        ("nested", APPLY, nested, 400, ""),
        (
            "a directive nobody knows",
            STRATEGIC,
            json!({"$patch": "explode"}).to_string(),
            500,
            "unknown patch type",
        ),
        (
            "another list",
            STRATEGIC,
            json!({"metadata": {"ownerReferences": [1]}}).to_string(),
            422,
            "Invalid value",
        ),
        ("apply without a name", APPLY, "a: b".to_owned(), 400, ""),
        ("no patch", "application/json", "{}".to_owned(), 415, ""),
    ];
    against(async |server, dialer| {
        create(dialer, MAPS, &map("p")).await?;
        let (before, mut wrong) = (server.memory()?, Vec::new());
        for (what, kind, body, code, words) in &rows {
            let (begun, header) = (Instant::now(), format!("content-type: {kind}"));
            let path = format!("{MAPS}/p?fieldManager=tests");
            let answer = dialer.ask(&Method::PATCH, &path, &[&header], body.clone()).await;
            let answer = answer.with_context(|| format!("{what} ({kind})"))?;
            wrong.extend(is_status(&format!("{what} ({kind})"), &answer, *code, words).err());
            ensure!(begun.elapsed() < Duration::from_secs(20), "{what} ({kind}) took {:?}", begun.elapsed());
        }
        none(&wrong)?;
        let left = dialer.get(&format!("{MAPS}/p")).await?.json();
        ensure!(left["data"] == json!({"a": "1"}), "no patch came through: {left}");
        is_status("an object that grows", &grown(dialer).await?, 413, "the object would have")?;
        bounded("patches", before, server.memory()?, 128 * MIB)
    })
}

/// Patches that are each small enough, until what they make of an object is not: the answer to the last.
async fn grown(dialer: &Dialer) -> Result<Answer> {
    const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
    let containers = |env: Value| json!({"spec": {"containers": [{"name": "c", "image": "i", "env": env}]}});
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "t"}, "template": containers(json!([]))});
    create(dialer, TEMPLATES, &template).await?;
    let header = ["content-type: application/strategic-merge-patch+json"];
    for at in 0..10 {
        let more = json!({"template": containers(json!([{"name": format!("e{at}"), "value": "x".repeat(2 << 20)}]))});
        let answer = dialer.ask(&Method::PATCH, &format!("{TEMPLATES}/t"), &header, more.to_string()).await?;
        if answer.code != 200 {
            ensure!(at > 0, "the first is small enough: {}", answer.json());
            return Ok(answer);
        }
    }
    anyhow::bail!("an object grew without bound")
}

/// Answers are made while they are read: whoever reads slowly costs no more than who reads fast.
#[test]
fn slow_readers() -> Result<()> {
    against(async |server, dialer| {
        let mut big = map("big-000");
        big["data"] = json!({"a": "x".repeat(200_000)});
        for at in 0..100 {
            big["metadata"]["name"] = json!(format!("big-{at:03}"));
            create(dialer, MAPS, &big).await?;
        }
        let before = server.memory()?;
        let mut waiting = Vec::new();
        for at in 0..40 {
            // Lists of 20 MB, and watches that begin with as much.
            let query = if at % 2 == 0 { "" } else { "?watch=1" };
            let request = dialer.request(&Method::GET, &format!("{MAPS}{query}"), &[], Bytes::new())?;
            let mut sender = dialer.http1().await?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status() == 200, "a list is begun");
            waiting.push((sender, answer));
        }
        bounded("readers who do not read", before, server.memory()?, 128 * MIB)?;
        // What changes meanwhile is not kept for the watches that do not read.
        for round in 0..200 {
            big["metadata"]["name"] = json!(format!("big-{:03}", round % 100));
            big["data"]["b"] = json!(round.to_string());
            let name = big["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let path = format!("{MAPS}/{name}");
            let answer =
                dialer.ask(&Method::PUT, &path, &["content-type: application/json"], big.to_string()).await?;
            ensure!(answer.code == 200, "an update beside slow readers: {}", answer.code);
        }
        bounded("watches that do not read changes of 40 MB", before, server.memory()?, 192 * MIB)?;
        // Who begins to read at last gets all of the list as it was.
        let (_sender, answer) = waiting.swap_remove(0);
        let list = whole(answer).await?.json();
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(items.len() == 100, "the list has {} of 100 objects", items.len());
        ensure!(
            items.iter().all(|item| item["data"]["b"].is_null()),
            "the list is of the time when it was asked for"
        );
        Ok(())
    })
}

/// Ten thousand watches that hear nothing, on a hundred connections; then all hear of one change.
#[test]
fn idle_watches() -> Result<()> {
    const CONNECTIONS: usize = 100;
    const EACH: usize = 100;
    against(async |server, dialer| {
        let (before, files) = (server.memory()?, server.descriptors()?);
        let mut connections = Vec::new();
        let mut watches = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut sender = dialer.http2().await?;
            let begun: Vec<_> = (0..EACH)
                .map(|_| {
                    let path =
                        format!("{MAPS}?watch=1&resourceVersion=1&fieldSelector=metadata.name%3Dthe-one");
                    Ok(sender.send_request(dialer.request(&Method::GET, &path, &[], Bytes::new())?))
                })
                .collect::<Result<_>>()?;
            for answer in futures::future::try_join_all(begun).await? {
                ensure!(answer.status() == 200, "a watch is begun: {}", answer.status());
                watches.push(answer.into_body());
            }
            connections.push(sender);
        }
        let grown = server.memory()?.saturating_sub(before);
        println!("{} idle watches: {:.1} kB each", watches.len(), grown as f64 / watches.len() as f64 / 1e3);
        ensure!(
            grown / (watches.len() as u64) < 24 << 10,
            "an idle watch costs {} bytes",
            grown / watches.len() as u64
        );
        create(dialer, MAPS, &map("the-one")).await?;
        let begun = Instant::now();
        for watch in &mut watches {
            let frame = watch.frame().await.context("a watch ended")??;
            let line = frame.into_data().map_err(|_| anyhow::anyhow!("a watch ended"))?;
            ensure!(line.starts_with(b"{\"type\":\"ADDED\""), "{}", String::from_utf8_lossy(&line));
        }
        println!("all have heard of a change after {:?}", begun.elapsed());
        drop((watches, connections));
        eventually("the connections are gone", Duration::from_secs(30), || {
            Ok((server.descriptors()? <= files + 2).then_some(()))
        })?;
        bounded("after ten thousand watches", before, server.memory()?, 128 * MIB)
    })
}

/// Clients that go away: in the middle of the handshake, of their request, of the answer.
#[test]
fn clients_that_vanish() -> Result<()> {
    against(async |server, dialer| {
        create(dialer, MAPS, &map("m")).await?;
        let (before, files) = (server.memory()?, server.descriptors()?);
        for round in 0..60 {
            let mut stream = dialer.stream("http/1.1").await?;
            let half = format!(
                "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n"
            );
            let words = match round % 5 {
                0 => &half.as_bytes()[..20],
                1 => half.as_bytes(),
                2 => &[half.as_bytes(), b"\r\n{\"metadata\": "].concat(),
                3 => b"\x16\x03\x01 not HTTP at all \0\0\r\n\r\n",
                _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff",
            };
            stream.write_all(words).await?;
            stream.flush().await?;
        }
        let mut open = Vec::new();
        for at in 0..60 {
            // Nobody says anything, or the beginning of a handshake.
            let mut stream = tokio::net::TcpStream::connect(server.address()).await?;
            if at % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\0\x01").await?;
            }
            open.push(stream);
            let request = dialer.request(&Method::GET, &format!("{MAPS}?watch=1"), &[], Bytes::new())?;
            drop(dialer.http1().await?.send_request(request).await?);
        }
        drop(open);
        eventually("all of them are gone", Duration::from_secs(60), || {
            Ok((server.descriptors()? <= files + 2).then_some(()))
        })?;
        bounded("clients that vanished", before, server.memory()?, 64 * MIB)
    })
}
