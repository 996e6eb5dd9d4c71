//! An API server that answers from a script, for tests of watches: lists are what the test says, and watches are fed by it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::{Channel, Sender};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The script.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Items by path and query word, such as `/api/v1/pods` and `spec.nodeName=n`.
    items: BTreeMap<String, Vec<Value>>,
    watches: BTreeMap<String, Sender<Bytes, Infallible>>,
    /// Requests so far.
    seen: Vec<String>,
}

impl Scripted {
    /// A client of this API server.
    pub(crate) fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(&request)) }
        });
        kube::Client::new(service, "default")
    }

    /// What lists of this path answer.
    pub(crate) fn set(&self, path: &str, items: Vec<Value>) {
        self.state.lock().items.insert(path.to_owned(), items);
    }

    /// Feeds the watch of this path; false if there is none (any more).
    pub(crate) async fn send(&self, path: &str, kind: &str, object: Value) -> bool {
        let Some(mut sender) = self.state.lock().watches.remove(path) else { return false };
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let sent = sender.send_data(line.into()).await.is_ok();
        if sent {
            self.state.lock().watches.insert(path.to_owned(), sender);
        }
        sent
    }

    /// Ends the watch of this path; the client will begin a new one.
    pub(crate) fn end_watch(&self, path: &str) {
        self.state.lock().watches.remove(path);
    }

    /// Requests so far whose path and query hold this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.state.lock().seen.iter().filter(|seen| seen.contains(part)).count()
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Channel<Bytes, Infallible>> {
        let (mut sender, body) = Channel::new(64);
        let uri = request.uri();
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let mut state = self.state.lock();
        state.seen.push(format!("{path}?{query}"));
        if query.contains("watch=true") {
            state.watches.insert(path.to_owned(), sender);
        } else {
            let items = state.items.get(path).cloned().unwrap_or_default();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
            assert!(
                sender.try_send(http_body::Frame::data(list.to_string().into())).is_ok(),
                "room for the list"
            );
        }
        Response::new(body)
    }
}

/// An object of this name and revision.
pub(crate) fn object(name: &str, revision: u64, more: Value) -> Value {
    let mut object = json!({"metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}"),
        "resourceVersion": revision.to_string()}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}
