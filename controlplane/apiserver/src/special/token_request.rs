//! TokenRequest: a token for a ServiceAccount, bound to a pod, a node, a secret or the account alone.

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use super::{Specials, read, text};
use crate::engine::Engine;
use crate::request::{Body, Call};
use crate::token::{Bound, Claims, ISSUER, Reference};

const GROUP: &str = "authentication.k8s.io";
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 3600;

impl Specials {
    pub(super) async fn token_request(
        &self,
        engine: &Engine,
        call: &Call,
        body: Body,
    ) -> Result<Value, ApiError> {
        let mut request = read(engine, (GROUP, "v1", "TokenRequest"), call, body).await?;
        let name = call.info.name.as_deref().unwrap_or_default();
        let namespace = call.info.namespace.as_deref().unwrap_or_default();
        let given = text(&request, "/metadata/name");
        if !given.is_empty() && given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        let Some(account) = self.objects.fresh("", "serviceaccounts", namespace, name).await else {
            return Err(ApiError::not_found("", "serviceaccounts", name));
        };
        complete(&mut request)?;
        let bound = self.bound(namespace, &account.value(), &request).await?;
        let now = jiff::Timestamp::now();
        let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(USUAL);
        let expires = now.as_second() + seconds;
        let claims = Claims {
            aud: audiences(&request),
            exp: expires,
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            bound,
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let token = self.tokens.sign(&claims).map_err(ApiError::internal)?;
        let expires = jiff::Timestamp::from_second(expires).map_err(ApiError::internal)?;
        request["metadata"] =
            json!({"name": name, "namespace": namespace, "creationTimestamp": time::format(now)});
        request["status"] = json!({"token": token, "expirationTimestamp": time::format(expires)});
        Ok(request)
    }

    /// What the token is bound to; it must be there, and be what the request thinks it is.
    async fn bound(&self, namespace: &str, account: &Value, request: &Value) -> Result<Bound, ApiError> {
        let account = reference(account);
        let mut bound =
            Bound { namespace: namespace.to_owned(), serviceaccount: account, ..Bound::default() };
        let Some(wanted) = request.pointer("/spec/boundObjectRef").filter(|r| r.is_object()) else {
            return Ok(bound);
        };
        let (kind, name, uid) = (text(wanted, "/kind"), text(wanted, "/name"), text(wanted, "/uid"));
        let (resource, of_namespace) = match (text(wanted, "/apiVersion"), kind) {
            ("v1" | "", "Pod") => ("pods", namespace),
            ("v1" | "", "Secret") => ("secrets", namespace),
            ("v1" | "", "Node") => ("nodes", ""),
            _ => return Err(ApiError::bad_request(format!("cannot bind token to object of type {kind}"))),
        };
        let Some(stored) = self.objects.fresh("", resource, of_namespace, name).await else {
            return Err(ApiError::not_found("", resource, name));
        };
        let object = stored.value();
        let found = reference(&object);
        if !uid.is_empty() && uid != found.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict("", resource, name, &why));
        }
        match resource {
            "pods" => {
                let account = &bound.serviceaccount.name;
                if text(&object, "/spec/serviceAccountName") != account {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
                    )));
                }
                bound.node = self.node_of(&object);
                bound.pod = Some(found);
            }
            "secrets" => bound.secret = Some(found),
            _ => bound.node = Some(found),
        }
        Ok(bound)
    }

    fn node_of(&self, pod: &Value) -> Option<Reference> {
        let name = text(pod, "/spec/nodeName");
        if name.is_empty() {
            return None;
        }
        let node = self.objects.get("", "nodes", "", name).map(|stored| reference(&stored.value()));
        Some(node.unwrap_or(Reference { name: name.to_owned(), uid: String::new() }))
    }
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: text(object, "/metadata/name").to_owned(),
        uid: text(object, "/metadata/uid").to_owned(),
    }
}

fn audiences(request: &Value) -> Vec<String> {
    let list = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|audience| audience.as_str().map(str::to_owned)).collect()
}

/// Fills in the usual audience and duration, and checks the latter.
fn complete(request: &mut Value) -> Result<(), ApiError> {
    if audiences(request).is_empty() {
        request["spec"]["audiences"] = json!([ISSUER]);
    }
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
    let seconds = seconds.unwrap_or(USUAL);
    request["spec"]["expirationSeconds"] = json!(seconds);
    let path = "spec.expirationSeconds";
    let mut errors = Vec::new();
    if seconds < SHORTEST {
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > LONGEST {
        errors.push(FieldError::invalid(
            path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GROUP, "TokenRequest", "", errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed() {
        let rows = [
            (json!({"spec": {}}), json!({"audiences": [ISSUER], "expirationSeconds": 3600}), ""),
            (
                json!({"spec": {"audiences": ["a"], "expirationSeconds": 599}}),
                json!({"audiences": ["a"], "expirationSeconds": 599}),
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            ),
        ];
        for (mut request, spec, want) in rows {
            let error = complete(&mut request).err().map(|e| e.message).unwrap_or_default();
            assert_eq!((error.as_str(), &request["spec"]), (want, &spec));
        }
    }
}
