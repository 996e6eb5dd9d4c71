//! Kubeconfigs: which server, whom to trust, who we are.
//!
//! Must not know: what is asked of the server.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port.
    pub address: String,
    /// The name its certificate is checked against.
    pub name: ServerName<'static>,
    /// Trust and client certificate; speaks HTTP/2 only.
    pub tls: Arc<ClientConfig>,
    /// A bearer token, where that is who we are.
    pub token: Option<String>,
}

/// Reads a kubeconfig's current context.
///
/// # Errors
/// Says which field is missing or of a kind that is not supported.
pub fn read(path: &Path) -> Result<Target> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, path.parent().unwrap_or(Path::new("."))).with_context(|| path.display().to_string())
}

fn parse(text: &str, beside: &Path) -> Result<Target> {
    let config: Value = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(_) => serde_saphyr::from_str(text).context("neither JSON nor YAML")?,
    };
    let current = config["current-context"].as_str().context("current-context is not set")?;
    let context = named(&config, "contexts", current, "context")?;
    let cluster = named(&config, "clusters", context["cluster"].as_str().unwrap_or_default(), "cluster")?;
    let user = named(&config, "users", context["user"].as_str().unwrap_or_default(), "user")?;
    let server = cluster["server"].as_str().context("the cluster has no server")?;
    let address = server.strip_prefix("https://").context("the server's address must begin with https://")?;
    let address = address.trim_end_matches('/');
    let (host, _) = address.rsplit_once(':').with_context(|| format!("{address} has no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let ca = data(cluster, "certificate-authority", beside)?
        .context("the cluster has no certificate-authority")?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&ca)? {
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let token = user["token"].as_str().map(str::to_owned);
    let mut tls = match (data(user, "client-certificate", beside)?, data(user, "client-key", beside)?) {
        (Some(chain), Some(key)) => {
            builder.with_client_auth_cert(certificates(&chain)?, PrivateKeyDer::from_pem_slice(&key)?)?
        }
        _ if token.is_some() => builder.with_no_client_auth(),
        _ => bail!(
            "the user has neither a client certificate with its key nor a token; other ways are not supported"
        ),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host).context("the server's host is no name")?;
    Ok(Target { address: address.to_owned(), name, tls: Arc::new(tls), token })
}

fn named<'a>(config: &'a Value, list: &str, name: &str, what: &str) -> Result<&'a Value> {
    let found = config[list].as_array().into_iter().flatten().find(|item| item["name"] == name);
    found.map(|item| &item[what]).with_context(|| format!("{list} has none of the name {name:?}"))
}

/// The bytes of a field that is either inside (`-data`) or in a file.
fn data(from: &Value, field: &str, beside: &Path) -> Result<Option<Vec<u8>>> {
    if let Some(encoded) = from[format!("{field}-data")].as_str() {
        return STANDARD.decode(encoded).map(Some).with_context(|| format!("{field}-data is not base64"));
    }
    let Some(path) = from[field].as_str() else { return Ok(None) };
    let path = beside.join(path);
    std::fs::read(&path).map(Some).with_context(|| format!("cannot read {}", path.display()))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().context("not a PEM certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        for (text, expected) in [
            ("{}", "current-context"),
            ("current-context: a\ncontexts: []\n", "contexts has none of the name \"a\""),
            (
                r#"{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"c"}}]}"#,
                "clusters has none",
            ),
            (
                r#"{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}],
                "clusters":[{"name":"c","cluster":{"server":"http://x"}}],"users":[{"name":"u","user":{}}]}"#,
                "https://",
            ),
        ] {
            let error = format!("{:#}", parse(text, Path::new(".")).expect_err(text));
            assert!(error.contains(expected), "{error}");
        }
    }
}
