//! Runs the operations of a plan: each may be run twice and may be given up at any moment. Must not decide what is next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use pagurus_agent_core::pods::env::Surroundings;
use pagurus_agent_core::pods::plan::{Waiting, Why};
use pagurus_agent_core::pods::restart;
use pagurus_agent_core::pods::spec::RestartPolicy;
use pagurus_agent_core::pods::{ContainerKind, ObservedPod, Pod, PodOp};
use pagurus_agent_core::volumes::needs;
use pagurus_agent_core::volumes::payload::{Tokens, token_key};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Host, hooks, sandbox, start};
use crate::actuate::{cgroups, volumes};
use crate::report::pod_status::{ApiFailure, Token};

/// From the first to the longest wait before the next try.
pub(super) type Limits = (SignedDuration, SignedDuration);

/// A container's environment or volumes refer to something that is not there.
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";

const RUNTIME_RETRY: Limits = (SignedDuration::from_millis(500), SignedDuration::from_secs(10));
const MOUNT_RETRY: Limits = (SignedDuration::from_millis(500), SignedDuration::from_secs(120));
/// After its hook a container has at least this long.
const LEAST_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// How an operation ended.
pub(super) enum Outcome {
    /// It is done.
    Done(Effect),
    /// It is to be tried again.
    Failed {
        /// Brief word.
        reason: &'static str,
        /// What went wrong.
        message: String,
        /// When to try again.
        limits: Limits,
    },
    /// It was given up.
    Cancelled,
}

/// What the worker has to note.
pub(super) enum Effect {
    /// Nothing that the next look does not show.
    Nothing,
    /// The volumes are as wanted.
    VolumesReady,
    /// The volumes are gone.
    TornDown,
    /// Nothing is left on disk.
    CleanedUp,
    /// The sandbox is stopped.
    SandboxStopped(String),
    /// The API server has the status; this is the pod now.
    Reported(Box<Pod>),
    /// The API server has forgotten the pod.
    ApiForgot,
}

/// What an operation works on.
pub(super) struct Job {
    pub host: Arc<Host>,
    pub pod: Arc<Pod>,
    pub observed: ObservedPod,
    pub tokens: TokenCache,
    /// A hook that goes with the operation is to be run.
    pub runs_hook: bool,
}

/// The tokens of one pod. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct TokenCache(Arc<Mutex<TokenState>>);

#[derive(Default)]
struct TokenState {
    tokens: HashMap<(String, i64), Token>,
    due: Option<Timestamp>,
}

impl TokenCache {
    /// When the next token is to be renewed.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.0.lock().due
    }

    /// Forgets the time: the renewal is on its way.
    pub(super) fn clear_due(&self) {
        self.0.lock().due = None;
    }
}

pub(super) fn failed(reason: &'static str, message: impl ToString) -> Outcome {
    Outcome::Failed { reason, message: message.to_string(), limits: RUNTIME_RETRY }
}

/// Runs one operation until it ends or is given up.
pub(super) async fn run(job: Job, op: PodOp, cancel: CancellationToken) -> Outcome {
    // A start is given up only where nothing is left half made; it looks at the token itself.
    if let PodOp::Start { container, sandbox, attempt, replace } = op {
        return start::start(&job, &container, &sandbox, attempt, replace.as_deref(), &cancel).await;
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => Outcome::Cancelled,
        outcome = dispatch(&job, op) => outcome,
    }
}

async fn dispatch(job: &Job, op: PodOp) -> Outcome {
    let runtime = &job.host.runtime;
    let nothing = |result: pagurus_cri_api::Result<()>, reason| match result {
        Ok(()) => Outcome::Done(Effect::Nothing),
        Err(error) => failed(reason, error),
    };
    match op {
        PodOp::PrepareVolumes => prepare_volumes(job).await,
        PodOp::TearDownVolumes => tear_down(job).await,
        PodOp::CleanUp => clean_up(job).await,
        PodOp::CreateSandbox { attempt } => sandbox::create(job, attempt).await,
        PodOp::StopSandbox { id } => match runtime.stop_sandbox(&id).await {
            Ok(()) => Outcome::Done(Effect::SandboxStopped(id)),
            Err(error) => {
                job.host.events.warning(
                    &about(&job.pod),
                    "FailedKillPod",
                    format!("error killing pod: {error}"),
                );
                failed("KillPodSandboxError", error)
            }
        },
        PodOp::RemoveSandbox { id } => nothing(runtime.remove_sandbox(&id).await, "RemoveSandboxError"),
        PodOp::Remove { id } => nothing(runtime.remove_container(&id).await, "RemoveContainerError"),
        PodOp::Stop { id, container, deadline, why } => stop(job, &id, &container, deadline, why).await,
        PodOp::DeletePod => match job.host.api.delete(&job.pod.name, &job.pod.uid).await {
            Ok(()) => Outcome::Done(Effect::ApiForgot),
            Err(error) => failed("DeleteError", error),
        },
        // Starts have their own way; giving up is the worker's.
        PodOp::Start { .. } | PodOp::Cancel(_) => Outcome::Done(Effect::Nothing),
    }
}

/// Sends a patch of the status.
pub(super) async fn report(host: Arc<Host>, pod: Arc<Pod>, patch: Value, limits: Limits) -> Outcome {
    match host.api.patch_status(&pod.name, &pod.uid, patch).await {
        Ok(pod) => Outcome::Done(Effect::Reported(pod)),
        // Not a reason to end the pod: only the watch says that a pod is no longer wanted.
        Err(error) => Outcome::Failed { reason: "StatusError", message: error.to_string(), limits },
    }
}

async fn prepare_volumes(job: &Job) -> Outcome {
    match surroundings(job, &needs::volume_needs(&job.pod)).await {
        Ok(around) => {
            let tokens = match tokens(job).await {
                Ok(tokens) => tokens,
                Err(error) => return mount_failed(job, [(String::new(), error.to_string())]),
            };
            let (dirs, pod) = (job.host.dirs.clone(), job.pod.clone());
            let made =
                tokio::task::spawn_blocking(move || volumes::prepare(&dirs, &pod, &around, &tokens)).await;
            match made {
                Ok(Ok(())) => Outcome::Done(Effect::VolumesReady),
                Ok(Err(failures)) => {
                    mount_failed(job, failures.into_iter().map(|(volume, error)| (volume, error.to_string())))
                }
                Err(panic) => mount_failed(job, [(String::new(), panic.to_string())]),
            }
        }
        Err(error) => mount_failed(job, [(String::new(), error)]),
    }
}

fn mount_failed(job: &Job, failures: impl IntoIterator<Item = (String, String)>) -> Outcome {
    let mut all = Vec::new();
    for (volume, error) in failures {
        let message = if volume.is_empty() {
            error
        } else {
            format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}")
        };
        job.host.events.warning(&about(&job.pod), "FailedMount", message.clone());
        all.push(message);
    }
    Outcome::Failed { reason: "FailedMount", message: all.join("; "), limits: MOUNT_RETRY }
}

/// The tokens that the pod's volumes show: those at hand while they are fresh, new ones otherwise.
async fn tokens(job: &Job) -> Result<Tokens, ApiFailure> {
    let mut out = Tokens::new();
    let mut due: Option<Timestamp> = None;
    for wanted in needs::tokens(&job.pod) {
        let key = token_key(wanted);
        let now = Timestamp::now();
        let known = job.tokens.0.lock().tokens.get(&key).cloned();
        let fresh = known.filter(|token| renewal(token, key.1) > now);
        let token = match fresh {
            Some(token) => token,
            None => job.host.api.token(&job.pod, wanted).await?,
        };
        let renew = renewal(&token, key.1);
        due = Some(due.map_or(renew, |due| due.min(renew)));
        out.insert(key.clone(), token.text.clone());
        job.tokens.0.lock().tokens.insert(key, token);
    }
    job.tokens.0.lock().due = due;
    Ok(out)
}

/// A token is renewed when a fifth of its time is left, or after a day.
fn renewal(token: &Token, seconds: i64) -> Timestamp {
    let left = SignedDuration::from_secs((seconds / 5).max(1));
    let at = token.expires.checked_sub(left).unwrap_or(token.expires);
    let begun = token.expires.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(token.expires);
    at.min(begun.checked_add(SignedDuration::from_hours(24)).unwrap_or(at))
}

/// What the environment and the files of the pod can show.
pub(super) async fn surroundings(
    job: &Job,
    needs: &std::collections::BTreeSet<needs::Need>,
) -> Result<Surroundings, String> {
    let host = &job.host;
    let objects =
        host.objects.objects(&job.pod.name.namespace, needs).await.map_err(|error| error.to_string())?;
    let pod_ips = match job.observed.ready_sandbox() {
        Some(_) if job.pod.spec.host_network => host.host_ips.clone(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    Ok(Surroundings {
        objects,
        services: Vec::new(),
        pod_ips,
        host_ips: host.host_ips.clone(),
        allocatable: host.allocatable.clone(),
    })
}

async fn tear_down(job: &Job) -> Outcome {
    let (dirs, uid) = (job.host.dirs.clone(), job.pod.uid.clone());
    let done = tokio::task::spawn_blocking(move || {
        volumes::tear_down(&dirs, &uid).map_err(|error| error.to_string())
    });
    finished(done.await, Effect::TornDown)
}

async fn clean_up(job: &Job) -> Outcome {
    let (dirs, uid, has_cgroup) = (job.host.dirs.clone(), job.pod.uid.clone(), job.host.cgroups_per_qos);
    let done = tokio::task::spawn_blocking(move || {
        if has_cgroup {
            cgroups::remove(&uid).map_err(|error| error.to_string())?;
        }
        volumes::clean_up(&dirs, &uid).map_err(|error| error.to_string())
    });
    finished(done.await, Effect::CleanedUp)
}

fn finished(done: Result<Result<(), String>, tokio::task::JoinError>, effect: Effect) -> Outcome {
    let message = match done {
        Ok(Ok(())) => return Outcome::Done(effect),
        Ok(Err(error)) => error,
        Err(panic) => panic.to_string(),
    };
    Outcome::Failed { reason: "FailedUnMount", message, limits: MOUNT_RETRY }
}

/// Runs the hook, then stops the container; the kill comes at the deadline.
async fn stop(job: &Job, id: &str, name: &str, deadline: Timestamp, why: Why) -> Outcome {
    let about = about_container(&job.pod, name);
    let message = match why {
        Why::PodEnds => format!("Stopping container {name}"),
        Why::Probe(kind) => {
            let restarts = job.pod.container(name).is_none_or(|(kind, container)| {
                restart::policy(&job.pod, kind, container) != RestartPolicy::Never
            });
            let then = if restarts { ", will be restarted" } else { "" };
            format!("Container {name} failed {} probe{then}", kind.lowercase())
        }
        Why::SandboxLost => format!("Container {name} has lost its sandbox"),
        Why::Outdated => format!("Container {name} definition changed, will be restarted"),
    };
    job.host.events.normal(&about, "Killing", message);
    let left = || deadline.duration_since(Timestamp::now());
    if job.runs_hook
        && left() > SignedDuration::ZERO
        && let Some(hook) = hooks::pre_stop(job, id, name)
    {
        let limit = Duration::try_from(left()).unwrap_or_default();
        if let Err(error) = hooks::run(job, id, name, &hook, Some(limit)).await {
            job.host.events.warning(&about, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
        }
    }
    let grace = Duration::try_from(left().max(LEAST_GRACE)).unwrap_or_default();
    let least = if job.pod.grace() < LEAST_GRACE { Duration::from_secs(1) } else { grace };
    match job.host.runtime.stop_container(id, least).await {
        Ok(()) => Outcome::Done(Effect::Nothing),
        Err(error) => failed("KillContainerError", error),
    }
}

/// Says that a container keeps failing.
pub(super) fn tell_back_off(host: &Host, pod: &Pod, container: &str, waiting: &Waiting) {
    let about = about_container(pod, container);
    if waiting.reason == "CrashLoopBackOff" {
        let message = format!("Back-off restarting failed container {container} in pod {}", pod.full_name());
        host.events.warning(&about, "BackOff", message);
        return;
    }
    let image = pod.container(container).map_or("", |(_, container)| container.image.as_str());
    host.events.normal(&about, "BackOff", format!("Back-off pulling image \"{image}\""));
    host.events.warning(&about, "Failed", "Error: ImagePullBackOff");
}

/// Says that what containers may use is not changed while they run.
pub(super) fn tell_resize(host: &Host, old: &Pod, new: &Pod) {
    for (_, container) in new.containers() {
        let before = old.container(&container.name).map(|(_, before)| &before.resources);
        if before.is_some_and(|before| *before != container.resources) {
            let message = format!(
                "the resources of container {} are not changed while it runs; they hold from its next start on",
                container.name
            );
            host.events.warning(&about_container(new, &container.name), "ResizeInfeasible", message);
        }
    }
}

/// A reference to the pod, for events.
pub(super) fn about(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.name.namespace.clone()),
        name: Some(pod.name.name.clone()),
        uid: Some(pod.uid.0.clone()),
        resource_version: Some(pod.resource_version.clone()).filter(|version| !version.is_empty()),
        field_path: None,
    }
}

/// A reference to a container of the pod, for events.
pub(super) fn about_container(pod: &Pod, container: &str) -> ObjectReference {
    let list = match pod.container(container).map(|(kind, _)| kind) {
        Some(ContainerKind::Init | ContainerKind::Sidecar) => "initContainers",
        Some(ContainerKind::Ephemeral) => "ephemeralContainers",
        Some(ContainerKind::App) | None => "containers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..about(pod) }
}
