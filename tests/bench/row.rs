//! Figures: rows of the table, and measurements of several things in turn.
//!
//! Must not know: what is measured.

use anyhow::Result;
use serde_json::{Value, json};

/// One line of the table; `xtask` prints and collects them.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure, or why there is none.
    pub value: Result<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// What it should reach.
    pub target: f64,
    /// Whether more is better.
    pub higher: bool,
    /// The figure of what it is compared with, if anything.
    pub against: Option<f64>,
    /// How it was measured, and its spread.
    pub note: String,
}

impl Row {
    /// A figure that should be at most `target`.
    pub fn at_most(name: &str, value: f64, unit: &'static str, target: f64) -> Self {
        let (name, note) = (name.to_owned(), String::new());
        Self { name, value: Ok(value), unit, target, higher: false, against: None, note }
    }

    /// Ours divided by something else's, which should be at least `target`.
    pub fn ratio(name: &str, value: f64, target: f64) -> Self {
        Self { higher: true, ..Self::at_most(name, value, "x", target) }
    }

    /// With the figure of what it is compared with.
    #[must_use]
    pub fn against(self, against: f64) -> Self {
        Self { against: Some(against), ..self }
    }

    /// With a note.
    #[must_use]
    pub fn noted(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    /// A part of the table that could not be measured.
    pub fn failed(part: &str, error: anyhow::Error) -> Self {
        let (name, note) = (part.to_owned(), String::new());
        Self { name, value: Err(error), unit: "", target: 0.0, higher: true, against: None, note }
    }

    /// As JSON: the contract with `xtask bench`.
    pub fn json(&self) -> Value {
        let (value, note) = match &self.value {
            Ok(value) => (Some(*value), self.note.clone()),
            Err(error) => (None, format!("not measured: {error:#}; {}", self.note)),
        };
        json!({
            "name": self.name, "value": value, "unit": self.unit, "target": self.target,
            "better": if self.higher { "higher" } else { "lower" }, "against": self.against,
            "note": note.trim_end_matches("; "),
        })
    }
}

/// Figures of the same thing, one of each round.
#[derive(Clone, Debug, Default)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The value below which `share` (0 to 1) of the values lie.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The figures of each round divided by those of another thing in the same round.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Median and range, for notes.
    pub fn said(&self, digits: usize) -> String {
        let (low, high) = (self.percentile(0.0), self.percentile(1.0));
        format!("{:.digits$} ({low:.digits$} to {high:.digits$})", self.median())
    }
}

/// Measures several things in turn, `rounds` times; each round begins with another one. A first round is not counted.
///
/// # Errors
/// The first that failed.
pub fn alternate<T>(
    things: &[T],
    rounds: usize,
    mut measure: impl FnMut(&T) -> Result<f64>,
) -> Result<Vec<Series>> {
    let mut series = vec![Series::default(); things.len()];
    for round in 0..=rounds {
        for place in 0..things.len() {
            let place = (place + round) % things.len();
            let value = measure(&things[place])?;
            if round > 0 {
                series[place].0.push(value);
            }
        }
    }
    Ok(series)
}
