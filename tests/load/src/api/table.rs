//! From samples of several servers to rows of the table.
//!
//! Must not know: what was measured.

use super::Lab;
use crate::drive::Sample;
use crate::row::{Row, Series};

/// What an operation should come to, and what it came to elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// CPU milliseconds each, at most.
    pub cpu: f64,
    /// Per second, at least.
    pub rate: f64,
    /// What kube-apiserver v1.37.1 with etcd 3.7.3 did on two cores: CPU milliseconds and rate.
    pub upstream: (f64, f64),
}

/// The samples of each server, in the order of the lab's.
pub type Samples = Vec<Vec<Sample>>;

/// Rows of one operation: its CPU time and its rate.
pub fn rows(lab: &Lab, name: &str, aim: Aim, samples: &Samples) -> Vec<Row> {
    let figures = |figure: fn(&Sample) -> f64| -> Vec<Series> {
        samples.iter().map(|samples| samples.iter().map(figure).collect()).collect()
    };
    let mut rows = Vec::new();
    let cpu = figures(Sample::cpu_ms);
    // Nothing is counted where nobody said which processes are the server's.
    let known = |at: usize| !lab.subjects[at].pids.is_empty();
    let note = |series: &[Series], digits: usize, upstream: f64| {
        let each = series.iter().zip(samples).enumerate().map(|(at, (series, samples))| {
            format!("{}: {}, {}", lab.name(at), series.range(digits), said(samples))
        });
        format!("{}; upstream {upstream}", each.collect::<Vec<_>>().join(" | "))
    };
    if known(0) {
        let against = cpu.get(1).filter(|_| known(1)).map(Series::median);
        let row = Row::at_most(format!("{name}: server's CPU"), cpu[0].median(), "ms", aim.cpu);
        rows.push(row.against(against).noted(note(&cpu, 3, aim.upstream.0)));
    }
    let rate = figures(Sample::rate);
    let row = Row::at_least(name, rate[0].median(), "/s", aim.rate);
    rows.push(row.against(rate.get(1).map(Series::median)).noted(note(&rate, 0, aim.upstream.1)));
    rows
}

/// Latencies, and how busy others kept the machine.
pub fn said(samples: &[Sample]) -> String {
    let latencies: Series = samples.iter().flat_map(|s| s.latencies.iter().map(|l| l / 1e3)).collect();
    let share = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, cores: server {:.2}, generator {:.2}, others {:.2}",
        latencies.median(),
        latencies.percentile(0.99),
        share(|s| s.used.cpu / s.used.wall),
        share(|s| s.used.own / s.used.wall),
        share(|s| s.used.others)
    )
}
