//! Which endpoints take new connections.
//!
//! Must not know: frontends, maps.

use crate::addr::Backend;
use crate::services::{Endpoint, PoolKey, Scope, Slice};

/// The backends of a pool, in order, each once: the ready endpoints; if there is none, those that still serve while
/// they terminate.
pub fn backends<'a>(key: &PoolKey, slices: impl Iterator<Item = &'a Slice>) -> Vec<Backend> {
    let mut ready = Vec::new();
    let mut draining = Vec::new();
    for slice in slices.filter(|slice| slice.family == key.family) {
        let ports = slice.ports.iter().filter(|port| port.name == key.port && port.protocol == key.protocol);
        for port in ports {
            for endpoint in slice.endpoints.iter().filter(|endpoint| in_scope(key.scope, endpoint)) {
                let backend = Backend { ip: endpoint.ip, port: port.port, protocol: port.protocol };
                if endpoint.ready {
                    ready.push(backend);
                } else if endpoint.serving && endpoint.terminating {
                    draining.push(backend);
                }
            }
        }
    }
    let mut chosen = if ready.is_empty() { draining } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// Whether the pool takes this endpoint at all.
fn in_scope(scope: Scope, endpoint: &Endpoint) -> bool {
    match scope {
        Scope::Cluster => true,
        Scope::Local => endpoint.local,
    }
}
