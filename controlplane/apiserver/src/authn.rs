//! Authentication: who sent this request. A client certificate, a ServiceAccount token, or nobody in particular.
//!
//! It must not know what the request asks for, save that impersonation is itself something to be allowed.

mod certificate;
mod impersonation;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use pagurus_controlplane_api::status::ApiError;

use crate::authz::Authorizer;
use crate::request::UserInfo;
use crate::token::Tokens;

pub use certificate::{ClientCertificates, Presented};

/// Where in `extra` the credential itself is named.
pub const EXTRA_CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// What a subprotocol of a WebSocket begins with that carries a token.
pub(crate) const SOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A client behind TLS.
    Tls {
        /// Its address.
        remote: SocketAddr,
        /// The certificate it presented, if any.
        certificate: Option<Arc<Presented>>,
    },
    /// A component of this process, under the identity it was started with.
    Local(Arc<UserInfo>),
}

/// Finds out who sent a request.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    authorizer: Arc<Authorizer>,
}

impl Authenticator {
    /// An authenticator that trusts those tokens; impersonation asks the authorizer.
    pub fn new(tokens: Arc<Tokens>, authorizer: Arc<Authorizer>) -> Self {
        Self { tokens, authorizer }
    }

    /// The user of a request, and whom they act as if they ask to and may.
    pub fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<UserInfo, ApiError> {
        let user = self.identify(headers, peer)?;
        impersonation::apply(headers, user, &self.authorizer)
    }

    fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<UserInfo, ApiError> {
        let certificate = match peer {
            Peer::Local(user) => return Ok((**user).clone()),
            Peer::Tls { certificate, .. } => certificate,
        };
        let mut refused = false;
        if let Some(presented) = certificate {
            match presented.user(jiff::Timestamp::now()) {
                Some(user) => return Ok(user.clone()),
                None => refused = true,
            }
        }
        let token =
            bearer_token(headers).map(Cow::Borrowed).or_else(|| socket_token(headers).map(Cow::Owned));
        if let Some(token) = token {
            return match self.tokens.authenticate(&token, &[]) {
                Ok((user, _)) => Ok(user),
                Err(error) => {
                    tracing::debug!(%error, "token refused");
                    Err(ApiError::unauthorized())
                }
            };
        }
        if refused { Err(ApiError::unauthorized()) } else { Ok(UserInfo::anonymous()) }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token that browsers, which cannot set headers of WebSockets, put among the subprotocols; they must ask for a real one too.
fn socket_token(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let (tokens, protocols): (Vec<&str>, Vec<&str>) =
        values.flat_map(|value| value.split(',')).map(str::trim).partition(|p| p.starts_with(SOCKET_TOKEN));
    let [token] = tokens[..] else { return None };
    let token = URL_SAFE_NO_PAD.decode(token.strip_prefix(SOCKET_TOKEN)?).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty() && !protocols.is_empty())
}
