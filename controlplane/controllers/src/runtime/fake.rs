//! An API server in memory for tests: create, get, list, replace, delete and watch of any kind, with an order of
//! revisions like the real one's, a watch that can be held back, and writes that can be made to fail.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type ReplyBody = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    /// By path of the collection, then of the object within it.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    events: Vec<(u64, String, Value)>,
    revision: u64,
}

/// The server.
pub(crate) struct FakeApi {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// While set, watches deliver nothing.
    pub(crate) hold_watches: AtomicBool,
    /// Of so many creations one is refused (0: none).
    pub(crate) refuse_every: AtomicU64,
    creations: AtomicU64,
}

/// `/api/v1/namespaces/ns/pods/name/status` in parts.
struct Place {
    /// `pods`, or `apps/replicasets`: the same for all namespaces.
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

fn place(path: &str) -> Place {
    let mut parts = path.trim_start_matches('/').split('/').map(str::to_owned);
    let group = match parts.next().as_deref() {
        Some("apis") => parts.next(),
        _ => None,
    };
    parts.next();
    let mut rest: Vec<String> = parts.collect();
    let namespace = (rest.len() > 2 && rest[0] == "namespaces").then(|| rest.drain(..2).nth(1)).flatten();
    let mut rest = rest.into_iter();
    let plural = rest.next().unwrap_or_default();
    let collection = group.map_or(plural.clone(), |g| format!("{g}/{plural}"));
    Place { collection, namespace, name: rest.next(), subresource: rest.next() }
}

fn key(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code});
    (code, status)
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            hold_watches: AtomicBool::new(false),
            refuse_every: AtomicU64::new(0),
            creations: AtomicU64::new(0),
        })
    }

    /// A client of this server.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// All objects of a collection.
    pub(crate) fn objects(&self, collection: &str) -> Vec<Value> {
        self.state.lock().objects.get(collection).into_iter().flat_map(|m| m.values().cloned()).collect()
    }

    /// Lets watches deliver again.
    pub(crate) fn release_watches(&self) {
        self.hold_watches.store(false, Ordering::SeqCst);
        self.changed.send_modify(|_| {});
    }

    /// Changes an object as somebody else would.
    pub(crate) fn change(&self, collection: &str, key: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let Some(object) = state.objects.get_mut(collection).and_then(|m| m.get_mut(key)) else { return };
        change(object);
        let mut object = object.clone();
        self.commit(&mut state, collection, "MODIFIED", &mut object);
        state.objects.entry(collection.to_owned()).or_default().insert(key.to_owned(), object);
    }

    fn commit(&self, state: &mut State, collection: &str, event: &str, object: &mut Value) {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let event = json!({"type": event, "object": object});
        state.events.push((state.revision, collection.to_owned(), event));
        self.changed.send_replace(state.revision);
    }

    async fn serve(self: Arc<Self>, request: Request<Body>) -> Response<ReplyBody> {
        let (head, body) = request.into_parts();
        let place = place(head.uri.path());
        let query = head.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            let from = query.split('&').find_map(|p| p.strip_prefix("resourceVersion="));
            return self.watch(place.collection, from.and_then(|v| v.parse().ok()).unwrap_or(0));
        }
        let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let (code, answer) = self.answer(&head.method, &place, body);
        Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(Either::Left(Full::new(Bytes::from(answer.to_string()))))
            .expect("a status and a body make a response")
    }

    fn answer(&self, method: &Method, place: &Place, body: Value) -> (u16, Value) {
        let mut state = self.state.lock();
        let named = |name: &str| format!("{}/{name}", place.namespace.as_deref().unwrap_or_default());
        let collection = place.collection.clone();
        match (method, &place.name) {
            (&Method::GET, None) => {
                let items: Vec<Value> =
                    state.objects.get(&collection).into_iter().flat_map(|m| m.values().cloned()).collect();
                let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
                    "metadata": {"resourceVersion": state.revision.to_string()}});
                (200, list)
            }
            (&Method::GET, Some(name)) => {
                let found = state.objects.get(&collection).and_then(|m| m.get(&named(name))).cloned();
                found.map_or_else(|| failure(404, "NotFound"), |object| (200, object))
            }
            (&Method::POST, None) => self.create(&mut state, place, body),
            (&Method::PUT, Some(name)) => {
                let Some(held) = state.objects.get(&collection).and_then(|m| m.get(&named(name))).cloned()
                else {
                    return failure(404, "NotFound");
                };
                if held["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return failure(409, "Conflict");
                }
                let mut object = held;
                let part = if place.subresource.is_some() { "status" } else { "spec" };
                object[part] = body[part].clone();
                self.commit(&mut state, &collection, "MODIFIED", &mut object);
                state.objects.entry(collection).or_default().insert(named(name), object.clone());
                (200, object)
            }
            (&Method::DELETE, Some(name)) => {
                let held = state.objects.get_mut(&collection).and_then(|m| m.remove(&named(name)));
                let Some(mut object) = held else { return failure(404, "NotFound") };
                self.commit(&mut state, &collection, "DELETED", &mut object);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn create(&self, state: &mut State, place: &Place, mut object: Value) -> (u16, Value) {
        let number = self.creations.fetch_add(1, Ordering::SeqCst) + 1;
        let every = self.refuse_every.load(Ordering::SeqCst);
        if every > 0 && number.is_multiple_of(every) {
            return failure(500, "InternalError");
        }
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            let prefix = meta["generateName"].as_str().unwrap_or_default().to_owned();
            meta["name"] = json!(format!("{prefix}{number:05}"));
        }
        if let Some(namespace) = &place.namespace {
            meta["namespace"] = json!(namespace);
        }
        meta["uid"] = json!(format!("uid-{number}"));
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!("2024-01-01T00:00:00Z");
        let key = key(&object);
        if state.objects.get(&place.collection).is_some_and(|m| m.contains_key(&key)) {
            return failure(409, "AlreadyExists");
        }
        self.commit(state, &place.collection, "ADDED", &mut object);
        state.objects.entry(place.collection.clone()).or_default().insert(key, object.clone());
        (201, object)
    }

    fn watch(self: Arc<Self>, collection: String, from: u64) -> Response<ReplyBody> {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(64);
        tokio::spawn(async move {
            let mut changed = self.changed.subscribe();
            let mut sent = from;
            loop {
                let new: Vec<(u64, Value)> = if self.hold_watches.load(Ordering::SeqCst) {
                    Vec::new()
                } else {
                    let state = self.state.lock();
                    let events = state.events.iter().filter(|(r, c, _)| *r > sent && *c == collection);
                    events.map(|(revision, _, event)| (*revision, event.clone())).collect()
                };
                for (revision, event) in new {
                    sent = revision;
                    if sender.send_data(Bytes::from(format!("{event}\n"))).await.is_err() {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        });
        Response::new(Either::Right(body))
    }
}
