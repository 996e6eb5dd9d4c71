//! The cluster's own signers: which requests each of them takes. Pure.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>

use super::request::Request;

/// A signer of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// Client certificates for anybody.
    Client,
    /// Client certificates for nodes.
    KubeletClient,
    /// Serving certificates for nodes.
    KubeletServing,
}

const SIGNATURE: &str = "digital signature";
const ENCIPHERMENT: &str = "key encipherment";
const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";

impl Signer {
    /// The signer of that name; `None` if it is somebody else's.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(Self::KubeletServing),
            _ => None,
        }
    }

    fn purpose(self) -> &'static str {
        if self == Self::KubeletServing { "server auth" } else { "client auth" }
    }
}

/// What is wrong with a request.
pub(super) fn check(signer: Signer, request: &Request, usages: &[String]) -> Result<(), String> {
    if signer != Signer::Client {
        node(request)?;
        names(signer, request)?;
    }
    uses(signer, usages)
}

fn node(request: &Request) -> Result<(), String> {
    if request.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    if !request.common_name.starts_with(NODE) {
        return Err(format!("subject common name does not begin with {NODE}"));
    }
    Ok(())
}

fn names(signer: Signer, request: &Request) -> Result<(), String> {
    let names = &request.names;
    let serves = signer == Signer::KubeletServing;
    if serves && !names.dns && !names.ip {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    let rules = [("DNS", names.dns && !serves), ("IP", names.ip && !serves)];
    let rules = rules.into_iter().chain([("Email", names.email), ("URI", names.uri), ("Other", names.other)]);
    match rules.into_iter().find(|(_, wrong)| *wrong) {
        Some((kind, _)) => Err(format!("{kind} subjectAltNames are not allowed")),
        None => Ok(()),
    }
}

/// The purpose must be among the usages; signatures and, for keys that can, encipherment may be.
fn uses(signer: Signer, usages: &[String]) -> Result<(), String> {
    let purpose = signer.purpose();
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let strange = usages.iter().any(|u| ![SIGNATURE, ENCIPHERMENT, purpose].contains(&u.as_str()));
    // Nodes must be able to sign, too.
    let enough = has(purpose) && (signer == Signer::Client || has(SIGNATURE));
    if enough && !strange {
        return Ok(());
    }
    Err(format!(
        "usages did not match [{purpose} {SIGNATURE}] or [{purpose} {SIGNATURE} {ENCIPHERMENT}]: [{}]",
        usages.join(" ")
    ))
}
