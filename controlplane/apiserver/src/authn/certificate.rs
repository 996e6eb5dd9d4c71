//! Client certificates: asked for, never demanded, and judged after the handshake, so that a bad one is answered with
//! 401 and not with a broken connection.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::EXTRA_CREDENTIAL;
use crate::request::UserInfo;

/// What a client presented, judged once per connection.
#[derive(Debug)]
pub struct Presented {
    /// The user it stands for and until when, if it is one of our CA's.
    user: Option<(UserInfo, Timestamp)>,
}

impl Presented {
    /// The user, while the certificate lasts.
    pub fn user(&self, now: Timestamp) -> Option<&UserInfo> {
        self.user.as_ref().filter(|(_, until)| now <= *until).map(|(user, _)| user)
    }
}

/// The CA whose certificates name users.
#[derive(Debug)]
pub struct ClientCertificates {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificates {
    /// Trusts those roots.
    pub fn new(roots: RootCertStore, provider: Arc<rustls::crypto::CryptoProvider>) -> anyhow::Result<Self> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|e| anyhow::anyhow!("cannot use the CA for client certificates: {e}"))?;
        Ok(Self { verifier })
    }

    /// What the TLS configuration needs: checks that the client has the key, and nothing else.
    pub fn handshake_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate { inner: self.verifier.clone() })
    }

    /// Judges the chain a client presented.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<Presented> {
        let (leaf, intermediates) = chain.split_first()?;
        let trusted = self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now());
        if let Err(error) = &trusted {
            tracing::debug!(%error, "client certificate refused");
        }
        Some(Presented { user: trusted.ok().and_then(|_| user_of(leaf)) })
    }
}

/// Common name and organizations are user and groups.
fn user_of(leaf: &CertificateDer<'_>) -> Option<(UserInfo, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> =
        certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut user = UserInfo::authenticated(name, groups);
    let fingerprint = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    user.extra.insert(EXTRA_CREDENTIAL.to_owned(), vec![format!("X509SHA256={fingerprint}")]);
    let until = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some((user, until))
}

/// Lets any certificate through the handshake whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AnyCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority(name: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().clone(), Issuer::new(params, key))
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    #[test]
    fn our_certificates_name_users() {
        let (ca, issuer) = authority("ca");
        let (_, other) = authority("other");
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = ClientCertificates::new(roots, provider).unwrap();
        let now = Timestamp::now();

        let ours = certificates.judge(&[leaf(&issuer)]).expect("presented");
        let user = ours.user(now).expect("trusted");
        assert_eq!(user.name, "system:node:a");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        let after_the_end = Timestamp::MAX;
        assert!(ours.user(after_the_end).is_none());

        let theirs = certificates.judge(&[leaf(&other)]).expect("presented");
        assert!(theirs.user(now).is_none());
        assert!(certificates.judge(&[]).is_none());
    }
}
