//! Eviction: a pod is deleted, unless that would break a disruption budget.

use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::selectors::LabelSelector;
use pagurus_controlplane_api::status::{ApiError, Reason};
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use super::{done, read, text};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::request::{Body, Call};

const RETRY_SECONDS: u32 = 10;
/// How many evicted pods a budget remembers until its controller has seen them go.
const MOST_DISRUPTED: usize = 2000;

pub(super) async fn serve(
    engine: &Engine,
    objects: &dyn Objects,
    call: &Call,
    body: Body,
) -> Result<Value, ApiError> {
    let eviction = read(engine, ("policy", "v1", "Eviction"), call, body).await?;
    let name = call.info.name.as_deref().unwrap_or_default();
    let given = text(&eviction, "/metadata/name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let namespace = call.info.namespace.as_deref();
    let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    let dry_run = call.query.get("dryRun") == Some("All")
        || options.get("dryRun").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let pods = GroupVersionResource::new("", "v1", "pods");
    let pod = engine.get(&pods, namespace, name).await?;
    if needs_budget(&pod) {
        let budget = budget(objects, &pod)?;
        if let Some(budget) = budget {
            spend(engine, &pod, text(&budget, "/metadata/name"), dry_run).await?;
        }
    }
    let options = delete_options(options, &pod, dry_run);
    engine.delete(&pods, namespace, name, &options, &call.user).await?;
    Ok(done())
}

/// A pod that has ended, is ending, or never began, costs its budget nothing.
fn needs_budget(pod: &Value) -> bool {
    let deleted = pod.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    !deleted && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending")
}

/// The one budget over the pod.
fn budget(objects: &dyn Objects, pod: &Value) -> Result<Option<Value>, ApiError> {
    let namespace = text(pod, "/metadata/namespace");
    let of_pod = |budget: &Value| {
        let selector = budget.pointer("/spec/selector").map(LabelSelector::from_json);
        matches!(selector, Some(Ok(selector)) if selector.matches_object(pod))
    };
    let mut budgets = objects
        .list("policy", "poddisruptionbudgets", namespace)
        .into_iter()
        .map(|stored| stored.value())
        .filter(of_pod);
    let first = budgets.next();
    if budgets.next().is_some() {
        return Err(ApiError::unknown(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(first)
}

async fn spend(engine: &Engine, pod: &Value, budget: &str, dry_run: bool) -> Result<(), ApiError> {
    let budgets = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
    let namespace = Some(text(pod, "/metadata/namespace"));
    let now = time::now_text();
    let change = |budget: &mut Value| take_one(budget, pod, &now);
    let outcome = engine.modify(&budgets, namespace, budget, dry_run, change).await;
    match outcome {
        // Its budget was deleted in between.
        Err(error) if error.reason == Reason::NotFound => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// Takes one disruption from the budget, or says why there is none.
fn take_one(budget: &mut Value, pod: &Value, now: &str) -> Result<(), ApiError> {
    let number =
        |budget: &Value, pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let name = text(budget, "/metadata/name").to_owned();
    let (healthy, desired) =
        (number(budget, "/status/currentHealthy"), number(budget, "/status/desiredHealthy"));
    if !is_ready(pod) {
        let always = text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || healthy >= desired && desired > 0 {
            return Ok(());
        }
    }
    if number(budget, "/status/observedGeneration") < number(budget, "/metadata/generation") {
        return Err(violates(&format!(
            "The disruption budget {name} is still being processed by the server."
        )));
    }
    let allowed = number(budget, "/status/disruptionsAllowed");
    let disrupted =
        budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, |map| map.len());
    if allowed < 0 {
        return Err(ApiError::forbidden(
            "policy",
            "poddisruptionbudget",
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    if disrupted > MOST_DISRUPTED {
        return Err(ApiError::forbidden(
            "policy",
            "poddisruptionbudget",
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(violates(&format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )));
    }
    budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
    let pods = &mut budget["status"]["disruptedPods"];
    if !pods.is_object() {
        *pods = json!({});
    }
    pods[text(pod, "/metadata/name")] = json!(now);
    Ok(())
}

fn violates(why: &str) -> ApiError {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    ApiError::new(429, Reason::TooManyRequests, message)
        .cause("DisruptionBudget", why, "")
        .retry_after(RETRY_SECONDS)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut ready = conditions.filter(|c| text(c, "/type") == "Ready");
    ready.any(|c| text(c, "/status") == "True")
}

/// The pod that was looked at is the one to delete.
fn delete_options(mut options: Value, pod: &Value, dry_run: bool) -> Value {
    if options.pointer("/preconditions/uid").is_none() && text(pod, "/metadata/deletionTimestamp").is_empty()
    {
        options["preconditions"]["uid"] = json!(text(pod, "/metadata/uid"));
    }
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status})
    }

    #[test]
    fn budgets_are_spent() {
        let ready = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let unready = json!({"metadata": {"name": "p"}, "status": {}});
        let seen = |allowed: i64, healthy: i64, desired: i64| {
            budget(
                json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired}),
            )
        };
        let rows = [
            ("free", &ready, seen(1, 3, 2), ""),
            (
                "spent",
                &ready,
                seen(0, 2, 2),
                "The disruption budget b needs 2 healthy pods and has 2 currently",
            ),
            (
                "unseen",
                &ready,
                budget(json!({})),
                "The disruption budget b is still being processed by the server.",
            ),
            ("unready pod of a healthy set", &unready, seen(0, 2, 2), ""),
            (
                "unready pod of a sick set",
                &unready,
                seen(0, 1, 2),
                "The disruption budget b needs 2 healthy pods and has 1 currently",
            ),
        ];
        for (name, pod, mut budget, want) in rows {
            let outcome = take_one(&mut budget, pod, "now");
            let why = outcome
                .err()
                .and_then(|e| e.details)
                .and_then(|d| d.causes.first().map(|c| c.message.clone()));
            assert_eq!(why.unwrap_or_default(), want, "{name}");
        }
        let mut free = seen(1, 3, 2);
        take_one(&mut free, &ready, "now").unwrap();
        assert_eq!(free["status"]["disruptionsAllowed"], 0);
        assert_eq!(free["status"]["disruptedPods"], json!({"p": "now"}));
    }

    #[test]
    fn who_needs_a_budget() {
        for (pod, want) in [
            (json!({"status": {"phase": "Running"}}), true),
            (json!({"status": {"phase": "Pending"}}), false),
            (json!({"status": {"phase": "Failed"}}), false),
            (json!({"status": {"phase": "Running"}, "metadata": {"deletionTimestamp": "x"}}), false),
        ] {
            assert_eq!(needs_budget(&pod), want, "{pod}");
        }
    }
}
