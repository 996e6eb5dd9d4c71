//! `service.kubernetes.io/topology-mode: Auto`: each ready endpoint is given to one zone, zones being given endpoints in proportion to the
//! CPUs of their nodes. Pure.
//!
//! An endpoint stays with its own zone unless that would leave another zone with so few that each of them had more than a
//! fifth too much to do. If that cannot be had, there are no hints at all, and the reason is told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForZone};
use pagurus_controlplane_api::quantity::Quantity;

use super::ZONE;
use crate::runtime::object::{annotation, label};

const MODE: &str = "service.kubernetes.io/topology-mode";
/// The name the annotation had before; where both are, this one counts.
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes that take no ordinary pods do not count.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// An endpoint may have so much more to do than if all had the same.
const OVERLOAD: f64 = 0.2;

/// Whether a Service asks for it; it comes before `trafficDistribution`.
pub(super) fn is_auto(service: &Service) -> bool {
    let meta = &service.metadata;
    matches!(annotation(meta, OLD_MODE).or_else(|| annotation(meta, MODE)), Some("Auto" | "auto"))
}

/// Why there are no hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")]
    Nodes,
    #[error("Insufficient number of endpoints ({endpoints} endpoints, {zones} zones)")]
    Endpoints { endpoints: usize, zones: usize },
    #[error(
        "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
         ({endpoints} endpoints, {zones} zones)"
    )]
    Overload { endpoints: usize, zones: usize },
    #[error("One or more endpoints do not have a zone specified")]
    NoZone,
}

/// What a node brings to its zone, in thousandths of a CPU; none if it does not count. A node that counts and does not say has an
/// empty zone or nothing to bring.
pub(super) fn weight(node: &Node) -> Option<(String, i128)> {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    if !is_ready || EXCLUDED.iter().any(|name| label(&node.metadata, name).is_some()) {
        return None;
    }
    let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu")?.0.parse::<Quantity>().ok());
    let zone = label(&node.metadata, ZONE).unwrap_or_default();
    Some((zone.to_owned(), cpu.map_or(0, |cpu| cpu.milli_value())))
}

/// The share of each zone; none if a node does not say, or there is one zone only.
pub(super) fn shares(weights: impl Iterator<Item = (String, i128)>) -> Option<BTreeMap<String, f64>> {
    let mut zones: BTreeMap<String, i128> = BTreeMap::new();
    for (zone, weight) in weights {
        if zone.is_empty() || weight <= 0 {
            return None;
        }
        *zones.entry(zone).or_default() += weight;
    }
    let total: i128 = zones.values().sum();
    if zones.len() < 2 {
        return None;
    }
    Some(zones.into_iter().map(|(zone, weight)| (zone, weight as f64 / total as f64)).collect())
}

/// How many endpoints a zone is to have.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Allocation {
    least: usize,
    wanted: f64,
    has: usize,
}

/// Gives the ready endpoints of one address family to zones; nothing is changed if that cannot be done. `before` is the zone an
/// endpoint was given to, so that it is not moved without need.
pub(super) fn assign(
    endpoints: &mut [&mut Endpoint],
    shares: Option<&BTreeMap<String, f64>>,
    before: impl Fn(&Endpoint) -> Option<String>,
) -> Result<(), Refusal> {
    let shares = shares.ok_or(Refusal::Nodes)?;
    let mut ready: Vec<&mut Endpoint> =
        endpoints.iter_mut().map(|endpoint| &mut **endpoint).filter(|endpoint| is_ready(endpoint)).collect();
    let (count, zones) = (ready.len(), shares.len());
    if count < zones {
        return Err(Refusal::Endpoints { endpoints: count, zones });
    }
    let mut allocations: BTreeMap<&str, Allocation> =
        shares.iter().map(|(zone, share)| (zone.as_str(), allocation(*share, count))).collect();
    if allocations.values().map(|allocation| allocation.least).sum::<usize>() > count {
        return Err(Refusal::Overload { endpoints: count, zones });
    }
    // At first everybody is with its own zone; those of zones without nodes that count are given away.
    let mut given: Vec<Option<&str>> = Vec::with_capacity(count);
    for endpoint in &ready {
        let own = endpoint.zone.as_deref().filter(|zone| !zone.is_empty()).ok_or(Refusal::NoZone)?;
        let zone = shares.get_key_value(own).map(|(zone, _)| zone.as_str());
        if let Some(allocation) = zone.and_then(|zone| allocations.get_mut(zone)) {
            allocation.has += 1;
        }
        given.push(zone);
    }
    let last: Vec<Option<String>> = ready.iter().map(|endpoint| before(endpoint)).collect();
    while let Some(to) = neediest(&allocations, given.contains(&None)) {
        let Some(place) = giver(&allocations, &given, &last, to) else {
            return Err(Refusal::Overload { endpoints: count, zones });
        };
        for (zone, change) in [(given[place], -1), (Some(to), 1)] {
            if let Some(allocation) = zone.and_then(|zone| allocations.get_mut(zone)) {
                allocation.has = allocation.has.saturating_add_signed(change);
            }
        }
        given[place] = Some(to);
    }
    for (endpoint, zone) in ready.iter_mut().zip(given) {
        let zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
        endpoint.hints = Some(EndpointHints { for_zones: zones, for_nodes: None });
    }
    Ok(())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

fn allocation(share: f64, count: usize) -> Allocation {
    let wanted = share * count as f64;
    // Shares are between 0 and 1; the sum of a few of them may miss a whole number by a hair.
    let least = (wanted / (1.0 + OVERLOAD) - 1e-9).ceil().max(0.0) as usize;
    Allocation { least, wanted: wanted.max(least as f64), has: 0 }
}

/// The zone that is furthest below what it must have; with `homeless` endpoints to be given away, below what it should have.
fn neediest<'a>(allocations: &BTreeMap<&'a str, Allocation>, homeless: bool) -> Option<&'a str> {
    let needy = allocations.iter().filter(|(_, a)| homeless || a.has < a.least);
    needy.max_by(|(_, a), (_, b)| missing(a).total_cmp(&missing(b))).map(|(zone, _)| *zone)
}

fn missing(allocation: &Allocation) -> f64 {
    allocation.wanted - allocation.has as f64
}

/// The endpoint to be given to a zone: a homeless one, or one of the zone that has most above what it should; one that was given there
/// before, if there is such a one.
fn giver(
    allocations: &BTreeMap<&str, Allocation>,
    given: &[Option<&str>],
    last: &[Option<String>],
    to: &str,
) -> Option<usize> {
    let from = match given.contains(&None) {
        true => None,
        false => {
            let rich = allocations.iter().filter(|(zone, a)| **zone != to && a.has > a.least);
            Some(rich.min_by(|(_, a), (_, b)| missing(a).total_cmp(&missing(b))).map(|(zone, _)| *zone)?)
        }
    };
    let of_zone = || (0..given.len()).filter(|place| given[*place] == from);
    of_zone().find(|place| last[*place].as_deref() == Some(to)).or_else(|| of_zone().next_back())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shares_of(cpus: &[(&str, i128)]) -> Option<BTreeMap<String, f64>> {
        shares(cpus.iter().map(|(zone, cpu)| ((*zone).to_owned(), *cpu)))
    }

    fn endpoint(number: usize, zone: &str) -> Endpoint {
        serde_json::from_value(json!({
            "addresses": [format!("10.0.0.{number}")], "conditions": {"ready": true}, "zone": zone,
        }))
        .unwrap()
    }

    fn zones_of(endpoints: &[Endpoint]) -> Vec<Option<String>> {
        let zone = |endpoint: &Endpoint| {
            endpoint.hints.as_ref()?.for_zones.as_ref()?.first().map(|zone| zone.name.clone())
        };
        endpoints.iter().map(zone).collect()
    }

    /// Endpoints by zone, CPUs by zone, and how many endpoints each zone is given.
    fn check(of: &[(&str, usize)], cpus: &[(&str, i128)], expected: Result<&[(&str, usize)], Refusal>) {
        let mut endpoints: Vec<Endpoint> =
            of.iter().flat_map(|(zone, count)| (0..*count).map(|number| endpoint(number, zone))).collect();
        let shares = shares_of(cpus);
        let mut refs: Vec<&mut Endpoint> = endpoints.iter_mut().collect();
        let result = assign(&mut refs, shares.as_ref(), |_| None).map(|()| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for zone in zones_of(&endpoints).into_iter().flatten() {
                *counts.entry(zone).or_default() += 1;
            }
            counts
        });
        let expected =
            expected.map(|counts| counts.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect());
        assert_eq!(result, expected, "{of:?} {cpus:?}");
    }

    #[test]
    fn endpoints_are_given_in_proportion() {
        let even: &[(&str, i128)] = &[("a", 4000), ("b", 4000)];
        check(&[("a", 3), ("b", 3)], even, Ok(&[("a", 3), ("b", 3)]));
        // 4 of 6 would be a third too much for those of b; 3 of 6 are to be, 3 are the least.
        check(&[("a", 4), ("b", 2)], even, Ok(&[("a", 3), ("b", 3)]));
        // Within a fifth nobody moves.
        check(&[("a", 6), ("b", 5)], even, Ok(&[("a", 6), ("b", 5)]));
        check(&[("a", 6)], even, Ok(&[("a", 3), ("b", 3)]));
        check(&[("a", 10), ("b", 2)], &[("a", 1000), ("b", 2000)], Ok(&[("a", 5), ("b", 7)]));
        // Of a zone whose nodes do not count.
        check(&[("x", 2), ("a", 1), ("b", 1)], even, Ok(&[("a", 2), ("b", 2)]));
        check(&[("a", 1)], even, Err(Refusal::Endpoints { endpoints: 1, zones: 2 }));
        let uneven = Err(Refusal::Overload { endpoints: 3, zones: 2 });
        check(&[("a", 2), ("b", 1)], even, uneven);
        check(&[("a", 3), ("", 3)], even, Err(Refusal::NoZone));
        check(&[("a", 3)], &[("a", 4000)], Err(Refusal::Nodes));
        check(&[("a", 3), ("b", 3)], &[("a", 4000), ("", 4000)], Err(Refusal::Nodes));
        check(&[("a", 3), ("b", 3)], &[("a", 4000), ("b", 0)], Err(Refusal::Nodes));
    }

    #[test]
    fn who_was_given_away_stays_where_it_was_given() {
        let shares = shares_of(&[("a", 1), ("b", 1)]);
        let mut endpoints: Vec<Endpoint> = (0..6).map(|number| endpoint(number, "a")).collect();
        let before =
            |endpoint: &Endpoint| (endpoint.addresses[0].as_str() < "10.0.0.3").then(|| "b".to_owned());
        let mut refs: Vec<&mut Endpoint> = endpoints.iter_mut().collect();
        assign(&mut refs, shares.as_ref(), before).unwrap();
        let zones: Vec<String> = zones_of(&endpoints).into_iter().flatten().collect();
        assert_eq!(zones, ["b", "b", "b", "a", "a", "a"]);
    }

    #[test]
    fn what_is_not_ready_has_no_hint_and_does_not_count() {
        let shares = shares_of(&[("a", 1), ("b", 1)]);
        let mut endpoints: Vec<Endpoint> = ["a", "b", "b"].iter().map(|zone| endpoint(1, zone)).collect();
        endpoints[2].conditions.as_mut().unwrap().ready = Some(false);
        let mut refs: Vec<&mut Endpoint> = endpoints.iter_mut().collect();
        assign(&mut refs, shares.as_ref(), |_| None).unwrap();
        assert_eq!(zones_of(&endpoints), [Some("a".to_owned()), Some("b".to_owned()), None]);
    }

    #[test]
    fn who_asks_and_which_nodes_count() {
        let service = |annotations: serde_json::Value| -> Service {
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
        };
        for (annotations, expected) in [
            (json!({}), false),
            (json!({MODE: "Auto"}), true),
            (json!({MODE: "auto"}), true),
            (json!({MODE: "Disabled"}), false),
            (json!({OLD_MODE: "Disabled", MODE: "Auto"}), false),
        ] {
            assert_eq!(is_auto(&service(annotations.clone())), expected, "{annotations}");
        }
        let node = |labels: serde_json::Value, ready: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"labels": labels},
                "status": {"allocatable": {"cpu": "1500m"}, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert_eq!(weight(&node(json!({ZONE: "a"}), "True")), Some(("a".to_owned(), 1500)));
        assert_eq!(weight(&node(json!({}), "True")), Some((String::new(), 1500)));
        assert_eq!(weight(&node(json!({ZONE: "a"}), "False")), None);
        assert_eq!(weight(&node(json!({ZONE: "a", EXCLUDED[0]: ""}), "True")), None);
    }
}
