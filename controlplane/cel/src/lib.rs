//! The Common Expression Language as Kubernetes v1.37 uses it: expressions in CustomResourceDefinitions, admission policies,
//! webhook configurations and device selectors. Knows values and types, not what they are rules about.
//!
//! An expression is read ([`syntax`] on the parser of the crate `cel`), its macros are expanded ([`macros`]), its types checked
//! ([`check`]), its worst cost estimated ([`cost`]), and then it runs as often as wanted ([`eval`]): over JSON that it borrows
//! ([`value`]), with the functions of [`library`], within a budget. [`Program`] is the door to all of it.

mod check;
mod cost;
mod eval;
mod library;
mod macros;
mod program;
mod source;
mod syntax;
mod time;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use check::Variable;
pub use cost::Range;
pub use eval::EvalError;
pub use library::{AUTHORIZER, Opaque, QUANTITY, RESOURCE_CHECK};
pub use program::{CALL_LIMIT, Program, Run};
pub use source::{Errors, Location, SourceError};
pub use types::{DeclKind, DeclType, Field, ListKind, MAX_REQUEST, ObjectType, Type};
pub use value::{List, Map, Text, Value};
