//! The pods' table as the node API asks it. It must not keep anything.

use pagurus_agent_core::pods::ContainerState;
use serde_json::Value;

use super::{ContainerEntry, Instance, PodDirectory, PodEntry};
use crate::observe::pods::{ContainerView, PodTable, PodView};

impl PodDirectory for PodTable {
    fn pods(&self) -> Vec<PodEntry> {
        self.all().iter().map(|view| entry(view)).collect()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        PodTable::find(self, namespace, name).map(|view| entry(&view))
    }
}

fn entry(view: &PodView) -> PodEntry {
    let container = |name: &str| ContainerEntry {
        name: name.to_owned(),
        current: view.container(name).map(instance),
        previous: view.previous_container(name).map(instance),
        waiting: waiting(&view.status, name),
    };
    PodEntry {
        pod: view.pod.clone(),
        sandbox_id: view.sandbox_id().map(str::to_owned),
        containers: view.pod.containers().map(|(_, spec)| container(&spec.name)).collect(),
    }
}

fn instance(view: ContainerView) -> Instance {
    Instance {
        running: matches!(view.state, ContainerState::Running { .. }),
        log_path: view.log_path.into(),
        id: view.id,
    }
}

/// Why a container waits, by the pod's status.
fn waiting(status: &Value, name: &str) -> Option<String> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let entries = lists.iter().filter_map(|list| status[*list].as_array()).flatten();
    let reason = entries
        .filter(|entry| entry["name"] == name)
        .find_map(|entry| entry["state"]["waiting"]["reason"].as_str());
    reason.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn why_containers_wait() {
        let status = json!({
            "initContainerStatuses": [{"name": "i", "state": {"terminated": {}}}],
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}],
        });
        assert_eq!(waiting(&status, "c").as_deref(), Some("PodInitializing"));
        assert_eq!(waiting(&status, "i"), None);
        assert_eq!(waiting(&status, "x"), None);
    }
}
