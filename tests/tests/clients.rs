//! The cluster as programs use it: kube-rs with reflectors, a controller with a finalizer, apply conflicts, streams into pods.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    AttachParams, DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use pagurus_tests::cluster::{Cluster, Namespace};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program against the cluster, within the limit.
fn program<F: Future<Output = Result<()>>>(cluster: &Cluster, run: impl FnOnce(Client) -> F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let run = run(Client::try_from(config)?);
        tokio::time::timeout(LIMIT, run).await.context("the program did not end in time")?
    })
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> =
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Both ways to begin a watch: a list first, or the objects as the watch's own first events.
#[test]
fn reflectors_hold_what_is_there() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "clients-reflect")?;
    program(&cluster, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, &ns.name);
        maps.create(&PostParams::default(), &config_map("early", &[("a", "1")])).await?;
        for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
            let (store, writer) = reflector::store();
            let mut stream = Box::pin(reflector(writer, watcher(maps.clone(), config)).applied_objects());
            let holds = async |stream: &mut std::pin::Pin<Box<_>>, want: &[(&str, &str)]| -> Result<()> {
                loop {
                    let mut held: Vec<(String, String)> = store
                        .state()
                        .iter()
                        .filter(|map| map.name_any() != "kube-root-ca.crt")
                        .map(|map| {
                            (map.name_any(), map.data.as_ref().map(|d| d["a"].clone()).unwrap_or_default())
                        })
                        .collect();
                    held.sort();
                    if held.iter().map(|(name, a)| (&name[..], &a[..])).eq(want.iter().copied()) {
                        return Ok(());
                    }
                    // Deletions are not applied objects: they are seen at the next look.
                    let next = tokio::time::timeout(Duration::from_millis(100), next(stream)).await;
                    if let Ok(next) = next {
                        next?;
                    }
                }
            };
            holds(&mut stream, &[("early", "1")]).await?;
            maps.create(&PostParams::default(), &config_map("late", &[("a", "2")])).await?;
            holds(&mut stream, &[("early", "1"), ("late", "2")]).await?;
            maps.patch("late", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "3"}}))).await?;
            holds(&mut stream, &[("early", "1"), ("late", "3")]).await?;
            maps.delete("late", &DeleteParams::default()).await?;
            holds(&mut stream, &[("early", "1")]).await?;
        }
        Ok(())
    })
}

async fn next<S>(stream: &mut std::pin::Pin<Box<S>>) -> Result<()>
where
    S: futures::Stream<Item = Result<ConfigMap, watcher::Error>>,
{
    stream.as_mut().next().await.context("the watch ended")??;
    Ok(())
}

#[test]
fn pages_are_one_snapshot() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "clients-pages")?;
    program(&cluster, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, &ns.name);
        let names: Vec<String> = (0..25).map(|number| format!("page-{number:02}")).collect();
        for name in &names {
            maps.create(&PostParams::default(), &config_map(name, &[("a", "1")])).await?;
        }
        let mut seen = Vec::new();
        let mut parameters = ListParams::default().limit(10);
        let mut revisions = Vec::new();
        loop {
            let page = maps.list(&parameters).await?;
            revisions.push(page.metadata.resource_version.clone());
            seen.extend(page.items.iter().map(|map| map.name_any()));
            // What comes and goes between two pages is not in the list that was begun.
            maps.create(&PostParams::default(), &config_map(&format!("zz-{}", seen.len()), &[])).await?;
            if revisions.len() == 1 {
                maps.delete("page-24", &DeleteParams::default()).await?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
        seen.retain(|name| name != "kube-root-ca.crt");
        assert_eq!(seen, names);
        assert!(revisions.windows(2).all(|pair| pair[0] == pair[1]), "{revisions:?}");
        Ok(())
    })
}

#[test]
fn two_writers_hear_of_each_other() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "clients-conflict")?;
    program(&cluster, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, &ns.name);
        let first = maps.create(&PostParams::default(), &config_map("c", &[("a", "1")])).await?;
        let mut newer = first.clone();
        newer.data = Some([("a".to_owned(), "2".to_owned())].into());
        maps.replace("c", &PostParams::default(), &newer).await?;
        let stale = maps.replace("c", &PostParams::default(), &first).await;
        assert_eq!(stale.as_ref().err().map(code), Some(409), "{stale:?}");

        let apply = |value: &str| {
            Patch::Apply(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": value}}),
            )
        };
        maps.patch("applied", &PatchParams::apply("one"), &apply("1")).await?;
        let refused = maps.patch("applied", &PatchParams::apply("two"), &apply("2")).await;
        let Err(kube::Error::Api(status)) = refused else {
            anyhow::bail!("the second manager must be refused: {refused:?}")
        };
        assert_eq!((status.code, &status.reason[..]), (409, "Conflict"));
        let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
        assert_eq!(causes.len(), 1);
        assert_eq!((&causes[0].field[..], &causes[0].reason[..]), (".data.k", "FieldManagerConflict"));
        assert_eq!(causes[0].message, "conflict with \"one\"");
        let forced = maps.patch("applied", &PatchParams::apply("two").force(), &apply("2")).await?;
        let managers: Vec<_> =
            forced.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
        assert_eq!(managers, ["two"], "a field has one owner after force");
        Ok(())
    })
}

/// A child map of every map labelled `parent`, and a finalizer that says so when the parent goes.
async fn reconcile(parent: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, std::io::Error> {
    let namespace = parent.namespace().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(Client::clone(&client), &namespace);
    let act = async |event| {
        match event {
            Event::Apply(parent) => have_child(&maps, &parent).await,
            Event::Cleanup(parent) => say_farewell(&maps, &parent).await,
        }
        .map_err(std::io::Error::other)
    };
    finalizer(&maps, "pagurus.test/farewell", parent, act).await.map_err(std::io::Error::other)
}

async fn have_child(maps: &Api<ConfigMap>, parent: &ConfigMap) -> kube::Result<Action> {
    let mut child = config_map(&format!("{}-child", parent.name_any()), &[("of", &parent.name_any())]);
    child.metadata.owner_references = parent.controller_owner_ref(&()).map(|owner| vec![owner]);
    let apply = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": child.data,
        "metadata": {"name": child.metadata.name, "ownerReferences": child.metadata.owner_references},
    });
    maps.patch(&child.name_any(), &PatchParams::apply("parents").force(), &Patch::Apply(apply)).await?;
    Ok(Action::await_change())
}

async fn say_farewell(maps: &Api<ConfigMap>, parent: &ConfigMap) -> kube::Result<Action> {
    let farewell = config_map(&format!("{}-farewell", parent.name_any()), &[]);
    match maps.create(&PostParams::default(), &farewell).await {
        Err(error) if code(&error) != 409 => Err(error),
        _ => Ok(Action::await_change()),
    }
}

#[test]
fn a_controller_makes_and_ends_what_it_owns() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "clients-control")?;
    program(&cluster, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &ns.name);
        let mut parent = config_map("p", &[]);
        parent.metadata.labels = Some([("role".to_owned(), "parent".to_owned())].into());
        let controller = Controller::new(maps.clone(), watcher::Config::default().labels("role=parent"))
            .owns(maps.clone(), watcher::Config::default())
            .run(
                reconcile,
                |_, _: &std::io::Error, _| Action::requeue(Duration::from_millis(200)),
                Arc::new(client),
            )
            .for_each(async |done| {
                if let Err(error) = done {
                    eprintln!("the controller: {error:#}");
                }
            });
        let user = async {
            maps.create(&PostParams::default(), &parent).await?;
            let child =
                await_condition(maps.clone(), "p-child", |map: Option<&ConfigMap>| map.is_some()).await?;
            let child = child.context("the child is there")?;
            assert_eq!(child.owner_references().len(), 1);
            // What somebody else deletes comes back.
            let uid = child.uid().context("an object has a uid")?;
            maps.delete("p-child", &DeleteParams::default()).await?;
            await_condition(maps.clone(), "p-child", |map: Option<&ConfigMap>| {
                map.is_some_and(|map| map.uid().is_some_and(|new| new != uid))
            })
            .await?;
            let gone = maps.get("p").await?.uid().context("an object has a uid")?;
            maps.delete("p", &DeleteParams::default()).await?;
            await_condition(maps.clone(), "p", conditions::is_deleted(&gone)).await?;
            maps.get("p-farewell").await.context("the finalizer ran before the end")?;
            // The garbage collector's part.
            await_condition(maps.clone(), "p-child", |map: Option<&ConfigMap>| map.is_none()).await?;
            anyhow::Ok(())
        };
        tokio::select! {
            done = user => done,
            () = controller => anyhow::bail!("the controller ended"),
        }
    })
}

#[test]
fn streams_into_a_pod() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "clients-streams")?;
    program(&cluster, async |client| {
        let pods: Api<Pod> = Api::namespaced(client, &ns.name);
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": TOOLBOX,
                "command": ["/bin/sh", "-c", "echo one; echo two; while true; do echo hello | nc -l -p 8080; done"]
            }]}
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        await_condition(pods.clone(), "p", conditions::is_pod_running()).await?;

        let parameters = LogParams { follow: true, ..LogParams::default() };
        let mut lines = futures::io::AsyncBufReadExt::lines(pods.log_stream("p", &parameters).await?);
        assert_eq!(lines.try_next().await?.as_deref(), Some("one"));
        assert_eq!(lines.try_next().await?.as_deref(), Some("two"));

        let parameters = AttachParams::default().stdin(true).stdout(true).stderr(false);
        let mut cat =
            pods.exec("p", ["/bin/sh", "-c", "read line; echo got $line; exit 7"], &parameters).await?;
        let status = cat.take_status().context("exec has a status")?;
        let mut stdin = cat.stdin().context("exec has a standard input")?;
        let mut stdout = cat.stdout().context("exec has a standard output")?;
        stdin.write_all(b"this\n").await?;
        let mut said = String::new();
        stdout.read_to_string(&mut said).await?;
        assert_eq!(said, "got this\n");
        let status = status.await.context("exec ends with a status")?;
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        assert_eq!(code.and_then(|cause| cause.message.as_deref()), Some("7"), "{causes:?}");

        let mut forward = pods.portforward("p", &[8080]).await?;
        let mut port = forward.take_stream(8080).context("the port is forwarded")?;
        let mut said = vec![0; 6];
        port.read_exact(&mut said).await?;
        assert_eq!(said, b"hello\n");
        drop(port);
        forward.abort();

        let uid = pods.get("p").await?.uid().context("an object has a uid")?;
        pods.delete("p", &DeleteParams::default()).await?;
        await_condition(pods.clone(), "p", conditions::is_deleted(&uid)).await?;
        Ok(())
    })
}
