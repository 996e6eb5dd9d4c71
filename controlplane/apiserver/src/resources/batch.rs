//! The kinds of the group `batch`, one module each.

pub(super) mod cron_job;
pub(super) mod job;
mod schedule;
