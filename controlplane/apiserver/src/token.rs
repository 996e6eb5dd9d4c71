//! ServiceAccount tokens: signed here, checked here, bound to objects that must still be there.
//!
//! It must not know HTTP; the TokenRequest subresource and TokenReview are in `reviews`.

mod claims;

use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::objects::Objects;
use crate::request::UserInfo;

pub use claims::{Bound, Claims, Reference};

/// Who signs, and the audience of tokens for the API itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not signed by us, expired, or not a token at all.
    #[error("invalid bearer token")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    /// Meant for somebody else.
    #[error(
        "[invalid bearer token, token audiences {found:?} is invalid for the target audiences {wanted:?}]"
    )]
    Audience {
        /// The audiences of the token.
        found: Vec<String>,
        /// The audiences asked for.
        wanted: Vec<String>,
    },
    /// What the token is bound to is not there any more.
    #[error("[invalid bearer token, {0}]")]
    Unbound(String),
}

/// Signs and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    header: Header,
    objects: Arc<dyn Objects>,
    public_key: PublicKey,
}

/// The public key as a JSON web key's parts.
struct PublicKey {
    id: String,
    x: String,
    y: String,
}

impl Tokens {
    /// Tokens of an ECDSA P-256 key pair, given as PEM texts.
    pub fn new(private_key: &str, public_key: &str, objects: Arc<dyn Objects>) -> anyhow::Result<Self> {
        let signing = EncodingKey::from_ec_pem(private_key.as_bytes())
            .context("the ServiceAccount signing key is no ECDSA key")?;
        let checking = DecodingKey::from_ec_pem(public_key.as_bytes())
            .context("the ServiceAccount public key is no ECDSA key")?;
        let public_key = PublicKey::parse(public_key)?;
        let header = Header { kid: Some(public_key.id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        Ok(Self { signing, checking, header, objects, public_key })
    }

    /// Signs.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        jsonwebtoken::encode(&self.header, claims, &self.signing).context("cannot sign a token")
    }

    /// The user a token speaks for and the audiences (of those wanted) it is for. No wanted audiences mean the API's.
    pub fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<(UserInfo, Vec<String>), TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 10;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &validation)
            .map_err(TokenError::Invalid)?
            .claims;
        let api = [ISSUER.to_owned()];
        let wanted = if wanted.is_empty() { &api } else { wanted };
        let audiences: Vec<String> = claims.aud.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience { found: claims.aud, wanted: wanted.to_vec() });
        }
        claims.check_bound(&*self.objects, jiff::Timestamp::now()).map_err(TokenError::Unbound)?;
        Ok((claims.user(), audiences))
    }

    /// The document `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// The document `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        let PublicKey { id, x, y } = &self.public_key;
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}]})
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("key", &self.public_key.id).finish_non_exhaustive()
    }
}

impl PublicKey {
    fn parse(pem: &str) -> anyhow::Result<Self> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .context("the ServiceAccount public key is not PEM")?;
        // A P-256 key ends with its point: 0x04 and two coordinates of 32 bytes.
        let point = block.contents.len().checked_sub(65).map(|at| &block.contents[at..]);
        let Some([4, coordinates @ ..]) = point else {
            anyhow::bail!("the ServiceAccount public key is no uncompressed P-256 key");
        };
        let (x, y) = coordinates.split_at(32);
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&block.contents)),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }
}

#[cfg(test)]
mod tests;
