//! An API server in memory for tests: create, get, list, replace, patch, delete and watch of any kind, with an order of
//! revisions like the real one's, a watch that can be held back, writes that can be made to fail, and clients that die
//! in the middle of their work.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

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
    /// Whether a deleted pod stays until its node lets it go.
    pub(crate) graceful: AtomicBool,
}

/// The life of a client: after so many writes it hears and says nothing any more.
pub(crate) struct Life {
    writes_left: AtomicI64,
    /// Whether the last write arrives.
    last_arrives: bool,
    died: watch::Sender<bool>,
}

impl Life {
    /// A life of so many writes; the last one arrives, though nobody hears the answer, or is lost.
    pub(crate) fn of(writes: i64, last_arrives: bool) -> Arc<Self> {
        Arc::new(Self { writes_left: AtomicI64::new(writes), last_arrives, died: watch::Sender::new(false) })
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        *self.died.borrow()
    }

    /// Resolves at its end.
    pub(crate) async fn over(&self) {
        let _ = self.died.subscribe().wait_for(|died| *died).await;
    }
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

/// Whether a pod is deleted, has ended, and is held by nobody.
fn is_over(object: &Value) -> bool {
    let held = object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    !object["metadata"]["deletionTimestamp"].is_null()
        && !held
        && matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// As much of a patch as controllers use: maps are merged, lists replaced, owners merged by uid, finalizers removed by name.
fn merge(into: &mut Value, patch: &Value) {
    let (Some(object), Some(patch)) = (into.as_object_mut(), patch.as_object()) else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(held) = object.get_mut(list).and_then(Value::as_array_mut) {
                held.retain(|item| !gone.contains(item));
            }
        } else if key == "ownerReferences" {
            let held = object.entry(key).or_insert_with(|| json!([]));
            let mut owners = held.as_array().cloned().unwrap_or_default();
            for owner in value.as_array().into_iter().flatten() {
                owners.retain(|o| o["uid"] != owner["uid"]);
                if owner["$patch"] != "delete" {
                    owners.push(owner.clone());
                }
            }
            *held = Value::Array(owners);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            hold_watches: AtomicBool::new(false),
            refuse_every: AtomicU64::new(0),
            creations: AtomicU64::new(0),
            graceful: AtomicBool::new(false),
        })
    }

    /// A client with a life.
    pub(crate) fn mortal_client(self: &Arc<Self>, life: &Arc<Life>) -> Client {
        let (api, life) = (self.clone(), life.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, life) = (api.clone(), life.clone());
            async move {
                let writes = request.method() != Method::GET && !request.uri().path().contains("/events");
                let left = if writes { life.writes_left.fetch_sub(1, Ordering::SeqCst) } else { i64::MAX };
                if left > 1 && !life.is_over() {
                    return Ok::<_, Infallible>(api.serve(request).await);
                }
                if left == 1 && life.last_arrives {
                    api.serve(request).await;
                }
                if left == 1 {
                    life.died.send_replace(true);
                }
                std::future::pending().await
            }
        });
        Client::new(service, "default")
    }

    /// The simulated node lets go of a pod.
    pub(crate) fn let_go(&self, collection: &str, key: &str) {
        let mut state = self.state.lock();
        let gone = state.objects.get_mut(collection).and_then(|m| m.remove(key));
        if let Some(mut object) = gone {
            self.commit(&mut state, collection, "DELETED", &mut object);
        }
    }

    /// How many objects were ever created.
    pub(crate) fn created(&self, collection: &str) -> usize {
        let state = self.state.lock();
        state.events.iter().filter(|(_, c, event)| c == collection && event["type"] == "ADDED").count()
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
                if part == "spec" && object[part] != body[part] {
                    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                    object["metadata"]["generation"] = json!(generation);
                }
                for field in ["annotations", "labels", "ownerReferences", "finalizers"] {
                    object["metadata"][field] = body["metadata"][field].clone();
                }
                object[part] = body[part].clone();
                self.commit(&mut state, &collection, "MODIFIED", &mut object);
                state.objects.entry(collection).or_default().insert(named(name), object.clone());
                (200, object)
            }
            (&Method::PATCH, Some(name)) => {
                let held = state.objects.get(&collection).and_then(|m| m.get(&named(name))).cloned();
                let Some(mut object) = held else { return failure(404, "NotFound") };
                merge(&mut object, &body);
                if is_over(&object) {
                    state.objects.entry(collection.clone()).or_default().remove(&named(name));
                    self.commit(&mut state, &collection, "DELETED", &mut object);
                    return (200, object);
                }
                self.commit(&mut state, &collection, "MODIFIED", &mut object);
                state.objects.entry(collection).or_default().insert(named(name), object.clone());
                (200, object)
            }
            (&Method::DELETE, Some(name)) if self.graceful.load(Ordering::SeqCst) && collection == "pods" => {
                let held = state.objects.get(&collection).and_then(|m| m.get(&named(name))).cloned();
                let Some(mut object) = held else { return failure(404, "NotFound") };
                if body["preconditions"]["uid"] != object["metadata"]["uid"] {
                    return failure(409, "Conflict");
                }
                object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
                object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
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
