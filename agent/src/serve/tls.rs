//! TLS of the node API: our certificate, and the CA that clients may show a certificate of. It must not decide who may do
//! what.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::NodeContext;

/// The TLS configuration of the node API.
pub(super) fn server_config(context: &NodeContext) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = client_roots(context)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?;
    let builder = if roots.is_empty() {
        tracing::warn!(
            "no CA for clients of the node API is known (--client-ca-file): only tokens are accepted"
        );
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .context("use the CA for clients of the node API")?;
        builder.with_client_cert_verifier(verifier)
    };
    let (certificates, key) = match &context.config.tls_files {
        Some((certificate, key)) => (read_certificates(certificate)?, read_key(key)?),
        None => self_signed(context)?,
    };
    let mut config = builder.with_single_cert(certificates, key).context("use the node API's certificate")?;
    // Upgrades (exec, port-forward) need HTTP/1.1, and nothing here gains by HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Sessions are not resumed: the API server keeps its connections, and the cache would cost memory.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_roots(context: &NodeContext) -> anyhow::Result<RootCertStore> {
    let certificates = match &context.config.client_ca_file {
        Some(path) => read_certificates(path)?,
        None => context.cluster_ca.iter().map(|der| CertificateDer::from(der.clone())).collect(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).context("use a CA certificate for clients of the node API")?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let certificates: Vec<_> = CertificateDer::pem_reader_iter(BufReader::new(file))
        .collect::<Result<_, _>>()
        .with_context(|| format!("read certificates from {}", path.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(certificates)
}

fn read_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("read private key from {}", path.display()))
}

/// A certificate for this run, on the node's name and addresses.
fn self_signed(
    context: &NodeContext,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let mut names = vec![context.node_name.clone(), "localhost".to_owned()];
    names.extend(context.node_ips.iter().map(ToString::to_string));
    let made = rcgen::generate_simple_self_signed(names).context("make the node API's certificate")?;
    let Ok(key) = PrivateKeyDer::try_from(made.signing_key.serialize_der()) else {
        bail!("make the node API's certificate: its key cannot be used");
    };
    Ok((vec![made.cert.der().clone()], key))
}
