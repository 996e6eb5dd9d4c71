//! TLS of the node API: our certificate, and the CA that clients may show a certificate of. It must not decide who may do
//! what.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
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
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("use the CA for clients of the node API")?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = match &context.config.tls_files {
        Some((certificate, key)) => {
            builder.with_cert_resolver(Arc::new(FileCertificate::read(certificate, key, provider)?))
        }
        None => {
            let (certificates, key) = self_signed(context)?;
            builder.with_single_cert(certificates, key).context("use the node API's certificate")?
        }
    };
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

/// A certificate in files, read again when the file was replaced: certificates are renewed while the agent runs.
#[derive(Debug)]
struct FileCertificate {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<([SystemTime; 2], Arc<CertifiedKey>)>,
}

impl FileCertificate {
    fn read(certificate: &Path, key: &Path, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let current = ArcSwap::from_pointee((modified(certificate, key), load(certificate, key, &provider)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), provider, current })
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let modified = modified(&self.certificate, &self.key);
        let current = self.current.load();
        if modified == current.0 {
            return Some(current.1.clone());
        }
        let fresh = load(&self.certificate, &self.key, &self.provider).unwrap_or_else(|error| {
            // Perhaps the key is still to be replaced: the old pair serves until the files change once more.
            tracing::warn!(error = format!("{error:#}"), "the node API's new certificate cannot be used");
            current.1.clone()
        });
        self.current.store(Arc::new((modified, fresh.clone())));
        Some(fresh)
    }
}

fn modified(certificate: &Path, key: &Path) -> [SystemTime; 2] {
    let of = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    [certificate, key].map(|path| of(path).unwrap_or(SystemTime::UNIX_EPOCH))
}

fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let (certificates, key) = (read_certificates(certificate)?, read_key(key)?);
    let pair = CertifiedKey::from_der(certificates, key, provider)
        .with_context(|| format!("use the certificate {}", certificate.display()))?;
    Ok(Arc::new(pair))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_in_files() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("certificate");
            std::fs::write(path("crt"), made.cert.pem()).expect("writes");
            std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("writes");
            made.cert.der().clone()
        };
        let first = write("a");
        let files = FileCertificate::read(&path("crt"), &path("key"), provider.clone()).expect("reads");
        assert_eq!(files.current.load().1.cert, [first]);
        assert!(read_certificates(&path("key")).is_err(), "a key is no certificate");
        // A certificate and another one's key do not make a pair.
        let key = std::fs::read(path("key")).expect("reads");
        write("b");
        std::fs::write(path("key"), key).expect("writes");
        assert!(load(&path("crt"), &path("key"), &provider).is_err());
    }
}
