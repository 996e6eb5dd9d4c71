//! `kubectl attach`: the streams of a container's own process. It must not know how they are carried; see [`super::exec`].

use http::{Request, Response};
use hyper::body::Incoming;
use pagurus_cri_api::{Runtime, v1};

use super::Sessions;
use super::exec::{self, Streams};
use super::reply::{Body, Refusal};

/// Joins the request's connection to the process of a container. `tty`: the container was made with a terminal.
pub(super) async fn serve(
    runtime: &dyn Runtime,
    container_id: &str,
    tty: bool,
    sessions: &Sessions,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let streams = Streams::parse(request.uri().query().unwrap_or_default())?;
    if streams.tty && !tty {
        return Err(Refusal::bad_request("unable to attach with a terminal: the container has none"));
    }
    // A container's terminal is one, whether the client asks for it or not.
    let streams = Streams { tty, stderr: streams.stderr && !tty, ..streams };
    let wanted = v1::AttachRequest {
        container_id: container_id.to_owned(),
        stdin: streams.stdin,
        tty: streams.tty,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    exec::connect(request, streams, sessions, runtime.attach(wanted)).await
}
