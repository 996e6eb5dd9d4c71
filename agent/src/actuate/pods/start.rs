//! Starts a container: image, description, make, start, hook. Given up half-way it leaves something that the next look
//! finds and the next try replaces.

use std::time::Duration;

use jiff::SignedDuration;
use pagurus_agent_core::names::runtime as labels;
use pagurus_agent_core::pods::restart::Attempt;
use pagurus_agent_core::volumes::needs;
use pagurus_cri_api::v1;
use tokio_util::sync::CancellationToken;

use super::container_config::Blueprint;
use super::operations::{CONFIG_ERROR, Effect, Job, Limits, Outcome, about_container, failed, surroundings};
use super::{hooks, image, sandbox};

/// A description that does not work now may work when something it refers to appears; that wakes us. This is for the rest.
const CONFIG_RETRY: Limits = (SignedDuration::from_secs(2), SignedDuration::from_secs(20));
const CREATE_RETRY: Limits = (SignedDuration::from_secs(1), SignedDuration::from_secs(60));
/// What a container has to end in when its hook failed.
const HOOK_GRACE: Duration = Duration::from_secs(30);

/// Starts this container in this sandbox. Given up only while it waits for an image or a hook: a call that makes or starts
/// something is waited for, so that what it made is known.
pub(super) async fn start(
    job: &Job,
    name: &str,
    sandbox: &str,
    attempt: Attempt,
    replace: Option<&str>,
    cancel: &CancellationToken,
) -> Outcome {
    match try_start(job, name, sandbox, attempt, replace, cancel).await {
        Ok(()) => Outcome::Done(Effect::Nothing),
        Err(outcome) => outcome,
    }
}

async fn try_start(
    job: &Job,
    name: &str,
    sandbox: &str,
    attempt: Attempt,
    replace: Option<&str>,
    cancel: &CancellationToken,
) -> Result<(), Outcome> {
    let Some((_, container)) = job.pod.container(name) else { return Ok(()) };
    let (events, runtime, about) = (&job.host.events, &job.host.runtime, about_container(&job.pod, name));
    let image = unless(cancel, image::ensure(job, container)).await?;
    let config = unless(cancel, describe(job, name, attempt, image)).await.inspect_err(|outcome| {
        if let Outcome::Failed { message, .. } = outcome {
            events.warning(&about, "Failed", format!("Error: {message}"));
        }
    })?;
    if let Some(unstarted) = replace {
        runtime.remove_container(unstarted).await.map_err(|error| failed("RemoveContainerError", error))?;
    }
    make_way(job, name, attempt).await?;
    let sandbox_config = sandbox::config(job, job.observed.sandbox().map_or(0, |sandbox| sandbox.attempt));
    let id = runtime.create_container(sandbox, config, sandbox_config).await.map_err(|error| {
        events.warning(&about, "Failed", format!("Error: {}", error.runtime_message()));
        Outcome::Failed {
            reason: "CreateContainerError",
            message: error.runtime_message(),
            limits: CREATE_RETRY,
        }
    })?;
    events.normal(&about, "Created", format!("Created container: {name}"));
    runtime.start_container(&id).await.map_err(|error| {
        events.warning(&about, "Failed", format!("Error: {}", error.runtime_message()));
        Outcome::Failed {
            reason: "RunContainerError",
            message: error.runtime_message(),
            limits: CREATE_RETRY,
        }
    })?;
    events.normal(&about, "Started", format!("Started container {name}"));
    let Some(hook) = &container.lifecycle.post_start else { return Ok(()) };
    let hooked = unless(cancel, async { Ok(hooks::run(job, &id, name, hook, None).await) }).await?;
    if let Err(error) = hooked {
        events.warning(&about, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
        events.normal(&about, "Killing", "FailedPostStartHook");
        runtime.stop_container(&id, HOOK_GRACE).await.map_err(|error| failed("KillContainerError", error))?;
        return Err(Outcome::Failed { reason: "PostStartHookError", message: error, limits: CREATE_RETRY });
    }
    Ok(())
}

/// Waits for this, or for being given up.
async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Outcome>>,
) -> Result<T, Outcome> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Outcome::Cancelled),
        done = work => done,
    }
}

/// The container in the runtime's words.
async fn describe(
    job: &Job,
    name: &str,
    attempt: Attempt,
    image: v1::Image,
) -> Result<v1::ContainerConfig, Outcome> {
    let config_failed = |message| Outcome::Failed { reason: CONFIG_ERROR, message, limits: CONFIG_RETRY };
    let mut around = surroundings(job, &needs::needs(&job.pod)).await.map_err(config_failed)?;
    let wants_links = job.pod.spec.enable_service_links.unwrap_or(true);
    let (services, known) = job.host.links.of_pod(&job.pod.name.namespace, wants_links).await;
    if !known {
        return Err(config_failed("the list of Services is not known yet".to_owned()));
    }
    around.services = services;
    let logs = job.host.dirs.pod_logs(&job.pod.name, &job.pod.uid).join(name);
    let inner = Job {
        host: job.host.clone(),
        pod: job.pod.clone(),
        observed: job.observed.clone(),
        tokens: job.tokens.clone(),
        runs_hook: job.runs_hook,
    };
    let name = name.to_owned();
    let described = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&logs)
            .map_err(|error| format!("make directory {}: {error}", logs.display()))?;
        let Some((kind, container)) = inner.pod.container(&name) else {
            return Err(format!("the pod has no container {name} any more"));
        };
        let blueprint = Blueprint { job: &inner, kind, container, attempt, around: &around, image: &image };
        blueprint.config().map_err(|error| error.to_string())
    });
    described.await.map_err(|panic| config_failed(panic.to_string()))?.map_err(config_failed)
}

/// Removes a container that holds the name of this attempt: a start that was given up between "make" and our knowing of
/// it leaves one, and the runtime reserves the name.
async fn make_way(job: &Job, name: &str, attempt: Attempt) -> Result<(), Outcome> {
    let is_it = |found: &&pagurus_agent_core::pods::ObservedContainer| {
        found.name == name && found.attempt == attempt.number && !found.is_alive()
    };
    let Some(stale) = job.observed.containers.iter().find(is_it) else { return Ok(()) };
    tracing::debug!(id = stale.id, label = labels::CONTAINER_NAME, "removes what holds the container's name");
    job.host.runtime.remove_container(&stale.id).await.map_err(|error| failed("RemoveContainerError", error))
}
