//! The suites that need root, a kernel or a cluster: one test binary. `cargo xtask test` runs it.

mod agents;
mod api;
mod clients;
mod clusters;
mod cni;
mod connections;
mod daemonset;
mod datapath;
mod devices;
mod dns;
mod features;
mod foreign;
mod kubectl;
mod load_balancers;
mod outside;
mod overlay;
mod packets;
mod pods;
mod restart;
mod routing;
mod sctp;
mod services;
mod topology;
mod trouble;
mod upgrade;
mod workloads;
