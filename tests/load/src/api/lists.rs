//! Reading: one object, and lists in each form.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::Lab;
use super::check::{self, Form};
use super::subject::{STOCK, Subject, stock_name};
use super::table::{Aim, Samples, rows};
use crate::client::{Ask, Client, JSON};
use crate::drive::{Until, drive};
use crate::objects;
use crate::row::Row;

/// Measures an operation on the stock, each server in turn; a first round is not counted. `operation` makes it for a server.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn rounds<M, F, Fut>(lab: &mut Lab, operation: M) -> Result<Samples>
where
    M: Fn(&Subject) -> F,
    F: Fn(Client, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut samples: Samples = vec![Vec::new(); lab.subjects.len()];
    for subject in &mut lab.subjects {
        subject.stock().await?;
    }
    let operations: Vec<F> = lab.subjects.iter().map(operation).collect();
    for round in 0..=lab.effort.rounds {
        for ((subject, samples), operation) in lab.subjects.iter().zip(&mut samples).zip(&operations) {
            let (first, until) = (round as u64 * 1_000_000, Until::Time(lab.effort.time));
            let sample = drive(&subject.clients, &subject.pids, until, first, operation.clone()).await?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// GET a pod.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn get(lab: &mut Lab) -> Result<Vec<Row>> {
    let samples = rounds(lab, |_| {
        |mut client: Client, number: u64| async move {
            let name = stock_name(number.wrapping_mul(7919));
            let ask = Ask::get(format!("{}/{name}", objects::collection("pods")));
            check::read(&client.expect(200, ask).await?, "Pod", &name)
        }
    })
    .await?;
    let aim = Aim { cpu: 0.05, rate: 15_000.0, upstream: (0.59, 2700.0) };
    Ok(rows(lab, "GET a pod", aim, &samples))
}

/// LIST in each form.
///
/// # Errors
/// A request failed or its answer was wrong.
pub async fn list(lab: &mut Lab) -> Result<Vec<Row>> {
    let protobuf = "application/vnd.kubernetes.protobuf";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let forms = [
        ("JSON", Form::Json, JSON, Aim { cpu: 8.0, rate: 100.0, upstream: (84.0, 11.0) }),
        ("protobuf", Form::Protobuf, protobuf, Aim { cpu: 5.0, rate: 100.0, upstream: (46.0, 25.0) }),
        ("Table", Form::Table, table, Aim { cpu: 5.0, rate: 100.0, upstream: (78.0, 19.0) }),
    ];
    let mut out = Vec::new();
    for (name, form, accept, aim) in forms {
        let samples = rounds(lab, |_| {
            // An answer equal to one that was right is right; ages in a Table change it every second.
            let right: Arc<Mutex<Bytes>> = Arc::default();
            move |mut client: Client, _| {
                let right = right.clone();
                async move {
                    let known = right.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let ask = Ask { accept, ..Ask::get(objects::collection("pods")) };
                    if let Some(other) = read_like(&mut client, ask, &known).await? {
                        check::list(form, &other, STOCK, stock_name)?;
                        *right.lock().unwrap_or_else(PoisonError::into_inner) = other;
                    }
                    Ok(())
                }
            }
        })
        .await?;
        out.extend(rows(lab, &format!("LIST 2,000 pods, {name}"), aim, &samples));
    }
    Ok(out)
}

/// Reads an answer; none if it is equal to `known`.
async fn read_like(client: &mut Client, ask: Ask, known: &Bytes) -> Result<Option<Bytes>> {
    let response = client.send(ask).await?;
    let code = response.status();
    let mut body = response.into_body();
    let (mut at, mut other) = (0, None::<Vec<u8>>);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        match &mut other {
            Some(other) => other.extend_from_slice(&data),
            None if known[at..].starts_with(&data) => at += data.len(),
            None => other = Some([&known[..at], &data].concat()),
        }
    }
    if other.is_none() && at < known.len() {
        other = Some(known[..at].to_vec());
    }
    let text = || {
        String::from_utf8_lossy(other.as_deref().unwrap_or_default()).chars().take(600).collect::<String>()
    };
    ensure!(code == 200, "LIST: {code}: {}", text());
    Ok(other.map(Bytes::from))
}
