//! Plans against maps in memory: after every single operation no connection meets half a Service, after every plan the maps say
//! what a naive reading of the desired state says, whatever was interrupted before.
#![allow(clippy::unwrap_used, reason = "tests")]

mod model;
mod sequences;
