//! Runs the hooks of containers: a command, a page, a wait. Must not know when they are due.

use std::time::Duration;

use pagurus_agent_core::pods::probes::Outcome as Answer;
use pagurus_agent_core::pods::spec::Handler;

use super::operations::Job;
use crate::actuate::probes::{Target, http_get};

/// How long a page may take when nothing else limits it.
const PAGE: Duration = Duration::from_secs(60);

/// The preStop hook of a container: as wanted, or as the container was made with.
pub(super) fn pre_stop(job: &Job, id: &str, name: &str) -> Option<Handler> {
    if let Some((_, container)) = job.pod.container(name) {
        return container.lifecycle.pre_stop.clone();
    }
    let found = job.observed.containers.iter().find(|found| found.id == id)?;
    let read = serde_json::from_str(found.stop.pre_stop.as_deref()?);
    read.inspect_err(|error| {
        tracing::warn!(pod = %job.pod.name, container = name, %error, "the preStop hook kept with the container cannot be read");
    })
    .ok()
}

/// Runs a hook, for at most so long. The error says what went wrong.
pub(super) async fn run(
    job: &Job,
    id: &str,
    name: &str,
    hook: &Handler,
    limit: Option<Duration>,
) -> Result<(), String> {
    let work = act(job, id, name, hook, limit);
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(format!("not through after {} s", limit.as_secs())),
        },
    }
}

async fn act(job: &Job, id: &str, name: &str, hook: &Handler, limit: Option<Duration>) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let done =
            job.host.runtime.exec_sync(id, &exec.command, limit).await.map_err(|error| error.to_string())?;
        if done.exit_code == 0 {
            return Ok(());
        }
        let said = String::from_utf8_lossy(if done.stderr.is_empty() { &done.stdout } else { &done.stderr })
            .into_owned();
        return Err(format!("command '{}' exited with {}: {said}", exec.command.join(" "), done.exit_code));
    }
    if let Some(page) = &hook.http_get {
        let ip = match job.observed.ready_sandbox() {
            Some(_) if job.pod.spec.host_network => job.host.host_ips.first().copied(),
            Some(sandbox) => sandbox.ips.first().copied(),
            None => None,
        };
        let target = Target { pod: job.pod.clone(), ip, name: name.to_owned(), id: id.to_owned() };
        return match http_get(&target, page, limit.unwrap_or(PAGE)).await {
            (Answer::Success, _) => Ok(()),
            (_, said) => Err(said),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("the hook has no action that is known here".to_owned())
}
