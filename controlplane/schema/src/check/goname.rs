//! Names of Go types, as they appear in the decoding errors that clients know. It must not know how values are decoded.

use crate::table::{Field, FieldKind, Table};

/// The Go name of a kind; `field` names the scalar, list or map if it has a name of its own.
pub(crate) fn of(table: &Table, kind: &FieldKind, field: Option<&Field>) -> String {
    let named = field.and_then(|f| f.go_type.as_deref());
    match kind {
        FieldKind::List(item) => format!("[]{}", of(table, item, field)),
        FieldKind::Map(_) if named.is_some() => named.unwrap_or_default().to_owned(),
        FieldKind::Map(value) => format!("map[string]{}", of(table, value, None)),
        FieldKind::String => named.unwrap_or("string").to_owned(),
        FieldKind::Int32 => "int32".to_owned(),
        FieldKind::Int64 => "int64".to_owned(),
        FieldKind::Double => "float64".to_owned(),
        FieldKind::Bool => "bool".to_owned(),
        FieldKind::Bytes => "[]uint8".to_owned(),
        FieldKind::Object(id) => table.type_(*id).go_name(),
        FieldKind::Quantity => "resource.Quantity".to_owned(),
        FieldKind::IntOrString => "intstr.IntOrString".to_owned(),
        FieldKind::Time => "v1.Time".to_owned(),
        FieldKind::MicroTime => "v1.MicroTime".to_owned(),
        FieldKind::Duration => "v1.Duration".to_owned(),
        FieldKind::Raw => "runtime.RawExtension".to_owned(),
        FieldKind::Json | FieldKind::Either(_) => "interface {}".to_owned(),
    }
}
