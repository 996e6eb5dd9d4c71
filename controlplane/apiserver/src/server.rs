//! The one way of a request through the server, whether it came from a socket or from a component of this process.
//!
//! It must not know sockets or TLS (that is `listen`), nor objects (that is `engine`).

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use pagurus_controlplane_api::go;
use pagurus_controlplane_api::status::ApiError;
use tracing::{debug, error};

use crate::authn::{Authenticator, Peer};
use crate::authz::{Attributes, Authorizer};
use crate::engine::Engine;
use crate::flow::{self, Classifier, Progress};
use crate::health::Health;
use crate::metrics::{Metrics, Running};
use crate::paths::Paths;
use crate::reply;
use crate::request::{Body, BoxError, Call, Query, RequestInfo, UserInfo, Verb, Warnings};
use crate::response::{self, Asked};
use crate::token::Tokens;

/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    /// Who serves objects.
    pub engine: Arc<Engine>,
    /// Who decides.
    pub authorizer: Arc<Authorizer>,
    /// Who signs and checks ServiceAccount tokens.
    pub tokens: Arc<Tokens>,
    /// The checks of `/livez` and `/readyz`.
    pub health: Health,
    /// The `host:port` that clients are told.
    pub address: String,
}

/// The API server without its sockets.
#[derive(Debug)]
pub struct Server {
    engine: Arc<Engine>,
    authenticator: Authenticator,
    authorizer: Arc<Authorizer>,
    metrics: Arc<Metrics>,
    flows: Classifier,
    paths: Paths,
    flow: Progress,
}

impl Server {
    /// A server of those parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { engine, authorizer, tokens, health, address } = parts;
        let metrics = Arc::new(Metrics::new(&engine));
        Arc::new(Self {
            authenticator: Authenticator::new(tokens.clone(), authorizer.clone()),
            paths: Paths::new(engine.clone(), tokens, health, metrics.clone(), address),
            flows: Classifier::new(&engine),
            engine,
            authorizer,
            metrics,
            flow: Progress::default(),
        })
    }

    /// How far flow control's bookkeeping is.
    pub(crate) fn flow(&self) -> &Progress {
        &self.flow
    }

    /// Answers a request.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Body>,
        peer: Peer,
    ) -> BoxFuture<'static, Response<Body>> {
        self.clone().take(request, peer).boxed()
    }

    async fn take(self: Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let info = match RequestInfo::parse(&head.method, &head.uri) {
            Ok(info) => info,
            Err(error) => {
                let address = go::quote(&head.uri.to_string());
                let text =
                    format!("Internal Server Error: {address}: failed to create RequestInfo: {error}\n");
                return reply::text(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
        };
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let long_running = is_long_running(&info);
        let running = self.metrics.begin(&info, long_running);
        let audit_id = audit_id(&head.headers);
        let (told, warnings) = (info.clone(), Warnings::default());
        let dry_run = query.clone();
        let call = Unproved { head, info, query, warnings: warnings.clone(), peer };
        let answer = guarded(told.path.clone(), self.clone().answer(call, body).boxed());
        let mut response = if long_running {
            answer.await
        } else {
            match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
                Ok(response) => response,
                Err(_) => reply::error(&ApiError::timeout(
                    "request did not complete within the allotted timeout",
                    0,
                )),
            }
        };
        let taken = started.elapsed();
        self.metrics.answered(&running, &dry_run, response.status(), (!long_running).then_some(taken));
        debug!(
            verb = told.verb.as_str(),
            path = told.path,
            code = response.status().as_u16(),
            ?taken,
            "answered"
        );
        response.headers_mut().insert(AUDIT_ID, audit_id);
        warnings.write(response.headers_mut());
        if long_running {
            response = response.map(|inner| GuardedBody { inner, _running: running }.boxed_unsync());
        }
        response
    }

    async fn answer(self: Arc<Self>, call: Unproved, body: Body) -> Response<Body> {
        let asked = Asked { headers: &call.head.headers, query: &call.query };
        let user = match self.authenticator.authenticate(&call.head.headers, &call.peer) {
            Ok(user) => user,
            Err(error) => return refusal(asked, &error),
        };
        let flow = self.flows.flow(&call.info, &user);
        let mut response = match self.authorizer.check(&Attributes::of_request(&call.info, &user)) {
            Err(error) => refusal(asked, &error),
            Ok(()) => self.serve(call.proved(user), body).await,
        };
        if let Some(flow) = flow {
            flow.write(response.headers_mut());
        }
        response
    }

    async fn serve(&self, call: Call, body: Body) -> Response<Body> {
        if !call.info.is_resource {
            return self.paths.serve(&call).await;
        }
        let settles = flow::is_written_by(&call.info);
        let response = self.engine.serve(call, body).await;
        if settles && response.status().is_success() {
            self.flow.settle(&self.engine).await;
        }
        response
    }
}

/// A panic in one request is that request's error, not the server's end.
async fn guarded(path: String, answer: BoxFuture<'static, Response<Body>>) -> Response<Body> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        error!(path, "panic while answering a request");
        let text = "This request caused apiserver to panic. Look in the logs for details.\n";
        reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// 401 or 403. What a refusal says of the path was written by the client: nobody is to read more than text in it.
fn refusal(asked: Asked<'_>, error: &ApiError) -> Response<Body> {
    let mut response = response::failure(asked, error);
    if error.code == 403 {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// A request before anybody knows who sent it.
struct Unproved {
    head: http::request::Parts,
    info: RequestInfo,
    query: Query,
    warnings: Warnings,
    peer: Peer,
}

impl Unproved {
    fn proved(self, user: UserInfo) -> Call {
        let Self { head, info, query, warnings, .. } = self;
        let http::request::Parts { method, uri, headers, extensions, .. } = head;
        Call { info, user, query, headers, method, uri, extensions, warnings }
    }
}

/// Requests that may stay open as long as the client likes.
fn is_long_running(info: &RequestInfo) -> bool {
    let streams = ["attach", "exec", "proxy", "log", "portforward"];
    matches!(info.verb, Verb::Watch | Verb::Proxy)
        || info.is_resource && info.subresource.as_deref().is_some_and(|sub| streams.contains(&sub))
}

/// The client's own id if it is one, else a new one.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= 64);
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// A body that counts as a running request until it ends or is dropped.
struct GuardedBody {
    inner: Body,
    _running: Running,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
