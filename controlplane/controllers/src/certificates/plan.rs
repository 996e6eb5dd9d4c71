//! What to do about one signing request. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::issue;
use super::request::Request;
use super::signer::{self, Signer};
use crate::runtime::object::{after_seconds, created, deleting, seconds_since};

const HOUR: i64 = 3600;
/// How long requests are kept that were answered, and that were not.
const ANSWERED_SECONDS: i64 = HOUR;
const PENDING_SECONDS: i64 = 24 * HOUR;

/// A right that lets a node have such a certificate without anybody's approval, and what to say then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Approval {
    pub(super) subresource: &'static str,
    pub(super) message: &'static str,
}

const SELF: Approval = Approval {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE: Approval = Approval {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// What a certificate shall say.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) request: Request,
    pub(super) usages: Vec<String>,
    /// Seconds, as asked for.
    pub(super) life: Option<i64>,
}

/// The next step.
#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    /// It is too old; the word says of what.
    Delete(&'static str),
    /// It is approved if who made it holds one of these rights.
    Review(Vec<Approval>),
    /// It cannot be signed, ever.
    Refuse {
        reason: &'static str,
        message: String,
    },
    Sign(Box<Wanted>),
}

/// The step, and when to look again although nothing happens.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) action: Action,
    pub(super) again: Option<Duration>,
}

/// Plans one pass.
pub(super) fn plan(request: &CertificateSigningRequest, now: Timestamp) -> Plan {
    if deleting(&request.metadata) {
        return Plan { action: Action::Nothing, again: None };
    }
    let (due, why) = end(request);
    if due <= now {
        return Plan { action: Action::Delete(why), again: None };
    }
    let left = u64::try_from(seconds_since(now, due)).unwrap_or(0);
    Plan { action: step(request), again: Some(Duration::from_secs(left)) }
}

fn held<'r>(
    request: &'r CertificateSigningRequest,
    kind: &str,
) -> Option<&'r CertificateSigningRequestCondition> {
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.status != "False").find(|c| c.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|c| !c.is_empty())
}

/// When a request has had its time, and of what kind it is.
fn end(request: &CertificateSigningRequest) -> (Timestamp, &'static str) {
    let made = created(&request.metadata);
    let since = |c: &CertificateSigningRequestCondition| c.last_update_time.as_ref().map_or(made, |t| t.0);
    let answered = |kind: &str| held(request, kind).map(|c| after_seconds(since(c), ANSWERED_SECONDS));
    let mut ends = Vec::new();
    ends.extend(answered("Denied").map(|at| (at, "denied")));
    ends.extend(answered("Failed").map(|at| (at, "failed")));
    ends.extend(answered("Approved").map(|at| (at, "approved")));
    if let Some(until) = certificate(request).and_then(issue::end_of) {
        ends.push((until, "expired"));
    }
    if ends.is_empty() {
        ends.push((after_seconds(made, PENDING_SECONDS), "pending"));
    }
    ends.into_iter().min().unwrap_or((Timestamp::MAX, ""))
}

fn step(csr: &CertificateSigningRequest) -> Action {
    let Some(signer) = Signer::named(&csr.spec.signer_name) else { return Action::Nothing };
    if certificate(csr).is_some() || held(csr, "Denied").is_some() || held(csr, "Failed").is_some() {
        return Action::Nothing;
    }
    let approved = held(csr, "Approved").is_some();
    let usages = csr.spec.usages.clone().unwrap_or_default();
    let request = match Request::parse(&csr.spec.request.0) {
        Ok(request) => request,
        Err(error) if approved => return refusal(&format!("unable to parse csr: {error}")),
        Err(_) => return Action::Nothing,
    };
    let verdict = signer::check(signer, &request, &usages);
    match (approved, verdict) {
        (true, Ok(())) => {
            let life = csr.spec.expiration_seconds.map(i64::from);
            Action::Sign(Box::new(Wanted { request, usages, life }))
        }
        (true, Err(error)) => refusal(&error),
        (false, Ok(())) if signer == Signer::KubeletClient => {
            let own = csr.spec.username.as_deref() == Some(request.common_name.as_str());
            Action::Review(own.then_some(SELF).into_iter().chain([NODE]).collect())
        }
        (false, _) => Action::Nothing,
    }
}

fn refusal(message: &str) -> Action {
    Action::Refuse { reason: "SignerValidationFailure", message: message.to_owned() }
}
