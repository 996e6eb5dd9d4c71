//! Label selectors, compiled once per pod.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt};

type Labels = BTreeMap<String, String>;

/// A compiled selector. Without one nothing matches; with an empty one everything does.
#[derive(Debug, Clone)]
pub(crate) struct Rule(Option<Selector>);

impl Rule {
    pub(crate) fn new(selector: Option<&LabelSelector>) -> Self {
        Self(selector.and_then(|s| Selector::try_from(s.clone()).ok()))
    }

    /// Also demands that pods have the same values of these labels as the pod itself, or other ones.
    pub(crate) fn with_keys(
        &mut self,
        labels: Option<&Labels>,
        same: Option<&[String]>,
        other: Option<&[String]>,
    ) {
        let Some(selector) = &mut self.0 else { return };
        let value = |key: &String| labels.and_then(|l| l.get(key)).cloned();
        for key in same.unwrap_or_default() {
            if let Some(value) = value(key) {
                selector.extend(Selector::from(Expression::In(key.clone(), [value].into())));
            }
        }
        for key in other.unwrap_or_default() {
            if let Some(value) = value(key) {
                selector.extend(Selector::from(Expression::NotIn(key.clone(), [value].into())));
            }
        }
    }

    pub(crate) fn matches(&self, labels: Option<&Labels>) -> bool {
        let none = Labels::new();
        self.0.as_ref().is_some_and(|s| s.matches(labels.unwrap_or(&none)))
    }
}
