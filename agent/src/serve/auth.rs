//! Who calls the node API, and whether they may: client certificates and tokens, then the API server's opinion, remembered
//! for a while. It must not know what the calls do.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::reply::Refusal;

/// A caller who has been recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

const MASTERS: &str = "system:masters";
/// How long the API server's answers hold.
const TOKEN_GOOD: Duration = Duration::from_secs(120);
const TOKEN_BAD: Duration = Duration::from_secs(10);
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);

/// Recognises callers and asks what they may.
pub(super) struct Gate {
    client: kube::Client,
    node_name: String,
    tokens: Memory<String, Option<Caller>>,
    decisions: Memory<(Caller, &'static str, &'static str), bool>,
}

impl Gate {
    pub(super) fn new(client: kube::Client, node_name: String) -> Self {
        Self { client, node_name, tokens: Memory::default(), decisions: Memory::default() }
    }

    /// Lets the call pass or says why not.
    pub(super) async fn check(
        &self,
        certificate: Option<&CertificateDer<'static>>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let caller = match certificate.and_then(|certificate| caller_of(certificate)) {
            Some(caller) => caller,
            None => self.by_token(headers).await?,
        };
        // The cluster's administrators may all, also while the API server is away.
        if caller.groups.iter().any(|group| group == MASTERS) {
            return Ok(caller);
        }
        let verb = verb(method, path);
        let subresources = subresources(path);
        for subresource in subresources {
            if self.allowed(&caller, verb, subresource).await? {
                return Ok(caller);
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)={subresources:?})",
            caller.name
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, message))
    }

    async fn by_token(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.map(str::trim).filter(|token| !token.is_empty()).ok_or_else(unauthorized)?;
        if let Some(known) = self.tokens.get(token) {
            return known.ok_or_else(unauthorized);
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let review = self.ask("/apis/authentication.k8s.io/v1/tokenreviews", review).await?;
        let caller = reviewed(&review);
        let holds = if caller.is_some() { TOKEN_GOOD } else { TOKEN_BAD };
        self.tokens.put(token.to_owned(), caller.clone(), holds);
        caller.ok_or_else(unauthorized)
    }

    async fn allowed(
        &self,
        caller: &Caller,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Refusal> {
        let key = (caller.clone(), verb, subresource);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": caller.name,
                "groups": caller.groups,
                "resourceAttributes": {
                    "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource,
                    "name": self.node_name,
                },
            },
        });
        let review = self.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await?;
        let allowed = review["status"]["allowed"] == true;
        self.decisions.put(key, allowed, if allowed { ALLOWED } else { DENIED });
        Ok(allowed)
    }

    async fn ask(&self, path: &str, review: Value) -> Result<Value, Refusal> {
        let failed = |error: String| {
            tracing::warn!(path, error, "the API server gives no opinion on a caller of the node API");
            Refusal::internal("the API server could not be asked about the caller")
        };
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, self.client.request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("no answer in time".to_owned())),
        }
    }
}

/// The caller a client certificate (verified already) stands for: common name and organizations.
fn caller_of(certificate: &[u8]) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    Some(Caller { name, groups })
}

fn reviewed(review: &Value) -> Option<Caller> {
    let status = &review["status"];
    if status["authenticated"] != true {
        return None;
    }
    let groups = status["user"]["groups"].as_array().into_iter().flatten();
    Some(Caller {
        name: status["user"]["username"].as_str()?.to_owned(),
        groups: groups.filter_map(|group| group.as_str().map(str::to_owned)).collect(),
    })
}

/// What the call is to the authorizer. Running things is never a mere "get", whatever the method of the upgrade is.
fn verb(method: &Method, path: &str) -> &'static str {
    if ["/exec/", "/attach/", "/portForward/", "/run/"].iter().any(|prefix| path.starts_with(prefix)) {
        return "create";
    }
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The subresources of the node any of which allows the call, the narrowest first.
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

/// Answers with a time until which they hold.
struct Memory<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

/// More answers than these are not kept.
const MEMORY: usize = 256;

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entries = self.entries.lock();
        entries.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, holds: Duration) {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if entries.len() >= MEMORY {
            entries.retain(|_, (_, until)| *until > now);
        }
        if entries.len() >= MEMORY {
            entries.clear();
        }
        entries.insert(key, (value, now + holds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_need() {
        let check = |method: Method, path: &str, expected: (&str, &[&str])| {
            assert_eq!((verb(&method, path), subresources(path)), expected, "{method} {path}");
        };
        check(Method::GET, "/metrics", ("get", &["metrics"]));
        check(Method::GET, "/metrics/resource", ("get", &["metrics"]));
        check(Method::GET, "/stats/summary", ("get", &["stats"]));
        check(Method::GET, "/pods", ("get", &["pods", "proxy"]));
        check(Method::GET, "/exec/ns/p/c", ("create", &["proxy"]));
        check(Method::POST, "/exec/ns/p/c", ("create", &["proxy"]));
        check(Method::GET, "/containerLogs/ns/p/c", ("get", &["proxy"]));
        check(Method::GET, "/debug/state", ("get", &["proxy"]));
    }

    #[test]
    fn certificates_name_callers() {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver-kubelet-client");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, MASTERS);
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = parameters.self_signed(&key).expect("certificate");
        assert_eq!(
            caller_of(certificate.der()),
            Some(Caller {
                name: "kube-apiserver-kubelet-client".to_owned(),
                groups: vec![MASTERS.to_owned()]
            })
        );
        assert_eq!(caller_of(b"nonsense"), None);
    }

    #[test]
    fn token_reviews() {
        let good = json!({"status": {"authenticated": true, "user": {"username": "u", "groups": ["g"]}}});
        assert_eq!(reviewed(&good), Some(Caller { name: "u".to_owned(), groups: vec!["g".to_owned()] }));
        assert_eq!(reviewed(&json!({"status": {"authenticated": false}})), None);
        assert_eq!(reviewed(&json!({})), None);
    }

    #[test]
    fn answers_are_kept_for_a_while_and_not_too_many() {
        let memory: Memory<String, bool> = Memory::default();
        memory.put("a".to_owned(), true, Duration::from_secs(60));
        memory.put("b".to_owned(), true, Duration::ZERO);
        assert_eq!(memory.get("a"), Some(true));
        assert_eq!(memory.get("b"), None);
        for n in 0..2000 {
            memory.put(n.to_string(), true, Duration::from_secs(60));
        }
        assert!(memory.entries.lock().len() <= MEMORY);
    }
}
