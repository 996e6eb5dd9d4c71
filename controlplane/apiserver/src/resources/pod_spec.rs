//! The pod specification, wherever it stands: in a Pod, or in the template of a workload. Defaults and rules.

mod affinity;
mod containers;
pub(crate) mod defaults;
mod env;
mod network;
pub(crate) mod policy;
mod probes;
pub(crate) mod quality;
mod requirements;
mod scheduling;
mod security;
mod system;
mod validate;
mod volume_mounts;
mod volume_sources;
mod volumes;
pub(crate) mod warnings;
pub(crate) mod workload;

pub(crate) use affinity::node_selector;
pub(crate) use requirements::{container_resource_name, quantity, resource_name};
pub(crate) use scheduling::{taint_effect, tolerations};
pub(crate) use validate::{pod, template};
pub(crate) use volume_sources::{csi_driver, persistent as persistent_source};
