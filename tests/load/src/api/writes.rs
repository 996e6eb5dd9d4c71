//! Creating, patching, applying.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use super::subject::stock_name;
use super::table::{Aim, Samples, rows};
use super::{Lab, check};
use crate::client::{Ask, Client};
use crate::drive::{Until, drive};
use crate::objects;
use crate::row::Row;

/// How many objects are made in a round.
const MADE: u64 = 2000;
/// The annotation that patches set.
pub const TURN: &str = "load.pagurus.example/turn";

/// Creating pods.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn pods(lab: &mut Lab) -> Result<Vec<Row>> {
    let samples = create(lab, "pods", "Pod", objects::pod).await?;
    let aim = Aim { cpu: 0.2, rate: 5000.0, upstream: (1.8, 900.0) };
    Ok(rows(lab, "create a pod", aim, &samples))
}

/// Creating ConfigMaps.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn config_maps(lab: &mut Lab) -> Result<Vec<Row>> {
    let samples = create(lab, "configmaps", "ConfigMap", objects::config_map).await?;
    let aim = Aim { cpu: 0.1, rate: 8000.0, upstream: (1.0, 1300.0) };
    Ok(rows(lab, "create a ConfigMap of 1 kB", aim, &samples))
}

/// Makes objects that are taken away after each round; a first round is not counted.
async fn create(
    lab: &mut Lab,
    plural: &'static str,
    kind: &'static str,
    object: fn(&str) -> Value,
) -> Result<Samples> {
    let mut samples: Samples = vec![Vec::new(); lab.subjects.len()];
    for round in 0..=lab.effort.rounds as u64 {
        for (subject, samples) in lab.subjects.iter().zip(&mut samples) {
            let first = round * MADE;
            let sample = drive(
                &subject.clients,
                &subject.pids,
                Until::Count(MADE / lab.effort.scale),
                first,
                move |mut client, number| async move {
                    let name = format!("created-{number:06}");
                    let mut object = object(&name);
                    object["metadata"]["labels"]["load"] = "created".into();
                    let ask = Ask::post(objects::collection(plural), objects::body(&object));
                    check::created(&client.expect(201, ask).await?, kind, &name)
                },
            )
            .await?;
            if round > 0 {
                samples.push(sample);
            }
            subject.clear(plural, "labelSelector=load%3Dcreated").await?;
        }
    }
    Ok(samples)
}

/// Merge patches.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn patch(lab: &mut Lab) -> Result<Vec<Row>> {
    let samples = change(lab, |mut client, number| async move { merge(&mut client, number).await }).await?;
    let aim = Aim { cpu: 0.25, rate: 4000.0, upstream: (2.4, 800.0) };
    Ok(rows(lab, "merge patch of a pod", aim, &samples))
}

/// Sets the annotation of a pod of the stock to the time it is sent at, microseconds since 1970.
///
/// # Errors
/// The request failed or its answer was wrong.
pub async fn merge(client: &mut Client, number: u64) -> Result<()> {
    let name = stock_name(number);
    let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let turn = format!("{sent}-{number}");
    let body = format!(r#"{{"metadata":{{"annotations":{{"{TURN}":"{turn}"}}}}}}"#);
    let path = format!("{}/{name}", objects::collection("pods"));
    let answer = client.expect(200, Ask::patch(path, "application/merge-patch+json", body)).await?;
    check::patched(&answer, "Pod", &name, &turn)
}

/// Server-side apply.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn apply(lab: &mut Lab) -> Result<Vec<Row>> {
    let samples = change(lab, |mut client, number| async move {
        let name = stock_name(number);
        let turn = format!("applied-{number}");
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {
            "load.pagurus.example/applied": turn,
        }}});
        let path = format!("{}/{name}?fieldManager=load", objects::collection("pods"));
        let ask = Ask::patch(path, "application/apply-patch+yaml", objects::body(&object));
        check::patched(&client.expect(200, ask).await?, "Pod", &name, &turn)
    })
    .await?;
    let aim = Aim { cpu: 0.2, rate: 4000.0, upstream: (1.4, 1200.0) };
    Ok(rows(lab, "server-side apply of a pod", aim, &samples))
}

/// Rounds of an operation on the stock; a first one is not counted.
async fn change<F, Fut>(lab: &mut Lab, operation: F) -> Result<Samples>
where
    F: Fn(Client, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    super::lists::rounds(lab, |_| operation.clone()).await
}
