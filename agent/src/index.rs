//! IN: what the API server wants of this node. Kubernetes types stop here.

pub mod objects;
pub mod pods;
pub mod service_links;
pub mod endpoint_slices;
pub mod feed;
pub mod node;
pub mod services;
#[cfg(test)]
pub(crate) mod scripted;
