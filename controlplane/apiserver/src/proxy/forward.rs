//! Makes the connection and passes a request and its answer through, upgraded connections included.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pagurus_controlplane_api::status::{ApiError, Reason};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::is_upgrade;
use super::target::Target;
use super::trust::AnyServer;
use crate::request::{Body, BoxError, Call, empty_body};
use crate::response::{self, Output};

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a node's error text is read.
const MOST_ERROR: usize = 4096;
/// Headers that belong to one connection, and not to the request.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Connections to nodes, pods and services.
pub struct Proxy {
    /// With the server's certificate, for nodes.
    to_nodes: TlsConnector,
    /// Without it, for anybody else.
    to_others: TlsConnector,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Proxy {
    /// Connections that show nodes the certificate (PEM, with its key). They are among `tasks` and end with `cancel`.
    pub fn new(
        certificate: &str,
        key: &str,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .context("cannot set up TLS towards nodes")?;
            let verifier = Arc::new(AnyServer::new(provider.clone()));
            anyhow::Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
        };
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| anyhow::anyhow!("cannot read the certificate for nodes: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot read the key for nodes: {e}"))?;
        let with_certificate = builder()?
            .with_client_auth_cert(chain, key)
            .context("the certificate and key for nodes do not fit")?;
        Ok(Self {
            to_nodes: TlsConnector::from(Arc::new(with_certificate)),
            to_others: TlsConnector::from(Arc::new(builder()?.with_no_client_auth())),
            tasks,
            cancel,
        })
    }

    /// Passes the request on and the answer back.
    pub(super) async fn forward(&self, target: &Target, mut call: Call, body: Body) -> Response<Body> {
        let upgrade = is_upgrade(&call.headers).then(|| call.extensions.remove::<OnUpgrade>()).flatten();
        let plain_proxy = upgrade.is_none() && call.info.subresource.as_deref() == Some("proxy");
        let request = match request(target, &call, body, upgrade.is_some()) {
            Ok(request) => request,
            Err(error) => return response::failure((&call).into(), &ApiError::internal(error)),
        };
        let sent: BoxFuture<'_, _> = Box::pin(self.send(target, request));
        match sent.await {
            Ok(response) => match upgrade {
                Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    self.join(client, response)
                }
                _ => answer(response),
            },
            Err(error) if plain_proxy => {
                let text = format!("error trying to reach service: {error:#}");
                let error = ApiError::new(503, Reason::ServiceUnavailable, text);
                response::failure((&call).into(), &error)
            }
            Err(error) => {
                let error = ApiError::internal(format!("error dialing backend: {error:#}"));
                response::failure((&call).into(), &error)
            }
        }
    }

    async fn send(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> anyhow::Result<Response<hyper::body::Incoming>> {
        let address = (target.host, target.port);
        let dialed = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await;
        let shown = std::net::SocketAddr::from(address);
        let stream = match dialed {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => anyhow::bail!("dial tcp {shown}: connect: {}", plain(&error)),
            Err(_) => anyhow::bail!("dial tcp {shown}: i/o timeout"),
        };
        stream.set_nodelay(true).with_context(|| format!("dial tcp {shown}"))?;
        if target.tls {
            let connector = if target.node_api { &self.to_nodes } else { &self.to_others };
            let name = ServerName::IpAddress(target.host.into());
            let shaken = tokio::time::timeout(DIAL_TIMEOUT, connector.connect(name, stream)).await;
            let stream = shaken.context("TLS handshake timeout")?.context("TLS handshake failed")?;
            self.exchange(stream, request).await
        } else {
            self.exchange(stream, request).await
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Body>,
    ) -> anyhow::Result<Response<hyper::body::Incoming>> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("cannot speak HTTP")?;
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                () = cancel.cancelled() => Ok(()),
                ended = connection.with_upgrades() => ended,
            };
            if let Err(error) = ended {
                debug!(%error, "proxied connection ended");
            }
        });
        sender.send_request(request).await.context("request failed")
    }

    /// Tells the client to switch, and passes bytes both ways until one side ends.
    fn join(&self, client: OnUpgrade, mut response: Response<hyper::body::Incoming>) -> Response<Body> {
        let mut switched = Response::new(empty_body());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = response.headers().clone();
        let backend = hyper::upgrade::on(&mut response);
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let joined = async {
                let (client, backend) = tokio::try_join!(client, backend)?;
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
                Ok::<_, BoxError>(())
            };
            let ended = tokio::select! {
                () = cancel.cancelled() => Ok(()),
                ended = joined => ended,
            };
            if let Err(error) = ended {
                debug!(error, "upgraded connection ended");
            }
        });
        switched
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

/// The client's request as the other side gets it: without the client's credentials, with who asked.
fn request(target: &Target, call: &Call, body: Body, upgrade: bool) -> Result<Request<Body>, http::Error> {
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = target.path.parse()?;
    let headers = request.headers_mut();
    *headers = call.headers.clone();
    strip(headers);
    headers.remove(http::header::AUTHORIZATION);
    for name in impersonation_headers(headers) {
        headers.remove(name);
    }
    if upgrade && let Some(protocol) = call.headers.get(UPGRADE) {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let host = std::net::SocketAddr::new(target.host, target.port).to_string();
    headers.insert(HOST, HeaderValue::from_str(&host)?);
    Ok(request)
}

fn impersonation_headers(headers: &HeaderMap) -> Vec<http::HeaderName> {
    headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect()
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn answer(response: Response<hyper::body::Incoming>) -> Response<Body> {
    let mut response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    strip(response.headers_mut());
    response
}

/// What a node says is wrong, as a `Status`.
pub(super) async fn error_of_node(output: &Output, response: Response<Body>) -> Response<Body> {
    let code = response.status();
    let text = beginning(response.into_body()).await;
    let error = match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(404, Reason::NotFound, text),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        other => ApiError::new(other.as_u16(), Reason::Unknown, text),
    };
    response::failure_as(output, &error)
}

/// The first bytes of a text.
async fn beginning(mut body: Body) -> String {
    let mut text = Vec::new();
    while text.len() < MOST_ERROR
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend(frame.into_data().into_iter().flatten());
    }
    text.truncate(MOST_ERROR);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The words for what usually goes wrong.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::HostUnreachable => "no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}
