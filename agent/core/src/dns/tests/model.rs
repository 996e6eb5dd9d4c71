//! The index against a search through lists, after random changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Service(u8, u8),
    NoService(u8),
    Slice(u8, u8, Vec<(u8, bool, u8)>),
    NoSlice(u8),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let endpoints = prop::collection::vec((0u8..6, any::<bool>(), 0u8..3), 0..4);
    prop_oneof![
        (0u8..3, 0u8..6).prop_map(|(name, kind)| Step::Service(name, kind)),
        (0u8..3).prop_map(Step::NoService),
        (0u8..5, 0u8..3, endpoints).prop_map(|(slice, name, endpoints)| Step::Slice(slice, name, endpoints)),
        (0u8..5).prop_map(Step::NoSlice),
    ]
}

fn kind(number: u8) -> Kind {
    match number {
        0 => Kind::ClusterIp(Some(Ipv4Addr::new(10, 96, 0, 1)), None),
        1 => Kind::ClusterIp(Some(Ipv4Addr::new(10, 96, 0, 2)), Some("fd00::2".parse().unwrap())),
        2 => Kind::Headless { not_ready_too: false },
        3 => Kind::Headless { not_ready_too: true },
        4 => Kind::External("example.com".into()),
        _ => Kind::External("a.ns.svc.cluster.local".into()),
    }
}

/// Everything as it was given, in lists.
#[derive(Default)]
struct Lists {
    services: BTreeMap<u8, Kind>,
    slices: BTreeMap<u8, (u8, Vec<Endpoint>)>,
}

impl Lists {
    fn told(&self, name: u8) -> Vec<&Endpoint> {
        let all = match self.services.get(&name) {
            Some(Kind::Headless { not_ready_too }) => *not_ready_too,
            _ => return Vec::new(),
        };
        let slices = self.slices.values().filter(|(service, _)| *service == name);
        slices.flat_map(|(_, endpoints)| endpoints).filter(|endpoint| endpoint.ready || all).collect()
    }

    fn record(ip: IpAddr, ttl: u32) -> String {
        format!("{ttl} {} {ip}", if ip.is_ipv4() { "A" } else { "AAAA" })
    }

    fn list(code: &str, mut records: Vec<String>) -> String {
        records.sort();
        records.dedup();
        format!("{code} {}", records.join(", ")).trim().to_owned()
    }

    fn addresses(&self, name: u8, v4: bool, depth: u8) -> String {
        let all: Vec<(IpAddr, u32)> = match self.services.get(&name) {
            None => return "NXDomain".into(),
            Some(Kind::ClusterIp(four, six)) => {
                four.map(|ip| (ip.into(), 30)).into_iter().chain(six.map(|ip| (ip.into(), 30))).collect()
            }
            Some(Kind::Headless { .. }) => {
                let told = self.told(name);
                if told.is_empty() {
                    return "NXDomain".into();
                }
                told.iter().map(|endpoint| (endpoint.ip, 5)).collect()
            }
            Some(Kind::External(target)) if target == "example.com" => {
                return "30 CNAME example.com.; chase example.com.".into();
            }
            // To itself, or to `a`, which may be an alias of itself again.
            Some(Kind::External(_)) if depth > 0 => return "ServFail".into(),
            Some(Kind::External(_)) => {
                let alias = "30 CNAME a.ns.svc.cluster.local.";
                if matches!(self.services.get(&0), Some(Kind::External(target)) if target != "example.com") {
                    return "ServFail".into();
                }
                let target = self.addresses(0, v4, 1);
                return match target.split_once(' ') {
                    _ if target.contains("chase") => {
                        let (aliases, chase) = target.split_once(';').unwrap();
                        let text = Self::list("", vec![alias.into(), aliases.into()]);
                        format!("{text};{chase}")
                    }
                    Some((code, records)) => Self::list(code, vec![alias.into(), records.into()]),
                    None => Self::list(&target, vec![alias.into()]),
                };
            }
        };
        let of_family = all.into_iter().filter(|(ip, _)| ip.is_ipv4() == v4);
        Self::list("NoError", of_family.map(|(ip, ttl)| Self::record(ip, ttl)).collect())
    }

    fn host(&self, name: u8, host: &str) -> String {
        let here: Vec<IpAddr> = self
            .told(name)
            .into_iter()
            .filter(|one| one.hostname.clone().unwrap_or_else(|| names::dashed(one.ip)) == host)
            .map(|one| one.ip)
            .collect();
        if here.is_empty() {
            return "NXDomain".into();
        }
        Self::list("NoError", here.iter().filter(|ip| ip.is_ipv4()).map(|ip| Self::record(*ip, 5)).collect())
    }

    fn pointers(&self, ip: IpAddr) -> String {
        let mut records = Vec::new();
        for (number, kind) in &self.services {
            let full = format!("{}.ns.svc.cluster.local.", NAMES[usize::from(*number)]);
            if matches!(kind, Kind::ClusterIp(four, six)
                if four.is_some_and(|four| ip == four) || six.is_some_and(|six| ip == six))
            {
                records.push(format!("30 PTR {full}"));
            }
            for endpoint in self.told(*number).into_iter().filter(|endpoint| endpoint.ip == ip) {
                let label = endpoint.hostname.clone().unwrap_or_else(|| names::dashed(ip));
                records.push(format!("5 PTR {label}.{full}"));
            }
        }
        if records.is_empty() { "forward".into() } else { Self::list("NoError", records) }
    }
}

fn ip_of(number: u8) -> String {
    if number < 4 { format!("10.1.0.{number}") } else { format!("fd00:1::{number}") }
}

fn arpa(ip: IpAddr) -> Name {
    let text = match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let number = u128::from(ip);
            let nibbles: Vec<String> = (0..32).map(|at| format!("{:x}", number >> (4 * at) & 15)).collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    };
    name(&text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_index_says_what_lists_say(steps in prop::collection::vec(step(), 0..24)) {
        let mut index = Index::new(&name("cluster.local"));
        let mut lists = Lists::default();
        for step in steps {
            match step {
                Step::Service(number, kind_number) => {
                    let kind = kind(kind_number);
                    lists.services.insert(number, kind.clone());
                    index.set_service(service("ns", NAMES[usize::from(number)], kind, vec![]));
                }
                Step::NoService(number) => {
                    lists.services.remove(&number);
                    index.remove_service("ns", NAMES[usize::from(number)]);
                }
                Step::Slice(number, owner, endpoints) => {
                    let endpoints: Vec<Endpoint> = endpoints
                        .into_iter()
                        .map(|(ip, ready, host)| endpoint(&ip_of(ip), ready, ["", "x", "y"][usize::from(host)]))
                        .collect();
                    lists.slices.insert(number, (owner, endpoints.clone()));
                    let slice = slice("ns", NAMES[usize::from(owner)], vec![], endpoints);
                    index.set_slice(&format!("s{number}"), &slice);
                }
                Step::NoSlice(number) => {
                    lists.slices.remove(&number);
                    index.remove_slice("ns", &format!("s{number}"));
                }
            }
        }
        for (number, this) in (0u8..).zip(NAMES) {
            let full = name(&format!("{this}.ns.svc.cluster.local"));
            for kind in [RecordType::A, RecordType::AAAA] {
                let expected = lists.addresses(number, kind == RecordType::A, 0);
                prop_assert_eq!(shown(index.answer(&full, kind)), expected, "{} {}", kind, full);
            }
            for host in ["x", "y", "10-1-0-1", "z"] {
                let full = name(&format!("{host}.{full}"));
                prop_assert_eq!(shown(index.answer(&full, RecordType::A)), lists.host(number, host), "{}", full);
            }
        }
        let ips = (0..6).map(ip_of).chain(["10.96.0.1".to_owned(), "10.96.0.2".into(), "fd00::2".into()]);
        for ip in ips {
            let ip: IpAddr = ip.parse().unwrap();
            prop_assert_eq!(shown(index.answer(&arpa(ip), RecordType::PTR)), lists.pointers(ip), "{}", ip);
        }
        let is_there = if lists.services.is_empty() { "NXDomain" } else { "NoError" };
        prop_assert_eq!(shown(index.answer(&name("ns.svc.cluster.local"), RecordType::A)), is_there);
    }
}
