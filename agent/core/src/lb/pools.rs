//! Pools of addresses: ranges, and who may have addresses of them.
//!
//! Must not know: which addresses are taken.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use pagurus_controlplane_api::selectors::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

/// A pool as it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolSpec {
    /// Its name.
    pub name: String,
    /// Networks. Of those of IPv4 the first and the last address are left out.
    pub cidrs: Vec<String>,
    /// Ranges, `first-last`, both of them included; or single addresses.
    pub ranges: Vec<String>,
    /// Only Services with these labels.
    pub service_selector: Option<Value>,
    /// Only Services of these namespaces; empty: of all.
    pub namespaces: Vec<String>,
}

/// Why a pool makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pool {pool:?}: {problem}")]
pub struct PoolError {
    pool: String,
    problem: String,
}

/// A pool that makes sense.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// First and last addresses, each pair of one family.
    ranges: Vec<(IpAddr, IpAddr)>,
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
}

impl Pool {
    /// Checks a pool.
    pub fn new(spec: &PoolSpec) -> Result<Self, PoolError> {
        let error = |problem: String| PoolError { pool: spec.name.clone(), problem };
        if spec.name.is_empty() {
            return Err(error("it has no name".into()));
        }
        let mut ranges = Vec::new();
        for text in &spec.cidrs {
            let net: IpNet = text.parse().map_err(|_| error(format!("{text:?} is no network")))?;
            let (first, last) = (number(net.network()), number(net.broadcast()));
            let is_wide = net.max_prefix_len() - net.prefix_len() > 1;
            let edge = u128::from(net.addr().is_ipv4() && is_wide);
            ranges.push((address(first + edge, net.network()), address(last - edge, net.network())));
        }
        for text in &spec.ranges {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
            let pair = parse(first).zip(parse(last)).filter(|(a, b)| a.is_ipv4() == b.is_ipv4() && a <= b);
            ranges.push(pair.ok_or_else(|| error(format!("{text:?} is no range of addresses")))?);
        }
        if ranges.is_empty() {
            return Err(error("it has neither cidrs nor ranges".into()));
        }
        let selector = spec.service_selector.as_ref().map(LabelSelector::from_json).transpose();
        let selector = selector.map_err(|problem| error(format!("serviceSelector: {problem}")))?;
        Ok(Self { name: spec.name.clone(), ranges, selector, namespaces: spec.namespaces.clone() })
    }

    /// Whether a Service may have an address of it.
    pub fn serves(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.namespaces.is_empty() || self.namespaces.iter().any(|name| name == namespace))
            && self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }

    /// Whether an address is of it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|(first, last)| {
            first.is_ipv4() == ip.is_ipv4() && (number(*first)..=number(*last)).contains(&number(ip))
        })
    }

    /// Its first address of a family that nobody has.
    pub fn free(&self, v4: bool, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let ranges = self.ranges.iter().filter(|(first, _)| first.is_ipv4() == v4);
        let addresses = ranges
            .flat_map(|(first, last)| (number(*first)..=number(*last)).map(|number| address(number, *first)));
        // At most one more than are taken is looked at.
        addresses.take(taken.len() + 1).find(|ip| !taken.contains(ip))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address of a number, of the family of another.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // It lies between two addresses of this family.
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(spec: Value) -> Result<Pool, String> {
        let spec: PoolSpec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
        Pool::new(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn pools_are_checked() {
        let check = |spec: Value, problem: &str| {
            assert_eq!(pool(spec).err().as_deref(), Some(problem));
        };
        check(json!({ "cidrs": ["10.0.0.0/24"] }), "pool \"\": it has no name");
        check(json!({ "name": "a" }), "pool \"a\": it has neither cidrs nor ranges");
        check(json!({ "name": "a", "cidrs": ["here"] }), "pool \"a\": \"here\" is no network");
        for range in ["10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-", "x"] {
            check(
                json!({ "name": "a", "ranges": [range] }),
                &format!("pool \"a\": {range:?} is no range of addresses"),
            );
        }
        assert!(pool(json!({ "name": "a", "cidrs": ["10.0.0.0/24"], "colour": "red" })).is_err());
    }

    #[test]
    fn addresses_of_a_pool() {
        let pool = pool(json!({
            "name": "a", "cidrs": ["10.0.0.0/29", "10.0.1.7/32"], "ranges": ["fd00::5 - fd00::6", "10.0.2.1"]
        }))
        .expect("a pool");
        let check = |ip: &str, within: bool| {
            assert_eq!(pool.contains(ip.parse().expect("an address")), within, "{ip}");
        };
        check("10.0.0.0", false);
        check("10.0.0.1", true);
        check("10.0.0.6", true);
        check("10.0.0.7", false);
        check("10.0.1.7", true);
        check("10.0.2.1", true);
        check("fd00::5", true);
        check("fd00::7", false);
        let mut taken = HashSet::new();
        let mut order = Vec::new();
        while let Some(ip) = pool.free(false, &taken).or_else(|| pool.free(true, &taken)) {
            order.push(ip.to_string());
            taken.insert(ip);
        }
        assert_eq!(order.len(), 10);
        assert_eq!(
            (order[0].as_str(), order[2].as_str(), order[9].as_str()),
            ("fd00::5", "10.0.0.1", "10.0.2.1")
        );
        assert_eq!(pool.free(true, &taken), None);
    }

    #[test]
    fn who_may_have_an_address() {
        let pool = pool(json!({
            "name": "a", "ranges": ["10.0.0.1"], "namespaces": ["web"],
            "serviceSelector": { "matchLabels": { "tier": "front" } }
        }))
        .expect("a pool");
        let front = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
        assert!(pool.serves("web", &front));
        assert!(!pool.serves("db", &front));
        assert!(!pool.serves("web", &BTreeMap::new()));
    }
}
