//! Tables of questions and answers, and the index against a plain list.

use std::str::FromStr as _;

use hickory_proto::rr::RecordType;

use super::*;

mod model;

pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

pub(super) fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

pub(super) fn service(namespace: &str, name: &str, kind: Kind, ports: Vec<Port>) -> Service {
    Service { namespace: namespace.into(), name: name.into(), kind, ports }
}

pub(super) fn endpoint(ip: &str, ready: bool, hostname: &str) -> Endpoint {
    let hostname = (!hostname.is_empty()).then(|| hostname.to_owned());
    Endpoint { ip: ip.parse().unwrap(), ready, hostname }
}

pub(super) fn slice(namespace: &str, service: &str, ports: Vec<Port>, endpoints: Vec<Endpoint>) -> Slice {
    Slice { namespace: namespace.into(), service: service.into(), ports, endpoints }
}

/// `NoError A 10.0.0.1, ...; more` or `forward` or `chase target`.
pub(super) fn shown(lookup: Lookup) -> String {
    let list = |records: &[Record]| {
        let mut all: Vec<String> = records
            .iter()
            .map(|record| format!("{} {} {}", record.ttl, record.record_type(), record.data))
            .collect();
        all.sort();
        all.join(", ")
    };
    match lookup {
        Lookup::Forward => "forward".to_owned(),
        Lookup::Chase { aliases, target } => format!("{}; chase {target}", list(&aliases)),
        Lookup::Answer(answer) => {
            let is_negative = match answer.code {
                ResponseCode::NoError => answer.answers.is_empty(),
                code => code == ResponseCode::NXDomain,
            };
            let soa = answer.authority.iter().any(|record| record.record_type() == RecordType::SOA);
            assert!(soa || !is_negative, "{answer:?}");
            let mut text = format!("{:?} {}", answer.code, list(&answer.answers)).trim().to_owned();
            if !answer.additional.is_empty() {
                text += &format!("; {}", list(&answer.additional));
            }
            text
        }
    }
}

fn filled() -> Index {
    let mut index = Index::new(&name("Cluster.Local"));
    let headless = Kind::Headless { not_ready_too: false };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let dual = Kind::ClusterIp(Some("10.96.0.7".parse().unwrap()), Some("fd00::7".parse().unwrap()));
    let web = vec![port("http", tcp, 80), port("dns", udp, 53), port("", tcp, 1)];
    index.set_service(service("ns", "web", dual, web));
    index.set_service(service("ns", "db", headless.clone(), vec![port("sql", tcp, 5432)]));
    index.set_service(service("ns", "empty", headless, vec![port("sql", tcp, 5432)]));
    index.set_service(service("ns", "slow", Kind::Headless { not_ready_too: true }, vec![]));
    for (alias, target) in [
        ("out", "www.Example.com"),
        ("in", "web.ns.svc.cluster.local."),
        ("loop", "loop.ns.svc.cluster.local"),
        ("lost", "nobody.ns.svc.cluster.local"),
        ("bad", "a..b"),
    ] {
        index.set_service(service("ns", alias, Kind::External(target.into()), vec![port("http", tcp, 80)]));
    }
    let endpoints = vec![
        endpoint("10.1.0.1", true, "db-0"),
        endpoint("10.1.0.2", true, ""),
        endpoint("10.1.0.3", false, "db-2"),
    ];
    index.set_slice("db-a", &slice("ns", "db", vec![port("sql", tcp, 15_432)], endpoints.clone()));
    let six = vec![endpoint("fd00:1::1", true, "db-0")];
    index.set_slice("db-b", &slice("ns", "db", vec![port("sql", tcp, 15_432)], six));
    index.set_slice("slow-a", &slice("ns", "slow", vec![], endpoints[2..].to_vec()));
    index.set_slice("empty-a", &slice("ns", "empty", vec![], endpoints[2..].to_vec()));
    index.set_slice("web-a", &slice("ns", "web", vec![], vec![endpoint("10.1.0.9", true, "web-0")]));
    index
}

#[test]
fn questions_and_answers() {
    let index = filled();
    let check = |question: &str, expected: &str| {
        let (kind, asked) = question.split_once(' ').unwrap();
        let kind = RecordType::from_str(kind).unwrap();
        assert_eq!(shown(index.answer(&name(asked), kind)), expected, "{question}");
    };
    let none = "NoError";
    let missing = "NXDomain";
    // A Service with addresses.
    check("A web.ns.svc.cluster.local", "NoError 30 A 10.96.0.7");
    check("A WEB.nS.sVc.cLuster.locaL", "NoError 30 A 10.96.0.7");
    check("AAAA web.ns.svc.cluster.local", "NoError 30 AAAA fd00::7");
    check("MX web.ns.svc.cluster.local", none);
    check("HTTPS web.ns.svc.cluster.local", none);
    check("A nobody.ns.svc.cluster.local", missing);
    check("A web.other.svc.cluster.local", missing);
    check("A web-0.web.ns.svc.cluster.local", missing);
    check("A a.b.web.ns.svc.cluster.local", missing);
    // Its ports.
    let addresses = "30 A 10.96.0.7, 30 AAAA fd00::7";
    check(
        "SRV _http._tcp.web.ns.svc.cluster.local",
        &format!("NoError 30 SRV 0 100 80 web.ns.svc.cluster.local.; {addresses}"),
    );
    check(
        "SRV _dns._udp.web.ns.svc.cluster.local",
        &format!("NoError 30 SRV 0 100 53 web.ns.svc.cluster.local.; {addresses}"),
    );
    check("SRV _dns._tcp.web.ns.svc.cluster.local", missing);
    check("SRV _._tcp.web.ns.svc.cluster.local", missing);
    check("A _http._tcp.web.ns.svc.cluster.local", none);
    check("A _tcp.web.ns.svc.cluster.local", none);
    check("SRV _sctp.web.ns.svc.cluster.local", missing);
    check("SRV _x._y._z.web.ns.svc.cluster.local", missing);
    // Endpoints.
    check("A db.ns.svc.cluster.local", "NoError 5 A 10.1.0.1, 5 A 10.1.0.2");
    check("AAAA db.ns.svc.cluster.local", "NoError 5 AAAA fd00:1::1");
    check("A db-0.db.ns.svc.cluster.local", "NoError 5 A 10.1.0.1");
    check("AAAA DB-0.db.ns.svc.cluster.local", "NoError 5 AAAA fd00:1::1");
    check("A 10-1-0-2.db.ns.svc.cluster.local", "NoError 5 A 10.1.0.2");
    check("AAAA 10-1-0-2.db.ns.svc.cluster.local", none);
    check("A 10-1-0-1.db.ns.svc.cluster.local", missing);
    check("A db-2.db.ns.svc.cluster.local", missing);
    check("A db-2.slow.ns.svc.cluster.local", "NoError 5 A 10.1.0.3");
    check("A slow.ns.svc.cluster.local", "NoError 5 A 10.1.0.3");
    check("A empty.ns.svc.cluster.local", missing);
    check("A _tcp.empty.ns.svc.cluster.local", missing);
    check("A _tcp.db.ns.svc.cluster.local", none);
    check(
        "SRV _sql._tcp.db.ns.svc.cluster.local",
        "NoError 5 SRV 0 100 15432 10-1-0-2.db.ns.svc.cluster.local., \
         5 SRV 0 100 15432 db-0.db.ns.svc.cluster.local.; 5 A 10.1.0.1, 5 A 10.1.0.2, 5 AAAA fd00:1::1",
    );
    // Aliases.
    check("A out.ns.svc.cluster.local", "30 CNAME www.Example.com.; chase www.example.com.");
    check("CNAME out.ns.svc.cluster.local", "NoError 30 CNAME www.Example.com.");
    check("A in.ns.svc.cluster.local", "NoError 30 A 10.96.0.7, 30 CNAME web.ns.svc.cluster.local.");
    check("SRV _http._tcp.in.ns.svc.cluster.local", missing);
    check("A loop.ns.svc.cluster.local", "ServFail");
    check("A bad.ns.svc.cluster.local", "ServFail");
    // Addresses.
    check("PTR 7.0.96.10.in-addr.arpa", "NoError 30 PTR web.ns.svc.cluster.local.");
    check("PTR 1.0.1.10.in-addr.arpa", "NoError 5 PTR db-0.db.ns.svc.cluster.local.");
    check("PTR 2.0.1.10.in-addr.arpa", "NoError 5 PTR 10-1-0-2.db.ns.svc.cluster.local.");
    check("PTR 3.0.1.10.in-addr.arpa", "NoError 5 PTR db-2.slow.ns.svc.cluster.local.");
    check("PTR 9.0.1.10.in-addr.arpa", "forward");
    check("PTR 0.1.10.in-addr.arpa", "forward");
    let nibbles = format!("PTR 7.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    check(&nibbles, "NoError 30 PTR web.ns.svc.cluster.local.");
    // Pods by their addresses.
    check("A 10-1-0-9.any.pod.cluster.local", "NoError 30 A 10.1.0.9");
    check("AAAA fd00--9.any.pod.cluster.local", "NoError 30 AAAA fd00::9");
    check("AAAA 10-1-0-9.any.pod.cluster.local", none);
    check("A web-0.any.pod.cluster.local", missing);
    // Names that only have others below them.
    for between in ["cluster.local", "svc.cluster.local", "pod.cluster.local", "ns.svc.cluster.local"] {
        check(&format!("A {between}"), none);
    }
    check("A other.svc.cluster.local", missing);
    check("A www.cluster.local", missing);
    check("TXT dns-version.cluster.local", "NoError 30 TXT 1.1.0");
    check("NS cluster.local", "NoError 30 NS kube-dns.kube-system.svc.cluster.local.");
    assert!(
        shown(index.answer(&name("cluster.local"), RecordType::SOA))
            .starts_with("NoError 5 SOA ns.cluster.local.")
    );
    // All, or other zones.
    check("ANY web.ns.svc.cluster.local", "NoError 30 HINFO RFC8482");
    check("ANY nobody.ns.svc.cluster.local", missing);
    check("ANY example.com", "NoError 30 HINFO RFC8482");
    check("AXFR cluster.local", "Refused");
    check("A example.com", "forward");
    check("A local", "forward");
    check("A xcluster.local", "forward");
    check("A .", "forward");
}

#[test]
fn an_alias_of_a_name_that_is_missing() {
    let Lookup::Answer(answer) = filled().answer(&name("lost.ns.svc.cluster.local"), RecordType::A) else {
        panic!("not ours")
    };
    assert_eq!((answer.code, answer.answers.len(), answer.authority.len()), (ResponseCode::NXDomain, 1, 1));
}

#[test]
fn what_is_removed_is_gone() {
    let mut index = filled();
    let mut names = vec!["web", "db", "empty", "slow", "out", "in", "loop", "lost", "bad"];
    index.remove_slice("ns", "db-b");
    let db = name("db.ns.svc.cluster.local");
    assert_eq!(shown(index.answer(&db, RecordType::AAAA)), "NoError");
    // A Service that is made again finds the slices that were there.
    index.remove_service("ns", "db");
    assert_eq!(shown(index.answer(&db, RecordType::A)), "NXDomain");
    assert_eq!(shown(index.answer(&name("1.0.1.10.in-addr.arpa"), RecordType::PTR)), "forward");
    index.set_service(service("ns", "db", Kind::Headless { not_ready_too: false }, vec![]));
    assert_eq!(shown(index.answer(&db, RecordType::A)), "NoError 5 A 10.1.0.1, 5 A 10.1.0.2");
    for name in names.drain(..) {
        index.remove_service("ns", name);
    }
    for slice in ["db-a", "slow-a", "empty-a", "web-a", "none"] {
        index.remove_slice("ns", slice);
    }
    assert_eq!(index.used(), Used { services: 0, slices: 0, endpoints: 0 });
    assert_eq!(shown(index.answer(&name("ns.svc.cluster.local"), RecordType::A)), "NXDomain");
    assert_eq!(shown(index.answer(&name("7.0.96.10.in-addr.arpa"), RecordType::PTR)), "forward");
}

#[test]
fn topics_change_with_what_they_are_about() {
    let mut index = filled();
    let generations = index.generations();
    let topic = |index: &Index, asked: &str| match index.answer(&name(asked), RecordType::A) {
        Lookup::Answer(answer) => answer.topic,
        other => panic!("{other:?}"),
    };
    let (web, db) = (topic(&index, "web.ns.svc.cluster.local"), topic(&index, "db.ns.svc.cluster.local"));
    let nobody = topic(&index, "nobody.ns.svc.cluster.local");
    let before = [web, db, nobody].map(|topic| generations.of(topic));
    // Endpoints of a Service with addresses change nothing; nor does what was known already.
    index.set_slice("web-a", &slice("ns", "web", vec![], vec![endpoint("10.1.0.8", true, "")]));
    let six = vec![endpoint("fd00:1::1", true, "db-0")];
    index.set_slice("db-b", &slice("ns", "db", vec![port("sql", Protocol::Tcp, 15_432)], six));
    assert_eq!([web, db, nobody].map(|topic| generations.of(topic)), before);
    index.remove_slice("ns", "db-b");
    index.set_service(service("ns", "nobody", Kind::ClusterIp(None, None), vec![]));
    assert!(generations.of(db) > before[1]);
    assert!(generations.of(nobody) > before[2]);
}
