//! HTTP as bytes over TLS: connections of the caller's own, of either version, to an API server of the tests. For what no well-behaved
//! client sends.
//!
//! Must not know: what is sent.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::Server;

/// Makes connections to one server.
#[derive(Clone)]
pub struct Dialer {
    address: SocketAddr,
    tls: Arc<tokio_rustls::rustls::ClientConfig>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The code.
    pub code: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Dialer {
    /// One that comes as the administrator.
    ///
    /// # Errors
    /// The kubeconfig is unusable.
    pub async fn of(server: &Server) -> Result<Self> {
        let tls = Arc::new(server.config().await?.rustls_client_config()?);
        Ok(Self { address: server.address(), tls })
    }

    /// A TLS connection that offers this protocol.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn stream(&self, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = tokio_rustls::rustls::pki_types::ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.context("shake hands")
    }

    /// An HTTP/1.1 connection.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn http1(&self) -> Result<http1::SendRequest<Full<Bytes>>> {
        let stream = TokioIo::new(self.stream("http/1.1").await?);
        let (sender, connection) = http1::handshake(stream).await?;
        // It ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// An HTTP/2 connection.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn http2(&self) -> Result<http2::SendRequest<Full<Bytes>>> {
        let stream = TokioIo::new(self.stream("h2").await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        // It ends with its sender and its streams.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A request to this server. Headers are given as `name: value`.
    ///
    /// # Errors
    /// It cannot be put into words.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &[&str],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("https://{}{path}", self.address));
        request = request.header("host", self.address.to_string()).header("user-agent", "tests/1");
        for header in headers {
            let (name, value) = header.split_once(": ").with_context(|| format!("a header: {header:?}"))?;
            request = request.header(name, value);
        }
        request.body(Full::new(body)).with_context(|| format!("{method} {path}"))
    }

    /// Asks on a connection of its own and reads the whole answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(
        &self,
        method: &Method,
        path: &str,
        headers: &[&str],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let request = self.request(method, path, headers, body.into())?;
        let answer =
            self.http1().await?.send_request(request).await.with_context(|| format!("{method} {path}"))?;
        whole(answer).await
    }

    /// Asks for JSON with GET.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(&Method::GET, path, &["accept: application/json"], Bytes::new()).await
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// It breaks off.
pub async fn whole(answer: http::Response<Incoming>) -> Result<Answer> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.context("read the answer")?.to_bytes();
    Ok(Answer { code: head.status, headers: head.headers, body })
}
