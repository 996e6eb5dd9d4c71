//! The bodies of answers: what is laid out is read back by another implementation of the protocol.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, MessageType};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::*;
use crate::dns::tests::{endpoint, name, port, service, slice};
use crate::dns::{Index, Kind, Lookup};

fn sent(asked: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 9;
    message.add_query(Question::query(name(asked), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn answer(body: &Body, sent: &[u8], writing: Writing) -> Message {
    let query = Query::read(sent).unwrap();
    let mut out = Vec::new();
    body.write(&query, writing, &mut out);
    assert!(out.len() <= writing.limit, "{} bytes", out.len());
    let message = Message::from_vec(&out).expect("an answer is a message");
    assert_eq!((message.metadata.id, message.metadata.message_type), (9, MessageType::Response));
    assert_eq!(message.edns.is_some(), query.edns.is_some());
    message
}

fn whole(limit: usize) -> Writing {
    Writing { limit, ..Writing::default() }
}

fn headless(endpoints: u32) -> Body {
    let mut index = Index::new(&name("cluster.local"));
    index.set_service(service("ns", "db", Kind::Headless { not_ready_too: false }, vec![]));
    let endpoints = (0..endpoints)
        .map(|host| endpoint(&Ipv4Addr::from(0x0a01_0000 + host).to_string(), true, ""))
        .collect();
    index.set_slice("s", &slice("ns", "db", vec![port("p", crate::addr::Protocol::Tcp, 1)], endpoints));
    body(&index, "db.ns.svc.cluster.local", RecordType::A)
}

fn body(index: &Index, asked: &str, kind: RecordType) -> Body {
    let Lookup::Answer(answer) = index.answer(&name(asked), kind) else { panic!("not ours") };
    Body::of_answer(&name(asked), kind, &answer).unwrap()
}

fn ips(message: &Message) -> Vec<Ipv4Addr> {
    let ip = |record: &Record| match record.data {
        RData::A(A(ip)) => Some(ip),
        _ => None,
    };
    message.answers.iter().filter_map(ip).collect()
}

#[test]
fn the_clients_spelling_comes_back() {
    let body = headless(2);
    let asked = "Db.nS.svc.CLUSTER.local";
    let message = answer(&body, &sent(asked, RecordType::A, None), whole(512));
    assert!(message.queries[0].name().eq_case(&name(asked)));
    assert!(message.answers.iter().all(|record| record.name.eq_case(&name(asked))));
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert!(!message.metadata.truncation);
}

#[test]
fn what_does_not_fit_is_cut_between_records() {
    let body = headless(100);
    let (plain, edns) = (
        sent("db.ns.svc.cluster.local", RecordType::A, None),
        sent("db.ns.svc.cluster.local", RecordType::A, Some(1232)),
    );
    let message = answer(&body, &plain, whole(512));
    assert!(message.metadata.truncation);
    assert_eq!(message.answers.len(), (512 - 12 - 29) / 16);
    let message = answer(&body, &edns, whole(1232));
    assert!(message.metadata.truncation);
    assert_eq!(message.answers.len(), (1232 - 12 - 29 - 11) / 16);
    let message = answer(&body, &plain, whole(65_535));
    assert_eq!((message.metadata.truncation, message.answers.len()), (false, 100));
    // More than any message holds.
    let message = answer(&headless(5000), &plain, whole(65_535));
    assert!(
        message.metadata.truncation && message.answers.len() > 4000,
        "{} {}",
        message.metadata.truncation,
        message.answers.len()
    );
}

#[test]
fn every_address_comes_first_in_turn() {
    let body = headless(3);
    let sent = sent("db.ns.svc.cluster.local", RecordType::A, None);
    let first = |turn| ips(&answer(&body, &sent, Writing { turn, ..whole(512) }));
    assert_eq!(first(0)[0].octets()[3], 0);
    assert_eq!(first(1)[0].octets()[3], 1);
    assert_eq!(first(5)[0].octets()[3], 2);
    let mut all = first(5);
    all.sort();
    assert_eq!(all, first(0));
    // Of a hundred only some fit: which, changes too.
    let body = headless(100);
    let few = ips(&answer(&body, &sent, Writing { turn: 99, ..whole(512) }));
    assert_eq!((few[0].octets()[3], few[1].octets()[3]), (99, 0));
}

#[test]
fn answers_get_older() {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = ResponseCode::BADVERS;
    message.add_query(Question::query(name("example.com"), RecordType::TXT));
    let text = |text: &str, ttl| {
        Record::from_rdata(name("example.com"), ttl, RData::TXT(TXT::new(vec![text.to_owned()])))
    };
    message.add_answers([text("a", 300), text("bb", 20)]);
    let body = Body::of_message(&message).unwrap();
    assert_eq!(body.ttl(), Some(20));
    let sent = sent("example.com", RecordType::TXT, Some(512));
    let ttls = |age, least| {
        let writing = Writing { age, least, ..whole(512) };
        let message = answer(&body, &sent, writing);
        assert_eq!(u16::from(message.metadata.response_code), 16);
        message.answers.iter().map(|record| record.ttl).collect::<Vec<_>>()
    };
    assert_eq!(ttls(0, 0), [300, 20]);
    assert_eq!(ttls(30, 0), [270, 0]);
    assert_eq!(ttls(30, 5), [270, 5]);
}

#[test]
fn negative_answers_say_for_how_long() {
    let index = Index::new(&name("cluster.local"));
    let body = body(&index, "x.ns.svc.cluster.local", RecordType::A);
    assert_eq!((body.code(), body.negative_ttl(), body.has_answers()), (ResponseCode::NXDomain, 5, false));
    assert_eq!(Body::plain(ResponseCode::ServFail).negative_ttl(), 0);
    let message = answer(&body, &sent("x.ns.svc.cluster.local", RecordType::A, None), whole(512));
    assert_eq!(message.authorities.len(), 1);
}

proptest! {
    #[test]
    fn every_room_is_kept(endpoints in 0u32..60, limit in 512usize..1500, turn: usize, payload: Option<u16>) {
        let body = headless(endpoints);
        let sent = sent("db.ns.svc.cluster.local", RecordType::A, payload);
        let message = answer(&body, &sent, Writing { limit, turn, ..Writing::default() });
        let cut = u32::try_from(message.answers.len()).unwrap() < endpoints;
        prop_assert_eq!(message.metadata.truncation, cut);
    }
}
