//! How scheduler and controllers reach the API server: in this process over a service call, or elsewhere over HTTPS. In
//! this process too every request passes authentication, authorization and admission.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use pagurus_controlplane_apiserver::authn::Peer;
use pagurus_controlplane_apiserver::request::{BoxError, UserInfo};
use pagurus_controlplane_apiserver::server::Server;

/// A client of a server in this process, as that user. `agent` names the component in managed fields.
pub fn local(server: Arc<Server>, user: UserInfo, agent: &'static str) -> Client {
    let peer = Peer::Local(Arc::new(user));
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (server, peer) = (server.clone(), peer.clone());
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(HOST, HeaderValue::from_static("kubernetes.default"));
        async move {
            let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            Ok::<_, Infallible>(server.handle(request, peer).await)
        }
    });
    Client::new(service, "default")
}

/// A client as a kubeconfig file says, and the CA (PEM) it trusts.
pub async fn remote(kubeconfig: &Path) -> Result<(Client, String)> {
    let shown = kubeconfig.display();
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read --kubeconfig {shown}"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("cannot use --kubeconfig {shown}"))?;
    let ca = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
    let client = Client::try_from(config).with_context(|| format!("cannot use --kubeconfig {shown}"))?;
    Ok((client, ca))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
