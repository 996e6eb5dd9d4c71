//! Custom resources: from a CustomResourceDefinition to something that is served.
//!
//! It must not know how requests are answered: that is the engine's business, for custom resources as for all others.

pub(crate) mod rules;
