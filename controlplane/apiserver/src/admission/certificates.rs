//! Signing requests: who may approve and sign for a signer (CertificateApproval, CertificateSigning), and which subjects
//! the cluster's client signer never signs (CertificateSubjectRestriction).

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, Authorizer, Decision};
use crate::request::GROUP_MASTERS;
use crate::resources::signing_request_der;

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Whoever approves or denies a request must be allowed to `approve` for its signer.
pub(super) struct CertificateApproval {
    pub(super) authorizer: Arc<Authorizer>,
}

/// Whoever writes a certificate or a failure must be allowed to `sign` for the request's signer.
pub(super) struct CertificateSigning {
    pub(super) authorizer: Arc<Authorizer>,
}

/// Nobody gets a client certificate of the group of all power.
pub(super) struct CertificateSubjectRestriction;

fn text<'v>(object: Option<&'v Value>, pointer: &str) -> &'v str {
    object.and_then(|o| o.pointer(pointer)).and_then(Value::as_str).unwrap_or_default()
}

fn is_about(attributes: &Attributes<'_>, subresource: Option<&str>) -> bool {
    &*attributes.resource.group == GROUP
        && &*attributes.resource.plural == "certificatesigningrequests"
        && attributes.subresource == subresource
}

/// Whether the user may do this for a signer: by its name, or for all signers of its domain.
fn may(authorizer: &Authorizer, attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let all = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &all].into_iter().any(|name| {
        let request = authz::Attributes {
            user: attributes.user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..authz::Attributes::default()
        };
        matches!(authorizer.decide(&request), Decision::Allow(_))
    })
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if !is_about(attributes, Some("approval")) || attributes.operation != Operation::Update {
            return Ok(());
        }
        let signer = text(attributes.old, "/spec/signerName");
        if may(&self.authorizer, attributes, "approve", signer) {
            return Ok(());
        }
        Err(attributes
            .forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if !is_about(attributes, Some("status")) || attributes.operation != Operation::Update {
            return Ok(());
        }
        let (object, old) = (attributes.object.as_deref(), attributes.old);
        let failed = |object: Option<&Value>| {
            let conditions = object.and_then(|o| o.pointer("/status/conditions")).and_then(Value::as_array);
            conditions.into_iter().flatten().any(|c| text(Some(c), "/type") == "Failed")
        };
        let certificate = |object| text(object, "/status/certificate");
        if certificate(object) == certificate(old) && failed(object) == failed(old) {
            return Ok(());
        }
        let signer = text(old, "/spec/signerName");
        if may(&self.authorizer, attributes, "sign", signer) {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let object = attributes.object.as_deref();
        let concerned = is_about(attributes, None)
            && attributes.operation == Operation::Create
            && text(object, "/spec/signerName") == CLIENT;
        if !concerned || !of_masters(text(object, "/spec/request")) {
            return Ok(());
        }
        let text = format!("use of {CLIENT} signer with {GROUP_MASTERS} group is not allowed");
        Err(attributes.forbidden(&text))
    }
}

fn of_masters(request: &str) -> bool {
    // What cannot be read is refused by validation.
    let Ok(der) = signing_request_der(request) else { return false };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&der) else { return false };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().any(|o| o.as_str().is_ok_and(|name| name == GROUP_MASTERS))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::super::trial;
    use super::*;
    use crate::objects::fake::FakeObjects;

    const REQUESTS: (&str, &str, &str) = (GROUP, "v1", "certificatesigningrequests");

    fn request(organization: &str) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        STANDARD.encode(pem)
    }

    #[tokio::test]
    async fn no_client_of_all_power() {
        for (organization, signer, expected) in [
            ("dev", CLIENT, ""),
            ("system:masters", "example.com/x", ""),
            (
                "system:masters",
                CLIENT,
                "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of \
                 kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            ),
        ] {
            let mut object = json!({"spec": {"signerName": signer, "request": request(organization)}});
            let attributes = trial::attributes(Operation::Create, REQUESTS, None, "r", &mut object);
            assert_eq!(trial::validate(&CertificateSubjectRestriction, attributes).await, expected);
        }
    }

    fn authorizer(verb: &str, signer: &str) -> Arc<Authorizer> {
        let objects = FakeObjects::default();
        objects.put(
            "rbac.authorization.k8s.io/clusterroles",
            &json!({"metadata": {"name": "r"}, "rules": [
                {"apiGroups": [GROUP], "resources": ["signers"], "verbs": [verb], "resourceNames": [signer]}]}),
        );
        objects.put(
            "rbac.authorization.k8s.io/clusterrolebindings",
            &json!({"metadata": {"name": "b"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}]}),
        );
        Arc::new(Authorizer::new(Arc::new(objects)))
    }

    #[tokio::test]
    async fn who_may_approve_and_sign() {
        let old = json!({"spec": {"signerName": "example.com/x"}, "status": {}});
        for (verb, signer, approves, signs) in [
            ("approve", "example.com/x", true, false),
            ("approve", "example.com/*", true, false),
            ("approve", "example.com/y", false, false),
            ("sign", "example.com/x", false, true),
        ] {
            let mut object = json!({"spec": {}, "status": {"certificate": "x"}});
            let mut attributes = trial::attributes(Operation::Update, REQUESTS, None, "r", &mut object);
            attributes.old = Some(&old);
            attributes.subresource = Some("approval");
            let plugin = CertificateApproval { authorizer: authorizer(verb, signer) };
            let said = trial::validate(&plugin, attributes).await;
            assert_eq!(said.is_empty(), approves, "{verb} {signer}: {said}");
            let mut attributes = trial::attributes(Operation::Update, REQUESTS, None, "r", &mut object);
            attributes.old = Some(&old);
            attributes.subresource = Some("status");
            let plugin = CertificateSigning { authorizer: authorizer(verb, signer) };
            let said = trial::validate(&plugin, attributes).await;
            assert_eq!(said.is_empty(), signs, "{verb} {signer}: {said}");
        }
    }
}
