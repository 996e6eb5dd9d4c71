//! Which path is answered by whom. It must not know who may ask: that is settled before.

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::reply::{self, Body, Refusal};
use super::{ContainerEntry, Instance, PodEntry, Server, attach, exec, logs, port_forward, stats};
use crate::process::admin;

impl Server {
    pub(super) async fn route(
        &self,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if !matches!(*request.method(), Method::GET | Method::POST | Method::HEAD) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let upgrades = matches!(segments.first(), Some(&("exec" | "attach" | "portForward")));
        let answered = match segments.as_slice() {
            ["containerLogs", namespace, pod, container] => {
                logs::serve(&self.directory, namespace, pod, container, &query).await
            }
            ["exec", namespace, pod, container] => self.exec(namespace, pod, None, container, request).await,
            ["exec", namespace, pod, uid, container] => {
                self.exec(namespace, pod, Some(uid), container, request).await
            }
            ["attach", namespace, pod, container] => {
                self.attach(namespace, pod, None, container, request).await
            }
            ["attach", namespace, pod, uid, container] => {
                self.attach(namespace, pod, Some(uid), container, request).await
            }
            ["portForward", namespace, pod] => self.port_forward(namespace, pod, None, request).await,
            ["portForward", namespace, pod, uid] => {
                self.port_forward(namespace, pod, Some(uid), request).await
            }
            ["pods"] => self.pods().await,
            ["configz"] => Ok(reply::json(&json!({"kubeletconfig": self.context.config.shown()}))),
            ["stats", "summary"] => stats::summary(&self.context).await.map(|summary| reply::json(&summary)),
            ["metrics", "resource"] => {
                let text = stats::resource_metrics(&self.context).await;
                let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                Ok(reply::with_type(text, plain))
            }
            ["run" | "checkpoint" | "logs" | "runningpods", ..] => Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("{path} is not served by this node agent"),
            )),
            _ => match admin::answer(&self.context, path, &query) {
                Some(answer) => Ok(answer.map(reply::full)),
                None => Err(Refusal::not_found("404 page not found")),
            },
        };
        answered.map_err(|refusal| if upgrades { refusal.into_upgrading() } else { refusal })
    }

    async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let entry = self.find(namespace, pod, uid)?;
        let (_, instance) = running(&entry, container)?;
        exec::serve(&*self.context.runtime, &instance.id, &self.sessions, request).await
    }

    async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let entry = self.find(namespace, pod, uid)?;
        let (found, instance) = running(&entry, container)?;
        let tty = entry.pod.container(&found.name).is_some_and(|(_, spec)| spec.tty);
        attach::serve(&*self.context.runtime, &instance.id, tty, &self.sessions, request).await
    }

    async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let entry = self.find(namespace, pod, uid)?;
        port_forward::serve(&self.context.config.runtime_socket, &entry, &self.sessions, request).await
    }

    fn find(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Result<PodEntry, Refusal> {
        let entry = self.directory.find(namespace, pod);
        let entry = entry.filter(|entry| uid.is_none_or(|uid| entry.pod.uid.as_str() == uid));
        entry.ok_or_else(|| Refusal::not_found("pod does not exist"))
    }

    /// The pods bound to this node. The API server knows them better than we keep them.
    async fn pods(&self) -> Result<Response<Body>, Refusal> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.context.node_name);
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| Refusal::internal(error.to_string()))?;
        let list = self.context.client.request_text(request).await;
        let list = list.map_err(|error| Refusal::internal(format!("list this node's pods: {error}")))?;
        Ok(reply::with_type(list, HeaderValue::from_static("application/json")))
    }
}

/// The container of this name, running.
fn running<'a>(pod: &'a PodEntry, container: &str) -> Result<(&'a ContainerEntry, &'a Instance), Refusal> {
    let found = pod.containers.iter().find(|entry| entry.name == container);
    let running =
        found.and_then(|entry| Some((entry, entry.current.as_ref().filter(|instance| instance.running)?)));
    running.ok_or_else(|| Refusal::internal(format!("container not found ({container:?})")))
}
