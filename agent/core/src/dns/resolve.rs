//! Questions answered from the index.
//!
//! A name that has no records of the type asked for but exists (or has names below it) is told apart from one that does
//! not exist: clients go on with their search list only after the latter of both families. Must not know: bytes.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::index::{EVERYTHING, Entry, Index, NOTHING, Stored, key};
use super::packed::{Packed, PackedEndpoint};
use super::{Answer, Kind, Lookup, SHORT_TTL, TTL, Topic, names};
use crate::addr::Protocol;

/// The version of the specification that is served.
const VERSION: &str = "1.1.0";
/// How often an ExternalName may lead to another one.
const MOST_ALIASES: usize = 8;
/// The most targets of an SRV answer whose addresses come along.
const MOST_ADDITIONAL: usize = 64;

impl Index {
    /// What is known about a question.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Lookup {
        let name = name.to_lowercase();
        match kind {
            RecordType::ANY => self.any(&name),
            RecordType::AXFR | RecordType::IXFR => Lookup::Answer(empty(ResponseCode::Refused, NOTHING)),
            _ => self.follow(&name, kind),
        }
    }

    /// RFC 8482: all records of a name are told to nobody.
    fn any(&self, name: &Name) -> Lookup {
        let missing = match self.look_up(name, RecordType::HINFO) {
            Found::Answer(answer) if answer.code == ResponseCode::NXDomain => Some(answer),
            _ => None,
        };
        Lookup::Answer(missing.unwrap_or_else(|| {
            let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            records(vec![Record::from_rdata(name.clone(), TTL, data)], EVERYTHING)
        }))
    }

    /// Follows aliases as far as they stay in the cluster.
    fn follow(&self, name: &Name, kind: RecordType) -> Lookup {
        let mut aliases: Vec<Record> = Vec::new();
        let mut name = name.clone();
        loop {
            match self.look_up(&name, kind) {
                Found::Nothing if aliases.is_empty() => return Lookup::Forward,
                Found::Nothing => return Lookup::Chase { aliases, target: name },
                Found::Answer(mut answer) => {
                    if !aliases.is_empty() {
                        answer.answers.splice(0..0, aliases);
                        answer.topic = EVERYTHING;
                    }
                    return Lookup::Answer(answer);
                }
                Found::Alias(target) => {
                    if aliases.len() == MOST_ALIASES {
                        return Lookup::Answer(empty(ResponseCode::ServFail, EVERYTHING));
                    }
                    aliases.push(Record::from_rdata(name, TTL, RData::CNAME(CNAME(target.clone()))));
                    name = target.to_lowercase();
                }
            }
        }
    }

    fn look_up(&self, name: &Name, kind: RecordType) -> Found {
        let labels: Vec<&[u8]> = name.iter().collect();
        let domain: Vec<&[u8]> = self.domain.iter().collect();
        if let Some(rest) = labels.strip_suffix(&*domain) {
            return self.in_domain(name, rest, kind);
        }
        let address = names::reversed(&labels).filter(|_| kind == RecordType::PTR);
        address.and_then(|ip| self.pointers(name, ip)).map_or(Found::Nothing, Found::Answer)
    }

    /// A name in the cluster's domain, which is not in `rest` any more.
    fn in_domain(&self, name: &Name, rest: &[&[u8]], kind: RecordType) -> Found {
        let text = |label: &[u8]| std::str::from_utf8(label).unwrap_or("\u{fffd}").to_owned();
        let service = |service: &[u8], namespace: &[u8]| key(&text(service), &text(namespace));
        Found::Answer(match rest {
            [] => self.apex(name, kind),
            [b"dns-version"] => {
                let version =
                    Record::from_rdata(name.clone(), TTL, RData::TXT(TXT::new(vec![VERSION.to_owned()])));
                self.of_kind(vec![version], kind, NOTHING)
            }
            [b"svc" | b"pod"] | [_, b"pod"] => self.no_data(NOTHING),
            [ip, _, b"pod"] => match names::undashed(ip) {
                Some(ip) => self.of_kind(vec![address(name, ip, TTL)], kind, NOTHING),
                None => self.missing(NOTHING),
            },
            [namespace, b"svc"] => {
                let namespace = text(namespace);
                let topic = self.topic(&namespace);
                if self.has_namespace(&namespace) { self.no_data(topic) } else { self.missing(topic) }
            }
            [this, namespace, b"svc"] => return self.service(name, &service(this, namespace), kind),
            [protocol @ [b'_', ..], this, namespace, b"svc"] => {
                self.protocol(protocol, &service(this, namespace))
            }
            [host, this, namespace, b"svc"] => self.host(name, host, &service(this, namespace), kind),
            [port @ [b'_', ..], protocol @ [b'_', ..], this, namespace, b"svc"] => {
                self.port(name, (port, protocol), &service(this, namespace), kind)
            }
            [.., this, namespace, b"svc"] => self.missing(self.topic(&service(this, namespace))),
            _ => self.missing(NOTHING),
        })
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        let server = names::below(&self.domain, &[b"kube-dns", b"kube-system", b"svc"]);
        let server = server.map(|server| Record::from_rdata(name.clone(), TTL, RData::NS(NS(server))));
        self.of_kind(server.into_iter().chain([self.soa()]).collect(), kind, NOTHING)
    }

    fn service(&self, name: &Name, key: &str, kind: RecordType) -> Found {
        let topic = self.topic(key);
        let Some((entry, stored)) = self.find(key) else { return Found::Answer(self.missing(topic)) };
        if let Kind::External(target) = &stored.kind {
            return match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    if kind == RecordType::CNAME {
                        let alias = Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target)));
                        return Found::Answer(records(vec![alias], topic));
                    }
                    Found::Alias(target)
                }
                Err(_) => Found::Answer(empty(ResponseCode::ServFail, topic)),
            };
        }
        if !self.is_there(entry, stored) {
            return Found::Answer(self.missing(topic));
        }
        if kind == RecordType::SRV {
            return Found::Answer(self.targets(name, name, (entry, stored), |_, _| true, topic));
        }
        Found::Answer(self.of_kind(self.addresses(name, entry, stored), kind, topic))
    }

    /// The addresses that the name of a Service leads to.
    fn addresses(&self, name: &Name, entry: &Entry, stored: &Stored) -> Vec<Record> {
        match &stored.kind {
            Kind::ClusterIp(v4, v6) => {
                let ips = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
                ips.map(|ip| address(name, ip, TTL)).collect()
            }
            Kind::Headless { .. } => {
                let ips: std::collections::BTreeSet<IpAddr> =
                    self.endpoints(entry, stored).map(|(_, endpoint)| endpoint.ip).collect();
                ips.into_iter().map(|ip| address(name, ip, SHORT_TTL)).collect()
            }
            Kind::External(_) => Vec::new(),
        }
    }

    /// The endpoints that are told, with the slices they are in.
    fn endpoints<'a>(
        &'a self,
        entry: &'a Entry,
        stored: &'a Stored,
    ) -> impl Iterator<Item = (&'a Packed, PackedEndpoint<'a>)> {
        self.slices_of(entry)
            .flat_map(|slice| slice.endpoints().map(move |endpoint| (slice, endpoint)))
            .filter(|(_, endpoint)| is_told(stored, endpoint))
    }

    /// A headless Service without endpoints does not exist; so says the specification.
    fn is_there(&self, entry: &Entry, stored: &Stored) -> bool {
        match stored.kind {
            Kind::ClusterIp(..) => true,
            Kind::Headless { .. } => self.endpoints(entry, stored).next().is_some(),
            Kind::External(_) => false,
        }
    }

    /// `_tcp.name.namespace.svc`: nothing itself, but there may be names below it.
    fn protocol(&self, label: &[u8], key: &str) -> Answer {
        let topic = self.topic(key);
        let has_one = |(entry, stored): &(&Entry, &Stored)| {
            let slices = self.slices_of(entry).flat_map(Packed::ports);
            let is_headless = matches!(stored.kind, Kind::Headless { .. });
            let mut ports =
                stored.ports.ports().filter(|_| !is_headless).chain(slices.filter(|_| is_headless));
            self.is_there(entry, stored) && ports.any(|port| is_protocol(label, port.protocol))
        };
        if self.find(key).filter(has_one).is_some() { self.no_data(topic) } else { self.missing(topic) }
    }

    /// `_port._protocol.name.namespace.svc`.
    fn port(&self, name: &Name, labels: (&[u8], &[u8]), key: &str, kind: RecordType) -> Answer {
        let topic = self.topic(key);
        let (port, protocol) = labels;
        let Some((entry, stored)) = self.find(key).filter(|(entry, stored)| self.is_there(entry, stored))
        else {
            return self.missing(topic);
        };
        let service = name.trim_to(usize::from(name.num_labels()).saturating_sub(2));
        let wanted = |of: &[u8], over: Protocol| {
            port.get(1..).is_some_and(|port| of.eq_ignore_ascii_case(port)) && is_protocol(protocol, over)
        };
        let found = self.targets(name, &service, (entry, stored), wanted, topic);
        if found.answers.is_empty() {
            return self.missing(topic);
        }
        if kind == RecordType::SRV { found } else { self.no_data(topic) }
    }

    /// The SRV records of a Service for those ports that are wanted, and the addresses of their targets.
    fn targets(
        &self,
        name: &Name,
        service: &Name,
        (entry, stored): (&Entry, &Stored),
        wanted: impl Fn(&[u8], Protocol) -> bool,
        topic: Topic,
    ) -> Answer {
        let mut answer = empty(ResponseCode::NoError, topic);
        let mut additional = Vec::new();
        if matches!(stored.kind, Kind::Headless { .. }) {
            let mut seen = std::collections::BTreeSet::new();
            for (slice, endpoint) in self.endpoints(entry, stored) {
                let label = label_of(&endpoint);
                let Some(target) = names::below(service, &[&label]) else { continue };
                let mut is_target = false;
                for port in slice.ports().filter(|port| wanted(port.name, port.protocol)) {
                    is_target = true;
                    if seen.insert((label.clone(), port.port)) {
                        answer.answers.push(srv(name, SHORT_TTL, port.port, target.clone()));
                    }
                }
                if is_target && additional.len() < MOST_ADDITIONAL {
                    additional.push(address(&target, endpoint.ip, SHORT_TTL));
                }
            }
        } else {
            let ports = stored.ports.ports().filter(|port| wanted(port.name, port.protocol));
            answer.answers = ports.map(|port| srv(name, TTL, port.port, service.clone())).collect();
            additional = self.addresses(service, entry, stored);
        }
        if answer.answers.is_empty() {
            return self.no_data(topic);
        }
        answer.additional = additional;
        answer
    }

    /// `host.name.namespace.svc`: endpoints of a headless Service by their own names.
    fn host(&self, name: &Name, host: &[u8], key: &str, kind: RecordType) -> Answer {
        let topic = self.topic(key);
        let headless = self.find(key).filter(|(_, stored)| matches!(stored.kind, Kind::Headless { .. }));
        let Some((entry, stored)) = headless else { return self.missing(topic) };
        let here = self.endpoints(entry, stored).filter(|(_, endpoint)| is_called(endpoint, host));
        let ips: std::collections::BTreeSet<IpAddr> = here.map(|(_, endpoint)| endpoint.ip).collect();
        if ips.is_empty() {
            return self.missing(topic);
        }
        self.of_kind(ips.into_iter().map(|ip| address(name, ip, SHORT_TTL)).collect(), kind, topic)
    }

    /// The names of an address; `None` if nobody here has it.
    fn pointers(&self, name: &Name, ip: IpAddr) -> Option<Answer> {
        let svc = names::below(&self.domain, &[b"svc"])?;
        let service = |key: &str, host: Option<&[u8]>| {
            let (name, namespace) = key.split_once('.')?;
            let labels: Vec<&[u8]> =
                host.into_iter().chain([name.as_bytes(), namespace.as_bytes()]).collect();
            names::below(&svc, &labels)
        };
        let own = self.owners(ip).filter_map(|key| Some((TTL, service(key, None)?)));
        let endpoints = self.endpoints_at(ip).filter(|(_, stored, endpoint)| is_told(stored, endpoint));
        let endpoints = endpoints
            .filter_map(|(key, _, endpoint)| Some((SHORT_TTL, service(key, Some(&label_of(&endpoint)))?)));
        let mut targets: Vec<(u32, Name)> = own.chain(endpoints).collect();
        targets.sort();
        targets.dedup();
        let pointer =
            |(ttl, target): (u32, Name)| Record::from_rdata(name.clone(), ttl, RData::PTR(PTR(target)));
        (!targets.is_empty()).then(|| records(targets.into_iter().map(pointer).collect(), EVERYTHING))
    }

    /// Those records that are of the type asked for.
    fn of_kind(&self, mut all: Vec<Record>, kind: RecordType, topic: Topic) -> Answer {
        all.retain(|record| record.record_type() == kind);
        if all.is_empty() { self.no_data(topic) } else { records(all, topic) }
    }

    /// The name exists, but has nothing of this type.
    fn no_data(&self, topic: Topic) -> Answer {
        Answer { authority: vec![self.soa()], ..empty(ResponseCode::NoError, topic) }
    }

    /// The name does not exist.
    fn missing(&self, topic: Topic) -> Answer {
        Answer { authority: vec![self.soa()], ..empty(ResponseCode::NXDomain, topic) }
    }

    fn soa(&self) -> Record {
        let below =
            |label: &[u8]| names::below(&self.domain, &[label]).unwrap_or_else(|| self.domain.clone());
        let minimum = SHORT_TTL;
        let soa = SOA::new(below(b"ns"), below(b"hostmaster"), 1, 7200, 1800, 86_400, minimum);
        Record::from_rdata(self.domain.clone(), minimum, RData::SOA(soa))
    }
}

/// What there is under one name, before aliases are followed.
enum Found {
    Answer(Answer),
    Alias(Name),
    Nothing,
}

fn is_told(stored: &Stored, endpoint: &PackedEndpoint<'_>) -> bool {
    endpoint.ready || stored.kind == Kind::Headless { not_ready_too: true }
}

/// The label of an endpoint below its Service.
fn label_of(endpoint: &PackedEndpoint<'_>) -> Vec<u8> {
    if endpoint.hostname.is_empty() {
        names::dashed(endpoint.ip).into_bytes()
    } else {
        endpoint.hostname.to_vec()
    }
}

fn is_called(endpoint: &PackedEndpoint<'_>, host: &[u8]) -> bool {
    if endpoint.hostname.is_empty() {
        names::undashed(host) == Some(endpoint.ip)
    } else {
        endpoint.hostname.eq_ignore_ascii_case(host)
    }
}

fn is_protocol(label: &[u8], protocol: Protocol) -> bool {
    let text: &[u8] = match protocol {
        Protocol::Tcp => b"_tcp",
        Protocol::Udp => b"_udp",
        Protocol::Sctp => b"_sctp",
    };
    label == text
}

fn srv(name: &Name, ttl: u32, port: u16, target: Name) -> Record {
    Record::from_rdata(name.clone(), ttl, RData::SRV(SRV::new(0, 100, port, target)))
}

fn address(name: &Name, ip: IpAddr, ttl: u32) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name.clone(), ttl, data)
}

fn records(answers: Vec<Record>, topic: Topic) -> Answer {
    Answer { answers, ..empty(ResponseCode::NoError, topic) }
}

fn empty(code: ResponseCode, topic: Topic) -> Answer {
    Answer { code, answers: Vec::new(), authority: Vec::new(), additional: Vec::new(), topic }
}
