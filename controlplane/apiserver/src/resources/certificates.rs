//! CertificateSigningRequests, ClusterTrustBundles and PodCertificateRequests.

pub(crate) mod signing_request;

use jiff::Timestamp;
use pagurus_controlplane_api::{conditions, time};
use serde_json::Value;

use super::cells;
use super::fields::Fields;
use super::plain::Plain;

/// The strategy of `clustertrustbundles`.
pub(crate) static TRUST_BUNDLES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), object.text("spec.signerName").into()],
    fields: &[named("spec.signerName")],
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `podcertificaterequests`.
pub(crate) static POD_REQUESTS: Plain = Plain {
    cells: |object, _| {
        let spec = object.at("spec");
        let decided =
            ["Denied", "Failed", "Issued"].into_iter().find(|kind| conditions::is_true(object, kind));
        vec![
            cells::name(object),
            spec.text("podName").into(),
            spec.text("serviceAccountName").into(),
            spec.text("nodeName").into(),
            spec.text("signerName").into(),
            decided.unwrap_or("Pending").into(),
            cells::label_map(object, "spec.unverifiedUserAnnotations").into(),
        ]
    },
    ..Plain::NEW
};

fn request_cells(request: &Value, now: Timestamp) -> Vec<Value> {
    let duration = request
        .some_int("spec.expirationSeconds")
        .map_or(cells::NONE.to_owned(), |seconds| time::human_duration(seconds * 1000));
    vec![
        cells::name(request),
        cells::age(request, now),
        cells::or_none(request.text("spec.signerName")),
        request.text("spec.username").into(),
        duration.into(),
        state(request).into(),
    ]
}

fn state(request: &Value) -> String {
    let has = |kind| conditions::get(request, kind).is_some();
    let mut out = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        out.push_str(",Failed");
    }
    if !request.text("status.certificate").is_empty() {
        out.push_str(",Issued");
    }
    out
}
use crate::registry::named;
