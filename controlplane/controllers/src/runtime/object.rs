//! Reading and building object metadata: keys, owners, conditions of pods, times. Knows no controller.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::core::{Selector, SelectorExt};
pub use pagurus_controlplane_api::key::ObjectKey;

/// What an informer can hold.
pub trait Object: Resource + Clone + std::fmt::Debug + Send + Sync + 'static {}
impl<K: Resource + Clone + std::fmt::Debug + Send + Sync + 'static> Object for K {}

/// The key of an object.
pub fn key_of(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey { namespace: meta.namespace.clone(), name: meta.name.clone().unwrap_or_default() }
}

/// The uid, empty before the first write.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The name, empty if the server has yet to give one.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The namespace, empty for cluster-scoped objects.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The resource version as a number; 0 if there is none.
pub fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Whether deletion has begun.
pub fn deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The owner reference marked as controller.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

/// Sets a label.
pub fn set_label(meta: &mut ObjectMeta, name: &str, value: impl Into<String>) {
    meta.labels.get_or_insert_default().insert(name.to_owned(), value.into());
}

/// Sets an annotation.
pub fn set_annotation(meta: &mut ObjectMeta, name: &str, value: impl Into<String>) {
    meta.annotations.get_or_insert_default().insert(name.to_owned(), value.into());
}

/// A controller reference to `owner`.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(owner.meta()).to_owned(),
        uid: uid(owner.meta()).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The present moment in whole seconds, as the API stores times.
pub fn now() -> Timestamp {
    whole_seconds(Timestamp::now())
}

/// A time cut to whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// When the object was made; the oldest time if it does not say.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Whole seconds that have passed since `since`.
pub fn seconds_since(since: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - since.as_second()
}

/// `time` and so many seconds.
pub fn after_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(time.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX)
}

/// The time as the API type.
pub fn time(at: Timestamp) -> Time {
    Time(at)
}

/// A compiled label selector.
#[derive(Debug, Clone)]
pub struct Matcher {
    selector: Selector,
    empty: bool,
}

impl Matcher {
    /// From an API selector; `None` if it is malformed.
    pub fn new(selector: &LabelSelector) -> Option<Self> {
        let empty = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
        Some(Self { selector: Selector::try_from(selector.clone()).ok()?, empty })
    }

    /// From a plain map of labels.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self {
            selector: labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            empty: labels.is_empty(),
        }
    }

    /// Whether it has no requirement (and so selects everything).
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether an object's labels match.
    pub fn matches(&self, meta: &ObjectMeta) -> bool {
        match &meta.labels {
            Some(labels) => self.selector.matches(labels),
            None => self.selector.matches(&BTreeMap::new()),
        }
    }
}

/// Whether every label of a non-empty `selector` is on the object.
pub fn selects(selector: &BTreeMap<String, String>, meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    !selector.is_empty()
        && selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)).is_some_and(|have| have == v))
}

/// The pod's phase; `Pending` before it has one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether all containers have ended for good.
pub fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub fn active(pod: &Pod) -> bool {
    !finished(pod) && !deleting(&pod.metadata)
}

/// A condition of a pod.
pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Whether the Ready condition is True.
pub fn ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When the pod will have been ready for `min_ready_seconds`: `None` if it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let condition = pod_condition(pod, "Ready").filter(|c| c.status == "True")?;
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    let since = condition.last_transition_time.as_ref()?.0;
    Some(after_seconds(since, i64::from(min_ready_seconds)))
}

/// The node a pod is bound to, empty if none.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// A count given as a number or as a percentage of `total`.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let product = percent * i64::from(total);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let text = |t: &str| IntOrString::String(t.to_owned());
        for (value, total, up, expected) in [
            (IntOrString::Int(3), 10, true, Some(3)),
            (text("25%"), 10, true, Some(3)),
            (text("25%"), 10, false, Some(2)),
            (text("100%"), 7, false, Some(7)),
            (text("0%"), 7, true, Some(0)),
            (text("x"), 7, true, None),
        ] {
            assert_eq!(scaled(&value, total, up), expected, "{value:?} of {total}");
        }
    }

    #[test]
    fn selectors() {
        let meta = |labels: &[(&str, &str)]| ObjectMeta {
            labels: Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
            ..ObjectMeta::default()
        };
        let by = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert!(selects(&by, &meta(&[("a", "1"), ("b", "2")])));
        assert!(!selects(&by, &meta(&[("a", "2")])));
        assert!(!selects(&BTreeMap::new(), &meta(&[("a", "2")])));
        assert!(Matcher::from_map(&by).matches(&meta(&[("a", "1")])));
        assert!(!Matcher::from_map(&by).matches(&ObjectMeta::default()));
    }
}
