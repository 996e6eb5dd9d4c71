//! Figures: rows of the table, and series of measurements.
//!
//! Must not know: what is measured.

use serde_json::{Value, json};

/// One line of the table; `xtask bench` prints and collects them.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure; none if it could not be measured.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// What it should reach.
    pub target: f64,
    /// Whether more is better.
    pub higher: bool,
    /// The figure of the server that is measured beside.
    pub against: Option<f64>,
    /// How it was measured, and its spread; or why there is no figure.
    pub note: String,
}

impl Row {
    /// A figure that should be at most `target`.
    pub fn at_most(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        let value = Some(value);
        Self { name: name.into(), value, unit, target, higher: false, against: None, note: String::new() }
    }

    /// A figure that should be at least `target`.
    pub fn at_least(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self { higher: true, ..Self::at_most(name, value, unit, target) }
    }

    /// What could not be measured, and why.
    pub fn failed(name: impl Into<String>, why: &anyhow::Error) -> Self {
        Self { value: None, ..Self::at_most(name, 0.0, "", 0.0) }.noted(format!("not measured: {why:#}"))
    }

    /// With a note.
    #[must_use]
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// With the figure of the server beside.
    #[must_use]
    pub fn against(self, against: Option<f64>) -> Self {
        Self { against, ..self }
    }

    /// As JSON: the contract with `xtask bench`.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "target": self.target,
            "better": if self.higher { "higher" } else { "lower" }, "against": self.against, "note": self.note,
        })
    }
}

/// Figures of the same thing.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Series {
    /// The value below which `share` (0 to 1) of the values lie; NaN of none.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// Smallest and largest, for notes.
    pub fn range(&self, digits: usize) -> String {
        format!("{:.digits$} to {:.digits$}", self.percentile(0.0), self.percentile(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let series: Series = (0..=100).rev().map(f64::from).collect();
        assert_eq!((series.percentile(0.0), series.percentile(1.0)), (0.0, 100.0));
        assert_eq!((series.median(), series.percentile(0.99)), (50.0, 99.0));
        assert_eq!(series.range(0), "0 to 100");
        assert!(Series::default().median().is_nan());
    }
}
