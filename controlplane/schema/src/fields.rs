//! Who set which field: field sets (`FieldsV1`), `metadata.managedFields`, and server-side apply (KEP-555).
//!
//! An update compares the object before and after and gives the changed fields to the writer; an apply merges the writer's
//! configuration into the live object, refuses to take what others own unless forced, and removes what the writer applied before and
//! left out now. Pure functions over objects and the type table; time and the writer's name are arguments.

mod changes;
mod compare;
mod managed;
mod merge;
mod remove;
mod scale;
mod set;
mod versions;
mod view;
mod write;

pub use changes::{Change, changes, writers};
pub use managed::{Entry, Managed, Operation};
pub use scale::{kept_by_parent, seen_by_scale};
pub use set::Set;
pub use versions::{Form, OneVersion, Versions};
pub use view::TypedError;
pub use write::{ApplyError, Conflict, Writer, apply, update};

#[cfg(test)]
mod tests;
