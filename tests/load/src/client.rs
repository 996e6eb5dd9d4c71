//! A connection to an API server: HTTP/2 over TLS.
//!
//! Must not know: what is asked, and whether the answer is right.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Target;

/// Windows as clients in Go have them, so that large answers need not wait.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// JSON, the format of most requests.
pub const JSON: &str = "application/json";

/// One connection; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    base: String,
    token: Option<http::HeaderValue>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The body, empty for none.
    pub body: Bytes,
    /// What the body is.
    pub content_type: &'static str,
    /// What the answer should be.
    pub accept: &'static str,
}

impl Ask {
    /// A GET for JSON.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new(), content_type: JSON, accept: JSON }
    }

    /// A POST of JSON.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(path) }
    }

    /// A PATCH of this kind.
    pub fn patch(path: impl Into<String>, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PATCH, body: body.into(), content_type, ..Self::get(path) }
    }

    /// A DELETE.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The server is not there, or not the one to trust, or does not speak HTTP/2.
    pub async fn connect(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.address)
            .await
            .with_context(|| format!("cannot connect to {}", target.address))?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(target.tls.clone())
            .connect(target.name.clone(), stream)
            .await
            .with_context(|| format!("TLS with {}", target.address))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .with_context(|| format!("HTTP/2 with {}", target.address))?;
        // How it ends is seen by the requests on it.
        tokio::spawn(async move { drop(connection.await) });
        let token = target.token.as_ref().map(|token| format!("Bearer {token}").parse()).transpose()?;
        Ok(Self { sender, base: format!("https://{}", target.address), token })
    }

    /// Sends a request; the answer's body is still to come.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn send(&mut self, ask: Ask) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(ask.method).uri(format!("{}{}", self.base, ask.path));
        request = request.header(ACCEPT, ask.accept);
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.content_type);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        Ok(self.sender.send_request(request.body(Full::new(ask.body))?).await?)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn call(&mut self, ask: Ask) -> Result<(StatusCode, Bytes)> {
        let response = self.send(ask).await?;
        let code = response.status();
        Ok((code, response.into_body().collect().await?.to_bytes()))
    }

    /// The body of an answer that must have this code.
    ///
    /// # Errors
    /// The connection fails, or the answer has another code; then with its text.
    pub async fn expect(&mut self, code: u16, ask: Ask) -> Result<Bytes> {
        let what = format!("{} {}", ask.method, ask.path);
        let (got, body) = self.call(ask).await.with_context(|| what.clone())?;
        if got != code {
            let text = String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned();
            bail!("{what}: {got} instead of {code}: {text}");
        }
        Ok(body)
    }
}
