//! The scheduler: finds a node for every pod that has none.
//!
//! ```text
//!  watch pods, nodes --> queue, snapshot --> cycle::schedule (pure) --> assume, bind, report
//! ```
//!
//! One task owns queue and snapshot, so a decision looks at them without copies or locks. Decisions are pure; what
//! is known of a pod or a node is computed once, when it changes. Writes run beside that task.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

mod assign;
mod cycle;
mod driver;
mod events;
mod listing;
mod node;
mod plugins;
mod pod;
mod queue;
mod resources;
mod snapshot;

/// What the scheduler needs to be told.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// The name that pods ask for in `spec.schedulerName`.
    pub name: String,
    /// The wait after a pod's first failure.
    pub first_backoff: Duration,
    /// The longest wait after failures.
    pub longest_backoff: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            first_backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(10),
        }
    }
}

/// Schedules until cancelled.
pub async fn run(
    client: kube::Client,
    config: SchedulerConfig,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    driver::Driver::new(client, config).run(cancel).await
}
