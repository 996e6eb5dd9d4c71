//! Leases.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use super::cells;
use super::fields::Fields;
use super::plain::Plain;
use super::rules::{Errors, non_negative, positive};

/// The strategy of `leases`.
pub(crate) static LEASES: Plain = Plain {
    cells: |object, now| {
        vec![cells::name(object), object.text("spec.holderIdentity").into(), cells::age(object, now)]
    },
    validate: validate_lease,
    create_on_update: true,
    unconditional_update: false,
    ..Plain::NEW
};

fn validate_lease(lease: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    if let Some(seconds) = lease.some_int("spec.leaseDurationSeconds") {
        positive(&mut errors, &path.child("leaseDurationSeconds"), seconds);
    }
    if let Some(count) = lease.some_int("spec.leaseTransitions") {
        non_negative(&mut errors, &path.child("leaseTransitions"), count);
    }
    if !lease.text("spec.preferredHolder").is_empty() && lease.text("spec.strategy").is_empty() {
        let text = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(path.child("preferredHolder"), text));
    }
    errors
}
