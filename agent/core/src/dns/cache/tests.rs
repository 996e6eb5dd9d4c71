//! The caches of forwarded answers: what is kept, how long, and how it ages.

use hickory_proto::op::{Message, OpCode, Query as Question};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record, RecordType};

use super::*;
use crate::dns::tests::{name, service};
use crate::dns::{Index, Kind, Lookup};

fn answer(code: ResponseCode, ttl: Option<u32>, minimum: Option<u32>) -> Arc<Body> {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(Question::query(name("example.com"), RecordType::A));
    let ip = A([192, 0, 2, 1].into());
    message.add_answers(ttl.map(|ttl| Record::from_rdata(name("example.com"), ttl, RData::A(ip))));
    message.add_authorities(minimum.map(|minimum| {
        let soa = SOA::new(name("a"), name("b"), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("com"), 1000, RData::SOA(soa))
    }));
    Arc::new(Body::of_message(&message).unwrap())
}

#[test]
fn times_to_live() {
    let mut cache = Foreign::new(1 << 20, 60);
    let mut check = |body: Arc<Body>, at: u64, expected: &str| {
        cache.put(b"k", body, 1000);
        let shown = match cache.get(b"k", 1000 + at) {
            Hit::Fresh(_, age) => format!("fresh {age}"),
            Hit::Stale(_) => "stale".to_owned(),
            Hit::Miss => "miss".to_owned(),
        };
        assert_eq!(shown, expected);
    };
    use ResponseCode::{NXDomain, NoError, ServFail};
    check(answer(NoError, Some(30), None), 0, "fresh 0");
    check(answer(NoError, Some(30), None), 29, "fresh 29");
    check(answer(NoError, Some(30), None), 30, "stale");
    check(answer(NoError, Some(30), None), 89, "stale");
    check(answer(NoError, Some(30), None), 90, "miss");
    check(answer(NoError, Some(1_000_000), None), 3599, "fresh 3599");
    check(answer(NoError, Some(1_000_000), None), 3600, "stale");
    check(answer(NXDomain, None, Some(10)), 9, "fresh 9");
    check(answer(NXDomain, None, Some(10_000)), 300, "stale");
    check(answer(NoError, None, Some(10)), 10, "stale");
    check(answer(ServFail, None, None), 1, "fresh 1");
    check(answer(ServFail, None, None), 2, "miss");
    let mut cache = Foreign::new(1 << 20, 60);
    for unbelievable in [answer(NoError, Some(0), None), answer(NXDomain, None, None)] {
        cache.put(b"k", unbelievable, 0);
        assert_eq!(cache.get(b"k", 0), Hit::Miss);
    }
}

#[test]
fn the_oldest_go_first() {
    let mut cache = Foreign::new(10_000, 60);
    let body = answer(ResponseCode::NoError, Some(30), None);
    for number in 0..10_000u32 {
        cache.put(&number.to_be_bytes(), body.clone(), 0);
        // One that comes again and again.
        cache.put(b"again", body.clone(), 0);
    }
    let (count, size) = cache.used();
    assert!(size <= 10_000 && count > 10, "{count} {size}");
    assert!(cache.order.len() <= 2 * count + 65);
    assert_eq!(cache.get(&0u32.to_be_bytes(), 0), Hit::Miss);
    assert!(matches!(cache.get(&9999u32.to_be_bytes(), 0), Hit::Fresh(..)));
    assert!(matches!(cache.get(b"again", 0), Hit::Fresh(..)));
}

#[test]
fn own_answers_are_right_until_the_index_changes() {
    let mut index = Index::new(&name("cluster.local"));
    let generations = index.generations();
    let mut own = Own::new(generations.clone(), 2);
    let ask = |index: &Index, own: &mut Own, key: &[u8]| {
        let asked = name("web.ns.svc.cluster.local");
        let Lookup::Answer(answer) = index.answer(&asked, RecordType::A) else { panic!("not ours") };
        let body = Body::of_answer(&asked, RecordType::A, &answer).unwrap();
        own.put(key, answer.topic, generations.of(answer.topic), body);
    };
    assert_eq!(own.get(b"web"), None);
    ask(&index, &mut own, b"web");
    assert_eq!(own.get(b"web").map(Body::code), Some(ResponseCode::NXDomain));
    index.set_service(service("ns", "web", Kind::ClusterIp(Some([10, 0, 0, 1].into()), None), vec![]));
    assert_eq!(own.get(b"web"), None);
    ask(&index, &mut own, b"web");
    assert_eq!(own.get(b"web").map(Body::code), Some(ResponseCode::NoError));
    for key in [b"a", b"b", b"c", b"d"] {
        ask(&index, &mut own, key);
        assert!(own.answers.len() <= 2);
        assert!(own.get(key).is_some());
    }
}
