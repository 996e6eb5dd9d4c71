//! Authentication: who sent this request. A client certificate, a ServiceAccount token, or nobody in particular.
//!
//! It must not know what the request asks for, save that impersonation is itself something to be allowed.

mod certificate;
mod impersonation;

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use pagurus_controlplane_api::status::ApiError;

use crate::authz::Authorizer;
use crate::request::UserInfo;
use crate::token::Tokens;

pub use certificate::{ClientCertificates, Presented};

/// Where in `extra` the credential itself is named.
pub const EXTRA_CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

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
        if let Some(token) = bearer_token(headers) {
            return match self.tokens.authenticate(token, &[]) {
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
