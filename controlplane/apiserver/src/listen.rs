//! Sockets to requests: accepts, shakes hands, speaks HTTP/1.1 or HTTP/2, and hands every request to the server.
//!
//! It must not know what a request means.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::authn::{ClientCertificates, Peer};
use crate::request::BoxError;
use crate::server::Server;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const MAX_STREAMS: u32 = 250;
/// The name of HTTP/2 in the handshake.
const HTTP2: &[u8] = b"h2";

/// What the server shows, and whom it trusts.
pub struct Tls {
    acceptor: TlsAcceptor,
    clients: ClientCertificates,
}

impl Tls {
    /// From PEM texts: the serving certificate with its key, and the CA of client certificates.
    pub fn new(certificate: &str, key: &str, client_ca: &str) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(certificate).context("cannot read the serving certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot read the serving key: {e}"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(client_ca).context("cannot read the client CA")? {
            roots.add(root).context("cannot use the client CA")?;
        }
        let clients = ClientCertificates::new(roots, provider.clone())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS")?
            .with_client_cert_verifier(clients.handshake_verifier())
            .with_single_cert(chain, key)
            .context("the serving certificate and key do not fit")?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), clients })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| anyhow::anyhow!("not a PEM certificate: {e}"))
}

/// Serves a listening socket until `cancel`; connections finish what they are answering.
pub async fn serve(
    server: Arc<Server>,
    listener: std::net::TcpListener,
    tls: Arc<Tls>,
    cancel: CancellationToken,
) -> Result<()> {
    let listener = TcpListener::from_std(listener).context("cannot use the listening socket")?;
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let connection = connection(server.clone(), tls.clone(), stream, remote, cancel.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn connection(
    server: Arc<Server>,
    tls: Arc<Tls>,
    stream: TcpStream,
    remote: SocketAddr,
    cancel: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%remote, %error, "cannot turn off the delay of small packets");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream));
    let stream = tokio::select! {
        () = cancel.cancelled() => return,
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%remote, %error, "TLS handshake failed"),
            Err(_) => return debug!(%remote, "TLS handshake timed out"),
        },
    };
    let (_, session) = stream.get_ref();
    // The handshake has settled the protocol: nobody needs to wait for bytes that tell it.
    let http2 = session.alpn_protocol() == Some(HTTP2);
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = Peer::Tls { remote, certificate: tls.clients.judge(chain).map(Arc::new) };
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            Ok::<_, std::convert::Infallible>(server.handle(request, peer).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(MAX_STREAMS);
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        debug!(%remote, error, "connection ended");
    }
}
