//! RuntimeClasses.

use super::cells;
use super::fields::Fields;
use super::plain::Plain;

/// The strategy of `runtimeclasses`.
pub(crate) static RUNTIME_CLASSES: Plain = Plain {
    cells: |object, now| vec![cells::name(object), object.text("handler").into(), cells::age(object, now)],
    unconditional_update: false,
    ..Plain::NEW
};
