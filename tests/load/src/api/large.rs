//! Very many objects: one long list, and a large cluster's pods and nodes.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::BodyExt as _;

use super::Lab;
use super::check;
use super::subject::Subject;
use crate::client::{Ask, Client};
use crate::drive::{Until, drive};
use crate::objects;
use crate::ours;
use crate::process::{Meter, forget_peak, peak, resident};
use crate::row::Row;

/// ConfigMaps in the long list.
const LISTED: u64 = 300_000;
/// What a large cluster has.
const PODS: u64 = 150_000;
const NODES: u64 = 5000;

/// LIST of 300,000 objects of 1 kB: CPU, and what the server's memory grows by meanwhile.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn list(lab: &mut Lab) -> Result<Vec<Row>> {
    let count = LISTED / lab.effort.scale;
    let mut fresh = Vec::new();
    if lab.subjects[0].ours.is_some() {
        fresh.push(Subject::ours(ours::APISERVER).await?);
    }
    let others: Vec<&Subject> =
        lab.subjects.iter().filter(|s| s.ours.is_none() && lab.is_named("large-list")).collect();
    let (mut cpu, mut growth) = (Vec::new(), Vec::new());
    for subject in fresh.iter().chain(others) {
        fill(subject, "configmaps", count).await?;
        let mut runs = Vec::new();
        for _ in 0..lab.effort.rounds {
            runs.push(read_long(subject, count).await?);
        }
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (used, grown, seconds) = runs[runs.len() / 2];
        let grown_most = runs.iter().map(|run| run.1).fold(grown, f64::max);
        cpu.push((
            used,
            format!("{}: {:.2} to {:.2}, in {seconds:.1} s", subject.name, runs[0].0, runs[runs.len() - 1].0),
        ));
        growth.push((grown_most, format!("{}: the most of {} reads", subject.name, runs.len())));
    }
    let row = |name: &str, figures: &[(f64, String)], unit, target| {
        let Some(first) = figures.first() else {
            return Row::failed(
                name,
                &anyhow::anyhow!("of a server that is not ours only when named with --only"),
            );
        };
        let notes: Vec<&str> = figures.iter().map(|figure| figure.1.as_str()).collect();
        Row::at_most(name, first.0, unit, target)
            .against(figures.get(1).map(|f| f.0))
            .noted(notes.join(" | "))
    };
    let name = format!("LIST of {count} objects of 1 kB");
    Ok(vec![
        row(&format!("{name}: server's CPU"), &cpu, "s", 0.3),
        row(&format!("{name}: growth of its memory meanwhile"), &growth, "MB", 16.0),
    ])
}

/// Makes ConfigMaps or pods.
async fn fill(subject: &Subject, plural: &'static str, count: u64) -> Result<()> {
    eprintln!("bench: makes {count} {plural} on {}", subject.name);
    let made = drive(
        &subject.clients,
        &subject.pids,
        Until::Count(count),
        0,
        move |mut client, number| async move {
            let name = format!("many-{number:06}");
            let (kind, object) = match plural {
                "pods" => ("Pod", objects::pod(&name)),
                _ => ("ConfigMap", objects::config_map(&name)),
            };
            let ask = Ask::post(objects::collection(plural), objects::body(&object));
            check::created(&client.expect(201, ask).await?, kind, &name)
        },
    )
    .await?;
    eprintln!("bench: {:.0}/s, {:.3} ms of CPU each", made.rate(), made.cpu_ms());
    Ok(())
}

/// Reads the long list once: CPU seconds, megabytes that memory grew by at most, seconds.
async fn read_long(subject: &Subject, count: u64) -> Result<(f64, f64, f64)> {
    let before = resident(&subject.pids)?;
    if subject.ours.is_some() {
        forget_peak(&subject.pids)?;
    }
    let (meter, begun) = (Meter::start(&subject.pids)?, Instant::now());
    let response =
        Client::connect(&subject.target).await?.send(Ask::get(objects::collection("configmaps"))).await?;
    ensure!(response.status() == 200, "LIST: {}", response.status());
    let mut body = response.into_body();
    // Every object has its name once and its data once; `left` is what a piece ended with.
    let (mut names, mut left, mut length) = (0u64, Vec::new(), 0u64);
    const NAME: &[u8] = b"\"name\":\"many-";
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len() as u64;
        left.extend_from_slice(&data);
        let text = String::from_utf8_lossy(&left);
        names += text.matches("\"name\":\"many-").count() as u64;
        let keep = left.len().min(NAME.len() - 1);
        left.drain(..left.len() - keep);
    }
    ensure!(left.ends_with(b"]}\n") || left.ends_with(b"]}"), "the list has no end");
    ensure!(names >= count && length > count * 1000, "{names} objects instead of {count}, {length} bytes");
    let used = meter.read()?;
    Ok((used.cpu, peak(&subject.pids)? - before, begun.elapsed().as_secs_f64()))
}

/// Memory and restart with a large cluster's objects.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn many(lab: &mut Lab) -> Result<Vec<Row>> {
    if lab.subjects[0].ours.is_none() {
        bail!("only a server that is started here can be measured: it is killed and started again");
    }
    let (pods, nodes) = (PODS / lab.effort.scale, NODES / lab.effort.scale);
    let mut subject = Subject::ours(ours::APISERVER).await?;
    drive(&subject.clients, &subject.pids, Until::Count(nodes), 0, |mut client, number| async move {
        let object = objects::node(number);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let ask = Ask::post("/api/v1/nodes", objects::body(&object));
        check::created(&client.expect(201, ask).await?, "Node", &name)
    })
    .await?;
    fill(&subject, "pods", pods).await?;
    let at_once = resident(&subject.pids)?;
    let ours = subject.ours.as_mut().context("ours runs here")?;
    let stored = ours.stored()? / 1e6;
    let mut restarts = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..3 {
        restarts.push(ours.restart().await?);
        memory.push(resident(&[ours.pid()])?);
    }
    // The last pod is there again.
    let name = format!("many-{:06}", pods - 1);
    let ask = Ask::get(format!("{}/{name}", objects::collection("pods")));
    check::read(&Client::connect(&ours.target()?).await?.expect(200, ask).await?, "Pod", &name)?;
    restarts.sort_by(f64::total_cmp);
    memory.sort_by(f64::total_cmp);
    let name = format!("{pods} pods and {nodes} nodes stored");
    Ok(vec![
        Row::at_most(format!("resident memory, {name}"), at_once, "MB", 1500.0).noted(format!(
            "just after they were made; after a restart {:.0}; the store's files {stored:.0}",
            memory[1]
        )),
        Row::at_most(format!("restart to /readyz, {name}"), restarts[1], "s", 5.0)
            .noted(format!("killed, 3 times, {:.2} to {:.2}", restarts[0], restarts[2])),
    ])
}
