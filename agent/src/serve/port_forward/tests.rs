//! Port-forward over SPDY to a server in this very network namespace.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn headers(kind: &str, port: u16, id: &str) -> Headers {
    let pairs = [("streamtype", kind.to_owned()), ("port", port.to_string()), ("requestid", id.to_owned())];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Streams without a connection, for the pairing.
async fn streams(count: usize) -> Vec<Stream> {
    let (io, _other) = tokio::io::duplex(4096);
    let (opener, _incoming, connection) = spdy::connection(io, spdy::Role::Client);
    let open = async {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(opener.open(Headers::new()).await.unwrap());
        }
        streams
    };
    tokio::select! {
        streams = open => streams,
        _ = connection => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn streams_find_their_pair() {
    let mut pairs = HashMap::new();
    let mut streams = streams(8).await.into_iter();
    let mut put = |headers: Headers| {
        take(&mut pairs, &headers, streams.next().unwrap()).map(|pair| pair.map(|p| p.port))
    };
    assert_eq!(put(headers("error", 80, "0")), Ok(None));
    assert_eq!(put(headers("error", 81, "1")), Ok(None));
    assert_eq!(put(headers("error", 81, "1")), Err("the stream is there already"));
    assert_eq!(put(headers("data", 81, "1")), Ok(Some(81)));
    assert_eq!(put(headers("data", 80, "0")), Ok(Some(80)));
    assert_eq!(put(headers("other", 80, "2")), Err("neither an error nor a data stream"));
    assert_eq!(put(Headers::new()), Err("no valid port"));
}

#[tokio::test]
async fn connections_are_forwarded() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: entering a network namespace needs root");
        return;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Answers once the client has ended its half.
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        question.reverse();
        stream.write_all(&question).await.unwrap();
    });
    let target = Target {
        pod: "p".to_owned(),
        uid: PodUid("u".to_owned()),
        namespace: PathBuf::from("/proc/self/ns/net"),
    };
    let (client, agent) = tokio::io::duplex(64 * 1024);
    let (opener, _incoming, connection) = spdy::connection(client, spdy::Role::Client);
    let use_it = async {
        let mut error = opener.open(headers("error", port, "0")).await.unwrap();
        let mut data = opener.open(headers("data", port, "0")).await.unwrap();
        data.writer.write(Bytes::from_static(b"abc")).await.unwrap();
        data.writer.finish().await.unwrap();
        assert_eq!(data.reader.next().await, Some(Bytes::from_static(b"cba")));
        assert_eq!(data.reader.next().await, None);
        assert_eq!(error.reader.next().await, None);
        server.await.unwrap();
        // Nobody listens any more.
        let mut error = opener.open(headers("error", port, "1")).await.unwrap();
        let mut data = opener.open(headers("data", port, "1")).await.unwrap();
        let text = error.reader.next().await.unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(text.starts_with(&format!("error forwarding port {port} to pod p, uid u: ")), "{text}");
        assert_eq!(data.reader.next().await, None);
    };
    tokio::select! {
        () = use_it => {}
        _ = connection => panic!("the client's connection ended"),
        _ = forward(agent, &target) => panic!("the agent's connection ended"),
    }
}
