//! A runtime in memory, for tests: it keeps what it was asked for and lets the test end containers or break calls.
//! Must not run anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::v1::{self, ContainerState, PodSandboxState};

/// A runtime in memory. Every call is written down in order; see [`FakeRuntime::calls`].
#[derive(Debug, Default)]
pub struct FakeRuntime {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clock: Option<i64>,
    next: u64,
    calls: Vec<String>,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Entry>,
    images: BTreeSet<String>,
    failures: BTreeMap<String, (tonic::Code, String)>,
    exec: BTreeMap<String, v1::ExecSyncResponse>,
}

#[derive(Debug)]
struct Sandbox {
    config: v1::PodSandboxConfig,
    ready: bool,
    created_at: i64,
}

#[derive(Debug)]
struct Entry {
    sandbox: String,
    config: v1::ContainerConfig,
    status: v1::ContainerStatus,
}

impl FakeRuntime {
    /// A runtime that has these images.
    pub fn with_images<'a>(images: impl IntoIterator<Item = &'a str>) -> Self {
        let fake = Self::default();
        fake.lock().images = images.into_iter().map(str::to_owned).collect();
        fake
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `operation object` of each changing call so far, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    /// Makes each later call of `operation` fail until [`FakeRuntime::mend`].
    pub fn fail(&self, operation: &str, code: tonic::Code, message: &str) {
        self.lock().failures.insert(operation.to_owned(), (code, message.to_owned()));
    }

    /// Ends what [`FakeRuntime::fail`] began.
    pub fn mend(&self, operation: &str) {
        self.lock().failures.remove(operation);
    }

    /// What `command` answers in every container; without one it answers success and no output.
    pub fn answer_exec(&self, command: &str, answer: v1::ExecSyncResponse) {
        self.lock().exec.insert(command.to_owned(), answer);
    }

    /// Sets the runtime's clock (nanoseconds since the epoch), which stands still from then on.
    pub fn set_time(&self, nanoseconds: i64) {
        self.lock().clock = Some(nanoseconds);
    }

    /// The youngest container of this name ends with `code`. False if there is none that runs.
    pub fn exit_container(&self, name: &str, code: i32) -> bool {
        let mut inner = self.lock();
        let now = inner.now();
        let running = |entry: &&mut Entry| {
            entry.name() == name && entry.status.state == ContainerState::ContainerRunning as i32
        };
        match inner.containers.values_mut().filter(running).last() {
            Some(entry) => {
                entry.end(now, code);
                true
            }
            None => false,
        }
    }

    /// All sandboxes stop being ready, as after a reboot of the node.
    pub fn lose_sandboxes(&self) {
        let mut inner = self.lock();
        let now = inner.now();
        inner.sandboxes.values_mut().for_each(|sandbox| sandbox.ready = false);
        inner.containers.values_mut().for_each(|entry| entry.end(now, 137));
    }

    /// The configuration with which the youngest container of this name was made.
    pub fn container_config(&self, name: &str) -> Option<v1::ContainerConfig> {
        self.lock().containers.values().rfind(|entry| entry.name() == name).map(|entry| entry.config.clone())
    }
}

impl Entry {
    fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
    }

    fn end(&mut self, now: i64, code: i32) {
        if self.status.state == ContainerState::ContainerExited as i32 {
            return;
        }
        self.status.state = ContainerState::ContainerExited as i32;
        self.status.finished_at = now;
        self.status.exit_code = code;
        self.status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
    }
}

impl Inner {
    fn now(&self) -> i64 {
        let real = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.clock.unwrap_or_else(|| i64::try_from(real()).unwrap_or(i64::MAX))
    }

    fn begin(&mut self, operation: &'static str, object: &str) -> Result<()> {
        self.calls.push(format!("{operation} {object}"));
        match self.failures.get(operation) {
            None => Ok(()),
            Some((code, message)) => Err(refuse(operation, object, *code, message)),
        }
    }

    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{:08}", self.next)
    }

    fn container(&mut self, operation: &'static str, id: &str) -> Result<&mut Entry> {
        let missing = || refuse(operation, id, tonic::Code::NotFound, "no such container");
        self.containers.get_mut(id).ok_or_else(missing)
    }
}

fn refuse(operation: &'static str, object: &str, code: tonic::Code, message: &str) -> Error {
    Error::Call {
        operation,
        object: object.to_owned(),
        status: Box::new(tonic::Status::new(code, message.to_owned())),
    }
}

fn selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0.0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, _verbose: bool) -> Result<v1::StatusResponse> {
        let ready =
            |kind: &str| v1::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let conditions = vec![ready("RuntimeReady"), ready("NetworkReady")];
        Ok(v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn run_sandbox(&self, config: v1::PodSandboxConfig, _handler: &str) -> Result<String> {
        let mut inner = self.lock();
        let name = config.metadata.clone().unwrap_or_default().name;
        inner.begin("RunPodSandbox", &name)?;
        let id = inner.id("s");
        let created_at = inner.now();
        inner.sandboxes.insert(id.clone(), Sandbox { config, ready: true, created_at });
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.begin("StopPodSandbox", id)?;
        let now = inner.now();
        if let Some(sandbox) = inner.sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        inner
            .containers
            .values_mut()
            .filter(|entry| entry.sandbox == id)
            .for_each(|entry| entry.end(now, 137));
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.begin("RemovePodSandbox", id)?;
        inner.sandboxes.remove(id);
        inner.containers.retain(|_, entry| entry.sandbox != id);
        Ok(())
    }

    async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let inner = self.lock();
        let missing = || refuse("PodSandboxStatus", id, tonic::Code::NotFound, "no such sandbox");
        let sandbox = inner.sandboxes.get(id).ok_or_else(missing)?;
        Ok(v1::PodSandboxStatus {
            id: id.to_owned(),
            metadata: sandbox.config.metadata.clone(),
            state: state_of(sandbox.ready) as i32,
            created_at: sandbox.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: "10.1.0.2".into(), additional_ips: Vec::new() }),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            ..Default::default()
        })
    }

    async fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let filter = filter.unwrap_or_default();
        let inner = self.lock();
        let all = inner.sandboxes.iter().map(|(id, sandbox)| v1::PodSandbox {
            id: id.clone(),
            metadata: sandbox.config.metadata.clone(),
            state: state_of(sandbox.ready) as i32,
            created_at: sandbox.created_at,
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            runtime_handler: String::new(),
        });
        Ok(all
            .filter(|sandbox| filter.id.is_empty() || sandbox.id == filter.id)
            .filter(|sandbox| selected(&sandbox.labels, &filter.label_selector))
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        _sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String> {
        let mut inner = self.lock();
        let metadata = config.metadata.clone().unwrap_or_default();
        inner.begin("CreateContainer", &metadata.name)?;
        if !inner.sandboxes.get(sandbox).is_some_and(|found| found.ready) {
            return Err(refuse("CreateContainer", &metadata.name, tonic::Code::NotFound, "no such sandbox"));
        }
        let id = inner.id("c");
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: ContainerState::ContainerCreated as i32,
            created_at: inner.now(),
            image: config.image.clone(),
            image_ref: config.image.clone().unwrap_or_default().image,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: config.log_path.clone(),
            ..Default::default()
        };
        inner.containers.insert(id.clone(), Entry { sandbox: sandbox.to_owned(), config, status });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let mut inner = self.lock();
        let name = inner.container("StartContainer", id)?.name().to_owned();
        let now = inner.now();
        let begun = inner.begin("StartContainer", &name);
        let entry = inner.container("StartContainer", id)?;
        if begun.is_err() {
            entry.end(now, 128);
            entry.status.reason = "StartError".into();
            return begun;
        }
        entry.status.state = ContainerState::ContainerRunning as i32;
        entry.status.started_at = now;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let mut inner = self.lock();
        let name = inner.containers.get(id).map_or(id.to_owned(), |entry| entry.name().to_owned());
        inner.begin("StopContainer", &format!("{name} {}", grace.as_secs()))?;
        let now = inner.now();
        if let Some(entry) = inner.containers.get_mut(id) {
            entry.end(now, 143);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let mut inner = self.lock();
        let name = inner.containers.get(id).map_or(id.to_owned(), |entry| entry.name().to_owned());
        inner.begin("RemoveContainer", &name)?;
        inner.containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        self.lock().container("ContainerStatus", id).map(|entry| entry.status.clone())
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let filter = filter.unwrap_or_default();
        let inner = self.lock();
        let all = inner.containers.iter().map(|(id, entry)| v1::Container {
            id: id.clone(),
            pod_sandbox_id: entry.sandbox.clone(),
            metadata: entry.config.metadata.clone(),
            image: entry.config.image.clone(),
            image_ref: entry.status.image_ref.clone(),
            state: entry.status.state,
            created_at: entry.status.created_at,
            labels: entry.config.labels.clone(),
            annotations: entry.config.annotations.clone(),
            image_id: String::new(),
        });
        Ok(all
            .filter(|found| filter.id.is_empty() || found.id == filter.id)
            .filter(|found| filter.pod_sandbox_id.is_empty() || found.pod_sandbox_id == filter.pod_sandbox_id)
            .filter(|found| selected(&found.labels, &filter.label_selector))
            .collect())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        _resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        let mut inner = self.lock();
        inner.begin("UpdateContainerResources", id)?;
        inner.container("UpdateContainerResources", id).map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.lock().container("ReopenContainerLog", id).map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        _timeout: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse> {
        let mut inner = self.lock();
        let line = command.join(" ");
        inner.container("ExecSync", id)?;
        inner.begin("ExecSync", &line)?;
        Ok(inner.exec.get(&line).cloned().unwrap_or_default())
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        Ok(format!("http://127.0.0.1:1/exec/{}", request.container_id))
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        Ok(format!("http://127.0.0.1:1/attach/{}", request.container_id))
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        Ok(format!("http://127.0.0.1:1/portforward/{}", request.pod_sandbox_id))
    }

    async fn list_container_stats(
        &self,
        _filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        Ok(Vec::new())
    }

    async fn list_sandbox_stats(
        &self,
        _filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        Ok(Vec::new())
    }

    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>> {
        let found = self.lock().images.contains(image);
        let describe = || v1::Image {
            id: format!("sha256:{image}"),
            repo_tags: vec![image.into()],
            ..Default::default()
        };
        Ok(found.then(describe))
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        let image = |name: &String| v1::Image { id: format!("sha256:{name}"), ..Default::default() };
        Ok(self.lock().images.iter().map(image).collect())
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String> {
        let image = request.image.unwrap_or_default().image;
        let mut inner = self.lock();
        inner.begin("PullImage", &image)?;
        inner.images.insert(image.clone());
        Ok(format!("sha256:{image}"))
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        self.lock().images.remove(image);
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        Ok(v1::ImageFsInfoResponse::default())
    }
}

fn state_of(ready: bool) -> PodSandboxState {
    if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}
