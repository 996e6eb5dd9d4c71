//! Sockets in a pod's network namespace. It must not leave any thread of the agent in it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use pagurus_cri_api::v1;
use pagurus_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

/// The file of the network namespace of a sandbox, as the runtime tells it.
pub(super) async fn of_sandbox(runtime_socket: &Path, sandbox: &str) -> Result<PathBuf, String> {
    let socket = runtime_socket.to_owned();
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .map_err(|error| format!("connect to the container runtime: {error}"))?;
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
    let answer = RuntimeServiceClient::new(channel)
        .pod_sandbox_status(request)
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let info = answer.info.get("info").map(String::as_str).unwrap_or_default();
    namespace_file(info)
        .ok_or_else(|| "the container runtime names neither a process nor a network namespace".to_owned())
}

/// The namespace of the sandbox's process, or else the file that the runtime configured.
fn namespace_file(info: &str) -> Option<PathBuf> {
    let info: Value = serde_json::from_str(info).ok()?;
    if let Some(pid) = info["pid"].as_u64().filter(|pid| *pid > 0) {
        return Some(PathBuf::from(format!("/proc/{pid}/ns/net")));
    }
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    network["path"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Connects to a port of the loopback there: IPv4, and IPv6 where nobody listens on that.
pub(super) async fn connect_loopback(namespace: &Path, port: u16) -> io::Result<TcpStream> {
    let v4 = connect(namespace, AddressFamily::Inet, (Ipv4Addr::LOCALHOST, port).into()).await;
    let Err(error) = v4 else { return v4 };
    match connect(namespace, AddressFamily::Inet6, (Ipv6Addr::LOCALHOST, port).into()).await {
        Ok(stream) => Ok(stream),
        Err(_) => Err(io::Error::new(error.kind(), format!("dial tcp4 127.0.0.1:{port}: {error}"))),
    }
}

async fn connect(namespace: &Path, family: AddressFamily, address: SocketAddr) -> io::Result<TcpStream> {
    let namespace = namespace.to_owned();
    let (sender, made) = tokio::sync::oneshot::channel();
    // A thread of its own, which ends at once: a thread of the pool would have to be brought back to the node's network.
    std::thread::Builder::new().name("netns".to_owned()).stack_size(64 * 1024).spawn(move || {
        let _ = sender.send(socket_in(&namespace, family));
    })?;
    let socket = made.await.map_err(|_| io::Error::other("the thread that makes the socket died"))??;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket keeps the namespace that it was made in.
fn socket_in(namespace: &Path, family: AddressFamily) -> io::Result<OwnedFd> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_runtime_says_the_network_is() {
        let check = |info: &str, expected: Option<&str>| {
            assert_eq!(namespace_file(info), expected.map(PathBuf::from), "{info}");
        };
        check(r#"{"pid": 7}"#, Some("/proc/7/ns/net"));
        let path = r#""runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}"#;
        check(&format!(r#"{{"pid":0,{path}}}"#), Some("/run/netns/x"));
        check(r#"{"pid":0}"#, None);
        check("", None);
    }
}
