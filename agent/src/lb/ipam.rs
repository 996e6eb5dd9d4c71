//! Writes addresses into Services, if this agent is the one that does it.
//!
//! Must not know: how an address is chosen (`agent-core`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use pagurus_agent_core::lb::{Assignment, LbService, Pool, assign};
use serde_json::{Value, json};

use super::election::Election;
use super::{Known, LOOK, NAME, NAMESPACE, services};
use crate::config::NodeContext;

/// The condition of Services that lack an address.
const CONDITION: &str = "pagurus.dev/LoadBalancerAddress";

pub(super) struct Ipam {
    election: Election,
    /// We held the lease at the last pass.
    was_won: bool,
    /// Problems that have been told, by Service.
    told: BTreeMap<(String, String), String>,
}

impl Ipam {
    pub(super) fn new(context: &NodeContext) -> Self {
        let leases: Api<Lease> = Api::namespaced(context.client.clone(), NAMESPACE);
        let election = Election::new(leases, NAME, &context.node_name);
        Self { election, was_won: false, told: BTreeMap::new() }
    }

    pub(super) async fn resign(&mut self) {
        self.election.resign().await;
    }

    /// One comparison; when to come back at the latest.
    pub(super) async fn pass(&mut self, context: &NodeContext, known: &mut Known) -> Duration {
        if known.pools.is_empty() {
            // Load balancers are the business of somebody else here.
            self.election.resign().await;
            known.gone.clear();
            return LOOK;
        }
        let wait = self.election.attend().await;
        let is_won = self.election.is_won();
        if is_won && !self.was_won {
            tracing::info!("this agent gives addresses to Services of type LoadBalancer");
            if let Err(error) = find_left_over(context, known).await {
                tracing::warn!(error = format!("{error:#}"), "look for addresses of former load balancers");
            }
        }
        self.was_won = is_won;
        if !is_won {
            self.told.clear();
            known.gone.clear();
            return wait;
        }
        let unclassed = context.config.load_balancer.unclassed;
        let ours: Vec<_> = known
            .services
            .values()
            .filter(|service| services::is_ours(service, unclassed))
            .cloned()
            .collect();
        let wanted: Vec<LbService> = ours.iter().map(|service| services::read(service)).collect();
        for ((service, wanted), assignment) in ours.iter().zip(&wanted).zip(assign(&known.pools, &wanted)) {
            self.tell(context, service, &assignment);
            if let Some(status) = changed_status(service, wanted, &assignment)
                && let Err(error) = write(context, service, status).await
            {
                tracing::warn!(
                    service = format!("{}/{}", assignment.namespace, assignment.name),
                    error = format!("{error:#}"),
                    "addresses of a load balancer are not written; trying again"
                );
            }
        }
        self.told.retain(|name, _| known.services.contains_key(name));
        release(context, known).await;
        wait
    }

    fn tell(&mut self, context: &NodeContext, service: &Service, assignment: &Assignment) {
        let name = (assignment.namespace.clone(), assignment.name.clone());
        let Some(problem) = &assignment.problem else { return drop(self.told.remove(&name)) };
        if self.told.get(&name) != Some(problem) {
            context.events.warning(&about(service), "NoLoadBalancerAddress", problem.as_str());
            self.told.insert(name, problem.clone());
        }
    }
}

fn about(service: &Service) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: service.namespace(),
        name: Some(service.name_any()),
        uid: service.uid(),
        ..ObjectReference::default()
    }
}

/// The status to write, if it differs.
fn changed_status(service: &Service, wanted: &LbService, assignment: &Assignment) -> Option<Value> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let present = conditions.iter().find(|condition| condition.type_ == CONDITION);
    let state = match (&assignment.problem, present) {
        (Some(problem), _) => Some(("False", "NoAddress", problem.clone())),
        // Only those who once lacked one need to hear that all is well.
        (None, Some(_)) => Some(("True", "Assigned", String::new())),
        (None, None) => None,
    };
    let is_told = match (&state, present) {
        (Some((status, _, message)), Some(present)) => {
            present.status == *status && present.message == *message
        }
        (Some(_), None) => false,
        (None, _) => true,
    };
    if wanted.current == assignment.ips && is_told {
        return None;
    }
    let ingress: Vec<Value> =
        assignment.ips.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
    let mut status = json!({ "loadBalancer": { "ingress": ingress } });
    if ingress_is_empty(&status) {
        status["loadBalancer"]["ingress"] = Value::Null;
    }
    if let Some((state, reason, message)) = state.filter(|_| !is_told) {
        let mut all: Vec<Value> = conditions
            .iter()
            .filter(|condition| condition.type_ != CONDITION)
            .filter_map(|condition| serde_json::to_value(condition).ok())
            .collect();
        all.push(json!({
            "type": CONDITION, "status": state, "reason": reason, "message": message,
            "lastTransitionTime": pagurus_controlplane_api::time::format(jiff::Timestamp::now()),
            "observedGeneration": service.metadata.generation.unwrap_or(0)
        }));
        status["conditions"] = all.into();
    }
    Some(status)
}

fn ingress_is_empty(status: &Value) -> bool {
    status["loadBalancer"]["ingress"].as_array().is_none_or(Vec::is_empty)
}

/// Writes a status, unless the Service has changed since.
async fn write(context: &NodeContext, service: &Service, status: Value) -> anyhow::Result<()> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), &service.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "resourceVersion": service.resource_version() }, "status": status });
    match api.patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // It changed or went meanwhile: that will be told, and looked at then.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error).context("patch the status of the Service"),
    }
}

/// Services that are no load balancers any more, though they have addresses: whoever was to take them away was not there.
async fn find_left_over(context: &NodeContext, known: &mut Known) -> anyhow::Result<()> {
    let api: Api<Service> = Api::all(context.client.clone());
    let mut page = ListParams::default().fields("spec.type!=LoadBalancer").limit(500);
    loop {
        let list = api.list(&page).await.context("list Services")?;
        for service in &list.items {
            if has_addresses_of(&known.pools, service) {
                known.gone.insert(services::name(&service.metadata));
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn has_addresses_of(pools: &[Pool], service: &Service) -> bool {
    let has = services::addresses(service);
    let ours = |ip: &IpAddr| pools.iter().any(|pool| pool.contains(*ip));
    !has.is_empty() && has.iter().all(ours)
}

/// Takes the addresses of Services that are no load balancers any more.
async fn release(context: &NodeContext, known: &mut Known) {
    for (namespace, name) in std::mem::take(&mut known.gone) {
        let api: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
        let outcome = async {
            let Some(service) = api.get_opt(&name).await.context("get the Service")? else { return Ok(()) };
            let is_other =
                service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer");
            if is_other && has_addresses_of(&known.pools, &service) {
                write(context, &service, json!({ "loadBalancer": { "ingress": Value::Null } })).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(
                service = format!("{namespace}/{name}"),
                error = format!("{error:#}"),
                "addresses of a former load balancer are not taken away; trying again"
            );
            known.gone.insert((namespace, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(status: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": { "namespace": "ns", "name": "web", "generation": 3 },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"] }, "status": status
        }))
        .expect("a Service")
    }

    fn changed(status: Value, ips: &[&str], problem: Option<&str>) -> Option<Value> {
        let service = service(status);
        let assignment = Assignment {
            namespace: "ns".into(),
            name: "web".into(),
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            problem: problem.map(str::to_owned),
        };
        changed_status(&service, &services::read(&service), &assignment)
    }

    #[test]
    fn only_changes_are_written() {
        let has = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } });
        assert_eq!(changed(has.clone(), &["10.0.0.1"], None), None);
        assert_eq!(changed(json!({}), &[], None), None);
        assert_eq!(
            changed(json!({}), &["10.0.0.1"], None),
            Some(json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "VIP" }] } }))
        );
        assert_eq!(changed(has, &[], None), Some(json!({ "loadBalancer": { "ingress": null } })));
    }

    #[test]
    fn want_of_an_address_is_a_condition() {
        let told = changed(json!({}), &[], Some("none is free")).expect("a change");
        let condition = &told["conditions"][0];
        assert_eq!((&condition["status"], &condition["message"]), (&json!("False"), &json!("none is free")));
        assert_eq!(changed(told.clone(), &[], Some("none is free")), None);
        let others = json!({ "conditions": [
            condition, { "type": "Other", "status": "True", "reason": "R", "message": "",
                         "lastTransitionTime": "2023-11-14T22:13:20Z" }
        ] });
        let well = changed(others, &["10.0.0.1"], None).expect("a change");
        assert_eq!(well["conditions"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&well["conditions"][0]["type"], &well["conditions"][1]["status"]),
            (&json!("Other"), &json!("True"))
        );
    }
}
