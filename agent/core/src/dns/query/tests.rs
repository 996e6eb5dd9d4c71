//! Questions as they lie in messages, good and damaged.

use hickory_proto::op::{Edns as HickoryEdns, Message, OpCode, Query as Question};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use super::*;

fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn refused(message: &[u8]) -> Option<ResponseCode> {
    match Query::read(message) {
        Ok(query) => panic!("{query:?}"),
        Err(Refusal::Drop) => None,
        Err(refusal @ Refusal::Answer { code, .. }) => {
            let mut out = Vec::new();
            refuse(message, refusal, &mut out);
            let answer = Message::from_vec(&out).expect("a refusal is a message");
            // By number: one of them has two names.
            assert_eq!(u16::from(answer.metadata.response_code), u16::from(code));
            assert_eq!(answer.metadata.id.to_be_bytes(), message[..2]);
            Some(code)
        }
    }
}

#[test]
fn a_question_is_read() {
    let mut sent = message("Web.example.com.", RecordType::AAAA);
    let bytes = sent.to_vec().unwrap();
    let query = Query::read(&bytes).unwrap();
    assert_eq!((query.id, query.kind, query.limit()), (7, 28, 512));
    assert_eq!(query.name(), b"\x03Web\x07example\x03com\0");
    assert_eq!(query.key(&mut KeyBuffer::default()), b"\x03web\x07example\x03com\0\0\x1c");
    assert!(query.flags.recursion_desired && !query.flags.checking_disabled);
    let mut edns = HickoryEdns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    sent.set_edns(edns);
    let bytes = sent.to_vec().unwrap();
    let query = Query::read(&bytes).unwrap();
    assert_eq!(query.edns, Some(Edns { payload: 4096, dnssec_ok: true }));
    assert_eq!(query.limit(), 1232);
    for payload in [0, 100, 512] {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(payload);
        sent.set_edns(edns);
        assert_eq!(Query::read(&sent.to_vec().unwrap()).unwrap().limit(), 512);
    }
}

#[test]
fn refusals() {
    assert_eq!(refused(b""), None);
    assert_eq!(refused(&[0; 11]), None);
    let plain = message("a.", RecordType::A);
    let mut answer = plain.clone();
    answer.metadata.message_type = hickory_proto::op::MessageType::Response;
    assert_eq!(refused(&answer.to_vec().unwrap()), None);
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut other = plain.clone();
        other.metadata.op_code = op_code;
        assert_eq!(refused(&other.to_vec().unwrap()), Some(ResponseCode::NotImp));
    }
    let mut chaos = plain.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(refused(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));
    let mut two = plain.clone();
    two.add_query(two.queries[0].clone());
    assert_eq!(refused(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut none = plain.clone();
    none.queries.clear();
    assert_eq!(refused(&none.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut later = plain.clone();
    let mut edns = HickoryEdns::new();
    edns.set_version(1);
    later.set_edns(edns);
    assert_eq!(refused(&later.to_vec().unwrap()), Some(ResponseCode::BADVERS));
    // Two of what there may be one of, and a record that is cut off.
    let mut bytes = plain.to_vec().unwrap();
    bytes[11] = 2;
    for _ in 0..2 {
        append_edns(&mut bytes, 0, false);
    }
    assert_eq!(refused(&bytes), Some(ResponseCode::FormErr));
    assert_eq!(refused(&bytes[..bytes.len() - 1]), Some(ResponseCode::FormErr));
    // A name that points somewhere, or does not end.
    let mut pointer = plain.to_vec().unwrap();
    pointer[12] = 0xc0;
    assert_eq!(refused(&pointer), Some(ResponseCode::FormErr));
    let mut long = plain.to_vec().unwrap();
    long.truncate(12);
    long.extend([63; 256]);
    assert_eq!(refused(&long), Some(ResponseCode::FormErr));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes: an answer or none, but no panic.
    #[test]
    fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Err(refusal) = Query::read(&bytes) {
            let mut out = Vec::new();
            refuse(&bytes, refusal, &mut out);
            prop_assert!(out.is_empty() || Message::from_vec(&out).is_ok(), "{:?}", out);
        }
    }

    /// Good messages with some bytes changed or cut off.
    #[test]
    fn nearly_good_messages(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0usize..8,
    ) {
        let mut sent = message("web.ns.svc.cluster.local.", RecordType::A);
        sent.set_edns(HickoryEdns::new());
        let mut bytes = sent.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut);
        match Query::read(&bytes) {
            Ok(query) => {
                query.key(&mut KeyBuffer::default());
                // What we take as good, others do too.
                prop_assert!(name_length(query.name()) == Some(query.name().len()));
            }
            Err(refusal) => refuse(&bytes, refusal, &mut Vec::new()),
        }
    }
}
