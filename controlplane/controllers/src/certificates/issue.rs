//! Making certificates with the cluster's key.
//!
//! Subject, public key and alternative names are those of the request, byte by byte; all else is the cluster's. No
//! network, no files.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;

use super::der;
use super::plan::Wanted;
use crate::runtime::object::after_seconds;

/// The longest life of a certificate, and that of one for which no life is asked: one year.
const LIFE_SECONDS: i64 = 365 * 24 * 3600;
const SHORTEST_LIFE_SECONDS: i64 = 600;
/// Certificates begin a little in the past, for clocks that differ.
const BACKDATE_SECONDS: i64 = 300;

/// Algorithm identifiers: ecdsa-with-SHA256, ecdsa-with-SHA384, Ed25519, sha256WithRSAEncryption.
const ECDSA_256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const RSA_256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const NULL: [u8; 2] = [0x05, 0x00];
/// Extensions, all below 2.5.29.
const KEY_USAGE: u8 = 15;
const ALTERNATIVE_NAMES: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const AUTHORITY_KEY: u8 = 35;
const EXTENDED_KEY_USAGE: u8 = 37;

/// The bits of keyUsage (RFC 5280, 4.2.1.3) by the API's words.
const BITS: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// The last number of the purposes below 1.3.6.1.5.5.7.3, by the API's words.
const PURPOSES: [(&str, u8); 9] = [
    ("server auth", 1),
    ("client auth", 2),
    ("code signing", 3),
    ("email protection", 4),
    ("ipsec end system", 5),
    ("ipsec tunnel", 6),
    ("ipsec user", 7),
    ("timestamping", 8),
    ("ocsp signing", 9),
];

/// The cluster's CA, with which requests are signed.
pub(super) struct Authority {
    key: KeyPair,
    algorithm: Vec<u8>,
    /// The CA's subject, as DER.
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    until: Timestamp,
}

impl Authority {
    /// From PEM texts.
    pub(super) fn new(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("the CA's key is not readable")?;
        let (_, pem) =
            parse_x509_pem(certificate.as_bytes()).context("the CA's certificate is not readable")?;
        let parsed = pem.parse_x509().context("the CA's certificate is not readable")?;
        ensure!(
            parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes(),
            "the CA's certificate and key do not belong together"
        );
        let key_id = parsed.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let until = Timestamp::from_second(parsed.validity().not_after.timestamp())?;
        Ok(Self { algorithm: algorithm(&key)?, name: parsed.subject().as_raw().to_vec(), key_id, until, key })
    }

    /// The certificate for a request, in PEM.
    pub(super) fn issue(&self, wanted: &Wanted, now: Timestamp) -> Result<String> {
        ensure!(now < self.until, "the cluster's CA has ended at {}", self.until);
        let life = wanted.life.unwrap_or(LIFE_SECONDS).clamp(SHORTEST_LIFE_SECONDS, LIFE_SECONDS);
        let from = after_seconds(now, -BACKDATE_SECONDS);
        let until = after_seconds(now, life).min(self.until);
        let body = der::sequence(&[
            // Version 3.
            &der::tagged(0xa0, &der::positive(&[2])),
            &der::positive(&rand::random::<[u8; 16]>()),
            &self.algorithm,
            &self.name,
            &der::sequence(&[&der::time(from), &der::time(until)]),
            &wanted.request.subject,
            &wanted.request.public_key,
            &der::tagged(0xa3, &der::sequence(&[&self.extensions(wanted).concat()])),
        ]);
        let signature = self.key.sign(&body).context("cannot sign a certificate")?;
        Ok(pem(&der::sequence(&[&body, &self.algorithm, &der::bits(&signature)])))
    }

    fn extensions(&self, wanted: &Wanted) -> Vec<Vec<u8>> {
        let used = |words: &[(&str, u8)]| -> Vec<u8> {
            words
                .iter()
                .filter(|(word, _)| wanted.usages.iter().any(|u| u == word))
                .map(|(_, n)| *n)
                .collect()
        };
        let mut extensions = Vec::new();
        let bits = used(&BITS);
        if !bits.is_empty() {
            extensions.push(extension(KEY_USAGE, true, &der::named_bits(bits.into_iter())));
        }
        let purposes: Vec<Vec<u8>> = (used(&PURPOSES).into_iter())
            .map(|last| der::identifier(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last]))
            .collect();
        if !purposes.is_empty() {
            extensions.push(extension(EXTENDED_KEY_USAGE, false, &der::sequence(&[&purposes.concat()])));
        }
        // No CA.
        extensions.push(extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])));
        if let Some(id) = &self.key_id {
            extensions.push(extension(AUTHORITY_KEY, false, &der::sequence(&[&der::tagged(0x80, id)])));
        }
        if let Some(names) = &wanted.request.alternative_names {
            extensions.push(extension(ALTERNATIVE_NAMES, false, names));
        }
        extensions
    }
}

fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &der::TRUE } else { &[] };
    der::sequence(&[&der::identifier(&[0x55, 0x1d, number]), flag, &der::tagged(der::OCTET_STRING, value)])
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>> {
    let plain = |id: &[u8]| der::sequence(&[&der::identifier(id)]);
    let algorithm = key.algorithm();
    if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(plain(ECDSA_256))
    } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(plain(ECDSA_384))
    } else if *algorithm == rcgen::PKCS_ED25519 {
        Ok(plain(ED25519))
    } else if *algorithm == rcgen::PKCS_RSA_SHA256 {
        Ok(der::sequence(&[&der::identifier(RSA_256), &NULL]))
    } else {
        bail!("the CA's key is of a kind that signs no certificates here")
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// When the first certificate of a PEM text ends; `None` if it is not readable.
pub(super) fn end_of(text: &[u8]) -> Option<Timestamp> {
    let (_, pem) = parse_x509_pem(text).ok()?;
    Timestamp::from_second(pem.parse_x509().ok()?.validity().not_after.timestamp()).ok()
}
