//! Controllers of both kinds, one written with `kube` and one with a plain watch, beside somebody who changes what they follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;

use super::{Dice, all};

/// The sources that come and go.
const KEYS: u64 = 16;
const COPY: &str = "pagurus.test/copy";

/// Keeps a copy of every source, and takes it away before the source goes.
async fn reconcile(source: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> Result<Action, std::io::Error> {
    let copy = format!("copy-{}", source.name_any());
    let act = async |event| match event {
        Finalizing::Apply(source) => {
            let source: Arc<ConfigMap> = source;
            let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": copy, "labels": {"of": "copies"}}, "data": {"v": value(&source)}});
            maps.patch(&copy, &PatchParams::apply("copies").force(), &Patch::Apply(wanted)).await?;
            kube::Result::Ok(Action::await_change())
        }
        Finalizing::Cleanup(_) => match maps.delete(&copy, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::await_change()),
            done => done.map(|_| Action::await_change()),
        },
    };
    finalizer(&maps, COPY, source, act).await.map_err(std::io::Error::other)
}

fn value(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("v")).cloned().unwrap_or_default()
}

/// The values of all objects with a label, by name.
type Values = BTreeMap<String, String>;

async fn values(maps: &Api<ConfigMap>, of: &str) -> Result<Values> {
    let list = all(maps, of).await?;
    Ok(list.items.iter().map(|map| (map.name_any(), value(map))).collect())
}

/// A controller of the plain kind: lists, watches from there, and lists again when it must; knows what there is.
async fn follow(maps: Api<ConfigMap>, known: Arc<Mutex<Values>>) -> Result<()> {
    loop {
        let list = all(&maps, "sources").await?;
        *known.lock() = list.items.iter().map(|map| (map.name_any(), value(map))).collect();
        let mut at = list.metadata.resource_version.unwrap_or_default();
        'resume: loop {
            let parameters = WatchParams::default().labels("of=sources");
            let Ok(stream) = maps.watch(&parameters, &at).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                match event {
                    WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                        at = map.resource_version().unwrap_or(at);
                        known.lock().insert(map.name_any(), value(&map));
                    }
                    WatchEvent::Deleted(map) => {
                        at = map.resource_version().unwrap_or(at);
                        known.lock().remove(&map.name_any());
                    }
                    WatchEvent::Bookmark(mark) => at = mark.metadata.resource_version,
                    WatchEvent::Error(_) => break 'resume,
                }
            }
        }
    }
}

/// Makes, changes and removes sources until it is over; what there is to be at the end, as far as this client knows.
async fn churn(maps: Api<ConfigMap>, stop: Arc<AtomicBool>) -> u64 {
    let (mut dice, mut done) = (Dice(7), 0);
    while !stop.load(Ordering::SeqCst) {
        let (name, token) = (format!("s{}", dice.below(KEYS)), dice.below(1 << 30).to_string());
        let written = match dice.below(4) {
            0 => maps.delete(&name, &DeleteParams::default()).await.map(drop),
            _ => {
                let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "sources"}}, "data": {"v": token}});
                maps.patch(&name, &PatchParams::apply("churn").force(), &Patch::Apply(wanted)).await.map(drop)
            }
        };
        done += u64::from(written.is_ok());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    done
}

/// Both controllers and the one who churns; at the end the copies are those of the sources, and the plain one knows them all.
pub(super) async fn run(config: kube::Config, stop: Arc<AtomicBool>) -> Result<()> {
    let maps = || anyhow::Ok(Api::<ConfigMap>::namespaced(Client::try_from(config.clone())?, "default"));
    let (own, known) = (maps()?, Arc::new(Mutex::new(Values::new())));
    let plain = tokio::spawn(follow(maps()?, known.clone()));
    let sources = || watcher::Config::default().labels("of=sources");
    let controller = Controller::new(maps()?, sources()).run(
        reconcile,
        |_, _: &std::io::Error, _| Action::requeue(Duration::from_millis(100)),
        Arc::new(maps()?),
    );
    let controller = tokio::spawn(controller.for_each(async |_| ()));
    let done = churn(maps()?, stop).await;
    let settled = async {
        loop {
            let (sources, copies) = (values(&own, "sources").await?, values(&own, "copies").await?);
            let wanted: Values =
                sources.iter().map(|(name, v)| (format!("copy-{name}"), v.clone())).collect();
            if copies == wanted && *known.lock() == sources {
                return anyhow::Ok(sources.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(45), settled).await;
    ensure!(!plain.is_finished() && !controller.is_finished(), "a controller ended");
    plain.abort();
    controller.abort();
    match settled {
        Ok(sources) => println!("{done} writes; {} sources with their copies at the end", sources?),
        Err(_) => bail!(
            "not settled: sources {:?}, copies {:?}, the plain one knows {:?}",
            values(&own, "sources").await?,
            values(&own, "copies").await?,
            known.lock(),
        ),
    }
    ensure!(done > 100, "too little happened: {done} writes");
    Ok(())
}
