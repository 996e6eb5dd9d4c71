//! CertificateSigningRequests: approves the nodes' own, signs those that are approved, and removes the old ones.
//!
//! `plan` decides, `issue` makes certificates, this file watches and applies. Requests of other signers than the
//! cluster's own are only removed when they are old.

mod der;
mod issue;
mod plan;
mod request;
mod signer;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::SigningCa;
use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{ObjectKey, now, time};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use issue::Authority;
use plan::{Action, Approval};

const IDENTITY: &str = "certificate-controller";
const WIDTH: usize = 4;
/// How often it is asked whether a right has been given meanwhile.
const REVIEW_AGAIN: Duration = Duration::from_secs(30);

struct Controller {
    requests: Arc<Store<CertificateSigningRequest>>,
    api: Api<CertificateSigningRequest>,
    reviews: Api<SubjectAccessReview>,
    /// None where the cluster's key is not at hand.
    authority: Option<Authority>,
}

/// The controller of signing requests. Fails if the key or its certificate is not usable.
pub(crate) fn start(context: &Context) -> anyhow::Result<BoxFuture<'static, ()>> {
    let authority = match &context.config.signing_ca {
        Some(SigningCa { certificate, key }) => {
            Some(Authority::new(certificate, key).context("cannot sign for the cluster")?)
        }
        None => {
            tracing::warn!("certificate signing requests are not signed: the cluster's key is not at hand");
            None
        }
    };
    let client = context.client(IDENTITY);
    let controller = Controller {
        requests: context.informers.all(),
        api: Api::all(client.clone()),
        reviews: Api::all(client),
        authority,
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.requests, queue.clone());
    let cancel = context.cancel.clone();
    Ok(async move {
        controller.requests.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed())
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(request) = self.requests.get(&key) else { return Ok(None) };
        let plan = plan::plan(&request, now());
        match plan.action {
            Action::Nothing => {}
            Action::Delete(why) => {
                tracing::debug!(request = %key, why, "signing request removed");
                self.delete(&request).await?;
            }
            Action::Review(approvals) => {
                if !self.review(&request, approvals).await? {
                    // The right may be given later.
                    return Ok(plan.again.map(|left| left.min(REVIEW_AGAIN)));
                }
            }
            Action::Refuse { reason, message } => {
                let failed = condition("Failed", reason, &message, now());
                self.report(&request, None, Some(failed)).await?;
            }
            Action::Sign(wanted) => {
                let Some(authority) = &self.authority else { return Ok(plan.again) };
                let certificate = authority.issue(&wanted, now())?;
                self.report(&request, Some(certificate), None).await?;
                tracing::info!(request = %key, "certificate issued");
            }
        }
        Ok(plan.again)
    }

    async fn delete(&self, request: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let uid = request.metadata.uid.clone();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let name = request.metadata.name.as_deref().unwrap_or_default();
        outcome::gone_is_fine(self.api.delete(name, &params).await).map(drop)
    }

    /// Approves the request if who made it has been given the right to such certificates. False if not: then somebody
    /// may still approve it by hand.
    async fn review(
        &self,
        request: &CertificateSigningRequest,
        approvals: Vec<Approval>,
    ) -> anyhow::Result<bool> {
        for Approval { subresource, message } in approvals {
            let spec = &request.spec;
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: spec.username.clone(),
                    uid: spec.uid.clone(),
                    groups: spec.groups.clone(),
                    extra: spec.extra.clone(),
                    resource_attributes: Some(ResourceAttributes {
                        group: Some("certificates.k8s.io".to_owned()),
                        resource: Some("certificatesigningrequests".to_owned()),
                        subresource: Some(subresource.to_owned()),
                        verb: Some("create".to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    non_resource_attributes: None,
                },
                ..SubjectAccessReview::default()
            };
            let answer = self.reviews.create(&PostParams::default(), &review).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                continue;
            }
            let mut approved = request.clone();
            let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.push(condition("Approved", "AutoApproved", message, now()));
            self.write("approval", approved).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn report(
        &self,
        request: &CertificateSigningRequest,
        certificate: Option<String>,
        failed: Option<CertificateSigningRequestCondition>,
    ) -> anyhow::Result<()> {
        let mut changed = request.clone();
        let status = changed.status.get_or_insert_default();
        if let Some(certificate) = certificate {
            status.certificate = Some(ByteString(certificate.into_bytes()));
        }
        status.conditions.get_or_insert_default().extend(failed);
        self.write("status", changed).await
    }

    async fn write(&self, subresource: &str, changed: CertificateSigningRequest) -> anyhow::Result<()> {
        let name = changed.metadata.name.as_deref().unwrap_or_default();
        let result = self.api.replace_subresource(subresource, name, &PostParams::default(), &changed).await;
        if let Some(written) = outcome::gone_is_fine(result)? {
            self.requests.written(written);
        }
        Ok(())
    }
}

fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

#[cfg(test)]
mod tests;
