//! Rows for every signer, the life of a request, and a certificate that a TLS library takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

use super::plan::plan;
use super::*;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pkcs10(common_name: &str, organization: &str, names: &[SanType]) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names.to_vec();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn csr(signer: &str, request: &str, usages: &[&str], extra: Value) -> CertificateSigningRequest {
    let mut value = json!({
        "metadata": {"name": "r", "uid": "u", "creationTimestamp": at(NOW).to_string()},
        "spec": {"signerName": signer, "request": STANDARD.encode(request), "usages": usages, "username": "system:node:a"},
        "status": {},
    });
    for (key, part) in extra.as_object().into_iter().flatten() {
        for (name, field) in part.as_object().unwrap() {
            value[key][name] = field.clone();
        }
    }
    serde_json::from_value(value).unwrap()
}

fn conditions(kinds: &[&str]) -> Value {
    let list: Vec<Value> = (kinds.iter())
        .map(|k| json!({"type": k, "status": "True", "lastUpdateTime": at(NOW + 100).to_string()}))
        .collect();
    json!({"status": {"conditions": list}})
}

fn shown(action: &Action) -> String {
    match action {
        Action::Nothing => "nothing".to_owned(),
        Action::Delete(why) => format!("delete {why}"),
        Action::Review(list) => {
            format!("review {}", list.iter().map(|a| a.subresource).collect::<Vec<_>>().join(" "))
        }
        Action::Refuse { message, .. } => format!("refuse {message}"),
        Action::Sign(_) => "sign".to_owned(),
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

const CLIENT_USES: [&str; 2] = ["digital signature", "client auth"];
const SERVER_USES: [&str; 3] = ["key encipherment", "digital signature", "server auth"];

/// Signer, common name, organization, alternative names, usages, and what follows.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [SanType], &'a [&'a str], &'a str);

#[test]
fn what_each_signer_takes() {
    let uri = SanType::URI("spiffe://x".try_into().unwrap());
    let ip = SanType::IpAddress("10.0.0.1".parse().unwrap());
    let rows: [Row<'_>; 18] = [
        (CLIENT, "jane", "dev", &[], &CLIENT_USES, "sign"),
        (CLIENT, "jane", "", &[dns("x")], &["client auth"], "sign"),
        (CLIENT, "jane", "", &[], &["server auth"], "refuse usages did not match"),
        (CLIENT, "jane", "", &[], &["client auth", "cert sign"], "refuse usages did not match"),
        (KUBELET, "system:node:a", "system:nodes", &[], &CLIENT_USES, "sign"),
        (
            KUBELET,
            "system:node:a",
            "system:nodes",
            &[],
            &["key encipherment", "digital signature", "client auth"],
            "sign",
        ),
        (
            KUBELET,
            "system:node:a",
            "system:masters",
            &[],
            &CLIENT_USES,
            "refuse subject organization is not system:nodes",
        ),
        (KUBELET, "system:node:a", "", &[], &CLIENT_USES, "refuse subject organization is not system:nodes"),
        (
            KUBELET,
            "jane",
            "system:nodes",
            &[],
            &CLIENT_USES,
            "refuse subject common name does not begin with system:node:",
        ),
        (
            KUBELET,
            "system:node:a",
            "system:nodes",
            &[dns("a")],
            &CLIENT_USES,
            "refuse DNS subjectAltNames are not allowed",
        ),
        (
            KUBELET,
            "system:node:a",
            "system:nodes",
            std::slice::from_ref(&ip),
            &CLIENT_USES,
            "refuse IP subjectAltNames are not allowed",
        ),
        (KUBELET, "system:node:a", "system:nodes", &[], &SERVER_USES, "refuse usages did not match"),
        (KUBELET, "system:node:a", "system:nodes", &[], &["client auth"], "refuse usages did not match"),
        (SERVING, "system:node:a", "system:nodes", &[dns("a"), ip.clone()], &SERVER_USES, "sign"),
        (
            SERVING,
            "system:node:a",
            "system:nodes",
            &[],
            &SERVER_USES,
            "refuse DNS or IP subjectAltName is required",
        ),
        (
            SERVING,
            "system:node:a",
            "system:nodes",
            &[ip.clone(), uri],
            &SERVER_USES,
            "refuse URI subjectAltNames are not allowed",
        ),
        (SERVING, "system:node:a", "system:nodes", &[dns("a")], &CLIENT_USES, "refuse usages did not match"),
        ("example.com/own", "jane", "", &[], &CLIENT_USES, "nothing"),
    ];
    for (signer, name, organization, names, usages, expected) in rows {
        let request = csr(signer, &pkcs10(name, organization, names), usages, conditions(&["Approved"]));
        let have = shown(&plan(&request, at(NOW + 200)).action);
        assert!(have.starts_with(expected), "{signer} {name} {organization}: {have}");
    }
    let garbage = csr(CLIENT, "no request", &CLIENT_USES, conditions(&["Approved"]));
    assert!(shown(&plan(&garbage, at(NOW + 200)).action).starts_with("refuse unable to parse csr"));
}

#[test]
fn a_request_signed_with_another_key_is_refused() {
    let text = pkcs10("jane", "dev", &[]);
    let mut der = parse_x509_pem(text.as_bytes()).unwrap().1.contents;
    // Somebody else's name.
    let place = der.windows(4).position(|w| w == b"jane").unwrap();
    der[place..place + 4].copy_from_slice(b"root");
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        STANDARD.encode(der)
    );
    let request = csr(CLIENT, &forged, &CLIENT_USES, conditions(&["Approved"]));
    let have = shown(&plan(&request, at(NOW + 200)).action);
    assert_eq!(have, "refuse unable to parse csr: the request is not signed with its own key");
}

#[test]
fn who_is_approved_without_asking() {
    let node = pkcs10("system:node:a", "system:nodes", &[]);
    let check = |request: &CertificateSigningRequest, expected: &str| {
        assert_eq!(shown(&plan(request, at(NOW + 200)).action), expected);
    };
    check(&csr(KUBELET, &node, &CLIENT_USES, json!({})), "review selfnodeclient nodeclient");
    let bootstrap = json!({"spec": {"username": "system:bootstrap:abc"}});
    check(&csr(KUBELET, &node, &CLIENT_USES, bootstrap), "review nodeclient");
    check(&csr(KUBELET, &node, &SERVER_USES, json!({})), "nothing");
    check(&csr(KUBELET, &node, &CLIENT_USES, conditions(&["Denied"])), "nothing");
    check(&csr(KUBELET, &node, &CLIENT_USES, conditions(&["Approved", "Failed"])), "nothing");
    check(&csr(CLIENT, &pkcs10("jane", "dev", &[]), &CLIENT_USES, json!({})), "nothing");
    check(
        &csr(SERVING, &pkcs10("system:node:a", "system:nodes", &[dns("a")]), &SERVER_USES, json!({})),
        "nothing",
    );
}

#[test]
fn old_requests_go() {
    let text = pkcs10("jane", "dev", &[]);
    let check = |extra: Value, second: i64, expected: &str, again: Option<u64>| {
        let plan = plan(&csr("example.com/own", &text, &CLIENT_USES, extra), at(NOW + second));
        assert_eq!((shown(&plan.action).as_str(), plan.again.map(|d| d.as_secs())), (expected, again));
    };
    check(json!({}), 100, "nothing", Some(86_300));
    check(json!({}), 86_400, "delete pending", None);
    check(conditions(&["Denied"]), 3_699, "nothing", Some(1));
    check(conditions(&["Denied"]), 3_700, "delete denied", None);
    check(conditions(&["Approved"]), 3_700, "delete approved", None);
    check(conditions(&["Approved", "Failed"]), 3_700, "delete approved", None);
    let authority = authority(NOW - 10, NOW + 50);
    let wanted = wanted(&text, &CLIENT_USES, None);
    let certificate = authority.issue(&wanted, at(NOW)).unwrap();
    let mut issued = conditions(&["Approved"]);
    issued["status"]["certificate"] = json!(STANDARD.encode(certificate));
    check(issued.clone(), 49, "nothing", Some(1));
    check(issued, 50, "delete expired", None);
}

fn wanted(text: &str, usages: &[&str], life: Option<i64>) -> plan::Wanted {
    plan::Wanted {
        request: request::Request::parse(text.as_bytes()).unwrap(),
        usages: usages.iter().map(|u| (*u).to_owned()).collect(),
        life,
    }
}

fn authority(from: i64, until: i64) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + std::time::Duration::from_secs(u64::try_from(from).unwrap());
    params.not_after = epoch + std::time::Duration::from_secs(u64::try_from(until).unwrap());
    let certificate = params.self_signed(&key).unwrap().pem();
    Authority::new(&certificate, &key.serialize_pem()).unwrap()
}

#[test]
fn certificates_say_what_was_asked() {
    let authority = authority(NOW - 1000, NOW + 400 * 24 * 3600);
    let text = pkcs10("system:node:a", "system:nodes", &[dns("a.example"), dns("b")]);
    for (life, expected) in
        [(None, 365 * 24 * 3600), (Some(7200), 7200), (Some(60), 600), (Some(9_999_999_999), 365 * 24 * 3600)]
    {
        let issued = authority.issue(&wanted(&text, &SERVER_USES, life), at(NOW)).unwrap();
        let (_, pem) = parse_x509_pem(issued.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.validity().not_after.timestamp() - NOW, expected);
        assert_eq!(parsed.validity().not_before.timestamp() - NOW, -300);
    }
    let issued = authority.issue(&wanted(&text, &SERVER_USES, None), at(NOW)).unwrap();
    let (_, pem) = parse_x509_pem(issued.as_bytes()).unwrap();
    let parsed = pem.parse_x509().unwrap();
    assert_eq!(parsed.subject().to_string(), "O=system:nodes, CN=system:node:a");
    assert!(parsed.issuer().to_string().contains("CN=kubernetes"));
    let names: Vec<String> = (parsed.subject_alternative_name().unwrap().unwrap().value.general_names.iter())
        .map(|n| match n {
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["a.example", "b"]);
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth);
    assert!(!parsed.basic_constraints().unwrap().unwrap().value.ca);
    let identified = |e: &ParsedExtension<'_>| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_));
    assert!(parsed.iter_extensions().any(|e| identified(e.parsed_extension())));
}

#[test]
fn the_signature_is_the_authoritys() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let authority = Authority::new(&ca, &key.serialize_pem()).unwrap();
    let issued = authority.issue(&wanted(&pkcs10("jane", "dev", &[]), &CLIENT_USES, None), at(NOW)).unwrap();
    let (_, ca_pem) = parse_x509_pem(ca.as_bytes()).unwrap();
    let ca = ca_pem.parse_x509().unwrap();
    let (_, pem) = parse_x509_pem(issued.as_bytes()).unwrap();
    pem.parse_x509().unwrap().verify_signature(Some(ca.public_key())).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert!(Authority::new(&ca_pem_text(&ca_pem), &other).is_err(), "key and certificate do not match");
}

fn ca_pem_text(pem: &x509_parser::pem::Pem) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&pem.contents))
}
