//! Addresses for Services out of pools. What a Service has it keeps for as long as it may have it; the older Service goes
//! first when two want the same.
//!
//! Must not know: who writes the addresses into Services.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::lb::Pool;

/// A Service of type LoadBalancer that is ours to give addresses to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LbService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, as text that sorts by time.
    pub created: String,
    /// Families it wants an address of (true: IPv4), in its order.
    pub families: Vec<bool>,
    /// Addresses it asks for.
    pub requested: Vec<IpAddr>,
    /// Services of its namespace with the same key may have its address too.
    pub sharing_key: Option<String>,
    /// Its ports: protocol and number.
    pub ports: BTreeSet<(String, i32)>,
    /// Traffic from outside goes to endpoints of the announcing node only.
    pub local: bool,
    /// Addresses it has.
    pub current: Vec<IpAddr>,
}

/// The addresses of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses, in the order of its families.
    pub ips: Vec<IpAddr>,
    /// Why it lacks one.
    pub problem: Option<String>,
}

/// The addresses of all Services, in their order.
pub fn assign(pools: &[Pool], services: &[LbService]) -> Vec<Assignment> {
    let mut holders = Holders::default();
    let mut given: Vec<Vec<IpAddr>> = vec![Vec::new(); services.len()];
    let mut order: Vec<usize> = (0..services.len()).collect();
    order.sort_by_key(|place| {
        let service = &services[*place];
        (&service.created, &service.namespace, &service.name)
    });
    for &place in &order {
        let service = &services[place];
        for v4 in &service.families {
            let kept = service.current.iter().copied().find(|ip| {
                let wished =
                    service.requested.iter().filter(|wish| wish.is_ipv4() == *v4).collect::<Vec<_>>();
                ip.is_ipv4() == *v4
                    && (wished.is_empty() || wished.contains(&ip))
                    && allowed(pools, service).any(|pool| pool.contains(*ip))
                    && holders.conflict(*ip, service).is_none()
            });
            if let Some(ip) = kept {
                holders.add(ip, service);
                given[place].push(ip);
            }
        }
    }
    let mut problems: Vec<Option<String>> = vec![None; services.len()];
    for &place in &order {
        let service = &services[place];
        for v4 in &service.families {
            if given[place].iter().any(|ip| ip.is_ipv4() == *v4) {
                continue;
            }
            match choose(pools, service, *v4, &holders) {
                Ok(ip) => {
                    holders.add(ip, service);
                    given[place].push(ip);
                }
                Err(problem) => problems[place] = problems[place].take().or(Some(problem)),
            }
        }
        let rank = |ip: &IpAddr| service.families.iter().position(|v4| *v4 == ip.is_ipv4());
        given[place].sort_by_key(rank);
    }
    let assignments = services.iter().zip(given).zip(problems);
    assignments
        .map(|((service, ips), problem)| Assignment {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            ips,
            problem,
        })
        .collect()
}

fn allowed<'a>(pools: &'a [Pool], service: &'a LbService) -> impl Iterator<Item = &'a Pool> {
    pools.iter().filter(|pool| pool.serves(&service.namespace, &service.labels))
}

/// A new address of one family.
fn choose(pools: &[Pool], service: &LbService, v4: bool, holders: &Holders<'_>) -> Result<IpAddr, String> {
    let family = if v4 { "IPv4" } else { "IPv6" };
    if let Some(wish) = service.requested.iter().find(|ip| ip.is_ipv4() == v4) {
        if !allowed(pools, service).any(|pool| pool.contains(*wish)) {
            return Err(format!("no pool that serves this Service has the address {wish} it asks for"));
        }
        return match holders.conflict(*wish, service) {
            Some(problem) => Err(format!("the address {wish} it asks for {problem}")),
            None => Ok(*wish),
        };
    }
    let shared = service.sharing_key.as_ref().and_then(|_| holders.shared_with(service, v4));
    if let Some(ip) = shared.filter(|ip| allowed(pools, service).any(|pool| pool.contains(*ip))) {
        return Ok(ip);
    }
    if let Some(ip) = allowed(pools, service).find_map(|pool| pool.free(v4, &holders.taken)) {
        return Ok(ip);
    }
    let names: Vec<&str> = allowed(pools, service).map(|pool| pool.name.as_str()).collect();
    Err(match names.as_slice() {
        [] => "no pool of load balancer addresses serves this Service".to_owned(),
        names => format!("no {family} address is free in pool {}", names.join(", ")),
    })
}

/// Who has which address.
#[derive(Default)]
struct Holders<'a> {
    by_ip: HashMap<IpAddr, Vec<&'a LbService>>,
    taken: HashSet<IpAddr>,
}

impl<'a> Holders<'a> {
    fn add(&mut self, ip: IpAddr, service: &'a LbService) {
        self.by_ip.entry(ip).or_default().push(service);
        self.taken.insert(ip);
    }

    /// Why a Service cannot have an address together with those who have it.
    fn conflict(&self, ip: IpAddr, service: &LbService) -> Option<String> {
        self.by_ip.get(&ip).into_iter().flatten().find_map(|other| {
            let name = format!("{}/{}", other.namespace, other.name);
            if service.sharing_key.is_none()
                || service.sharing_key != other.sharing_key
                || service.namespace != other.namespace
            {
                return Some(format!("is that of Service {name}"));
            }
            if let Some((protocol, port)) = service.ports.intersection(&other.ports).next() {
                return Some(format!("is shared with Service {name}, which has port {port}/{protocol} too"));
            }
            // Endpoints of one may be on other nodes than those of the other.
            (service.local || other.local).then(|| {
                format!("is shared with Service {name}; that takes externalTrafficPolicy Cluster of both")
            })
        })
    }

    /// An address of others with the same key that it can share.
    fn shared_with(&self, service: &LbService, v4: bool) -> Option<IpAddr> {
        let possible = self.by_ip.keys().copied().filter(|ip| ip.is_ipv4() == v4);
        possible.filter(|ip| self.conflict(*ip, service).is_none()).min()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::lb::PoolSpec;

    fn pools(specs: &Value) -> Vec<Pool> {
        let specs: Vec<PoolSpec> = serde_json::from_value(specs.clone()).expect("pools");
        specs.iter().map(|spec| Pool::new(spec).expect("a pool")).collect()
    }

    fn service(name: &str, current: &[&str]) -> LbService {
        LbService {
            namespace: "ns".into(),
            name: name.into(),
            families: vec![true],
            ports: BTreeSet::from([("TCP".to_owned(), 80)]),
            current: current.iter().map(|ip| ip.parse().expect("an address")).collect(),
            ..LbService::default()
        }
    }

    fn check(specs: &Value, services: &[LbService], expected: &[&str]) {
        let shown = assign(&pools(specs), services).into_iter().map(|assignment| {
            let ips: Vec<String> = assignment.ips.iter().map(ToString::to_string).collect();
            let problem = assignment.problem.map_or(String::new(), |problem| format!(" ({problem})"));
            format!("{}: {}{problem}", assignment.name, ips.join(","))
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn addresses_are_given_and_kept() {
        let two = json!([{ "name": "two", "ranges": ["10.0.0.1-10.0.0.2"] }]);
        check(&two, &[service("a", &[]), service("b", &[])], &["a: 10.0.0.1", "b: 10.0.0.2"]);
        check(&two, &[service("a", &[]), service("b", &["10.0.0.1"])], &["a: 10.0.0.2", "b: 10.0.0.1"]);
        check(
            &two,
            &[service("a", &[]), service("b", &[]), service("c", &[])],
            &["a: 10.0.0.1", "b: 10.0.0.2", "c:  (no IPv4 address is free in pool two)"],
        );
        // Not of a pool any more; both say they have it.
        check(&two, &[service("a", &["10.9.9.9"])], &["a: 10.0.0.1"]);
        let older = LbService { created: "2020".into(), ..service("z", &["10.0.0.1"]) };
        let younger = LbService { created: "2021".into(), ..service("a", &["10.0.0.1"]) };
        check(&two, &[younger, older], &["a: 10.0.0.2", "z: 10.0.0.1"]);
        check(
            &json!([]),
            &[service("a", &[])],
            &["a:  (no pool of load balancer addresses serves this Service)"],
        );
    }

    #[test]
    fn families() {
        let both = json!([{ "name": "both", "ranges": ["10.0.0.1", "fd00::1"] }]);
        let dual =
            |name: &str, families: &[bool]| LbService { families: families.to_vec(), ..service(name, &[]) };
        check(&both, &[dual("a", &[false, true])], &["a: fd00::1,10.0.0.1"]);
        check(
            &both,
            &[dual("a", &[false]), dual("b", &[true, false])],
            &["a: fd00::1", "b: 10.0.0.1 (no IPv6 address is free in pool both)"],
        );
        // It gave a family up.
        let mut less = dual("a", &[true]);
        less.current = vec!["fd00::1".parse().expect("ip"), "10.0.0.1".parse().expect("ip")];
        check(&both, &[less], &["a: 10.0.0.1"]);
    }

    #[test]
    fn wishes() {
        let pool = json!([{ "name": "p", "ranges": ["10.0.0.1-10.0.0.3"] }]);
        let wishing = |name: &str, wish: &str, current: &[&str]| LbService {
            requested: vec![wish.parse().expect("an address")],
            ..service(name, current)
        };
        check(&pool, &[wishing("a", "10.0.0.3", &["10.0.0.1"])], &["a: 10.0.0.3"]);
        check(
            &pool,
            &[wishing("a", "10.1.0.3", &[])],
            &["a:  (no pool that serves this Service has the address 10.1.0.3 it asks for)"],
        );
        check(
            &pool,
            &[service("b", &["10.0.0.3"]), wishing("a", "10.0.0.3", &[])],
            &["b: 10.0.0.3", "a:  (the address 10.0.0.3 it asks for is that of Service ns/b)"],
        );
    }

    #[test]
    fn sharing() {
        let one = json!([{ "name": "p", "ranges": ["10.0.0.1"] }]);
        let sharing = |name: &str, port: i32| LbService {
            sharing_key: Some("k".into()),
            ports: BTreeSet::from([("TCP".to_owned(), port)]),
            ..service(name, &[])
        };
        check(&one, &[sharing("a", 80), sharing("b", 443)], &["a: 10.0.0.1", "b: 10.0.0.1"]);
        check(
            &one,
            &[sharing("a", 80), sharing("b", 80)],
            &["a: 10.0.0.1", "b:  (no IPv4 address is free in pool p)"],
        );
        let elsewhere = LbService { namespace: "other".into(), ..sharing("b", 443) };
        check(
            &one,
            &[sharing("a", 80), elsewhere],
            &["a: 10.0.0.1", "b:  (no IPv4 address is free in pool p)"],
        );
        let local =
            LbService { local: true, requested: vec!["10.0.0.1".parse().expect("ip")], ..sharing("b", 443) };
        check(
            &one,
            &[sharing("a", 80), local],
            &[
                "a: 10.0.0.1",
                "b:  (the address 10.0.0.1 it asks for is shared with Service ns/a; that takes externalTrafficPolicy Cluster of both)",
            ],
        );
    }

    #[test]
    fn pools_by_namespace_and_order() {
        let specs = json!([
            { "name": "web", "ranges": ["10.1.0.1"], "namespaces": ["web"] },
            { "name": "rest", "ranges": ["10.2.0.1-10.2.0.9"] }
        ]);
        let web = |name: &str| LbService { namespace: "web".into(), ..service(name, &[]) };
        check(
            &specs,
            &[web("a"), web("b"), service("c", &[])],
            &["a: 10.1.0.1", "b: 10.2.0.2", "c: 10.2.0.1"],
        );
    }
}
