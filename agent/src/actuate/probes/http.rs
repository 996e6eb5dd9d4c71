//! A GET as probes make it: one connection, no verification of certificates, redirects followed on the same host. It must
//! not judge beyond the status code.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use pagurus_agent_core::pods::spec::{HttpGetAction, HttpHeader};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::attempt::Target;
use super::tls;

const MAX_REDIRECTS: usize = 10;
const AGENT: HeaderValue = HeaderValue::from_static("kube-probe/1.37");

/// What is asked.
#[derive(Debug)]
pub(super) struct Request {
    uri: Uri,
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    status: StatusCode,
    elsewhere: bool,
}

impl Answer {
    /// The container is well. A redirect to another host is none of our business, and well enough.
    pub(super) fn is_good(&self) -> bool {
        self.elsewhere || (200..400).contains(&self.status.as_u16())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.elsewhere {
            f.write_str("Probe terminated redirects")
        } else if self.is_good() {
            write!(f, "HTTP {}", self.status.as_u16())
        } else {
            write!(f, "HTTP probe failed with statuscode: {}", self.status.as_u16())
        }
    }
}

impl Request {
    /// The request that the action of a container describes.
    pub(super) fn of(target: &Target, action: &HttpGetAction) -> Result<Self, String> {
        let port = target.port(&action.port)?;
        let host = target.host(&action.host)?;
        Self::new(&action.scheme, &host, port, &action.path, &action.http_headers)
    }

    fn new(scheme: &str, host: &str, port: u16, path: &str, headers: &[HttpHeader]) -> Result<Self, String> {
        let scheme = if scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("{scheme}://{}{slash}{path}", authority(host, port));
        let uri = url.parse().map_err(|error| format!("{url} is not a URL: {error}"))?;
        let mut map = HeaderMap::new();
        for HttpHeader { name, value } in headers {
            let parsed = name.parse::<HeaderName>().ok().zip(value.parse::<HeaderValue>().ok());
            let (name, value) = parsed.ok_or_else(|| format!("header {name:?} cannot be sent"))?;
            map.append(name, value);
        }
        map.entry(USER_AGENT).or_insert(AGENT);
        map.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // An empty value means: do not send this header.
        for name in [USER_AGENT, ACCEPT] {
            if map.get(&name).is_some_and(HeaderValue::is_empty) {
                map.remove(&name);
            }
        }
        map.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Self { uri, headers: map })
    }

    /// The address asked, for messages.
    pub(super) fn url(&self) -> &Uri {
        &self.uri
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Asks and follows redirects.
pub(super) async fn get(request: &Request) -> Result<Answer, String> {
    let mut uri = request.uri.clone();
    for _ in 0..=MAX_REDIRECTS {
        let (status, location) = once(&uri, &request.headers).await?;
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return Ok(Answer { status, elsewhere: false });
        };
        let next = resolve(&uri, &location)
            .ok_or_else(|| format!("redirect to {location:?}, which is not a URL"))?;
        if next.host() != request.uri.host() {
            return Ok(Answer { status, elsewhere: true });
        }
        uri = next;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// The target of a redirect seen at `base`.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location: Uri = location.parse().ok()?;
    if location.scheme().is_some() {
        return Some(location);
    }
    let mut parts = location.into_parts();
    parts.scheme = base.scheme().cloned();
    if parts.authority.is_none() {
        parts.authority = base.authority().cloned();
    }
    Uri::from_parts(parts).ok()
}

async fn once(uri: &Uri, headers: &HeaderMap) -> Result<(StatusCode, Option<String>), String> {
    let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']);
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {}: connect: {}", authority(host, port), plain(&error)))?;
    if !https {
        return exchange(stream, uri, headers).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls::unverified()));
    let stream = connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    exchange(stream, uri, headers).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(StatusCode, Option<String>), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request =
        http::Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let host = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
    }
    // The connection is driven here, not in a task: when the answer's head is there, or the time over, it is dropped.
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The server may have answered and closed at once: then the answer is there by now.
        ended = &mut connection => match (ended, answer.await) {
            (Err(error), Err(_)) => Err(error),
            (_, answer) => answer,
        },
    };
    let answer = answer.map_err(|error| source_of(&error))?;
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok((answer.status(), location))
}

/// An error of the system in its plain words: `connection refused`.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// An error with its causes, which hyper and tonic keep out of its text.
pub(super) fn source_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Serves each answer on a connection of its own; gives back the requests.
    async fn serve(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.expect("reads");
                requests.push(String::from_utf8_lossy(&request[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("writes");
            }
            requests
        });
        (port, served)
    }

    fn header(name: &str, value: &str) -> HttpHeader {
        HttpHeader { name: name.to_owned(), value: value.to_owned() }
    }

    #[tokio::test]
    async fn statuses() {
        for (line, good) in [("200 OK", true), ("399 X", true), ("404 Not Found", false), ("503 X", false)] {
            let (port, served) =
                serve(vec![format!("HTTP/1.1 {line}\r\ncontent-length: 5\r\n\r\nhello")]).await;
            let request =
                Request::new("", "127.0.0.1", port, "health?x=1", &[header("X-A", "b")]).expect("request");
            let answer = get(&request).await.expect("answers");
            assert_eq!(answer.is_good(), good, "{line}");
            let requests = served.await.expect("served");
            assert!(requests[0].starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{}", requests[0]);
            assert!(requests[0].contains("user-agent: kube-probe/"), "{}", requests[0]);
            assert!(requests[0].contains("x-a: b\r\n"), "{}", requests[0]);
            assert!(requests[0].contains(&format!("host: 127.0.0.1:{port}\r\n")), "{}", requests[0]);
        }
    }

    #[tokio::test]
    async fn redirects() {
        let ok = "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_owned();
        let near = "HTTP/1.1 302 X\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n".to_owned();
        let far = "HTTP/1.1 302 X\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n".to_owned();
        let (port, served) = serve(vec![near, ok]).await;
        let request = Request::new("HTTP", "127.0.0.1", port, "/", &[]).expect("request");
        let answer = get(&request).await.expect("answers");
        assert!(!answer.is_good(), "{answer}");
        assert!(served.await.expect("served")[1].starts_with("GET /there "));

        let (port, _served) = serve(vec![far]).await;
        let request = Request::new("HTTP", "127.0.0.1", port, "/", &[]).expect("request");
        let answer = get(&request).await.expect("answers");
        assert_eq!(answer, Answer { status: StatusCode::FOUND, elsewhere: true });
        assert!(answer.is_good());
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let request = Request::new("HTTP", "127.0.0.1", port, "/", &[]).expect("request");
        let error = get(&request).await.expect_err("refused");
        assert_eq!(error, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }

    #[test]
    fn headers_that_are_given_win() {
        let request =
            Request::new("HTTP", "::1", 80, "", &[header("User-Agent", "me"), header("Accept", "")]);
        let request = request.expect("request");
        assert_eq!(request.url().to_string(), "http://[::1]:80/");
        assert_eq!(request.headers.get(USER_AGENT).map(HeaderValue::as_bytes), Some(&b"me"[..]));
        assert_eq!(request.headers.get(ACCEPT), None);
        assert!(Request::new("HTTP", "::1", 80, "", &[header("a b", "c")]).is_err());
    }

    #[tokio::test]
    async fn https_with_any_certificate() {
        let made = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).expect("certificate");
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("key");
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("configuration");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.expect("handshake");
            let mut request = vec![0; 4096];
            assert!(stream.read(&mut request).await.expect("reads") > 0);
            stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.expect("writes");
            stream.flush().await.expect("flushes");
        });
        let request = Request::new("HTTPS", "127.0.0.1", port, "/", &[]).expect("request");
        assert_eq!(get(&request).await.expect("answers").status, StatusCode::NO_CONTENT);
    }
}
