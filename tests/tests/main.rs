//! The suites that need root, a kernel or a cluster: one test binary. `cargo xtask test` runs it.

mod api;
mod clients;
mod clusters;
mod cni;
mod datapath;
mod dns;
mod features;
mod devices;
mod kubectl;
mod load_balancers;
mod packets;
mod outside;
mod pods;
mod restart;
mod routing;
mod sctp;
mod services;
mod topology;
mod workloads;
