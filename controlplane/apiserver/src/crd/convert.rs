//! Conversion between the versions of a custom resource: none but the name of the version, or what a webhook makes of an object.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pagurus_controlplane_api::status::ApiError;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::objects::Objects;
use crate::resources::fields::Fields;
use crate::webhook::{Client, Webhook};

/// How long a conversion may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many converted objects are kept, and how many bytes of them.
const KEPT: usize = 4096;
const KEPT_BYTES: usize = 32 << 20;
/// How many requests of the process may hold up a worker each while they wait for a webhook.
const MOST_WAITING: usize = 32;
/// The versions of the review that we speak, the best first.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// How objects get from one version to another.
#[derive(Debug)]
pub(super) enum Converter {
    /// The versions differ in their names only.
    None,
    /// Somebody else knows.
    Webhook(Box<ByWebhook>),
}

impl Converter {
    /// What a definition says.
    pub(super) fn of(definition: &Value, objects: Arc<dyn Objects>) -> Self {
        let conversion = definition.at("spec.conversion");
        if conversion.text("strategy") != "Webhook" {
            return Self::None;
        }
        let offered: Vec<&str> = conversion.texts("webhook.conversionReviewVersions").collect();
        let review = REVIEWS.iter().find(|known| offered.contains(known)).copied().unwrap_or(REVIEWS[0]);
        Self::Webhook(Box::new(ByWebhook {
            webhook: Webhook::of(conversion.at("webhook.clientConfig")),
            client: Client::new(objects),
            review,
            kind: definition.text("spec.names.kind").to_owned(),
            done: Mutex::default(),
        }))
    }

    /// One object in the version asked for. What was not prepared waits for the webhook where it stands: those who merge fields are not
    /// asynchronous. Only so many may wait like that.
    pub(super) fn one(&self, mut object: Value, api_version: &str) -> Result<Value, ApiError> {
        match self {
            Self::None => {
                object["apiVersion"] = api_version.into();
                Ok(object)
            }
            Self::Webhook(by) => {
                if let Some(done) = by.find(&object, api_version) {
                    return Ok(done);
                }
                let Some(_place) = Place::take() else {
                    let message = format!("too many requests wait for the conversion webhook of {}", by.kind);
                    return Err(ApiError::too_many_requests(message, 1));
                };
                let waiting =
                    || tokio::runtime::Handle::current().block_on(by.many(vec![object], api_version));
                let converted = tokio::task::block_in_place(waiting)?;
                converted.into_iter().next().ok_or_else(|| ApiError::internal("a conversion came to nothing"))
            }
        }
    }

    /// Converts objects in one go and keeps them for a while.
    pub(super) async fn prepare(&self, objects: Vec<Value>, api_version: &str) -> Result<(), ApiError> {
        let Self::Webhook(by) = self else { return Ok(()) };
        let missing: Vec<Value> = objects
            .into_iter()
            .filter(|o| o.text("apiVersion") != api_version && by.find(o, api_version).is_none())
            .collect();
        if missing.is_empty() { Ok(()) } else { by.many(missing, api_version).await.map(drop) }
    }
}

/// One of the places for those who hold up a worker.
struct Place;

/// How many places are taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let more = |taken: usize| (taken < MOST_WAITING).then_some(taken + 1);
        TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A webhook with what it did lately.
#[derive(Debug)]
pub(super) struct ByWebhook {
    webhook: Webhook,
    client: Client,
    review: &'static str,
    kind: String,
    done: Mutex<Kept>,
}

/// Converted objects by uid, revision and version.
#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<[String; 3], Conversion>,
    bytes: usize,
}

/// An object, and what became of it.
#[derive(Debug)]
struct Conversion {
    of: Value,
    made: Value,
}

impl Kept {
    /// Keeps some, in place of all others if there is no room for both.
    fn add(&mut self, conversions: Vec<([String; 3], Conversion)>) {
        let size = |value: &Value| value.to_string().len();
        let bytes: usize = conversions.iter().map(|(_, c)| size(&c.of) + size(&c.made)).sum();
        if self.objects.len() + conversions.len() > KEPT || self.bytes + bytes > KEPT_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.objects.extend(conversions);
    }
}

impl ByWebhook {
    fn key(object: &Value, api_version: &str) -> Option<[String; 3]> {
        let (uid, revision) = (object.text("metadata.uid"), object.text("metadata.resourceVersion"));
        // Without a revision it is an object on its way in, which can be another one each time.
        let known = !uid.is_empty() && !revision.is_empty();
        known.then(|| {
            [uid.to_owned(), revision.to_owned(), format!("{}>{api_version}", object.text("apiVersion"))]
        })
    }

    fn find(&self, object: &Value, api_version: &str) -> Option<Value> {
        let done = self.done.lock();
        let found = done.objects.get(&Self::key(object, api_version)?)?;
        // A client can send changed content under the revision that it is based on.
        (found.of == *object).then(|| found.made.clone())
    }

    async fn many(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, ApiError> {
        let from = objects.first().map(|o| o.text("apiVersion").to_owned()).unwrap_or_default();
        let failed = |why: String| {
            ApiError::internal(format!("conversion webhook for {from}, Kind={} failed: {why}", self.kind))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let answer = self.client.post(&self.webhook, &review, PATIENCE).await.map_err(failed)?;
        let converted = converted(&answer, &uid, &objects, api_version).map_err(failed)?;
        let kept = objects.iter().zip(&converted).filter_map(|(object, made)| {
            let conversion = Conversion { of: object.clone(), made: made.clone() };
            Self::key(object, api_version).map(|key| (key, conversion))
        });
        let kept = kept.collect();
        self.done.lock().add(kept);
        Ok(converted)
    }
}

/// What a review answers, looked at: the same objects, in the version asked for, with their metadata.
fn converted(answer: &Value, uid: &str, asked: &[Value], api_version: &str) -> Result<Vec<Value>, String> {
    let response = answer.at("response");
    if answer.text("kind") != "ConversionReview" || response.is_null() {
        return Err("invalid response: no response provided".to_owned());
    }
    if response.text("uid") != uid {
        let (wanted, given) = (
            pagurus_controlplane_api::go::quote(uid),
            pagurus_controlplane_api::go::quote(response.text("uid")),
        );
        return Err(format!("expected response.uid={wanted}, got {given}"));
    }
    if response.text("result.status") != "Success" {
        let message = response.text("result.message");
        return Err(if message.is_empty() {
            "response.result.status was 'Failure'".to_owned()
        } else {
            message.to_owned()
        });
    }
    let objects = response.items("convertedObjects");
    if objects.len() != asked.len() {
        return Err(format!("expected {} converted objects, got {}", asked.len(), objects.len()));
    }
    objects
        .iter()
        .zip(asked)
        .enumerate()
        .map(|(at, (made, given))| one_converted(at, made, given, api_version))
        .collect()
}

fn one_converted(at: usize, made: &Value, given: &Value, api_version: &str) -> Result<Value, String> {
    let invalid = |what: String| format!("invalid converted object at index {at}: {what}");
    if made.text("apiVersion") != api_version {
        return Err(invalid(format!(
            "invalid groupVersion (expected {api_version}, received {})",
            made.text("apiVersion")
        )));
    }
    if made.text("kind") != given.text("kind") {
        return Err(invalid(format!(
            "invalid kind (expected {}, received {})",
            given.text("kind"),
            made.text("kind")
        )));
    }
    if !made.at("metadata").is_object() {
        return Err(invalid("metadata is missing".to_owned()));
    }
    for field in ["name", "namespace", "uid"] {
        let (new, old) = (made.at("metadata").text(field), given.at("metadata").text(field));
        if new != old {
            return Err(invalid(format!("invalid metadata: {field} must be preserved: {new} != {old}")));
        }
    }
    // Only labels and annotations are the webhook's to change.
    let mut out = made.clone();
    out["metadata"] = given.at("metadata").clone();
    for field in ["labels", "annotations"] {
        let value = made.at("metadata").at(field);
        crate::resources::fields::set(&mut out["metadata"], field, (!value.is_null()).then(|| value.clone()));
    }
    Ok(out)
}

/// The name of a value's type in messages.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_room_have_an_end() {
        let places: Vec<Place> = std::iter::from_fn(Place::take).collect();
        assert_eq!(places.len(), MOST_WAITING);
        drop(places);
        assert!(Place::take().is_some());
        let mut kept = Kept::default();
        let key = |n: usize| [n.to_string(), String::new(), String::new()];
        let large = || Conversion { of: Value::Null, made: "x".repeat(KEPT_BYTES / 2).into() };
        kept.add(vec![(key(0), large())]);
        kept.add(vec![(key(1), large())]);
        assert_eq!(kept.objects.keys().collect::<Vec<_>>(), [&key(1)]);
        kept.add(
            (2..2 + KEPT).map(|n| (key(n), Conversion { of: Value::Null, made: Value::Null })).collect(),
        );
        assert_eq!((kept.objects.len(), kept.bytes), (KEPT, KEPT * 8));
    }

    #[test]
    fn reviews_are_looked_at() {
        let given = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}}, "spec": {"a": 1}});
        let made = |change: &dyn Fn(&mut Value)| {
            let mut made = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"y": "2"}}, "spec": {"b": 1}});
            change(&mut made);
            json!({"kind": "ConversionReview", "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": [made]}})
        };
        let check = |answer: Value| converted(&answer, "1", std::slice::from_ref(&given), "g/v2");
        let good = check(made(&|_| {})).unwrap_or_default();
        assert_eq!(
            good,
            [
                json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"y": "2"}}, "spec": {"b": 1}})
            ]
        );
        for (answer, expected) in [
            (
                made(&|o| o["apiVersion"] = "g/v3".into()),
                "invalid converted object at index 0: invalid groupVersion (expected g/v2, received g/v3)",
            ),
            (
                made(&|o| o["metadata"]["name"] = "b".into()),
                "invalid converted object at index 0: invalid metadata: name must be preserved: b != a",
            ),
            (
                json!({"kind": "ConversionReview", "response": {"uid": "2"}}),
                "expected response.uid=\"1\", got \"2\"",
            ),
            (
                json!({"kind": "ConversionReview", "response": {"uid": "1", "result": {"status": "Failure", "message": "no"}}}),
                "no",
            ),
            (
                json!({"kind": "ConversionReview", "response": {"uid": "1", "result": {"status": "Success"}}}),
                "expected 1 converted objects, got 0",
            ),
        ] {
            assert_eq!(check(answer), Err(expected.to_owned()));
        }
    }
}
