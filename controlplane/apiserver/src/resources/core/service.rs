//! Services: a stable address for a set of pods.

mod addresses;
mod row;
mod update;
mod validate;

pub(crate) use validate::ordinary;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use crate::allocate::{Allocators, Reservation};
use crate::registry::{FieldName, named};
use crate::resources::deprecations;
use crate::resources::fields::{Fields, default, default_text, default_zero, items_mut, object_at, set};
use crate::strategy::{Context, Strategy, keep};

/// The strategy of `services`.
pub(crate) struct Services;

/// Whether a Service of this type has a ClusterIP (if it is not headless).
fn needs_cluster_ip(service: &Value) -> bool {
    service.text("spec.type") != "ExternalName"
}

/// Whether a Service of this type opens ports on nodes.
fn needs_node_ports(service: &Value) -> bool {
    match service.text("spec.type") {
        "NodePort" => true,
        "LoadBalancer" => service.some_flag("spec.allocateLoadBalancerNodePorts") != Some(false),
        _ => false,
    }
}

/// Whether the load balancer asks each node for its health on a port of its own.
fn needs_health_port(service: &Value) -> bool {
    service.text("spec.type") == "LoadBalancer" && service.text("spec.externalTrafficPolicy") == "Local"
}

/// Whether the Service can be reached from outside of the cluster.
fn is_external(service: &Value) -> bool {
    match service.text("spec.type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !service.items("spec.externalIPs").is_empty(),
        _ => false,
    }
}

impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default_text(spec, "sessionAffinity", "None");
        if spec.text("sessionAffinity") == "None" {
            set(spec, "sessionAffinityConfig", None);
        }
        if spec.text("sessionAffinity") == "ClientIP"
            && !spec.has("sessionAffinityConfig.clientIP.timeoutSeconds")
        {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        default_text(spec, "type", "ClusterIP");
        for port in items_mut(spec, "ports") {
            default_text(port, "protocol", "TCP");
            let number = port.int("port");
            default_zero(port, "targetPort", number);
        }
        if is_external(object) {
            default_text(&mut object["spec"], "externalTrafficPolicy", "Cluster");
        }
        let spec = &mut object["spec"];
        if matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer") {
            default(spec, "internalTrafficPolicy", "Cluster");
        }
        if spec.text("type") == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        for ingress in items_mut(object, "status.loadBalancer.ingress") {
            if !ingress.text("ip").is_empty() {
                default(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        update::normalize_addresses(object, None);
    }

    fn prepare_update(&self, _context: &Context<'_>, object: &mut Value, old: &Value) {
        keep(object, old, "status");
        update::normalize_addresses(object, Some(old));
        update::keep_allocated(object, old);
        update::drop_what_the_type_forbids(object, old);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate::service(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = validate::change(object, old);
        errors.extend(validate::service(object));
        if object.at("status") != old.at("status") {
            errors.extend(validate::status(object));
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(object)
    }

    fn name_errors(&self, name: &str, prefix: bool) -> Vec<String> {
        let name = if prefix { labels::mask_trailing_dash(name) } else { name.to_owned() };
        labels::dns_label(&name)
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("spec.clusterIP"), named("spec.type")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(object.text(name).to_owned())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row::cells(object, now)
    }

    fn allow_unconditional_update(&self) -> bool {
        true
    }

    fn reserves(&self) -> bool {
        true
    }

    fn reserve(
        &self,
        allocators: &Allocators,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, ApiError> {
        let name = object.text("metadata.name").to_owned();
        addresses::reserve(allocators, object, old)
            .map_err(|errors| ApiError::invalid("", "Service", &name, errors))
    }

    fn release(&self, allocators: &Allocators, object: &Value) {
        addresses::release(allocators, object);
    }

    fn restore(&self, allocators: &Allocators, object: &Value) {
        addresses::restore(allocators, object);
    }
}

/// What the type of a Service makes of its fields, and what is on its way out.
fn warnings(service: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let (path, spec) = (Path::new("spec"), service.at("spec"));
    if labels::annotation(service, "service.kubernetes.io/topology-aware-hints").is_some() {
        out.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    let (kind, first) = (spec.text("type"), spec.text("clusterIP"));
    let (headless, named) = (kind == "ClusterIP" && first == "None", kind == "ExternalName");
    let external = !spec.items("externalIPs").is_empty();
    let mut tell = |when: bool, text: &str| {
        if when {
            out.push(text.to_owned());
        }
    };
    tell(
        headless && !spec.text("loadBalancerIP").is_empty(),
        "spec.loadBalancerIP is ignored for headless services",
    );
    tell(headless && external, "spec.externalIPs is ignored for headless services");
    let sticky = spec.text("sessionAffinity") != "None";
    tell(headless && sticky, "spec.SessionAffinity is ignored for headless services");
    tell(
        external && !headless && !named,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    tell(external && named, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let other_name = !named && !spec.text("externalName").is_empty();
    tell(other_name, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    tell(
        spec.text("trafficDistribution") == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    for field in ["clusterIPs", "externalIPs"] {
        for (i, ip) in spec.texts(field).enumerate() {
            deprecations::ip(&mut out, &path.child(field).index(i), ip);
        }
    }
    deprecations::ip(&mut out, &path.child("loadBalancerIP"), spec.text("loadBalancerIP"));
    for (i, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
        deprecations::cidr(&mut out, &path.child("loadBalancerSourceRanges").index(i), range);
    }
    out
}
