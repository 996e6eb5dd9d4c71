//! The type table of the Kubernetes API and everything that follows from it: decoding with upstream's strictness,
//! the round trip through a typed object, static defaults, patches, conversion, OpenAPI and discovery documents.
//!
//! Everything here is a pure function of its arguments and the committed table. It must not know of I/O, of storage, of
//! requests, or of what one kind does differently from another (that is the API server's `resources`).

pub mod check;
pub mod codec;
pub mod convert;

pub mod defaults;
pub mod discovery;
pub mod fields;
pub mod normalize;
pub mod openapi;

pub mod patch;
pub mod structural;
pub mod table;

pub use check::{Structural, structural};
pub use normalize::normalize;
pub use table::{Field, FieldKind, Resource, Table, Type, TypeId};
