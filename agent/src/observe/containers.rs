//! What the runtime has, pod by pod: a cheap list of everything now and then to find out which pods changed, and a close
//! look at one pod when its worker wants it. Must not know what is wanted.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use pagurus_agent_core::names::{PodName, PodUid, runtime as labels};
use pagurus_agent_core::pods::observed::{
    ContainerState, Exit, ObservedContainer, ObservedPod, ObservedSandbox, StopSettings,
};
use pagurus_cri_api::{Runtime, v1};
use parking_lot::Mutex;

use super::last_words;

/// Everything the runtime's lists say about a pod that can change: ids with their states.
type Fingerprint = Vec<(String, i32)>;

/// Looks at the runtime. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    runtime: Arc<dyn Runtime>,
    seen: Arc<Mutex<HashMap<PodUid, Seen>>>,
}

/// What was found at the last close look; ends and addresses do not change any more.
#[derive(Default)]
struct Seen {
    fingerprint: Fingerprint,
    containers: BTreeMap<String, ObservedContainer>,
    sandboxes: BTreeMap<String, ObservedSandbox>,
}

impl Observer {
    /// Looks at this runtime.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, seen: Arc::default() }
    }

    /// Lists everything and answers the pods that differ from what the last close look at them found.
    pub async fn changed_pods(&self) -> pagurus_cri_api::Result<Vec<PodUid>> {
        let (sandboxes, containers) = self.lists(None).await?;
        let mut found: HashMap<PodUid, Fingerprint> = HashMap::new();
        for sandbox in &sandboxes {
            found.entry(uid(&sandbox.labels)).or_default().push((sandbox.id.clone(), sandbox.state));
        }
        for container in &containers {
            found.entry(uid(&container.labels)).or_default().push((container.id.clone(), container.state));
        }
        let seen = self.seen.lock();
        let mut changed: Vec<PodUid> = Vec::new();
        for (uid, mut fingerprint) in found.drain() {
            fingerprint.sort();
            if seen.get(&uid).is_none_or(|seen| seen.fingerprint != fingerprint) {
                changed.push(uid);
            }
        }
        let is_there = |uid: &PodUid| {
            sandboxes.iter().any(|s| s.labels.get(labels::POD_UID) == Some(&uid.0))
                || containers.iter().any(|c| c.labels.get(labels::POD_UID) == Some(&uid.0))
        };
        changed.extend(
            seen.iter()
                .filter(|(uid, s)| !s.fingerprint.is_empty() && !is_there(uid))
                .map(|(uid, _)| uid.clone()),
        );
        changed.retain(|uid| !uid.0.is_empty());
        Ok(changed)
    }

    /// A close look at one pod.
    pub async fn observe(&self, pod: &PodUid) -> pagurus_cri_api::Result<ObservedPod> {
        let (sandboxes, containers) = self.lists(Some(pod)).await?;
        let mut before = self.seen.lock().remove(pod).unwrap_or_default();
        let mut seen = Seen::default();
        for sandbox in &sandboxes {
            seen.fingerprint.push((sandbox.id.clone(), sandbox.state));
            let known = before.sandboxes.remove(&sandbox.id);
            if let Some(observed) = self.sandbox(sandbox, known).await? {
                seen.sandboxes.insert(sandbox.id.clone(), observed);
            }
        }
        for container in &containers {
            seen.fingerprint.push((container.id.clone(), container.state));
            let known = before.containers.remove(&container.id);
            if let Some(observed) = self.container(container, known).await? {
                seen.containers.insert(container.id.clone(), observed);
            }
        }
        seen.fingerprint.sort();
        let mut observed = ObservedPod {
            sandboxes: seen.sandboxes.values().cloned().collect(),
            containers: seen.containers.values().cloned().collect(),
        };
        observed.sort();
        if !seen.fingerprint.is_empty() {
            self.seen.lock().insert(pod.clone(), seen);
        }
        Ok(observed)
    }

    async fn lists(
        &self,
        pod: Option<&PodUid>,
    ) -> pagurus_cri_api::Result<(Vec<v1::PodSandbox>, Vec<v1::Container>)> {
        let selector = pod.map(|uid| BTreeMap::from([(labels::POD_UID.to_owned(), uid.0.clone())]));
        let sandbox_filter = selector
            .clone()
            .map(|label_selector| v1::PodSandboxFilter { label_selector, ..Default::default() });
        let container_filter =
            selector.map(|label_selector| v1::ContainerFilter { label_selector, ..Default::default() });
        tokio::try_join!(
            self.runtime.list_sandboxes(sandbox_filter),
            self.runtime.list_containers(container_filter)
        )
    }

    /// `None` if it went away in between.
    async fn sandbox(
        &self,
        listed: &v1::PodSandbox,
        known: Option<ObservedSandbox>,
    ) -> pagurus_cri_api::Result<Option<ObservedSandbox>> {
        let ready = listed.state == v1::PodSandboxState::SandboxReady as i32;
        if let Some(mut known) = known
            && (!ready || !known.ips.is_empty() || known.ready == ready)
        {
            known.ready = ready;
            return Ok(Some(known));
        }
        let status = match self.runtime.sandbox_status(&listed.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let network = status.network.unwrap_or_default();
        let ips = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|more| &more.ip));
        let metadata = listed.metadata.clone().unwrap_or_default();
        Ok(Some(ObservedSandbox {
            id: listed.id.clone(),
            pod: PodName::new(metadata.namespace, metadata.name),
            attempt: metadata.attempt,
            ready,
            created: time(listed.created_at),
            ips: ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        }))
    }

    /// `None` if it went away in between.
    async fn container(
        &self,
        listed: &v1::Container,
        known: Option<ObservedContainer>,
    ) -> pagurus_cri_api::Result<Option<ObservedContainer>> {
        let state =
            v1::ContainerState::try_from(listed.state).unwrap_or(v1::ContainerState::ContainerUnknown);
        let unchanged = known.filter(|known| {
            matches!(
                (&known.state, state),
                (ContainerState::Running { .. }, v1::ContainerState::ContainerRunning)
                    | (ContainerState::Exited(_), v1::ContainerState::ContainerExited)
                    | (ContainerState::Created, v1::ContainerState::ContainerCreated)
            )
        });
        if unchanged.is_some() {
            return Ok(unchanged);
        }
        let status = match self.runtime.container_status(&listed.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let words = match state {
            v1::ContainerState::ContainerExited => last_words::of(&status).await,
            _ => String::new(),
        };
        Ok(Some(translate(listed, status, words)))
    }
}

fn translate(listed: &v1::Container, status: v1::ContainerStatus, words: String) -> ObservedContainer {
    let number = |key: &str| status.annotations.get(key).and_then(|value| value.parse().ok());
    let metadata = listed.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(v1::ContainerState::ContainerRunning) => {
            ContainerState::Running { started: time(status.started_at) }
        }
        Ok(v1::ContainerState::ContainerExited) => ContainerState::Exited(Exit {
            started: (status.started_at > 0).then(|| time(status.started_at)),
            finished: time(status.finished_at),
            code: status.exit_code,
            signal: 0,
            reason: status.reason.clone(),
            message: words,
        }),
        Ok(v1::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    };
    ObservedContainer {
        id: listed.id.clone(),
        sandbox: listed.pod_sandbox_id.clone(),
        name: metadata.name,
        attempt: number(labels::RESTART_COUNT).unwrap_or(metadata.attempt),
        backoff_step: number(labels::BACKOFF_STEP).unwrap_or(0),
        created: time(status.created_at),
        state,
        wanted_image: status.annotations.get(labels::WANTED_IMAGE).cloned().unwrap_or_default(),
        image,
        image_id: status.image_ref.clone(),
        log_path: status.log_path.clone(),
        stop: StopSettings {
            grace: status.annotations.get(labels::GRACE_PERIOD).and_then(|value| value.parse().ok()),
            pre_stop: status.annotations.get(labels::PRE_STOP).cloned(),
        },
    }
}

fn uid(labels_of: &BTreeMap<String, String>) -> PodUid {
    PodUid(labels_of.get(labels::POD_UID).cloned().unwrap_or_default())
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
