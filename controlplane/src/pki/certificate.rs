//! Certificates: an authority, what it issues, and whether something issued still fits. No files here.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

const DAY: u64 = 24 * 60 * 60;
const AUTHORITY_LIFE: u64 = 3650 * DAY;
const LEAF_LIFE: u64 = 365 * DAY;
/// A leaf is renewed at a start within this time of its end.
const RENEW_BEFORE: u64 = 60 * DAY;
/// Certificates begin a little in the past, for clocks that differ.
const CLOCK_SKEW: u64 = 300;

/// A certificate and its private key, as PEM texts.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What a certificate is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By a server to its clients.
    Server,
    /// By a client to its servers.
    Client,
}

/// A certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one.
    pub fn make(common_name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new(Vec::new()).context("cannot describe a CA")?;
        params.distinguished_name = distinguished_name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        set_life(&mut params, AUTHORITY_LIFE)?;
        let pem = params.self_signed(&key).with_context(|| format!("cannot sign CA {common_name}"))?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Reads one.
    pub fn parse(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("the key is not readable")?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).context("the certificate is not PEM")?;
        let parsed = pem.parse_x509().context("the certificate is not readable")?;
        ensure!(
            parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw(),
            "the certificate and the key do not belong together"
        );
        let issuer =
            Issuer::from_ca_cert_pem(certificate, key).context("the certificate is not usable as a CA")?;
        Ok(Self { pem: certificate.to_owned(), issuer })
    }

    /// The certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a new key for somebody; `names` are host names and addresses.
    pub fn issue(
        &self,
        usage: Usage,
        common_name: &str,
        organization: Option<&str>,
        names: &[String],
    ) -> Result<Identity> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new(names.to_vec())
            .with_context(|| format!("cannot put the names {names:?} into a certificate"))?;
        params.distinguished_name = distinguished_name(common_name, organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, LEAF_LIFE)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign a certificate for {common_name}"))?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Whether the identity was signed here, has its key, bears all names, and lasts for a while yet.
    pub fn still_fits(&self, identity: &Identity, names: &[String]) -> bool {
        let check = || -> Option<bool> {
            let (_, ca_pem) = parse_x509_pem(self.pem.as_bytes()).ok()?;
            let ca = ca_pem.parse_x509().ok()?;
            let (_, leaf_pem) = parse_x509_pem(identity.certificate.as_bytes()).ok()?;
            let leaf = leaf_pem.parse_x509().ok()?;
            let key = KeyPair::from_pem(&identity.key).ok()?;
            let own_key = leaf.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
            let signed_here = leaf.issuer() == ca.subject() && issued_by_key_of(&leaf, &ca);
            let lasts =
                leaf.validity().not_after.timestamp() > i64::try_from(unix_now() + RENEW_BEFORE).ok()?;
            let named = alternative_names(&leaf);
            Some(own_key && signed_here && lasts && names.iter().all(|name| named.contains(name)))
        };
        check().unwrap_or(false)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Compares the key identifiers that both certificates carry.
fn issued_by_key_of(leaf: &X509Certificate<'_>, ca: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension;
    let wanted = leaf.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
        _ => None,
    });
    let own = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    wanted.is_some() && wanted == own
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn distinguished_name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn set_life(params: &mut CertificateParams, seconds: u64) -> Result<()> {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = unix_now();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(CLOCK_SKEW));
    params.not_after = epoch + Duration::from_secs(now + seconds);
    Ok(())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
