//! What a request asks for and who asks, as the steps before the engine have proved it.
//!
//! Pure data and parsing. It must not know connections, the store or any kind.

mod path;
mod query;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use parking_lot::Mutex;

pub use path::{InvalidPath, RequestInfo, Verb};
pub use query::Query;

/// Any error of a body stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and answer, on sockets and in memory.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without bytes.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body whose bytes are all there.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The group of everybody whose credentials were checked.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who showed no credentials.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that authorization does not ask.
pub const GROUP_MASTERS: &str = "system:masters";
/// The user without credentials.
pub const USER_ANONYMOUS: &str = "system:anonymous";

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The name RBAC subjects of kind User are compared with.
    pub name: String,
    /// The uid of the account, where it has one.
    pub uid: String,
    /// The names RBAC subjects of kind Group are compared with.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of that name in those groups, and in `system:authenticated`.
    pub fn authenticated<'a>(name: impl Into<String>, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let mut user = Self { name: name.into(), ..Self::default() };
        user.groups.extend(groups.into_iter().map(str::to_owned));
        if !user.in_group(GROUP_AUTHENTICATED) {
            user.groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        user
    }

    /// The server itself, for the objects it makes on its own.
    pub fn server() -> Self {
        Self::authenticated("system:apiserver", [GROUP_MASTERS])
    }

    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: USER_ANONYMOUS.to_owned(),
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// The user that a ServiceAccount's tokens speak for.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let in_namespace = format!("system:serviceaccounts:{namespace}");
        let mut user = Self::authenticated(
            format!("system:serviceaccount:{namespace}:{name}"),
            ["system:serviceaccounts", in_namespace.as_str()],
        );
        user.uid = uid.to_owned();
        user
    }

    /// Whether the user is in the group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Texts for the client's `Warning` headers, gathered by all steps of a request; a text is told once.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text unless it is there already.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// All texts so far, in the order of their coming.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Writes one `Warning: 299 - "text"` header per text.
    pub fn write(&self, headers: &mut http::HeaderMap) {
        for text in self.0.lock().iter() {
            if let Ok(value) = http::HeaderValue::from_str(&warning_header(text)) {
                headers.append(http::header::WARNING, value);
            }
        }
    }
}

/// A warning text as the value of a `Warning` header: quoted, and free of control characters.
fn warning_header(text: &str) -> String {
    let mut header = String::from("299 - \"");
    for c in text.chars() {
        match c {
            '"' | '\\' => header.extend(['\\', c]),
            c if c.is_control() => {}
            c => header.push(c),
        }
    }
    header.push('"');
    header
}

/// A request that has been authenticated and authorized.
#[derive(Debug)]
pub struct Call {
    /// What the path and method ask for.
    pub info: RequestInfo,
    /// Who asks (after impersonation).
    pub user: UserInfo,
    /// The query string's parameters.
    pub query: Query,
    /// The request's headers.
    pub headers: http::HeaderMap,
    /// The request's method.
    pub method: http::Method,
    /// The request's address as it came: path and query.
    pub uri: http::Uri,
    /// What the connection hands along, such as hyper's `OnUpgrade`.
    pub extensions: http::Extensions,
    /// Warnings for the client.
    pub warnings: Warnings,
}

impl Call {
    /// The field manager that managedFields name for this request: the parameter, else the client's product name.
    pub fn field_manager(&self) -> String {
        match self.query.get("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => self.user_agent().split('/').next().unwrap_or_default().chars().take(128).collect(),
        }
    }

    /// The client's `User-Agent`, empty if it sent none.
    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_told_once() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.x\"");
        warnings.add("unknown field \"spec.x\"");
        let mut headers = http::HeaderMap::new();
        warnings.write(&mut headers);
        let got: Vec<_> = headers.get_all("warning").iter().map(|v| v.to_str().expect("ascii")).collect();
        assert_eq!(got, [r#"299 - "unknown field \"spec.x\"""#]);
    }

    #[test]
    fn service_account_users() {
        let user = UserInfo::service_account("ns", "sa", "u");
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
        );
    }
}
