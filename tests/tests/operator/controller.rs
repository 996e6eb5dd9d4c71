//! The operator: of several candidates one leads, by a lease; it gives every cache a ConfigMap and a Deployment, tells how it went in
//! the status and in Events, and has the last word before a cache goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

/// For how long a leader leads without renewing its lease.
const LEASE: Duration = Duration::from_secs(3);
const MANAGER: &str = "operator";

/// The kind that it keeps.
pub fn caches() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("ops.pagurus.test", "v1", "Cache"), "caches")
}

struct Operator {
    client: Client,
    recorder: Recorder,
}

/// Leads when it can, for as long as it can.
pub async fn candidate(client: Client, identity: String) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "ops");
    loop {
        let mut led = take(&leases, &identity).await.ok().flatten();
        if led.is_some() {
            let operator = Arc::new(Operator {
                client: client.clone(),
                recorder: Recorder::new(client.clone(), Reporter::from(MANAGER)),
            });
            let mut work = std::pin::pin!(run(operator));
            // Whoever cannot renew in time may not go on: another may lead by then.
            while led.is_some_and(|at: Instant| at.elapsed() < LEASE) {
                tokio::select! {
                    () = &mut work => anyhow::bail!("the controller ended"),
                    () = tokio::time::sleep(LEASE / 6) => {}
                }
                if let Ok(Some(renewed)) = take(&leases, &identity).await {
                    led = Some(renewed);
                }
            }
        }
        tokio::time::sleep(LEASE / 6).await;
    }
}

/// Takes the lease or renews it; when that was asked for, or none if another holds it.
async fn take(leases: &Api<Lease>, identity: &str) -> kube::Result<Option<Instant>> {
    let (asked, now) = (Instant::now(), Timestamp::now());
    let spec = |changes: i32| LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(changes),
        ..LeaseSpec::default()
    };
    let Some(mut lease) = leases.get_opt("operator").await? else {
        let metadata = ObjectMeta { name: Some("operator".to_owned()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec(0)) };
        return leases.create(&PostParams::default(), &lease).await.map(|_| Some(asked));
    };
    let held = lease.spec.take().unwrap_or_default();
    let changes = held.lease_transitions.unwrap_or_default();
    let is_mine = held.holder_identity.as_deref() == Some(identity);
    let renewed = held.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    if !is_mine && now.duration_since(renewed).as_secs_f64() < LEASE.as_secs_f64() {
        return Ok(None);
    }
    lease.spec = Some(spec(changes + i32::from(!is_mine)));
    // With its resourceVersion: of two that take it at once one is refused.
    leases.replace("operator", &PostParams::default(), &lease).await.map(|_| Some(asked))
}

async fn run(operator: Arc<Operator>) {
    let client = &operator.client;
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &caches());
    Controller::new_with(all, watcher::Config::default(), caches())
        .owns(Api::<ConfigMap>::all(client.clone()), watcher::Config::default())
        .owns(Api::<Deployment>::all(client.clone()), watcher::Config::default().streaming_lists())
        .run(
            reconcile,
            |_, _: &std::io::Error, _| Action::requeue(Duration::from_millis(300)),
            operator.clone(),
        )
        .for_each(async |_| ())
        .await;
}

async fn reconcile(cache: Arc<DynamicObject>, operator: Arc<Operator>) -> Result<Action, std::io::Error> {
    let namespace = cache.namespace().unwrap_or_default();
    let all = Api::<DynamicObject>::namespaced_with(operator.client.clone(), &namespace, &caches());
    let act = async |event| match event {
        Finalizing::Apply(cache) => keep(&operator, &all, &cache).await,
        Finalizing::Cleanup(cache) => say_farewell(&operator, &cache).await,
    };
    finalizer(&all, "ops.pagurus.test/farewell", cache, act).await.map_err(std::io::Error::other)
}

/// Gives the cache what it needs, and tells.
async fn keep(operator: &Operator, all: &Api<DynamicObject>, cache: &DynamicObject) -> kube::Result<Action> {
    let (name, spec) = (cache.name_any(), &cache.data["spec"]);
    let namespace = cache.namespace().unwrap_or_default();
    let apply = PatchParams::apply(MANAGER).force();
    let owned = json!({"name": name, "ownerReferences": [cache.controller_owner_ref(&caches())]});
    let maps: Api<ConfigMap> = Api::namespaced(operator.client.clone(), &namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned, "data": data(spec)});
    maps.patch(&name, &apply, &Patch::Apply(map)).await?;
    let deployments: Api<Deployment> = Api::namespaced(operator.client.clone(), &namespace);
    let labels = json!({"cache": name});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": owned, "spec": {
        "replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "cache", "image": "cache:1"}]}}}});
    deployments.patch(&name, &apply, &Patch::Apply(deployment)).await?;
    tell(operator, all, cache).await?;
    Ok(Action::await_change())
}

/// What a cache is set to.
fn data(spec: &Value) -> BTreeMap<String, String> {
    let settings = spec["settings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let settings = settings.iter().map(|setting| (text(&setting["name"]), text(&setting["value"])));
    settings.chain([("engine".to_owned(), text(&spec["engine"]))]).collect()
}

/// The status, once for each generation, and an Event with it.
async fn tell(operator: &Operator, all: &Api<DynamicObject>, cache: &DynamicObject) -> kube::Result<()> {
    let (name, generation) = (cache.name_any(), cache.metadata.generation);
    if cache.data["status"]["observedGeneration"].as_i64() == generation {
        return Ok(());
    }
    let old = &cache.data["status"]["conditions"][0]["lastTransitionTime"];
    let since =
        if old.is_string() { old.clone() } else { Timestamp::now().strftime("%FT%TZ").to_string().into() };
    let status = json!({"apiVersion": "ops.pagurus.test/v1", "kind": "Cache", "metadata": {"name": name}, "status": {
        "observedGeneration": generation, "replicas": cache.data["spec"]["replicas"], "selector": format!("cache={name}"),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Kept", "message": "all is there", "lastTransitionTime": since}]}});
    all.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(status)).await?;
    let event = Event {
        type_: EventType::Normal,
        reason: "Kept".to_owned(),
        note: Some(format!("generation {} is kept", generation.unwrap_or_default())),
        action: "Keep".to_owned(),
        secondary: None,
    };
    operator.recorder.publish(&event, &cache.object_ref(&caches())).await
}

async fn say_farewell(operator: &Operator, cache: &DynamicObject) -> kube::Result<Action> {
    let namespace = cache.namespace().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(operator.client.clone(), &namespace);
    let name = format!("{}-farewell", cache.name_any());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    maps.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await?;
    Ok(Action::await_change())
}
