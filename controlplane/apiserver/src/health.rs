//! Is the server alive, is it ready: `/livez`, `/readyz`, `/healthz`, with a line per check on demand.
//!
//! Checks are named as upstream names them. It must not know what a check looks at.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::sync::watch;

use crate::reply;
use crate::request::{Body, Query};

/// How long a check may take.
const TIMEOUT: Duration = Duration::from_secs(5);

type Outcome = Result<(), String>;
type Probe = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// Which of the three endpoints a check belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All three.
    All,
    /// `/readyz` only.
    Ready,
}

struct Check {
    name: String,
    scope: Scope,
    probe: Probe,
}

/// Something that is done once after the start; the server is not ready before.
#[derive(Debug, Clone, Default)]
pub struct Hook(Arc<watch::Sender<bool>>);

impl Hook {
    /// It is done.
    pub fn done(&self) {
        self.0.send_replace(true);
    }

    /// Resolves when it is done.
    pub async fn wait(&self) {
        // The sender is held by this very hook, so the channel does not close meanwhile.
        let _ = self.0.subscribe().wait_for(|done| *done).await;
    }

    fn is_done(&self) -> bool {
        *self.0.borrow()
    }
}

/// All checks, in the order they are shown in.
#[derive(Default)]
pub struct Health {
    checks: Vec<Check>,
}

impl Health {
    /// Adds a check.
    pub fn check<F>(&mut self, name: &str, scope: Scope, probe: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let probe: Probe = Arc::new(move || Box::pin(probe()));
        self.checks.push(Check { name: name.to_owned(), scope, probe });
    }

    /// Adds something that must be done after the start.
    pub fn hook(&mut self, name: &str) -> Hook {
        let hook = Hook::default();
        let watched = hook.clone();
        self.check(&format!("poststarthook/{name}"), Scope::All, move || {
            let outcome = if watched.is_done() { Ok(()) } else { Err("not finished".to_owned()) };
            std::future::ready(outcome)
        });
        hook
    }

    /// Answers a path if it is one of health.
    pub async fn serve(&self, path: &str, query: &Query) -> Option<Response<Body>> {
        let path = path.strip_prefix('/')?;
        let (endpoint, one) = path.split_once('/').unwrap_or((path, ""));
        if !matches!(endpoint, "livez" | "readyz" | "healthz") || path.ends_with('/') {
            return None;
        }
        let ready = endpoint == "readyz";
        let of_endpoint = |check: &&Check| ready || check.scope == Scope::All;
        if !one.is_empty() {
            let check = self.checks.iter().filter(of_endpoint).find(|check| check.name == one)?;
            return Some(match run(check).await {
                Ok(()) => reply::text(StatusCode::OK, "ok"),
                Err(why) => {
                    reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
                }
            });
        }
        let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
        let mut lines = String::new();
        let mut failed = Vec::new();
        for check in self.checks.iter().filter(of_endpoint) {
            if excluded.remove(check.name.as_str()) {
                lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
                continue;
            }
            match run(check).await {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
                Err(why) => {
                    tracing::info!(check = check.name, endpoint, why, "health check failed");
                    lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                    failed.push(check.name.as_str());
                }
            }
        }
        if !excluded.is_empty() {
            let names: Vec<_> = excluded.iter().map(|name| format!("\"{name}\"")).collect();
            lines.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                names.join(",")
            ));
        }
        Some(if !failed.is_empty() {
            lines.push_str(&format!("{endpoint} check failed\n"));
            reply::text(StatusCode::INTERNAL_SERVER_ERROR, lines)
        } else if query.pairs().iter().any(|(name, _)| name == "verbose") {
            lines.push_str(&format!("{endpoint} check passed\n"));
            reply::text(StatusCode::OK, lines)
        } else {
            reply::text(StatusCode::OK, "ok")
        })
    }

    /// The paths of all checks.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for endpoint in ["/healthz", "/livez", "/readyz"] {
            paths.push(endpoint.to_owned());
            let of_endpoint = self.checks.iter().filter(|c| endpoint == "/readyz" || c.scope == Scope::All);
            paths.extend(of_endpoint.map(|check| format!("{endpoint}/{}", check.name)));
        }
        paths
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|c| &c.name)).finish()
    }
}

async fn run(check: &Check) -> Outcome {
    match tokio::time::timeout(TIMEOUT, (check.probe)()).await {
        Ok(outcome) => outcome,
        Err(_) => Err("timed out".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn ask(health: &Health, path: &str, query: &str) -> Option<(u16, String)> {
        let response = health.serve(path, &Query::parse(query)).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("body").to_bytes();
        Some((code, String::from_utf8_lossy(&body).into_owned()))
    }

    #[tokio::test]
    async fn endpoints() {
        let mut health = Health::default();
        health.check("ping", Scope::All, || std::future::ready(Ok(())));
        let hook = health.hook("roles");
        let failing = (
            500,
            "[+]ping ok\n[-]poststarthook/roles failed: reason withheld\nreadyz check failed\n".to_owned(),
        );
        assert_eq!(ask(&health, "/readyz", "").await, Some(failing));
        let excluded = "[+]ping ok\n[+]poststarthook/roles excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nlivez check passed\n";
        let got = ask(&health, "/livez", "exclude=poststarthook/roles&exclude=x&verbose").await;
        assert_eq!(got, Some((200, excluded.to_owned())));
        hook.done();
        health.check("late", Scope::Ready, || std::future::ready(Err("no".to_owned())));
        assert_eq!(ask(&health, "/healthz", "").await, Some((200, "ok".to_owned())));
        assert_eq!(ask(&health, "/readyz/ping", "").await, Some((200, "ok".to_owned())));
        assert_eq!(
            ask(&health, "/readyz/late", "").await,
            Some((500, "internal server error: no\n".to_owned()))
        );
        assert_eq!(ask(&health, "/livez/late", "").await, None);
        assert_eq!(ask(&health, "/version", "").await, None);
    }
}
