//! The pod specification, wherever it stands: in a Pod, or in the template of a workload. Defaults and rules.

pub(crate) mod defaults;
pub(crate) mod quality;
