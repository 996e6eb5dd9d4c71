//! The certificates of authorities in a webhook's `caBundle`. It must not know whose they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pagurus_controlplane_api::field::{FieldError, Path};
use x509_parser::pem::Pem;

use crate::resources::rules::Errors;

/// Wants at least one certificate in a bundle that is not empty.
pub(super) fn check(errors: &mut Errors, path: &Path, bundle: &str) {
    if let Some(problem) = problem(bundle) {
        let detail = format!("unable to load root certificates: {problem}");
        errors.push(FieldError::invalid(path.child("caBundle"), bundle, detail));
    }
}

/// What is wrong with a bundle: PEM as base64.
pub(super) fn problem(bundle: &str) -> Option<&'static str> {
    // The type of the field has seen to it that it is base64.
    let bytes = STANDARD.decode(bundle).unwrap_or_default();
    if bytes.is_empty() {
        return None;
    }
    let blocks: Vec<_> = Pem::iter_from_buffer(&bytes).collect();
    let certificates = || blocks.iter().flatten().filter(|block| block.label == "CERTIFICATE");
    if certificates().any(|block| block.parse_x509().is_ok()) {
        return None;
    }
    Some(match blocks.first() {
        None | Some(Err(_)) => "unable to parse bytes as PEM block",
        _ if certificates().next().is_some() => "failed to parse certificate: x509: malformed certificate",
        _ => "no valid certificate authority data seen",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bundles() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new(["ca".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let other = "-----BEGIN THING-----\nAAAA\n-----END THING-----\n";
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (bundle, expected) in [
            (String::new(), None),
            (good.clone(), None),
            (format!("{other}{good}"), None),
            (format!("{good}{broken}"), None),
            ("\n".to_owned(), Some("unable to parse bytes as PEM block")),
            ("no certificate".to_owned(), Some("unable to parse bytes as PEM block")),
            (other.to_owned(), Some("no valid certificate authority data seen")),
            (broken.to_owned(), Some("failed to parse certificate: x509: malformed certificate")),
        ] {
            assert_eq!(problem(&STANDARD.encode(&bundle)), expected, "{bundle}");
        }
        let mut errors = Errors::new();
        check(&mut errors, &Path::new("c"), "Cg==");
        assert_eq!(
            errors[0].to_string(),
            "c.caBundle: Invalid value: \"Cg==\": unable to load root certificates: unable to parse bytes as PEM block"
        );
    }
}
