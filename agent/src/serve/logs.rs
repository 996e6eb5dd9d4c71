//! `kubectl logs`: reads the log file that the runtime writes for a container, on as it grows and across its rotation. It
//! must not rotate or write anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;

use self::file::LogFile;
use self::line::Formatter;
use self::options::Options;
use super::reply::{Body, Refusal};
use super::{ContainerEntry, Instance, PodDirectory};

mod file;
mod line;
mod options;

/// How often it is looked whether the container still runs, when its log is silent.
const LOOK: Duration = Duration::from_millis(500);

/// The answer to `/containerLogs/NAMESPACE/POD/CONTAINER`.
pub(super) async fn serve(
    directory: &Arc<dyn PodDirectory>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query, Timestamp::now())?;
    let entry = directory.find(namespace, pod).ok_or_else(|| Refusal::not_found("pod does not exist\n"))?;
    let found = entry.containers.iter().find(|entry| entry.name == container);
    let found = found
        .ok_or_else(|| Refusal::not_found(format!("container {container:?} not found in pod {pod:?}\n")))?;
    let instance = choose(found, pod, options.previous)?.clone();
    let file = LogFile::open(&instance.log_path, options.tail_lines).await.map_err(|error| {
        Refusal::internal(format!("failed to open log file {:?}: {error}", instance.log_path))
    })?;
    let is_running = {
        let (directory, namespace, pod) = (directory.clone(), namespace.to_owned(), pod.to_owned());
        let (container, id) = (container.to_owned(), instance.id.clone());
        Box::new(move || {
            let entry = directory.find(&namespace, &pod);
            entry.is_some_and(|entry| {
                let mut containers = entry.containers.iter().filter(|entry| entry.name == container);
                containers.any(|entry| entry.current.as_ref().is_some_and(|now| now.id == id && now.running))
            })
        })
    };
    let log = Log {
        path: instance.log_path,
        file,
        formatter: Formatter::new(options.timestamps, options.since, options.stream),
        left: options.limit_bytes,
        follow: options.follow,
        is_running,
        last_look: false,
    };
    let frames = futures::stream::unfold(Some(log), |log| async move {
        let mut log = log?;
        match log.next().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(log))),
            Ok(None) => None,
            // The answer's head is out: all that is left is to break off.
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The life of the container whose log is wanted.
fn choose<'a>(container: &'a ContainerEntry, pod: &str, previous: bool) -> Result<&'a Instance, Refusal> {
    let name = &container.name;
    if previous {
        return container.previous.as_ref().ok_or_else(|| {
            Refusal::bad_request(format!("previous terminated container {name:?} in pod {pod:?} not found"))
        });
    }
    container.current.as_ref().ok_or_else(|| {
        Refusal::bad_request(match container.waiting.as_deref() {
            Some("ErrImagePull" | "ImagePullBackOff") => format!(
                "container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image"
            ),
            Some(reason) => format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"),
            None => format!("container {name:?} in pod {pod:?} is not available"),
        })
    })
}

/// A log on its way to a client.
struct Log {
    path: PathBuf,
    file: LogFile,
    formatter: Formatter,
    left: Option<u64>,
    follow: bool,
    is_running: Box<dyn Fn() -> bool + Send>,
    /// The container has ended: what is in the file now is all.
    last_look: bool,
}

impl Log {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        while self.left != Some(0) {
            if let Some(chunk) = self.file.read().await? {
                if let Some(bytes) = self.pass(|formatter, out| formatter.format(&chunk, out)) {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.follow && !self.last_look {
                if self.file.follow_rotation(&self.path).await? {
                    continue;
                }
                // Ask before waiting, so that a container that ended long ago is not waited for.
                if (self.is_running)() {
                    self.file.changed(&self.path, LOOK).await;
                } else {
                    self.last_look = true;
                }
                continue;
            }
            // A last line that was not ended.
            return Ok(self.pass(Formatter::finish));
        }
        Ok(None)
    }

    /// Formats and cuts to what may still be sent.
    fn pass(&mut self, format: impl FnOnce(&mut Formatter, &mut Vec<u8>)) -> Option<Bytes> {
        let mut out = Vec::new();
        format(&mut self.formatter, &mut out);
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

#[cfg(test)]
mod tests;
