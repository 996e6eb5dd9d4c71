//! Asks webhooks: a review goes out as JSON over HTTPS, its answer comes back. Which reviews there are is not known here.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::objects::Objects;
use crate::resources::fields::Fields;

/// The most bytes of an answer that are read.
const MOST: usize = 16 << 20;
/// Where the certificates of the machine's own authorities are kept on common distributions.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Where a webhook is and whom it is to be: a `clientConfig` of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    place: Place,
    /// PEM; empty for the machine's own authorities.
    authorities: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, path: String, port: u16 },
}

impl Webhook {
    /// Of a `clientConfig`.
    pub fn of(config: &Value) -> Self {
        let service = config.at("service");
        let place = match config.some_text("url") {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::Service {
                namespace: service.text("namespace").to_owned(),
                name: service.text("name").to_owned(),
                path: service.text("path").to_owned(),
                port: service.some_int("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            },
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(config.text("caBundle"));
        Self { place, authorities: decoded.unwrap_or_default() }
    }

    /// Its address as a URL, for messages.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::Service { namespace, name, path, port } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        }
    }
}

/// Makes the connections.
#[derive(Clone)]
pub struct Client {
    objects: Arc<dyn Objects>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client that finds services among these objects.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Sends a review and reads the answer, within a time. The error says what failed and where.
    pub async fn post(&self, webhook: &Webhook, review: &Value, patience: Duration) -> Result<Value, String> {
        let told = |why: String| format!("Post \"{}\": {why}", webhook.url());
        let exchange = self.exchange(webhook, review);
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer.map_err(told),
            Err(_) => Err(told("context deadline exceeded".to_owned())),
        }
    }

    async fn exchange(&self, webhook: &Webhook, review: &Value) -> Result<Value, String> {
        let url: Uri = webhook.url().parse().map_err(|e| format!("the address is no URL: {e}"))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = self.connect(webhook, &host, url.port_u16().unwrap_or(443)).await?;
        // A certificate is for the service, not for its port.
        let name =
            ServerName::try_from(host.clone()).map_err(|e| format!("{host} is no name of a server: {e}"))?;
        let connector = TlsConnector::from(Arc::new(config(&webhook.authorities)?));
        let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("HTTP: {e}"))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, url.authority().map_or(host.as_str(), |authority| authority.as_str()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|e| format!("the request cannot be made: {e}"))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| format!("HTTP: {e}"))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST).collect().await;
            let body = body.map_err(|e| format!("the answer cannot be read: {e}"))?.to_bytes();
            if !status.is_success() {
                let shown: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                return Err(format!("the server answered {status}: {shown}"));
            }
            serde_json::from_slice(&body).map_err(|e| format!("the answer is not JSON: {e}"))
        };
        tokio::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        // The connection works only while it is looked at, and ends with the exchange.
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match exchange.await {
                Err(error) => Err(match ended {
                    Err(why) => format!("{error} ({why})"),
                    Ok(()) => error,
                }),
                answer => answer,
            },
        }
    }

    async fn connect(&self, webhook: &Webhook, host: &str, port: u16) -> Result<TcpStream, String> {
        let addresses = match &webhook.place {
            Place::Url(_) => vec![(host.to_owned(), port)],
            Place::Service { namespace, name, port, .. } => self.endpoints(namespace, name, *port)?,
        };
        let mut failure = format!("no endpoints available for service \"{host}\"");
        for (address, port) in addresses {
            match TcpStream::connect((address.as_str(), port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = format!("dial tcp {address}:{port}: {error}"),
            }
        }
        Err(failure)
    }

    /// Where a service's pods listen: its ready endpoints, since this server need not be on a node that knows cluster addresses.
    fn endpoints(&self, namespace: &str, name: &str, port: u16) -> Result<Vec<(String, u16)>, String> {
        let service = self.objects.get("", "services", namespace, name);
        let service = service.ok_or_else(|| format!("service \"{name}\" not found"))?;
        let service = service.value();
        if service.text("spec.type") == "ExternalName" {
            return Ok(vec![(service.text("spec.externalName").to_owned(), port)]);
        }
        let ports = service.items("spec.ports");
        let told = ports.iter().find(|p| p.int("port") == i64::from(port));
        let port_name = told.map(|p| p.text("name").to_owned());
        let port_name =
            port_name.ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
        let mut found = Vec::new();
        for slice in self.objects.list("discovery.k8s.io", "endpointslices", namespace) {
            let slice = slice.value();
            if slice.at("metadata.labels").get("kubernetes.io/service-name").and_then(Value::as_str)
                != Some(name)
            {
                continue;
            }
            let port = slice.items("ports").iter().find(|p| p.text("name") == port_name);
            let Some(port) = port.and_then(|p| u16::try_from(p.int("port")).ok()) else { continue };
            for endpoint in slice.items("endpoints") {
                if endpoint.at("conditions").some_flag("ready") != Some(false) {
                    found.extend(endpoint.texts("addresses").map(|address| (address.to_owned(), port)));
                }
            }
        }
        let cluster_ip = service.text("spec.clusterIP");
        if found.is_empty() && !matches!(cluster_ip, "" | "None") {
            found.push((cluster_ip.to_owned(), port));
        }
        Ok(found)
    }
}

/// TLS that trusts these authorities, or the machine's own if there are none.
fn config(authorities: &[u8]) -> Result<ClientConfig, String> {
    let own;
    let pem = if authorities.is_empty() {
        own = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
        own.as_deref().ok_or("this machine has no certificates of authorities, give a caBundle")?
    } else {
        authorities
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("the caBundle cannot be read: {e}"))?;
        // Bundles hold certificates that are no authorities; they only fail to be of use.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("tls: {e}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
