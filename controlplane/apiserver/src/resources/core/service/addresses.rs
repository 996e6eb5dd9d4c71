//! Which addresses and ports a Service gets, from the allocators. Must not know where ranges come from.

use std::net::IpAddr;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels::parse_ip;
use serde_json::{Value, json};

use super::{needs_cluster_ip, needs_health_port, needs_node_ports};
use crate::allocate::{Allocators, IpError, Protocol, Reservation};
use crate::resources::fields::{Fields, items_mut, object_at};

type Errors = Vec<FieldError>;

/// Takes what the Service needs and does not have yet, and gives up what the old one had and the new one does not need.
pub(super) fn reserve(
    allocators: &Allocators,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<Reservation, Errors> {
    let mut reservation = allocators.reservation();
    families(allocators, service, old)?;
    cluster_ips(&mut reservation, service, old)?;
    ports(&mut reservation, service, old)?;
    if let Some(old) = old {
        give_up(&mut reservation, service, old);
    }
    Ok(reservation)
}

/// Gives back all that a Service has.
pub(super) fn release(allocators: &Allocators, service: &Value) {
    for ip in held_ips(service) {
        allocators.cluster_ips.free(ip);
    }
    for (protocol, port) in held_ports(service) {
        allocators.node_ports.free(protocol, port);
    }
}

/// Marks all that a stored Service has as taken. What cannot be marked (another range was configured, two Services share an
/// address) stays with the Service; there is nobody to tell but the log.
pub(super) fn restore(allocators: &Allocators, service: &Value) {
    let mut reservation = allocators.reservation();
    for ip in held_ips(service) {
        if let Err(error) = reservation.take_ip(ip) {
            tracing::warn!(service = service.text("metadata.name"), %ip, %error, "stored ClusterIP cannot be reserved");
        }
    }
    for (protocol, port) in held_ports(service) {
        if let Err(error) = reservation.take_port(protocol, port) {
            tracing::warn!(service = service.text("metadata.name"), port, %error, "stored node port cannot be reserved");
        }
    }
    reservation.commit();
}

fn held_ips(service: &Value) -> Vec<IpAddr> {
    if !needs_cluster_ip(service) {
        return Vec::new();
    }
    service.texts("spec.clusterIPs").filter_map(parse_ip).collect()
}

fn held_ports(service: &Value) -> Vec<(Protocol, u16)> {
    let mut out = Vec::new();
    if matches!(service.text("spec.type"), "NodePort" | "LoadBalancer") {
        for port in service.items("spec.ports") {
            let number = u16::try_from(port.int("nodePort")).unwrap_or_default();
            let held = Protocol::named(port.text("protocol")).map(|protocol| (protocol, number));
            out.extend(held.filter(|(_, n)| *n != 0));
        }
    }
    let health = u16::try_from(service.int("spec.healthCheckNodePort")).unwrap_or_default();
    if health != 0 {
        out.push((Protocol::Tcp, health));
    }
    out
}

fn give_up(reservation: &mut Reservation, service: &Value, old: &Value) {
    let (ips, ports) = (held_ips(service), held_ports(service));
    for ip in held_ips(old).into_iter().filter(|ip| !ips.contains(ip)) {
        reservation.give_up_ip(ip);
    }
    for (protocol, port) in held_ports(old).into_iter().filter(|held| !ports.contains(held)) {
        reservation.give_up_port(protocol, port);
    }
}

fn family_name(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn other_family(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// Completes `ipFamilies` and `ipFamilyPolicy` from what is asked for and what the cluster has.
fn families(allocators: &Allocators, service: &mut Value, old: Option<&Value>) -> Result<(), Errors> {
    if !needs_cluster_ip(service) || old.is_some_and(|old| is_settled(service, old)) {
        return Ok(());
    }
    let configured: Vec<&str> =
        allocators.cluster_ips.ranges().iter().map(|net| family_name(net.addr())).collect();
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    let ips: Vec<String> = service.texts("spec.clusterIPs").map(str::to_owned).collect();
    let mut families: Vec<String> = service.texts("spec.ipFamilies").map(str::to_owned).collect();
    if old.is_some() && service.text("spec.ipFamilyPolicy") == "SingleStack" {
        families.truncate(1);
        if let Some(list) = object_at(service, "spec")["clusterIPs"].as_array_mut() {
            list.truncate(1);
        }
    }
    if !service.has("spec.ipFamilyPolicy") {
        let two = ips.len() == 2 || families.len() == 2;
        object_at(service, "spec")["ipFamilyPolicy"] =
            if two { "RequireDualStack" } else { "SingleStack" }.into();
    }
    let headless = ips.first().is_some_and(|ip| ip == "None");
    for (i, ip) in ips.iter().enumerate().skip(families.len()) {
        let Some(family) = parse_ip(ip).map(family_name) else { break };
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let shown = service.at("spec.clusterIPs").clone();
            let path = spec.child("clusterIPs").index(i);
            errors.push(FieldError::invalid(
                path,
                shown,
                format!("{family} is not configured on this cluster"),
            ));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let policy = service.text("spec.ipFamilyPolicy").to_owned();
    let default_family = configured.first().copied().unwrap_or("IPv4");
    if headless && service.entries("spec.selector").next().is_none() {
        if families.is_empty() {
            families.push(default_family.to_owned());
        }
        if families.len() < 2 && policy != "SingleStack" {
            families.push(other_family(&families[0]).to_owned());
        }
        object_at(service, "spec")["ipFamilies"] = families.into();
        return Ok(());
    }
    if policy == "RequireDualStack" && configured.len() < 2 {
        let text = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(spec.child("ipFamilyPolicy"), policy.as_str(), text));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, f)| !configured.contains(&f.as_str())) {
        let path = spec.child("ipFamilies").index(i);
        errors.push(FieldError::invalid(path, family.as_str(), "not configured on this cluster"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if families.is_empty() {
        families.push(default_family.to_owned());
    }
    if policy != "SingleStack" && families.len() < 2 && configured.len() > 1 {
        families.push(other_family(&families[0]).to_owned());
    }
    object_at(service, "spec")["ipFamilies"] = families.into();
    Ok(())
}

/// Whether an update leaves a dual-stack preference and all it led to as it was: then the cluster's ranges, which may have
/// changed since, have no say.
fn is_settled(service: &Value, old: &Value) -> bool {
    service.text("spec.ipFamilyPolicy") == "PreferDualStack"
        && ["spec.ipFamilyPolicy", "spec.ipFamilies", "spec.clusterIPs", "spec.type"]
            .iter()
            .all(|field| service.at(field) == old.at(field))
}

fn cluster_ips(
    reservation: &mut Reservation,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), Errors> {
    let mut ips: Vec<String> = service.texts("spec.clusterIPs").map(str::to_owned).collect();
    if !needs_cluster_ip(service) || ips.first().is_some_and(|ip| ip == "None") {
        if ips.first().is_some_and(|ip| ip == "None") {
            object_at(service, "spec")["clusterIP"] = "None".into();
        }
        return Ok(());
    }
    let held = old.map(held_ips).unwrap_or_default();
    let families: Vec<bool> = service.texts("spec.ipFamilies").map(|f| f == "IPv6").collect();
    let asked = service.at("spec.clusterIPs").clone();
    let refuse = |text: String| vec![FieldError::invalid("spec.clusterIPs", asked.clone(), text)];
    for (i, v6) in families.into_iter().enumerate() {
        if let Some(ip) = ips.get(i) {
            let Some(address) = parse_ip(ip) else { continue };
            if held.contains(&address) {
                continue;
            }
            reservation.take_ip(address).map_err(|error| {
                let why = match error {
                    IpError::Outside { .. } => {
                        "the provided network does not match the current range".to_owned()
                    }
                    other => other.to_string(),
                };
                refuse(format!("failed to allocate IP {ip}: {why}"))
            })?;
        } else {
            let address = reservation.any_ip(v6).map_err(|error| {
                vec![FieldError::internal(
                    "spec.clusterIPs",
                    format!("failed to allocate a serviceIP: {error}"),
                )]
            })?;
            ips.push(address.to_string());
        }
    }
    let spec = object_at(service, "spec");
    spec["clusterIP"] = ips.first().cloned().into();
    spec["clusterIPs"] = ips.into();
    Ok(())
}

fn ports(reservation: &mut Reservation, service: &mut Value, old: Option<&Value>) -> Result<(), Errors> {
    let held = old.map(held_ports).unwrap_or_default();
    let mut taken: Vec<(Protocol, u16)> = Vec::new();
    if matches!(service.text("spec.type"), "NodePort" | "LoadBalancer") {
        let any = needs_node_ports(service);
        // The same port of another protocol shares the node port.
        let mut shared: Vec<(i64, u16, Protocol)> = Vec::new();
        for (i, port) in items_mut(service, "spec.ports").enumerate() {
            let Some(protocol) = Protocol::named(port.text("protocol")) else { continue };
            let asked = port.int("nodePort");
            if asked == 0 && !any {
                continue;
            }
            let path = Path::new("spec.ports").index(i).child("nodePort");
            let partner = shared
                .iter()
                .find(|(number, _, p)| *number == port.int("port") && *p != protocol)
                .map(|(_, node_port, _)| *node_port);
            let number = match (u16::try_from(asked), partner) {
                (Ok(0), Some(partner)) if reservation.take_port(protocol, partner).is_ok() => partner,
                (Ok(0), _) => reservation.any_port(&[protocol]).map_err(|error| {
                    vec![FieldError::internal(&path, format!("failed to allocate a nodePort: {error}"))]
                })?,
                (Ok(number), _) => {
                    if !held.contains(&(protocol, number)) && !taken.contains(&(protocol, number)) {
                        reservation
                            .take_port(protocol, number)
                            .map_err(|error| vec![FieldError::invalid(&path, asked, error.to_string())])?;
                    }
                    number
                }
                (Err(_), _) => continue,
            };
            taken.push((protocol, number));
            shared.push((port.int("port"), number, protocol));
            port["nodePort"] = json!(number);
        }
    }
    if needs_health_port(service) {
        health_port(reservation, service, &held)?;
    }
    Ok(())
}

fn health_port(
    reservation: &mut Reservation,
    service: &mut Value,
    held: &[(Protocol, u16)],
) -> Result<(), Errors> {
    let path = "spec.healthCheckNodePort";
    let asked = service.int(path);
    match u16::try_from(asked) {
        Ok(0) => {
            let port = reservation.any_port(&[Protocol::Tcp]).map_err(|error| {
                vec![FieldError::internal(
                    path,
                    format!("failed to allocate a HealthCheck NodePort: {error}"),
                )]
            })?;
            object_at(service, "spec")["healthCheckNodePort"] = port.into();
        }
        Ok(port) if !held.contains(&(Protocol::Tcp, port)) => {
            reservation.take_port(Protocol::Tcp, port).map_err(|error| {
                let text = format!("failed to allocate requested HealthCheck NodePort {port}: {error}");
                vec![FieldError::internal(path, text)]
            })?;
        }
        _ => {}
    }
    Ok(())
}
