//! Pods: what is wanted ([`spec`]), what is there ([`observed`]), what the worker knows besides ([`progress`]), what to
//! do next ([`plan`]) and what to tell the API server ([`status`]).
//!
//! Everything here is a pure function of its arguments: time is one of them.

pub mod admit;
pub mod env;
pub mod lifecycle;
pub mod network;
pub mod observed;
pub mod plan;
pub mod probes;
pub mod progress;
pub mod resources;
pub mod restart;
#[cfg(test)]
pub(crate) mod scenes;
pub mod spec;
pub mod status;

pub use observed::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox};
pub use plan::{Plan, PodOp, plan};
pub use progress::{Failure, Progress, Slot};
pub use spec::{Container, ContainerKind, Pod, PodSpec};
