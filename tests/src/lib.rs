//! Fixtures of the suites that need root, a kernel or a cluster. Each cleans up what it made, also when a test fails.

pub mod bpf;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod dataplane;
pub mod disk;
pub mod eventually;
pub mod history;
pub mod kubectl;
pub mod load;
pub mod netns;
pub mod object;
pub mod pace;
pub mod packet;
pub mod sctp;
pub mod server;
pub mod test_run;
pub mod topology;
pub mod webhook;
pub mod wire;
pub mod witness;
