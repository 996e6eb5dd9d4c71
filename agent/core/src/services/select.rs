//! Which endpoints take new connections: kube-proxy's rules.
//!
//! Must not know: frontends, maps. Sources: the reference of EndpointSlice (conditions, hints), KEP-1669 (terminating endpoints
//! take over where nobody is ready), KEP-2086 (internalTrafficPolicy), KEP-2433, KEP-4444 and KEP-3015 (topology hints: used
//! only if every ready endpoint has them and one of them is for this node or zone; those for nodes come before those for zones).

use crate::addr::{Backend, Family, Protocol};
use crate::services::{Endpoint, Slice};

/// What the hints of an endpoint say to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing: there are none.
    None,
    /// It is for others.
    Elsewhere,
    /// It is for this node.
    Here,
}

/// An endpoint at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub backend: Backend,
    /// Takes new connections.
    pub ready: bool,
    /// Serves those it has while it terminates.
    pub draining: bool,
    /// Runs on this node.
    pub local: bool,
    /// Whether this node's zone should use it.
    pub zone: Hint,
    /// Whether this node should use it.
    pub node: Hint,
}

/// Where this node is.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its zone.
    pub zone: Option<&'a str>,
}

/// The backends of one Service port in one family, in order; each a place in the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Policy `Cluster`, with this node's hints.
    pub cluster: Vec<usize>,
    /// Policy `Cluster` with no regard for hints: the same on every node.
    pub everywhere: Vec<usize>,
    /// Policy `Local`.
    pub local: Vec<usize>,
}

impl Choice {
    /// Whether there is any endpoint at all.
    pub fn has_any(&self) -> bool {
        !self.everywhere.is_empty()
    }
}

/// The endpoints of one port in one family, ordered by address and port, each once.
pub fn candidates<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    family: Family,
    port: &str,
    protocol: Protocol,
    here: Here<'_>,
) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let ports = slice.ports.iter().filter(|other| *other.name == *port && other.protocol == protocol);
        for port in ports {
            all.reserve(slice.endpoints.len());
            all.extend(slice.endpoints.iter().map(|endpoint| candidate(endpoint, port.port, protocol, here)));
        }
    }
    if !all.is_sorted_by(|a, b| a.backend < b.backend) {
        all.sort_unstable_by_key(|candidate| candidate.backend);
        all.dedup_by(|later, kept| {
            let same = later.backend == kept.backend;
            if same {
                merge(kept, later);
            }
            same
        });
    }
    all
}

fn candidate(endpoint: &Endpoint, port: u16, protocol: Protocol, here: Here<'_>) -> Candidate {
    let hint = |names: &[std::sync::Arc<str>], own: Option<&str>| match names {
        [] => Hint::None,
        names if own.is_some_and(|own| names.iter().any(|name| **name == *own)) => Hint::Here,
        _ => Hint::Elsewhere,
    };
    Candidate {
        backend: Backend { ip: endpoint.ip, port, protocol },
        ready: endpoint.ready,
        draining: !endpoint.ready && endpoint.serving && endpoint.terminating,
        local: endpoint.local,
        zone: hint(&endpoint.for_zones, here.zone),
        node: hint(&endpoint.for_nodes, Some(here.node)),
    }
}

/// The same endpoint in two slices (it moves from one to the other): what either says of it.
fn merge(kept: &mut Candidate, other: &Candidate) {
    let hint = |a, b| match (a, b) {
        (Hint::Here, _) | (_, Hint::Here) => Hint::Here,
        (Hint::None, _) | (_, Hint::None) => Hint::None,
        (Hint::Elsewhere, Hint::Elsewhere) => Hint::Elsewhere,
    };
    kept.ready |= other.ready;
    kept.draining = !kept.ready && (kept.draining || other.draining);
    kept.local |= other.local;
    kept.zone = hint(kept.zone, other.zone);
    kept.node = hint(kept.node, other.node);
}

/// Chooses among the endpoints of one port in one family.
pub fn choose(candidates: &[Candidate]) -> Choice {
    let everywhere = serving(candidates, |_| true);
    let cluster = match topology(candidates) {
        Some(Topology::Node) => serving(candidates, |candidate| candidate.node == Hint::Here),
        Some(Topology::Zone) => serving(candidates, |candidate| candidate.zone == Hint::Here),
        None => everywhere.clone(),
    };
    Choice { cluster, everywhere, local: serving(candidates, |candidate| candidate.local) }
}

/// The ready ones in a scope; if there is none, those that still serve while they terminate.
fn serving(candidates: &[Candidate], in_scope: impl Fn(&Candidate) -> bool) -> Vec<usize> {
    let of = |takes: &dyn Fn(&Candidate) -> bool| -> Vec<usize> {
        let all = candidates.iter().enumerate();
        all.filter(|(_, candidate)| takes(candidate) && in_scope(candidate)).map(|(place, _)| place).collect()
    };
    let ready = of(&|candidate| candidate.ready);
    if ready.is_empty() { of(&|candidate| candidate.draining) } else { ready }
}

enum Topology {
    Node,
    Zone,
}

/// Which hints count.
fn topology(candidates: &[Candidate]) -> Option<Topology> {
    let counts = |hint: &dyn Fn(&Candidate) -> Hint| {
        let ready = || candidates.iter().filter(|candidate| candidate.ready).map(hint);
        ready().all(|hint| hint != Hint::None) && ready().any(|hint| hint == Hint::Here)
    };
    if counts(&|candidate| candidate.node) {
        Some(Topology::Node)
    } else if counts(&|candidate| candidate.zone) {
        Some(Topology::Zone)
    } else {
        None
    }
}
