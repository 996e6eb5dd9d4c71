//! Custom resources: from a CustomResourceDefinition to something that is served.
//!
//! It must not know how requests are answered: that is the engine's business, for custom resources as for all others.

mod accept;
mod columns;
mod controller;
mod convert;
mod custom;
mod establish;
pub mod json_path;
mod resource;
pub(crate) mod rules;
mod terminate;
mod version;

pub use controller::Definitions;
pub use custom::Custom;
pub(crate) use version::{Scale, Version};
