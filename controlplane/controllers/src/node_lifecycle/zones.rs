//! How fast nodes may be given the taint that drives pods out: one in ten seconds in each zone; slower or not at all
//! when much of a zone is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;

use super::health::ready_status;
use crate::endpoint_slice::ZONE;
use crate::runtime::object::label;

const PACE: Duration = Duration::from_secs(10);
const SLOW_PACE: Duration = Duration::from_secs(100);
/// In zones up to this size nothing is driven out while most of it is lost.
const SMALL: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// When each zone may lose its next node.
#[derive(Debug, Default)]
pub(super) struct Zones {
    next: HashMap<String, Instant>,
}

fn zone(node: &Node) -> &str {
    label(&node.metadata, ZONE).unwrap_or_default()
}

fn lost(node: &Node) -> bool {
    matches!(ready_status(node), "False" | "Unknown")
}

/// The pace for a zone of which not all is lost; `None` if nothing may be driven out.
fn pace(node: &Node, nodes: &[Arc<Node>]) -> Option<Duration> {
    let here: Vec<_> = nodes.iter().filter(|n| zone(n) == zone(node)).collect();
    let down = here.iter().filter(|n| lost(n)).count();
    let most = down > 2 && down * 100 >= here.len() * 55;
    match (most && down < here.len(), here.len() > SMALL) {
        (false, _) => Some(PACE),
        (true, true) => Some(SLOW_PACE),
        (true, false) => None,
    }
}

impl Zones {
    /// Whether the lost node shall have the taint that drives pods out, and when to ask again. `held` says that it has
    /// it already.
    pub(super) fn admit(
        &mut self,
        node: &Node,
        nodes: &[Arc<Node>],
        held: bool,
        now: Instant,
    ) -> (bool, Option<Duration>) {
        if nodes.iter().all(|n| lost(n)) {
            // If everything is lost, it is more likely that we are: what has been said is taken back.
            return (false, Some(LOOK_AGAIN));
        }
        if held {
            return (true, None);
        }
        let Some(pace) = pace(node, nodes) else { return (false, Some(LOOK_AGAIN)) };
        self.next.retain(|_, next| *next > now);
        let next = self.next.entry(zone(node).to_owned()).or_insert(now);
        if *next > now {
            return (false, Some(*next - now));
        }
        *next = now + pace;
        (true, None)
    }
}
