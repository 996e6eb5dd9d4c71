//! Many CustomResourceDefinitions.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Lab;
use super::subject::Subject;
use crate::client::Ask;
use crate::drive::{Until, drive};
use crate::objects;
use crate::ours;
use crate::process::resident;
use crate::row::Row;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How many are installed.
const COUNT: u64 = 1000;
/// How long one may take to be served.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory and time of 1,000 definitions, each with a schema of 20 kB; until each is established and its resource answers.
///
/// # Errors
/// A server does not establish them.
pub async fn run(lab: &mut Lab) -> Result<Vec<Row>> {
    let count = COUNT / lab.effort.scale;
    let mut fresh = Vec::new();
    if lab.subjects[0].ours.is_some() {
        fresh.push(Subject::ours(ours::APISERVER).await?);
    }
    let others = lab.subjects.iter().filter(|s| s.ours.is_none() && lab.is_named("crds"));
    let (mut seconds, mut memory, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for subject in fresh.iter().chain(others) {
        let before = resident(&subject.pids)?;
        let begun = Instant::now();
        drive(&subject.clients, &subject.pids, Until::Count(count), 0, |mut client, number| async move {
            client
                .expect(201, Ask::post(DEFINITIONS, objects::body(&objects::definition(number))))
                .await
                .map(drop)
        })
        .await?;
        established(subject, count).await?;
        seconds.push(begun.elapsed().as_secs_f64());
        memory.push((resident(&subject.pids)? - before) / count as f64);
        notes.push(subject.name.clone());
        if subject.ours.is_none() {
            for number in 0..count {
                let name = format!("{DEFINITIONS}/widgets.load{number}.pagurus.example");
                subject.client().expect(200, Ask::delete(name)).await?;
            }
        }
    }
    if seconds.is_empty() {
        bail!("of a server that is not ours only when named with --only");
    }
    let notes = notes.join(" | ");
    Ok(vec![
        Row::at_most("memory per additional CRD, schema of 20 kB", memory[0], "MB", 0.3)
            .against(memory.get(1).copied())
            .noted(notes.clone()),
        Row::at_most(format!("{count} CRDs installed, until all are served"), seconds[0], "s", 20.0)
            .against(seconds.get(1).copied())
            .noted(notes),
    ])
}

/// Waits until all are established and the last one's resource answers.
async fn established(subject: &Subject, count: u64) -> Result<()> {
    let begun = Instant::now();
    for number in 0..count {
        let path = format!("{DEFINITIONS}/widgets.load{number}.pagurus.example");
        loop {
            let body = subject.client().expect(200, Ask::get(path.as_str())).await?;
            let object: Value = serde_json::from_slice(&body).context("the answer is no JSON")?;
            let conditions = object["status"]["conditions"].as_array();
            if conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True") {
                break;
            }
            if begun.elapsed() > PATIENCE * (1 + number as u32 / 100) {
                bail!(
                    "{path} has no condition Established=True after {PATIENCE:?}: the server does not serve it, or is too slow"
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let path = format!("/apis/load{number}.pagurus.example/v1/namespaces/default/widgets");
        loop {
            let (code, body) = subject.client().call(Ask::get(path.as_str())).await?;
            if code == 200 {
                break;
            }
            if begun.elapsed() > PATIENCE * (1 + number as u32 / 100) {
                bail!("{path}: {code}: {}", String::from_utf8_lossy(&body));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}
