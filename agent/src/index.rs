//! IN: what the API server wants of this node. Kubernetes types stop here.

pub mod balanced;
pub mod dns;
pub mod endpoint_slices;
pub mod feed;
pub mod node;
pub mod objects;
pub mod pods;
#[cfg(test)]
pub(crate) mod scripted;
pub mod service_links;
pub mod services;
pub mod wire;
