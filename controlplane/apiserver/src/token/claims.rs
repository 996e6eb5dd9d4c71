//! What a token says, and whether it still holds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::authn::EXTRA_CREDENTIAL;
use crate::objects::Objects;
use crate::request::UserInfo;

/// The claims of a ServiceAccount token.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registered names of the claims")]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    /// What the token is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// The objects a token is bound to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Bound {
    /// The namespace of all of them.
    pub namespace: String,
    /// The node the pod runs on, or that the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that lives as long as the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account the token speaks for.
    pub serviceaccount: Reference,
}

/// An object by name and uid.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words")]
pub struct Reference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// How long a token of a deleted object is accepted still.
const DELETION_LEEWAY_SECONDS: i64 = 60;

impl Claims {
    /// The user the token speaks for.
    pub fn user(&self) -> UserInfo {
        let Bound { namespace, node, pod, serviceaccount, .. } = &self.bound;
        let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
        let mut tell = |key: &str, value: &str| {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        };
        tell(EXTRA_CREDENTIAL, &format!("JTI={}", self.jti));
        if let Some(pod) = pod {
            tell("authentication.kubernetes.io/pod-name", &pod.name);
            tell("authentication.kubernetes.io/pod-uid", &pod.uid);
        }
        if let Some(node) = node {
            tell("authentication.kubernetes.io/node-name", &node.name);
            tell("authentication.kubernetes.io/node-uid", &node.uid);
        }
        user
    }

    /// Whether everything the token is bound to is there still, with the same uid.
    pub fn check_bound(&self, objects: &dyn Objects, now: Timestamp) -> Result<(), String> {
        let Bound { namespace, node, pod, secret, serviceaccount } = &self.bound;
        let wanted = format!("system:serviceaccount:{namespace}:{}", serviceaccount.name);
        if self.sub != wanted {
            return Err("service account token has an unexpected subject".to_owned());
        }
        check(objects, ("serviceaccounts", "service account"), namespace, serviceaccount, now)?;
        if let Some(secret) = secret {
            check(objects, ("secrets", "secret"), namespace, secret, now)?;
        }
        if let Some(pod) = pod {
            return check(objects, ("pods", "pod"), namespace, pod, now);
        }
        match node {
            Some(node) => check(objects, ("nodes", "node"), "", node, now),
            None => Ok(()),
        }
    }
}

fn check(
    objects: &dyn Objects,
    (resource, shown): (&str, &str),
    namespace: &str,
    wanted: &Reference,
    now: Timestamp,
) -> Result<(), String> {
    let Some(stored) = objects.get("", resource, namespace, &wanted.name) else {
        return Err(format!("{shown} {namespace}/{} has been deleted", wanted.name));
    };
    let object = stored.value();
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    if !wanted.uid.is_empty() && text("/metadata/uid") != Some(&wanted.uid) {
        return Err(format!(
            "{shown} UID ({}) does not match claim ({})",
            text("/metadata/uid").unwrap_or_default(),
            wanted.uid
        ));
    }
    let deleted: Option<Timestamp> = text("/metadata/deletionTimestamp").and_then(|t| t.parse().ok());
    match deleted {
        Some(at) if now.as_second() > at.as_second() + DELETION_LEEWAY_SECONDS => {
            Err(format!("{shown} {namespace}/{} has been deleted", wanted.name))
        }
        _ => Ok(()),
    }
}
