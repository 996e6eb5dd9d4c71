//! Metrics told apart by labels, which can be let go of: what the labels name may be gone for good. It must not know any metric.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A metric for each set of labels that has come up.
pub(super) struct Labelled<L, M> {
    metrics: Arc<RwLock<HashMap<L, M>>>,
    make: fn() -> M,
}

impl<L, M> Clone for Labelled<L, M> {
    fn clone(&self) -> Self {
        Self { metrics: self.metrics.clone(), make: self.make }
    }
}

impl<L: Clone + Eq + Hash, M: Clone> Labelled<L, M> {
    pub(super) fn new(make: fn() -> M) -> Self {
        Self { metrics: Arc::default(), make }
    }

    /// Does something with the metric of these labels, which is made if there is none.
    pub(super) fn with(&self, labels: &L, act: impl FnOnce(&M)) {
        if let Some(metric) = self.metrics.read().get(labels) {
            return act(metric);
        }
        act(self.metrics.write().entry(labels.clone()).or_insert_with(self.make));
    }

    /// Lets go of those that are not wanted any more.
    pub(super) fn retain(&self, mut wanted: impl FnMut(&L, &M) -> bool) {
        self.metrics.write().retain(|labels, metric| wanted(labels, metric));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.metrics.read().len()
    }
}

impl<L: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for Labelled<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, metric) in self.metrics.read().iter() {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

impl<L, M> fmt::Debug for Labelled<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labelled({})", self.metrics.read().len())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_is_let_go_of_is_told_no_more() {
        let counts: Labelled<[(&str, &str); 1], Counter> = Labelled::new(Counter::default);
        let mut registry = Registry::default();
        registry.register("asked", "How often", counts.clone());
        for name in ["a", "b", "a"] {
            counts.with(&[("of", name)], |count| {
                count.inc();
            });
        }
        let told = || {
            let mut out = String::new();
            text::encode(&mut out, &registry).expect("memory");
            let mut lines: Vec<String> =
                out.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(told(), ["asked_total{of=\"a\"} 2", "asked_total{of=\"b\"} 1"]);
        counts.retain(|labels, _| labels[0].1 == "b");
        assert_eq!((told(), counts.len()), (vec!["asked_total{of=\"b\"} 1".to_owned()], 1));
    }
}
