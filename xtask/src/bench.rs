//! `cargo xtask bench SUITE`: measures and prints a table of figures, with the machine they were measured on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

mod api;
mod cluster;
mod datapath;
mod load;
mod store;

/// Flags of `bench`.
#[derive(clap::Args)]
pub struct Options {
    /// What to measure
    #[command(subcommand)]
    suite: Suite,
    /// Also write the rows as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The suites.
#[derive(clap::Subcommand)]
enum Suite {
    /// A whole cluster: start-up, memory at rest, pod start, Service programming
    Cluster,
    /// Services beside kube-proxy's rules
    Datapath {
        /// Only this part of the table
        part: Option<String>,
    },
    /// The API server, beside others if kubeconfigs are given: rate, latency, CPU time, memory
    Api(api::Options),
    /// The embedded store: durable writes, reads, watches, opening
    Store(store::Options),
}

/// One figure.
#[derive(Serialize, Deserialize, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure; none if it could not be measured (the reason is in `note`).
    pub value: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// What it should reach.
    pub target: f64,
    /// `lower` or `higher`.
    pub better: String,
    /// The figure of the thing compared with in the same run, if any.
    pub against: Option<f64>,
    /// How it was measured, its spread, or why it was not.
    pub note: String,
}

impl Row {
    /// A figure that should be at most `target`.
    pub fn at_most(name: &str, value: Result<(f64, String)>, unit: &str, target: f64) -> Self {
        let (value, note) = match value {
            Ok((value, note)) => (Some(value), note),
            Err(error) => (None, format!("not measured: {error:#}")),
        };
        let (unit, better) = (unit.to_owned(), "lower".to_owned());
        Self { name: name.to_owned(), value, unit, target, better, against: None, note }
    }

    /// Whether the figure is what it should be; none without a figure.
    pub fn met(&self) -> Option<bool> {
        self.value
            .map(|value| if self.better == "higher" { value >= self.target } else { value <= self.target })
    }
}

/// The machine a run was made on.
#[derive(Serialize)]
struct Machine {
    cores: usize,
    kernel: String,
    memory_mib: u64,
    model: String,
    /// Load averages at the end of the run.
    load: String,
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim_start_matches([':', ' ', '\t']).trim().to_owned())
            .unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    Machine {
        cores: std::thread::available_parallelism().map(usize::from).unwrap_or(1),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_mib: memory.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() / 1024,
        model: field(&read("/proc/cpuinfo"), "model name"),
        load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    let rows = match &options.suite {
        Suite::Cluster => cluster::run()?,
        Suite::Datapath { part } => datapath::run(part.as_deref())?,
        Suite::Api(options) => api::run(options)?,
        Suite::Store(options) => store::run(options)?,
    };
    let machine = machine();
    println!(
        "\n{} cores, {} MiB, kernel {}, {}; load average {}",
        machine.cores, machine.memory_mib, machine.kernel, machine.model, machine.load
    );
    for row in &rows {
        let value = row.value.map_or_else(|| "-".to_owned(), shown);
        let met = row.met().map_or("?", |met| if met { "met" } else { "MISSED" });
        let against = row.against.map_or_else(String::new, |v| format!("against {}; ", shown(v)));
        println!(
            "{:60} {value:>10} {:4} target {:>8} {met:7} {against}{}",
            row.name, row.unit, row.target, row.note
        );
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_vec_pretty(&serde_json::json!({"machine": machine, "rows": rows}))?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// A figure with as many digits as say something.
fn shown(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 3 } else { 1 };
    format!("{value:.digits$}")
}

/// The value below which `share` (0 to 1) of the sorted values lie.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let row = |better: &str, value| Row {
            better: better.to_owned(),
            value,
            ..Row::at_most("a figure", Ok((0.0, String::new())), "s", 2.0)
        };
        assert_eq!(row("lower", Some(1.0)).met(), Some(true));
        assert_eq!(row("lower", Some(3.0)).met(), Some(false));
        assert_eq!(row("higher", Some(3.0)).met(), Some(true));
        assert_eq!(row("higher", Some(1.0)).met(), Some(false));
        assert_eq!(row("higher", None).met(), None);
    }

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.0), percentile(&values, 1.0)), (1.0, 100.0));
        assert!((percentile(&values, 0.5) - 51.0).abs() < 1.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
