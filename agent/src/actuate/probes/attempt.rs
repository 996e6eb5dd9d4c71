//! One attempt of a probe: what is done, and whether it went well. It must not count attempts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pagurus_agent_core::pods::probes::{self, Outcome};
use pagurus_agent_core::pods::spec::{ExecAction, HttpGetAction, IntOrString, Probe, TcpAction};
use pagurus_agent_core::pods::{Container, Pod};
use pagurus_cri_api::Runtime;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{grpc, http};

/// No more of what a command prints goes into an event.
const MAX_OUTPUT: usize = 10 * 1024;

/// The container that a probe or a hook is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// The container's name.
    pub name: String,
    /// The runtime's id of it.
    pub id: String,
}

impl Target {
    /// The container in the pod's spec.
    pub fn container(&self) -> Option<&Container> {
        self.pod.container(&self.name).map(|(_, container)| container)
    }

    /// The number of a port given by number or by name.
    pub fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::Text(name) => {
                let ports = self.container().map(|container| container.ports.as_slice()).unwrap_or_default();
                let named =
                    ports.iter().find(|port| &port.name == name).map(|port| i64::from(port.container_port));
                named.or_else(|| name.parse().ok())
            }
        };
        let number = number.ok_or_else(|| match port {
            IntOrString::Text(name) => format!("couldn't find port: {name:?} in container {}", self.name),
            IntOrString::Int(number) => format!("invalid port number: {number}"),
        })?;
        u16::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("invalid port number: {number}"))
    }

    /// The host to connect to: the one given, or the pod's address.
    pub fn host(&self, host: &str) -> Result<String, String> {
        match self.ip {
            _ if !host.is_empty() => Ok(host.to_owned()),
            Some(ip) => Ok(ip.to_string()),
            None => Err("the pod has no address yet".to_owned()),
        }
    }
}

/// Asks for a page of the container, as probes and hooks do. The text says how it went.
pub async fn http_get(target: &Target, action: &HttpGetAction, limit: Duration) -> (Outcome, String) {
    let request = match http::Request::of(target, action) {
        Ok(request) => request,
        Err(problem) => return (Outcome::Error, problem),
    };
    match tokio::time::timeout(limit, http::get(&request)).await {
        Ok(Ok(answer)) if answer.is_good() => (Outcome::Success, answer.to_string()),
        Ok(Ok(answer)) => (Outcome::Failure, answer.to_string()),
        Ok(Err(problem)) => (Outcome::Failure, format!("Get \"{}\": {problem}", request.url())),
        Err(_) => (
            Outcome::Failure,
            format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            ),
        ),
    }
}

/// Makes one attempt, within the probe's time.
pub(super) async fn attempt(
    runtime: &dyn Runtime,
    execs: &Semaphore,
    target: &Target,
    probe: &Probe,
) -> (Outcome, String) {
    let limit = Duration::try_from(probes::timeout(probe)).unwrap_or(Duration::from_secs(1));
    let handler = &probe.handler;
    if let Some(action) = &handler.exec {
        // Waiting for a turn is not the container's fault: the limit counts from the start of the command.
        match execs.acquire().await {
            Ok(_turn) => exec(runtime, target, action, limit).await,
            Err(_) => (Outcome::Error, "the agent is stopping".to_owned()),
        }
    } else if let Some(action) = &handler.http_get {
        http_get(target, action, limit).await
    } else if let Some(action) = &handler.tcp_socket {
        tcp(target, action, limit).await
    } else if let Some(action) = &handler.grpc {
        match (target.host(""), u16::try_from(action.port)) {
            (Ok(host), Ok(port)) => grpc::check(&host, port, &action.service, limit).await,
            (Err(problem), _) => (Outcome::Error, problem),
            (_, Err(_)) => (Outcome::Error, format!("invalid port number: {}", action.port)),
        }
    } else {
        (Outcome::Error, "the probe has no action that is known here".to_owned())
    }
}

async fn exec(
    runtime: &dyn Runtime,
    target: &Target,
    action: &ExecAction,
    limit: Duration,
) -> (Outcome, String) {
    match runtime.exec_sync(&target.id, &action.command, Some(limit)).await {
        Ok(answer) if answer.exit_code == 0 => (Outcome::Success, String::new()),
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(MAX_OUTPUT);
            let text = String::from_utf8_lossy(&output).trim_end().to_owned();
            let said_nothing = text.is_empty();
            (Outcome::Failure, if said_nothing { format!("exit code {}", answer.exit_code) } else { text })
        }
        Err(error) if error.is_deadline() => {
            let command = action.command.join(" ");
            (Outcome::Failure, format!("command timed out: {command:?} timed out after {}s", limit.as_secs()))
        }
        Err(error) => (Outcome::Error, error.to_string()),
    }
}

async fn tcp(target: &Target, action: &TcpAction, limit: Duration) -> (Outcome, String) {
    let (host, port) = match (target.host(&action.host), target.port(&action.port)) {
        (Ok(host), Ok(port)) => (host, port),
        (Err(problem), _) | (_, Err(problem)) => return (Outcome::Error, problem),
    };
    match tokio::time::timeout(limit, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => (Outcome::Success, String::new()),
        Ok(Err(error)) => {
            let problem = http::plain(&error);
            (Outcome::Failure, format!("dial tcp {}: connect: {problem}", http::authority(&host, port)))
        }
        Err(_) => (Outcome::Failure, format!("dial tcp {}: i/o timeout", http::authority(&host, port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagurus_agent_core::pods::spec::ContainerPort;

    fn target(ip: Option<&str>) -> Target {
        let mut pod = Pod::default();
        let port = |name: &str, container_port| ContainerPort {
            name: name.to_owned(),
            container_port,
            ..ContainerPort::default()
        };
        pod.spec.containers.push(Container {
            name: "c".to_owned(),
            ports: vec![port("web", 8080), port("bad", 0)],
            ..Container::default()
        });
        let ip = ip.map(|ip| ip.parse().expect("address"));
        Target { pod: Arc::new(pod), ip, name: "c".to_owned(), id: "id".to_owned() }
    }

    #[test]
    fn ports_by_number_and_name() {
        let check = |port: IntOrString, expected: Option<u16>| {
            assert_eq!(target(None).port(&port).ok(), expected, "{port:?}");
        };
        check(IntOrString::Int(80), Some(80));
        check(IntOrString::Int(0), None);
        check(IntOrString::Int(70_000), None);
        check(IntOrString::Text("web".to_owned()), Some(8080));
        check(IntOrString::Text("81".to_owned()), Some(81));
        check(IntOrString::Text("none".to_owned()), None);
        check(IntOrString::Text("bad".to_owned()), None);
    }

    #[test]
    fn hosts() {
        assert_eq!(target(Some("10.0.0.1")).host("").as_deref(), Ok("10.0.0.1"));
        assert_eq!(target(Some("10.0.0.1")).host("example.com").as_deref(), Ok("example.com"));
        assert!(target(None).host("").is_err());
    }

    #[tokio::test]
    async fn tcp_connects_or_says_why_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = i64::from(listener.local_addr().expect("bound").port());
        let action = TcpAction { port: IntOrString::Int(port), host: String::new() };
        let target = target(Some("127.0.0.1"));
        let limit = Duration::from_secs(10);
        assert_eq!(tcp(&target, &action, limit).await, (Outcome::Success, String::new()));
        drop(listener);
        let (outcome, message) = tcp(&target, &action, limit).await;
        assert_eq!(outcome, Outcome::Failure);
        assert_eq!(message, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
