//! The process around the subsystems: whether the machine is fit, logs, metrics, health, the end. It must not know what
//! the subsystems do.

pub mod admin;
pub mod debug_state;
pub mod file;
pub mod http;
pub mod lock;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod preflight;
pub mod readiness;
pub mod shutdown;
