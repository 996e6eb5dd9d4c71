//! The runtime as the rest of the project sees it: one method per call, in terms of ids and generated messages.
//! Must not know how the runtime is reached.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::v1;

/// A container runtime that speaks CRI v1.
///
/// All methods may be called at the same time. `stop_*` and `remove_*` are repeatable: what is not there is success.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<v1::VersionResponse>;
    /// The runtime's conditions; `verbose` adds its configuration as JSON.
    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse>;

    /// Creates and starts a sandbox; answers its id.
    async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String>;
    /// Ends all in the sandbox and takes its network away.
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    /// Removes the sandbox with its containers.
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// State and addresses of a sandbox.
    async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus>;
    /// The sandboxes that match.
    async fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>>;

    /// Creates a container in a sandbox; answers its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Stop signal now, SIGKILL after `grace`; returns when the container has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    /// Removes a container, killing it first if it still runs.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// State of a container.
    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus>;
    /// The containers that match.
    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>>;
    /// Changes the resources of a container in place.
    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()>;
    /// Reopens the log file after it was moved away.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Runs a command in a container to its end. `None` is without limit.
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse>;
    /// URL of a streaming end point for `exec`.
    async fn exec(&self, request: v1::ExecRequest) -> Result<String>;
    /// URL of a streaming end point for `attach`.
    async fn attach(&self, request: v1::AttachRequest) -> Result<String>;
    /// URL of a streaming end point for port forwarding.
    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String>;

    /// Usage of the containers that match.
    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>>;
    /// Usage of the sandboxes that match.
    async fn list_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>>;

    /// The image, if the runtime has it.
    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>>;
    /// All images.
    async fn list_images(&self) -> Result<Vec<v1::Image>>;
    /// Fetches an image; answers its reference.
    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String>;
    /// Removes an image.
    async fn remove_image(&self, image: &str) -> Result<()>;
    /// Usage of the file systems that hold images.
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse>;
}
