//! Lists in pages, watches that end, versions that are forgotten.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::pin::pin;

use futures::StreamExt as _;
use http::Response;
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::{Named as _, Whole};
use super::*;

/// Answers in order: the status and the body, whole. Requests are kept.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            this.asked.lock().push(request.uri().query().unwrap_or_default().to_owned());
            let mut answers = this.answers.lock();
            let answer = (!answers.is_empty()).then(|| answers.remove(0));
            async move {
                match answer {
                    Some((code, body)) => Ok::<_, Infallible>(
                        Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap(),
                    ),
                    None => std::future::pending().await,
                }
            }
        });
        kube::Client::new(service, "default")
    }
}

fn list(names: &[&str], version: &str, next: &str) -> String {
    let items: Vec<Value> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
    json!({"metadata": {"resourceVersion": version, "continue": next}, "items": items}).to_string()
}

fn line(kind: &str, name: &str, version: &str) -> String {
    let object = json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": version}});
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn failure(code: u16) -> String {
    json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "R"}).to_string()
}

/// What a watch tells when it is answered so, and what it asks; as many events as are expected.
async fn check(answers: &[(u16, String)], expected: &[&str], asked: &[&str]) {
    let server = Server::default();
    *server.answers.lock() = answers.to_vec();
    let reader = Whole::<ConfigMap>(std::marker::PhantomData);
    let mut events =
        pin!(watch(server.client(), "/api/v1/configmaps".to_owned(), Selection::default(), reader));
    let mut seen = Vec::new();
    for _ in expected {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        seen.push(match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(object)) => format!("={}", object.name().1),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(object)) => format!("+{}", object.name().1),
            Ok(Event::Delete(name)) => format!("-{name}"),
            Err(error) => format!("error {}", error.to_string().chars().take(24).collect::<String>()),
        });
    }
    assert_eq!(seen, expected);
    // It goes on by itself to the next request, which nobody answers.
    for _ in 0..100 {
        let rest = futures::FutureExt::now_or_never(events.next());
        assert!(rest.is_none(), "{rest:?}");
        tokio::task::yield_now().await;
    }
    let queries = server.asked.lock().clone();
    assert_eq!(queries.len(), asked.len(), "{queries:?}");
    for (query, part) in queries.iter().zip(asked) {
        assert!(query.contains(part), "{queries:?}");
    }
}

const LIST: &str = "limit=5000";

#[tokio::test]
async fn pages_and_watches() {
    check(
        &[
            (200, list(&["a", "b"], "5", "more")),
            (200, list(&["c"], "5", "")),
            (200, [line("ADDED", "d", "6"), line("MODIFIED", "a", "7"), line("DELETED", "b", "8")].concat()),
            // The watch has ended; the next one begins where it did. Bookmarks move that.
            (200, line("BOOKMARK", "", "20")),
        ],
        &["init", "=a", "=b", "=c", "done", "+d", "+a", "-ns/b"],
        &[LIST, "continue=more", "resourceVersion=5", "resourceVersion=8", "resourceVersion=20"],
    )
    .await;
}

#[tokio::test]
async fn forgotten_versions() {
    let gone = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", failure(410));
    check(
        &[
            (200, list(&["a"], "5", "")),
            (200, gone),
            (200, list(&["a"], "50", "")),
            (410, failure(410)),
            (200, list(&["b"], "60", "")),
        ],
        &[
            "init",
            "=a",
            "done",
            "error the watch was ended: no ",
            "init",
            "=a",
            "done",
            "error ask the API server",
            "init",
            "=b",
            "done",
        ],
        &[LIST, "resourceVersion=5", LIST, "resourceVersion=50", LIST, "resourceVersion=60"],
    )
    .await;
}

#[tokio::test]
async fn failures() {
    let other = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", failure(500));
    let odd = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"6\"},\"data\":7}}\n".to_owned();
    check(
        &[
            (403, failure(403)),
            // A page that fails begins the list anew.
            (200, list(&["a"], "5", "more")),
            (410, failure(410)),
            (200, "{\"metadata\":{},\"items\":[]}".to_owned()),
            (200, list(&["a"], "5", "")[..20].to_owned()),
            (200, list(&["a"], "5", "")),
            // An object that cannot be read is passed over. What is no event may have been a change: only a list tells.
            (200, [odd, "nonsense\n".to_owned(), line("ADDED", "b", "7")].concat()),
            (200, list(&["b"], "7", "")),
            // Whatever the API server says has ended the watch.
            (200, [other, line("ADDED", "c", "8")].concat()),
            (200, list(&["c"], "8", "")),
            // A watch that does not begin, or breaks off in the middle of a line, leaves nothing out.
            (503, "busy".to_owned()),
            (200, line("ADDED", "d", "9")[..20].to_owned()),
        ],
        &[
            "error ask the API server",
            "init",
            "=a",
            "error ask the API server",
            "init",
            "error a list has neither a ver",
            "init",
            "error the answer ended before ",
            "init",
            "=a",
            "done",
            "error an event of the watch ca",
            "init",
            "=b",
            "done",
            "error the watch was ended: no ",
            "init",
            "=c",
            "done",
            "error ask the API server",
        ],
        &[
            LIST,
            LIST,
            "continue=more",
            LIST,
            LIST,
            LIST,
            "resourceVersion=5",
            LIST,
            "resourceVersion=7",
            LIST,
            "resourceVersion=8",
            "resourceVersion=8",
            "resourceVersion=8",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_line_without_an_end() {
    let endless = format!("{{\"type\":\"ADDED\",\"object\":{{\"data\":\"{}", "x".repeat(LINE));
    check(
        &[(200, list(&["a"], "5", "")), (200, endless), (200, list(&["b"], "6", ""))],
        &["init", "=a", "done", "error an event of the watch is", "init", "=b", "done"],
        &[LIST, "resourceVersion=5", LIST, "resourceVersion=6"],
    )
    .await;
}
