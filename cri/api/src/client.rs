//! The runtime behind a unix socket. Must not decide anything: one call in, one call out, a limit of time on each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::v1;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;

/// Time that a call may take which waits for no container.
const CALL: Duration = Duration::from_secs(120);
/// A sandbox waits for the network plug-in, so it may take longer.
const RUN_SANDBOX: Duration = Duration::from_secs(240);
/// An image may be big.
const PULL: Duration = Duration::from_secs(3600);
/// Biggest answer that is read: a list of some ten thousand containers.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// A CRI runtime at a unix socket. Cheap to clone; reconnects by itself when the runtime was restarted.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    path: PathBuf,
}

impl Client {
    /// A client of `unix:///path/to.sock` (or a bare path). Does not connect yet: the first call does.
    pub fn new(endpoint: &str) -> Result<Self> {
        let path = socket_path(endpoint)?;
        let channel = transport(&path)?.connect_with_connector_lazy(connector(path.clone()));
        Ok(Self::over(channel, path))
    }

    /// Connects now, so that a runtime which is not there is told at once.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let path = socket_path(endpoint)?;
        let channel = transport(&path)?
            .connect_with_connector(connector(path.clone()))
            .await
            .map_err(|source| Error::Connect { path: path.clone(), source })?;
        Ok(Self::over(channel, path))
    }

    fn over(channel: Channel, path: PathBuf) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            path,
        }
    }

    /// The socket this client speaks to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') { Ok(PathBuf::from(path)) } else { Err(Error::Endpoint(endpoint.to_owned())) }
}

fn transport(path: &Path) -> Result<Endpoint> {
    // The authority is never looked up; HTTP/2 only wants one.
    Endpoint::try_from("http://localhost")
        .map_err(|source| Error::Connect { path: path.to_owned(), source })
        .map(|endpoint| endpoint.connect_timeout(Duration::from_secs(5)))
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send,
> + Clone
+ Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
}

/// Runs one call with its limit of time and gives its error a name.
async fn call<T>(
    operation: &'static str,
    object: &str,
    limit: Option<Duration>,
    future: impl Future<Output = std::result::Result<Response<T>, Status>> + Send,
) -> Result<T> {
    let failed = |status| Error::Call { operation, object: object.to_owned(), status: Box::new(status) };
    let answer = match limit {
        None => future.await,
        Some(limit) => match tokio::time::timeout(limit, future).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))),
        },
    };
    answer.map(Response::into_inner).map_err(failed)
}

/// Missing objects are what a repeatable removal wants.
fn gone_is_done<T>(result: Result<T>) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn present<T>(part: Option<T>, operation: &'static str, object: &str, missing: &'static str) -> Result<T> {
    part.ok_or_else(|| Error::Incomplete { operation, object: object.to_owned(), missing })
}

#[async_trait]
impl Runtime for Client {
    async fn version(&self) -> Result<v1::VersionResponse> {
        let request = Request::new(v1::VersionRequest { version: "v1".into() });
        call("Version", "of the runtime", Some(CALL), self.runtime.clone().version(request)).await
    }

    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse> {
        let request = v1::StatusRequest { verbose };
        call("Status", "of the runtime", Some(CALL), self.runtime.clone().status(request)).await
    }

    async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let name =
            config.metadata.as_ref().map(|m| format!("{}/{}", m.namespace, m.name)).unwrap_or_default();
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        call("RunPodSandbox", &name, Some(RUN_SANDBOX), self.runtime.clone().run_pod_sandbox(request))
            .await
            .map(|answer| answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(
            call("StopPodSandbox", id, Some(CALL), self.runtime.clone().stop_pod_sandbox(request)).await,
        )
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(
            call("RemovePodSandbox", id, Some(CALL), self.runtime.clone().remove_pod_sandbox(request)).await,
        )
    }

    async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer =
            call("PodSandboxStatus", id, Some(CALL), self.runtime.clone().pod_sandbox_status(request))
                .await?;
        present(answer.status, "PodSandboxStatus", id, "status")
    }

    async fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter };
        call("ListPodSandbox", "all", Some(CALL), self.runtime.clone().list_pod_sandbox(request))
            .await
            .map(|answer| answer.items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let mut client = self.runtime.clone();
        call("CreateContainer", &name, Some(CALL), Box::pin(client.create_container(request)))
            .await
            .map(|answer| answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        call("StartContainer", id, Some(CALL), self.runtime.clone().start_container(request)).await.map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = Some(CALL.saturating_add(grace));
        gone_is_done(call("StopContainer", id, limit, self.runtime.clone().stop_container(request)).await)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_done(
            call("RemoveContainer", id, Some(CALL), self.runtime.clone().remove_container(request)).await,
        )
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer =
            call("ContainerStatus", id, Some(CALL), self.runtime.clone().container_status(request)).await?;
        present(answer.status, "ContainerStatus", id, "status")
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let request = v1::ListContainersRequest { filter };
        call("ListContainers", "all", Some(CALL), self.runtime.clone().list_containers(request))
            .await
            .map(|answer| answer.containers)
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            annotations: Default::default(),
        };
        call(
            "UpdateContainerResources",
            id,
            Some(CALL),
            self.runtime.clone().update_container_resources(request),
        )
        .await
        .map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call("ReopenContainerLog", id, Some(CALL), self.runtime.clone().reopen_container_log(request))
            .await
            .map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse> {
        let seconds = timeout.map_or(0, |limit| i64::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(0));
        let request =
            v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout: seconds };
        // The runtime ends the command at its own limit; ours only guards against a runtime that hangs.
        let limit = timeout.map(|limit| limit.saturating_add(Duration::from_secs(10)));
        call("ExecSync", id, limit, self.runtime.clone().exec_sync(request)).await
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        let id = request.container_id.clone();
        call("Exec", &id, Some(CALL), self.runtime.clone().exec(request)).await.map(|answer| answer.url)
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        let id = request.container_id.clone();
        call("Attach", &id, Some(CALL), self.runtime.clone().attach(request)).await.map(|answer| answer.url)
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        let id = request.pod_sandbox_id.clone();
        call("PortForward", &id, Some(CALL), self.runtime.clone().port_forward(request))
            .await
            .map(|answer| answer.url)
    }

    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        let request = v1::ListContainerStatsRequest { filter };
        call("ListContainerStats", "all", Some(CALL), self.runtime.clone().list_container_stats(request))
            .await
            .map(|answer| answer.stats)
    }

    async fn list_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        let request = v1::ListPodSandboxStatsRequest { filter };
        call("ListPodSandboxStats", "all", Some(CALL), self.runtime.clone().list_pod_sandbox_stats(request))
            .await
            .map(|answer| answer.stats)
    }

    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        call("ImageStatus", image, Some(CALL), self.images.clone().image_status(request))
            .await
            .map(|answer| answer.image)
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        let request = v1::ListImagesRequest { filter: None };
        call("ListImages", "all", Some(CALL), self.images.clone().list_images(request))
            .await
            .map(|answer| answer.images)
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String> {
        let image = request.image.as_ref().map(|spec| spec.image.clone()).unwrap_or_default();
        let mut client = self.images.clone();
        call("PullImage", &image, Some(PULL), Box::pin(client.pull_image(request)))
            .await
            .map(|answer| answer.image_ref)
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let request = v1::RemoveImageRequest { image: Some(image_spec(image)) };
        gone_is_done(call("RemoveImage", image, Some(CALL), self.images.clone().remove_image(request)).await)
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        let request = v1::ImageFsInfoRequest {};
        call("ImageFsInfo", "of the runtime", Some(CALL), self.images.clone().image_fs_info(request)).await
    }
}

fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(socket_path("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(socket_path("/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        let error = socket_path("tcp://127.0.0.1:1").unwrap_err().to_string();
        assert!(error.contains("tcp://127.0.0.1:1"), "{error}");
    }

    #[tokio::test]
    async fn absent_socket_names_the_path() {
        let error = Client::connect("unix:///nonexistent/pagurus.sock").await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/pagurus.sock"), "{error}");
    }
}
