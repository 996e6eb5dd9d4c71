//! Services and EndpointSlices as the API server sends them: only what is looked at here, and as it lies in the bytes. There are
//! very many of them, and most of each is for others.
//!
//! Must not know: what any of it means.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A string where it lies, or a copy if it is written with escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The first of several strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct First<'a>(pub Option<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfList;
        impl<'de> Visitor<'de> for OfList {
            type Value = First<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<'de>, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(OfList)
    }
}

/// Whether there is anything in an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HasEntries(pub bool);

impl<'de> Deserialize<'de> for HasEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;
        impl<'de> Visitor<'de> for OfMap {
            type Value = HasEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HasEntries, A::Error> {
                let mut some = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(HasEntries(some))
            }
        }
        deserializer.deserialize_map(OfMap)
    }
}

/// Something of which nothing is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Self)
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Head<'a> {
    /// `metadata`.
    #[serde(borrow)]
    pub metadata: Metadata<'a>,
}

/// `metadata` of an object, with labels and annotations that are read so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[serde(bound(deserialize = "L: Deserialize<'de> + Default, A: Deserialize<'de> + Default"))]
pub struct Metadata<'a, L = Unread, A = Unread> {
    /// Namespace; none: it is of the cluster.
    #[serde(borrow)]
    pub namespace: Option<Text<'a>>,
    /// Name.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// Unique over time.
    #[serde(borrow)]
    pub uid: Option<Text<'a>>,
    /// Version.
    #[serde(borrow)]
    pub resource_version: Option<Text<'a>>,
    /// When it was made.
    #[serde(borrow)]
    pub creation_timestamp: Option<Text<'a>>,
    /// Labels.
    pub labels: Option<L>,
    /// Annotations.
    pub annotations: Option<A>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service<'a> {
    /// `metadata`.
    #[serde(borrow)]
    pub metadata: Metadata<'a, ServiceLabels<'a>, ServiceAnnotations<'a>>,
    /// `spec`.
    #[serde(borrow)]
    pub spec: Option<ServiceSpec<'a>>,
    /// `status`.
    #[serde(borrow)]
    pub status: Option<ServiceStatus<'a>>,
}

/// Labels of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceLabels<'a> {
    /// Hands it to another load balancer.
    #[serde(borrow, rename = "service.kubernetes.io/service-proxy-name")]
    pub other_proxy: Option<Text<'a>>,
    /// Of Services that no load balancer serves.
    #[serde(borrow, rename = "service.kubernetes.io/headless")]
    pub headless: Option<Text<'a>>,
}

/// Annotations of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceAnnotations<'a> {
    /// From the time before `loadBalancerSourceRanges`.
    #[serde(borrow, rename = "service.beta.kubernetes.io/load-balancer-source-ranges")]
    pub source_ranges: Option<Text<'a>>,
    /// `snat` or `dsr`.
    #[serde(borrow, rename = "service.pagurus.dev/load-balancer-mode")]
    pub mode: Option<Text<'a>>,
    /// `maglev` or `random`.
    #[serde(borrow, rename = "service.pagurus.dev/load-balancer-algorithm")]
    pub algorithm: Option<Text<'a>>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct ServiceSpec<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<Text<'a>>,
    #[serde(borrow, rename = "clusterIP")]
    pub cluster_ip: Option<Text<'a>>,
    #[serde(borrow, rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<Text<'a>>>,
    #[serde(borrow, rename = "externalIPs")]
    pub external_ips: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub external_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub external_traffic_policy: Option<Text<'a>>,
    #[serde(borrow)]
    pub internal_traffic_policy: Option<Text<'a>>,
    pub health_check_node_port: Option<i32>,
    #[serde(borrow)]
    pub session_affinity: Option<Text<'a>>,
    pub session_affinity_config: Option<SessionAffinity>,
    #[serde(borrow)]
    pub load_balancer_source_ranges: Option<Vec<Text<'a>>>,
    pub publish_not_ready_addresses: Option<bool>,
    #[serde(borrow)]
    pub ports: Option<Vec<ServicePort<'a>>>,
    pub selector: Option<HasEntries>,
}

/// `spec.ports[]` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct ServicePort<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub protocol: Option<Text<'a>>,
    pub port: i32,
    pub node_port: Option<i32>,
}

/// `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct SessionAffinity {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIp>,
}

/// `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct ClientIp {
    pub timeout_seconds: Option<i32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct ServiceStatus<'a> {
    #[serde(borrow)]
    pub load_balancer: Option<LoadBalancer<'a>>,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct LoadBalancer<'a> {
    #[serde(borrow)]
    pub ingress: Option<Vec<Ingress<'a>>>,
}

/// `status.loadBalancer.ingress[]` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Ingress<'a> {
    #[serde(borrow)]
    pub ip: Option<Text<'a>>,
    #[serde(borrow)]
    pub ip_mode: Option<Text<'a>>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct EndpointSlice<'a> {
    #[serde(borrow)]
    pub metadata: Metadata<'a, SliceLabels<'a>>,
    #[serde(borrow)]
    pub address_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub ports: Option<Vec<EndpointPort<'a>>>,
    #[serde(borrow)]
    pub endpoints: Option<Vec<Endpoint<'a>>>,
}

/// Labels of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SliceLabels<'a> {
    /// The Service it belongs to.
    #[serde(borrow, rename = "kubernetes.io/service-name")]
    pub service_name: Option<Text<'a>>,
    /// Hands it to another load balancer.
    #[serde(borrow, rename = "service.kubernetes.io/service-proxy-name")]
    pub other_proxy: Option<Text<'a>>,
    /// No load balancer serves it.
    #[serde(borrow, rename = "service.kubernetes.io/headless")]
    pub headless: Option<Text<'a>>,
}

/// `ports[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct EndpointPort<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub protocol: Option<Text<'a>>,
    pub port: Option<i32>,
}

/// `endpoints[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint<'a> {
    /// Only the first address counts, for every consumer of the API.
    #[serde(borrow)]
    pub addresses: Option<First<'a>>,
    /// `conditions`.
    pub conditions: Option<Conditions>,
    /// `hostname`.
    #[serde(borrow)]
    pub hostname: Option<Text<'a>>,
    /// `nodeName`.
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
    /// `hints`.
    #[serde(borrow)]
    pub hints: Option<Hints<'a>>,
}

/// `endpoints[].conditions` of an EndpointSlice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// `endpoints[].hints` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Hints<'a> {
    #[serde(borrow)]
    pub for_zones: Option<Vec<Hint<'a>>>,
    #[serde(borrow)]
    pub for_nodes: Option<Vec<Hint<'a>>>,
}

/// A zone or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Hint<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
}

#[cfg(test)]
mod tests;
