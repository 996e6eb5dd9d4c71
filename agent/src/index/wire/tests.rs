//! What is read here is what the whole types of the API read.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use super::*;

fn text(text: &Option<Text<'_>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn list(list: &Option<Vec<Text<'_>>>) -> Option<Vec<String>> {
    list.as_ref().map(|list| list.iter().map(|text| text.to_string()).collect())
}

/// Every field of a Service, as one value.
fn service(object: &Value) -> (Value, Value) {
    let bytes = object.to_string();
    let here: Service<'_> = serde_json::from_str(&bytes).unwrap();
    let whole: core::Service = serde_json::from_str(&bytes).unwrap();
    let (meta, spec) = (&here.metadata, here.spec.unwrap_or_default());
    let labels = meta.labels.clone().unwrap_or_default();
    let annotations = meta.annotations.clone().unwrap_or_default();
    let ingress = here.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let port = |p: &ServicePort<'_>| json!([text(&p.name), text(&p.protocol), p.port, p.node_port]);
    let here = json!([
        [text(&meta.namespace), text(&meta.name), text(&meta.uid)],
        text(&meta.creation_timestamp),
        [text(&labels.other_proxy), text(&labels.headless)],
        [text(&annotations.source_ranges), text(&annotations.mode), text(&annotations.algorithm)],
        [text(&spec.kind), text(&spec.cluster_ip), text(&spec.external_name)],
        [list(&spec.cluster_ips), list(&spec.external_ips), list(&spec.load_balancer_source_ranges)],
        [text(&spec.external_traffic_policy), text(&spec.internal_traffic_policy)],
        [text(&spec.session_affinity)],
        spec.session_affinity_config.and_then(|config| config.client_ip).and_then(|ip| ip.timeout_seconds),
        spec.health_check_node_port,
        spec.publish_not_ready_addresses,
        spec.selector.map(|HasEntries(some)| some),
        spec.ports.map(|ports| ports.iter().map(port).collect::<Vec<_>>()),
        ingress.map(|all| all.iter().map(|i| json!([text(&i.ip), text(&i.ip_mode)])).collect::<Vec<_>>()),
    ]);
    let (meta, spec) = (whole.metadata, whole.spec.unwrap_or_default());
    let of =
        |map: &Option<std::collections::BTreeMap<String, String>>, key: &str| map.as_ref()?.get(key).cloned();
    let label = |key| of(&meta.labels, key);
    let annotation = |key| of(&meta.annotations, key);
    let ingress = whole.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let port = |p: core::ServicePort| json!([p.name, p.protocol, p.port, p.node_port]);
    let whole = json!([
        [meta.namespace, meta.name, meta.uid],
        meta.creation_timestamp.as_ref().map(|time| time.0.to_string()),
        [label("service.kubernetes.io/service-proxy-name"), label("service.kubernetes.io/headless")],
        [
            annotation("service.beta.kubernetes.io/load-balancer-source-ranges"),
            annotation("service.pagurus.dev/load-balancer-mode"),
            annotation("service.pagurus.dev/load-balancer-algorithm"),
        ],
        [spec.type_, spec.cluster_ip, spec.external_name],
        [spec.cluster_ips, spec.external_ips, spec.load_balancer_source_ranges],
        [spec.external_traffic_policy, spec.internal_traffic_policy],
        [spec.session_affinity],
        spec.session_affinity_config.and_then(|config| config.client_ip).and_then(|ip| ip.timeout_seconds),
        spec.health_check_node_port,
        spec.publish_not_ready_addresses,
        spec.selector.map(|selector| !selector.is_empty()),
        spec.ports.map(|ports| ports.into_iter().map(port).collect::<Vec<_>>()),
        ingress.map(|all| all.into_iter().map(|i| json!([i.ip, i.ip_mode])).collect::<Vec<_>>()),
    ]);
    (here, whole)
}

/// Every field of an EndpointSlice, as one value.
fn slice(object: &Value) -> (Value, Value) {
    let bytes = object.to_string();
    let here: EndpointSlice<'_> = serde_json::from_str(&bytes).unwrap();
    let whole: discovery::EndpointSlice = serde_json::from_str(&bytes).unwrap();
    let (meta, labels) = (&here.metadata, here.metadata.labels.clone().unwrap_or_default());
    let hints = |hints: &Option<Vec<Hint<'_>>>| {
        hints.as_ref().map(|all| all.iter().map(|hint| hint.name.to_string()).collect::<Vec<_>>())
    };
    let endpoint = |e: &Endpoint<'_>| {
        let conditions = e.conditions.unwrap_or_default();
        let of = e.hints.clone().unwrap_or_default();
        json!([
            text(&e.addresses.clone().unwrap_or_default().0),
            [conditions.ready, conditions.serving, conditions.terminating],
            [text(&e.hostname), text(&e.node_name)],
            [hints(&of.for_zones), hints(&of.for_nodes)],
        ])
    };
    let here = json!([
        [text(&meta.namespace), text(&meta.name), text(&meta.uid)],
        [text(&labels.service_name), text(&labels.other_proxy), text(&labels.headless)],
        here.address_type.as_deref().unwrap_or_default(),
        here.ports.map(|all| {
            all.iter().map(|p| json!([text(&p.name), text(&p.protocol), p.port])).collect::<Vec<_>>()
        }),
        here.endpoints.unwrap_or_default().iter().map(endpoint).collect::<Vec<_>>(),
    ]);
    let meta = whole.metadata;
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    let endpoint = |e: discovery::Endpoint| {
        let conditions = e.conditions.unwrap_or_default();
        let of = e.hints.unwrap_or_default();
        json!([
            e.addresses.first(),
            [conditions.ready, conditions.serving, conditions.terminating],
            [e.hostname, e.node_name],
            [
                of.for_zones.map(|all| all.into_iter().map(|hint| hint.name).collect::<Vec<_>>()),
                of.for_nodes.map(|all| all.into_iter().map(|hint| hint.name).collect::<Vec<_>>()),
            ],
        ])
    };
    let whole = json!([
        [meta.namespace.clone(), meta.name.clone(), meta.uid.clone()],
        [
            label("kubernetes.io/service-name"),
            label("service.kubernetes.io/service-proxy-name"),
            label("service.kubernetes.io/headless"),
        ],
        whole.address_type,
        whole
            .ports
            .map(|all| all.into_iter().map(|p| json!([p.name, p.protocol, p.port])).collect::<Vec<_>>()),
        whole.endpoints.into_iter().flatten().map(endpoint).collect::<Vec<_>>(),
    ]);
    (here, whole)
}

/// Objects made at random.
struct Made(StdRng);

impl Made {
    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.0.random_range(0..choices.len())].clone()
    }

    fn string(&mut self) -> Value {
        let choices = [
            "",
            "a",
            "web-1",
            "ClusterIP",
            "10.0.0.1",
            "fd00::1",
            "with \"quotes\" and \\",
            "\u{e4}\u{1f600}\n",
        ];
        self.one_of(&choices).into()
    }

    fn strings(&mut self) -> Value {
        (0..self.0.random_range(0..4)).map(|_| self.string()).collect()
    }

    fn number(&mut self) -> Value {
        self.one_of(&[json!(0), json!(80), json!(-1), json!(70_000), json!(i32::MAX)])
    }

    fn some(&mut self, mut one: impl FnMut(&mut Self) -> Value) -> Value {
        (0..self.0.random_range(0..4)).map(|_| one(self)).collect()
    }

    /// An object with some of these fields, in any order, and others that nobody knows.
    fn object(&mut self, fields: Vec<(&str, Value)>) -> Value {
        let mut object = Map::new();
        for (name, value) in fields {
            match self.0.random_range(0..8) {
                0 => {}
                1 if !matches!(name, "port" | "name" | "addresses" | "addressType" | "metadata") => {
                    drop(object.insert(name.into(), Value::Null))
                }
                _ => drop(object.insert(name.into(), value)),
            }
        }
        if self.0.random_range(0..3) == 0 {
            object.insert("unknown".into(), json!({"a": [1, {"b": null}], "items": ["}"]}));
        }
        object.into()
    }

    fn labels(&mut self, names: &[&str]) -> Value {
        let mut labels = Map::new();
        for name in names {
            if self.0.random_range(0..2) == 0 {
                labels.insert((*name).into(), self.string());
            }
        }
        labels.insert("app".into(), self.string());
        labels.into()
    }

    fn metadata(&mut self, labels: &[&str], annotations: &[&str]) -> Value {
        let fields = vec![
            ("namespace", self.string()),
            ("name", self.string()),
            ("uid", self.string()),
            ("resourceVersion", "17".into()),
            ("creationTimestamp", "2026-01-01T00:00:10Z".into()),
            ("labels", self.labels(labels)),
            ("annotations", self.labels(annotations)),
            ("managedFields", json!([{"manager": "m", "fieldsV1": {"f:spec": {"f:ports": {}}}}])),
        ];
        self.object(fields)
    }

    fn service(&mut self) -> Value {
        let labels = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
        let annotations = [
            "service.beta.kubernetes.io/load-balancer-source-ranges",
            "service.pagurus.dev/load-balancer-mode",
            "service.pagurus.dev/load-balancer-algorithm",
        ];
        let seconds = self.number();
        let client = self.object(vec![("timeoutSeconds", seconds)]);
        let affinity = self.object(vec![("clientIP", client)]);
        let ports = self.some(|this| {
            let fields = vec![
                ("name", this.string()),
                ("protocol", this.string()),
                ("port", this.number()),
                ("nodePort", this.number()),
                ("targetPort", this.one_of(&[json!(80), json!("http")])),
            ];
            this.object(fields)
        });
        let spec = vec![
            ("type", self.string()),
            ("clusterIP", self.string()),
            ("clusterIPs", self.strings()),
            ("externalIPs", self.strings()),
            ("externalName", self.string()),
            ("externalTrafficPolicy", self.string()),
            ("internalTrafficPolicy", self.string()),
            ("healthCheckNodePort", self.number()),
            ("sessionAffinity", self.string()),
            ("sessionAffinityConfig", affinity),
            ("loadBalancerSourceRanges", self.strings()),
            ("publishNotReadyAddresses", self.one_of(&[json!(true), json!(false)])),
            ("ports", ports),
            ("selector", self.one_of(&[json!({"app": "web"}), json!({})])),
        ];
        let ingress = self.some(|this| {
            let fields = vec![("ip", this.string()), ("ipMode", this.string()), ("hostname", this.string())];
            this.object(fields)
        });
        let balancer = self.object(vec![("ingress", ingress)]);
        let fields = vec![
            ("metadata", self.metadata(&labels, &annotations)),
            ("spec", self.object(spec)),
            ("status", self.object(vec![("loadBalancer", balancer)])),
        ];
        self.object(fields)
    }

    fn slice(&mut self) -> Value {
        let labels = [
            "kubernetes.io/service-name",
            "service.kubernetes.io/service-proxy-name",
            "service.kubernetes.io/headless",
        ];
        let ports = self.some(|this| {
            let fields = vec![
                ("name", this.string()),
                ("protocol", this.string()),
                ("port", this.number()),
                ("appProtocol", this.string()),
            ];
            this.object(fields)
        });
        let endpoints = self.some(|this| {
            let flag = |this: &mut Self| this.one_of(&[json!(true), json!(false)]);
            let conditions =
                vec![("ready", flag(this)), ("serving", flag(this)), ("terminating", flag(this))];
            let hint = |this: &mut Self| this.some(|this| json!({"name": this.string()}));
            let hints = vec![("forZones", hint(this)), ("forNodes", hint(this))];
            let fields = vec![
                ("addresses", this.strings()),
                ("conditions", this.object(conditions)),
                ("hostname", this.string()),
                ("nodeName", this.string()),
                ("zone", this.string()),
                ("hints", this.object(hints)),
                ("targetRef", json!({"kind": "Pod", "name": "p"})),
            ];
            this.object(fields)
        });
        let fields = vec![
            ("metadata", self.metadata(&labels, &[])),
            ("addressType", self.string()),
            ("ports", ports),
            ("endpoints", endpoints),
        ];
        self.object(fields)
    }
}

#[test]
fn the_same_is_read_as_with_all_of_the_types() {
    let mut made = Made(StdRng::seed_from_u64(4));
    for _ in 0..2000 {
        let object = made.service();
        let (here, whole) = service(&object);
        assert_eq!(here, whole, "{object}");
        let object = made.slice();
        let (here, whole) = slice(&object);
        assert_eq!(here, whole, "{object}");
    }
}

#[test]
fn texts_are_borrowed_where_they_can_be() {
    let bytes = r#"{"metadata":{"name":"web","namespace":"\u006es"}}"#;
    let Head { metadata } = serde_json::from_str(bytes).unwrap();
    assert!(matches!(metadata.name, Some(Text(Cow::Borrowed("web")))));
    assert!(matches!(metadata.namespace, Some(Text(Cow::Owned(name))) if name == "ns"));
}
