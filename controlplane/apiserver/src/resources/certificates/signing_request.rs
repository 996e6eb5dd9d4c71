//! CertificateSigningRequests: who asked is the server's to say, approval and certificate are written separately.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::{labels, time};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::request_cells;
use crate::registry::{FieldName, named};
use crate::resources::fields::{Fields, object_at, same, set};
use crate::resources::rules::{Errors, nothing, one_of, required};
use crate::strategy::{Context, Strategy, drop_status, keep, keep_all_but, keep_status};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const SHORTEST_SECONDS: i64 = 600;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The strategy of `certificatesigningrequests`.
pub(crate) struct SigningRequest;

impl Strategy for SigningRequest {
    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        drop_status(context.resource, object);
        let user = context.user;
        let spec = object_at(object, "spec");
        set(spec, "username", Some(json!(user.name)));
        set(spec, "uid", (!user.uid.is_empty()).then(|| json!(user.uid)));
        set(spec, "groups", (!user.groups.is_empty()).then(|| json!(user.groups)));
        set(spec, "extra", (!user.extra.is_empty()).then(|| json!(user.extra)));
    }

    fn prepare_update(&self, context: &Context<'_>, object: &mut Value, old: &Value) {
        keep_status(context.resource, object, old);
        keep(object, old, "spec");
    }

    fn prepare_subresource_update(&self, context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        let conditions = object.at("status.conditions").clone();
        let mut list = conditions.as_array().cloned().unwrap_or_default();
        if sub == "approval" {
            // Only the conditions.
            keep_all_but(object, old, &["metadata"]);
        } else {
            keep_all_but(object, old, &["metadata", "status"]);
            // All but the verdict.
            let verdict = |c: &Value| [APPROVED, DENIED].contains(&c.text("type"));
            list.retain(|c| !verdict(c));
            let held = old.items("status.conditions").iter().filter(|c| verdict(c)).cloned();
            list = held.chain(list).collect();
        }
        list.iter_mut().for_each(|condition| stamp(condition, old, context.now));
        set(object_at(object, "status"), "conditions", (!list.is_empty()).then_some(Value::Array(list)));
    }

    fn reset_fields(
        &self,
        _resource: &pagurus_controlplane_schema::table::Resource,
        sub: &str,
    ) -> &'static [&'static str] {
        if sub.is_empty() { &["status"] } else { &["spec"] }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = Path::new("spec");
        request(&mut errors, object.at("spec.request"), &spec.child("request"));
        usages(&mut errors, object.items("spec.usages"), &spec.child("usages"));
        signer(&mut errors, object.text("spec.signerName"), &spec.child("signerName"));
        if let Some(seconds) = object.some_int("spec.expirationSeconds").filter(|s| *s < SHORTEST_SECONDS) {
            let text = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(spec.child("expirationSeconds"), seconds, text));
        }
        errors
    }

    fn validate_update(&self, _object: &Value, _old: &Value) -> Vec<FieldError> {
        // Nothing but metadata can change.
        Vec::new()
    }

    fn validate_subresource_update(&self, sub: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        conditions(&mut errors, object.items("status.conditions"));
        let (path, held) = (Path::new("status").child("conditions"), old.items("status.conditions"));
        for kind in [APPROVED, DENIED, FAILED] {
            let has = |list: &[Value]| list.iter().any(|c| c.text("type") == kind);
            if has(held) && !has(object.items("status.conditions")) {
                let text = format!("updates may not remove a condition of type {kind:?}");
                errors.push(FieldError::forbidden(&path, text));
            }
        }
        if sub == "status" && !same(object.at("status.certificate"), old.at("status.certificate")) {
            let path = Path::new("status").child("certificate");
            if !old.text("status.certificate").is_empty() {
                let text =
                    "updates may not set certificate content if existing certificate content is present";
                errors.push(FieldError::forbidden(&path, text));
            }
            if parse_certificate(object.text("status.certificate")).is_none() {
                let text = "expected at least one PEM block of type CERTIFICATE";
                errors.push(FieldError::invalid(&path, "<certificate data>", text));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("spec.signerName")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        object.some_text(name).map(str::to_owned)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        request_cells(object, now)
    }
}

/// Gives a condition the times it lacks.
fn stamp(condition: &mut Value, old: &Value, now: Timestamp) {
    let (kind, status) = (condition.text("type").to_owned(), condition.text("status").to_owned());
    let text = time::format(now);
    if condition.text("lastUpdateTime").is_empty() {
        set(condition, "lastUpdateTime", Some(json!(text)));
    }
    if condition.text("lastTransitionTime").is_empty() {
        let mut held = old.items("status.conditions").iter();
        let since = held
            .find(|c| c.text("type") == kind && c.text("status") == status)
            .and_then(|c| c.some_text("lastTransitionTime"))
            .unwrap_or(&text)
            .to_owned();
        set(condition, "lastTransitionTime", Some(json!(since)));
    }
}

/// The request of an object as DER, or what is wrong with it.
pub(crate) fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    const NO_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = STANDARD.decode(text).map_err(|_| NO_PEM)?;
    let (_, pem) = parse_x509_pem(&bytes).map_err(|_| NO_PEM)?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(NO_PEM);
    }
    if is_cut(&pem.contents) {
        return Err("asn1: syntax error: data truncated");
    }
    match X509CertificationRequest::from_der(&pem.contents) {
        Ok(([], _)) => Ok(pem.contents),
        Ok(_) => Err("asn1: syntax error: trailing data"),
        Err(_) => Err("asn1: structure error: tags don't match"),
    }
}

/// Whether a DER value says that it is longer than what there is of it.
fn is_cut(der: &[u8]) -> bool {
    let Some((first, rest)) = der.get(1..).and_then(<[u8]>::split_first) else { return true };
    if first & 0x80 == 0 {
        return usize::from(*first) > rest.len();
    }
    let Some((length, content)) = rest.split_at_checked(usize::from(first & 0x7f)) else { return true };
    let declared = length.iter().fold(0_usize, |sum, byte| sum.saturating_mul(256) | usize::from(*byte));
    declared > content.len()
}

fn parse_certificate(text: &str) -> Option<()> {
    let bytes = STANDARD.decode(text).ok()?;
    let (_, pem) = parse_x509_pem(&bytes).ok()?;
    (pem.label == "CERTIFICATE" && pem.parse_x509().is_ok()).then_some(())
}

fn request(errors: &mut Errors, value: &Value, path: &Path) {
    let Err(why) = decoded(value.as_str().unwrap_or_default()) else { return };
    errors.push(match value.as_str() {
        Some(text) => FieldError::invalid(path, text, why),
        None => FieldError::invalid(path, nothing(), why),
    });
}

fn usages(errors: &mut Errors, usages: &[Value], path: &Path) {
    if usages.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let text = usage.as_str().unwrap_or_default();
        one_of(errors, &path.index(index), text, &USAGES);
        if usages[..index].contains(usage) {
            errors.push(FieldError::duplicate(path.index(index), text));
        }
    }
}

fn signer(errors: &mut Errors, name: &str, path: &Path) {
    if !required(errors, path, name) {
        return;
    }
    if name == "kubernetes.io/legacy-unknown" {
        let text = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(path, name, text));
        return;
    }
    let sound = name.split_once('/').is_some_and(|(domain, rest)| {
        domain.contains('.')
            && labels::dns_subdomain(domain).is_empty()
            && !rest.contains('/')
            && labels::dns_subdomain(rest).is_empty()
    });
    if !sound {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, text));
    }
}

fn conditions(errors: &mut Errors, list: &[Value]) {
    let path = Path::new("status").child("conditions");
    let mut verdict = None;
    for (index, condition) in list.iter().enumerate() {
        let (path, kind) = (path.index(index), condition.text("type"));
        required(errors, &path.child("type"), kind);
        let status = condition.text("status");
        if required(errors, &path.child("status"), status) {
            let supported: &[&str] = match kind {
                APPROVED | DENIED | FAILED => &["True"],
                _ => &["False", "True", "Unknown"],
            };
            one_of(errors, &path.child("status"), status, supported);
        }
        if list[..index].iter().any(|other| other.text("type") == kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        if [APPROVED, DENIED].contains(&kind) {
            if verdict.is_some_and(|other| other != kind) {
                let text = "Approved and Denied conditions are mutually exclusive";
                errors.push(FieldError::invalid(path.child("type"), kind, text));
            }
            verdict = Some(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use pagurus_controlplane_schema::table::Table;

    use super::*;
    use crate::request::UserInfo;

    fn context(user: &UserInfo) -> Context<'_> {
        let resource = Table::builtin()
            .resource("certificates.k8s.io", "v1", "certificatesigningrequests")
            .expect("a resource");
        Context { resource, user, now: Timestamp::from_second(60).expect("a time") }
    }

    #[test]
    fn who_asks_is_not_theirs_to_say() {
        let user = UserInfo { name: "jane".into(), groups: vec!["dev".into()], ..UserInfo::default() };
        let mut object = json!({"spec": {"username": "system:node:a", "uid": "u", "extra": {"a": ["b"]}},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        SigningRequest.prepare_create(&context(&user), &mut object);
        assert_eq!(object["spec"], json!({"username": "jane", "groups": ["dev"]}));
        assert!(object.get("status").is_none());
        let mut changed = json!({"spec": {"username": "root"}, "status": {"certificate": "x"}});
        SigningRequest.prepare_update(&context(&user), &mut changed, &object);
        assert_eq!(changed, json!({"spec": {"username": "jane", "groups": ["dev"]}}));
    }

    #[test]
    fn approval_and_status_are_apart() {
        let user = UserInfo::default();
        let old = json!({"metadata": {}, "spec": {"username": "jane"}, "status": {"certificate": "old"}});
        let approved = json!({"type": "Approved", "status": "True"});
        let failed = json!({"type": "Failed", "status": "True"});
        let new =
            json!({"metadata": {}, "spec": {}, "status": {"certificate": "new", "conditions": [approved]}});
        let mut by_approval = new.clone();
        SigningRequest.prepare_subresource_update(&context(&user), "approval", &mut by_approval, &old);
        assert_eq!(by_approval["spec"], old["spec"]);
        assert_eq!(by_approval["status"]["certificate"], "old");
        assert_eq!(by_approval["status"]["conditions"][0]["lastUpdateTime"], "1970-01-01T00:01:00Z");
        let mut by_status = json!({"metadata": {}, "spec": {}, "status": {"certificate": "new",
            "conditions": [{"type": "Denied", "status": "True"}, failed]}});
        SigningRequest.prepare_subresource_update(&context(&user), "status", &mut by_status, &by_approval);
        let kinds: Vec<&str> = by_status.items("status.conditions").iter().map(|c| c.text("type")).collect();
        assert_eq!((kinds, by_status.text("status.certificate")), (vec!["Approved", "Failed"], "new"));
        let errors = |object: &Value, old: &Value| {
            let errors = SigningRequest.validate_subresource_update("approval", object, old);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let both = json!({"status": {"conditions": [approved, {"type": "Denied", "status": "True"}]}});
        let said = errors(&both, &json!({}));
        assert_eq!(
            said,
            [
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        let said = errors(&json!({"status": {}}), &by_approval);
        assert_eq!(
            said,
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
    }

    #[test]
    fn what_is_cut_off_is_known_by_its_length() {
        for (der, cut) in [
            (vec![], true),
            (vec![0x30], true),
            (vec![0x30, 0], false),
            (vec![0x30, 2, 1], true),
            (vec![0x30, 1, 1], false),
            (vec![0x30, 0x81], true),
            (vec![0x30, 0x81, 0xdd, 1, 2, 3], true),
            (vec![0x30, 0x82, 0, 1, 7], false),
            (vec![0x30, 0xff, 1], true),
        ] {
            assert_eq!(is_cut(&der), cut, "{der:?}");
        }
        let pem = |der: &[u8]| {
            let text = STANDARD.encode(der);
            let pem =
                format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
            STANDARD.encode(pem)
        };
        assert_eq!(decoded(&pem(&[0x30, 0x81, 0xdd, 1])), Err("asn1: syntax error: data truncated"));
        assert_eq!(decoded(&pem(&[0x30, 1, 7])), Err("asn1: structure error: tags don't match"));
    }

    #[test]
    fn requests_are_looked_at() {
        let check = |signer: &str, expected: &str| {
            let object = json!({"spec": {"request": "eA==", "usages": ["client auth", "client auth", "x"],
                "signerName": signer, "expirationSeconds": 10}});
            let errors: Vec<String> =
                SigningRequest.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(
                errors[0],
                "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST"
            );
            assert_eq!(errors[1], "spec.usages[1]: Duplicate value: \"client auth\"");
            assert!(errors[2].starts_with("spec.usages[2]: Unsupported value: \"x\""));
            let rest: Vec<&String> = errors[3..].iter().filter(|e| e.contains("signerName")).collect();
            assert_eq!(rest.first().map_or("", |e| e.as_str()), expected);
            assert!(errors.last().is_some_and(|e| e.contains("less than 600 seconds")));
        };
        check("example.com/a-signer", "");
        check("", "spec.signerName: Required value");
        check(
            "a",
            "spec.signerName: Invalid value: \"a\": must be a fully qualified domain and path of the form \
             'example.com/signer-name'",
        );
        check(
            "kubernetes.io/legacy-unknown",
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not \
             allowed via this API version",
        );
    }
}
