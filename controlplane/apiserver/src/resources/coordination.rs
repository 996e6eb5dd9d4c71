//! Leases.

use super::cells;
use super::fields::Fields;
use super::plain::Plain;

/// The strategy of `leases`.
pub(crate) static LEASES: Plain = Plain {
    cells: |object, now| {
        vec![cells::name(object), object.text("spec.holderIdentity").into(), cells::age(object, now)]
    },
    create_on_update: true,
    unconditional_update: false,
    ..Plain::NEW
};
