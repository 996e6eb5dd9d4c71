//! What every controller stands on: informers with indexed stores, work queues, workers, writes that are seen at
//! once, and the events recorder.
//!
//! Nothing below this module knows a controller.

pub mod children;
pub mod claim;
pub mod discovery;
#[cfg(test)]
pub(crate) mod fake;
pub mod informer;
pub mod object;
pub mod outcome;
pub mod pods;
pub mod queue;
pub mod rank;
pub mod recorder;
pub mod revisions;
pub mod store;
pub mod template;
pub mod worker;
pub mod writer;
