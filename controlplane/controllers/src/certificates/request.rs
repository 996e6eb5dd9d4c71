//! Reading a PKCS #10 request: whose it is, for which names, and that who made it has the key. Pure.

use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

/// Why a request cannot be read.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("malformed request: {0}")]
    Malformed(String),
    #[error("a name in the subject is no text")]
    Subject,
    #[error("the request is not signed with its own key")]
    Signature,
}

/// Which kinds of alternative names are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) dns: bool,
    pub(super) ip: bool,
    pub(super) email: bool,
    pub(super) uri: bool,
    pub(super) other: bool,
}

/// A request whose signature is right.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) names: Names,
    /// The subject, the public key, and the alternative names if there are any, as DER.
    pub(super) subject: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    pub(super) alternative_names: Option<Vec<u8>>,
}

impl Request {
    /// Reads a request in PEM.
    pub(super) fn parse(text: &[u8]) -> Result<Self, RequestError> {
        let (_, pem) = parse_x509_pem(text).map_err(|_| RequestError::Pem)?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(RequestError::Pem);
        }
        let malformed = |error: String| RequestError::Malformed(error);
        let (rest, parsed) =
            X509CertificationRequest::from_der(&pem.contents).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data".to_owned()));
        }
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        let info = &parsed.certification_request_info;
        let mut request = Self {
            common_name: texts(info.subject.iter_common_name())?.into_iter().next().unwrap_or_default(),
            organizations: texts(info.subject.iter_organization())?,
            names: Names::default(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alternative_names: None,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { continue };
            for extension in &asked.extensions {
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    continue;
                };
                names.general_names.iter().for_each(|name| request.names.add(name));
                if !names.general_names.is_empty() {
                    request.alternative_names = Some(extension.value.to_vec());
                }
            }
        }
        Ok(request)
    }
}

impl Names {
    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(_) => self.dns = true,
            GeneralName::IPAddress(_) => self.ip = true,
            GeneralName::RFC822Name(_) => self.email = true,
            GeneralName::URI(_) => self.uri = true,
            _ => self.other = true,
        }
    }
}

fn texts<'a>(
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<Vec<String>, RequestError> {
    values.map(|v| v.as_str().map(str::to_owned).map_err(|_| RequestError::Subject)).collect()
}
