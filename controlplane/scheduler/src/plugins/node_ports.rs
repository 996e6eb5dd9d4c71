//! NodePorts: a port of a node goes to one pod only.

use super::{Candidate, Reason};
use crate::pod::{HostPort, PodInfo};

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    if pod.ports.iter().any(|wanted| candidate.node.ports.keys().any(|taken| clash(wanted, taken))) {
        reasons.push(Reason::passing("node(s) didn't have free ports for the requested pod ports"));
    }
}

/// The same port of the same address; all addresses clash with each.
fn clash(one: &HostPort, other: &HostPort) -> bool {
    const ALL: &str = "0.0.0.0";
    one.port == other.port
        && one.protocol == other.protocol
        && (one.ip == other.ip || one.ip == ALL || other.ip == ALL)
}
