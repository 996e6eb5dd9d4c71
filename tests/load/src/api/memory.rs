//! Start and memory.

use anyhow::{Result, bail};

use super::Lab;
use crate::ours::{ALL, Ours};
use crate::process;
use crate::row::{Row, Series};

/// From exec to `/readyz` with an empty directory, all components.
///
/// # Errors
/// It does not start.
pub async fn ready(lab: &mut Lab) -> Result<Vec<Row>> {
    if lab.subjects[0].ours.is_none() {
        bail!("only a server that is started here can be measured");
    }
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..lab.effort.rounds {
        let (ours, seconds) = Ours::start(ALL).await?;
        times.push(seconds);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        memory.push(process::resident(&[ours.pid()])?);
    }
    let (times, memory): (Series, Series) = (times.into_iter().collect(), memory.into_iter().collect());
    Ok(vec![
        Row::at_most("exec to /readyz, empty, all components", times.median(), "s", 1.0).noted(format!(
            "{} starts, {}; upstream 2.6",
            lab.effort.rounds,
            times.range(2)
        )),
        Row::at_most("resident memory, empty, all components, 3 s later", memory.median(), "MB", 60.0)
            .noted(memory.range(1)),
    ])
}

/// Resident memory, empty and after what has been done so far.
///
/// # Errors
/// A process does not run any more.
pub async fn load(lab: &mut Lab) -> Result<Vec<Row>> {
    let (mut empty, mut loaded) = (Vec::new(), Vec::new());
    for subject in &mut lab.subjects {
        subject.stock().await?;
        if !subject.pids.is_empty() {
            empty.push((subject.name.clone(), subject.empty));
            loaded.push((subject.name.clone(), process::resident(&subject.pids)?));
        }
    }
    let row = |name: &str, figures: &[(String, f64)], target: f64, upstream: f64| {
        let Some((_, first)) = figures.first() else {
            return Row::failed(
                name,
                &anyhow::anyhow!("nobody said which processes are the server's (--pids)"),
            );
        };
        let each: Vec<String> = figures.iter().map(|(name, value)| format!("{name}: {value:.1}")).collect();
        Row::at_most(name, *first, "MB", target)
            .against(figures.get(1).map(|figure| figure.1))
            .noted(format!("{}; upstream {upstream}", each.join(" | ")))
    };
    Ok(vec![
        row("resident memory, empty", &empty, 60.0, 300.0),
        row("resident memory after this load", &loaded, 120.0, 740.0),
    ])
}
