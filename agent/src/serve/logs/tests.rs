//! Logs from real files: follow, rotation, the end of the container.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use parking_lot::Mutex;

use super::super::PodEntry;
use super::*;

/// A directory of one pod with one container.
struct OnePod {
    container: Mutex<ContainerEntry>,
}

impl OnePod {
    fn new(log_path: &Path, running: bool) -> Arc<Self> {
        let current = Some(Instance { id: "id".to_owned(), log_path: log_path.to_owned(), running });
        let container = ContainerEntry { name: "c".to_owned(), current, previous: None, waiting: None };
        Arc::new(Self { container: Mutex::new(container) })
    }

    fn stop(&self) {
        self.container.lock().current.as_mut().unwrap().running = false;
    }
}

impl PodDirectory for OnePod {
    fn pods(&self) -> Vec<PodEntry> {
        self.find("ns", "p").into_iter().collect()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        let entry = PodEntry {
            pod: Arc::default(),
            sandbox_id: None,
            containers: vec![self.container.lock().clone()],
        };
        ((namespace, name) == ("ns", "p")).then_some(entry)
    }
}

async fn get(pods: &Arc<OnePod>, query: &str) -> Result<Body, Refusal> {
    let directory: Arc<dyn PodDirectory> = pods.clone();
    serve(&directory, "ns", "p", "c", query).await.map(Response::into_body)
}

async fn all(body: Body) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn next(body: &mut Body) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap().unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    writeln!(file, "2024-01-02T03:04:05Z stdout F {text}").unwrap();
}

#[tokio::test]
async fn reads_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    for text in ["one", "two", "three"] {
        append(&path, text);
    }
    let pods = OnePod::new(&path, true);
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("tailLines=1", "three\n"),
        ("limitBytes=5", "one\nt"),
        ("tailLines=1&timestamps=true", "2024-01-02T03:04:05.000000000Z three\n"),
        ("sinceTime=2024-01-03T00:00:00Z", ""),
    ] {
        assert_eq!(all(get(&pods, query).await.unwrap()).await, expected, "{query}");
    }
    let error = get(&pods, "previous=true").await.err().unwrap();
    assert_eq!(error.to_string(), "previous terminated container \"c\" in pod \"p\" not found");
    pods.container.lock().current = None;
    pods.container.lock().waiting = Some("ContainerCreating".to_owned());
    let error = get(&pods, "").await.err().unwrap();
    assert_eq!(error.to_string(), "container \"c\" in pod \"p\" is waiting to start: ContainerCreating");
}

#[tokio::test]
async fn follows_across_rotation_to_the_end_of_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    append(&path, "one");
    let pods = OnePod::new(&path, true);
    let mut body = get(&pods, "follow=true").await.unwrap();
    assert_eq!(next(&mut body).await, "one\n");
    append(&path, "two");
    assert_eq!(next(&mut body).await, "two\n");
    let rotated = directory.path().join("0.log.20240102-030405");
    std::fs::rename(&path, &rotated).unwrap();
    append(&rotated, "three");
    assert_eq!(next(&mut body).await, "three\n");
    append(&path, "four");
    assert_eq!(next(&mut body).await, "four\n");
    append(&path, "five");
    pods.stop();
    assert_eq!(all(body).await, "five\n");
}

#[tokio::test]
async fn following_a_container_that_ended_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    append(&path, "one");
    let pods = OnePod::new(&path, false);
    let body = get(&pods, "follow=true").await.unwrap();
    assert_eq!(all(body).await, "one\n");
}
