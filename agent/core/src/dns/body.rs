//! An answer as bytes: everything after the question, which fits every client who asks the same.
//!
//! Names in it that are the question's point at it, so the client's own spelling comes back to it. What differs from
//! client to client (number, flags, spelling, room, age) is put in when it is written. Must not know: where answers come from.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::query::{self, HEADER, Query};

/// Room that EDNS takes in an answer.
const EDNS_LENGTH: usize = 11;
const POINTER_TO_QUESTION: [u8; 2] = [0xc0, 12];
const AUTHORITATIVE: u8 = 4;
const TRUNCATED: u8 = 2;
const RECURSION_DESIRED: u8 = 1;
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
const AUTHENTIC: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;

/// An answer without its header and question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Box<[u8]>,
    /// For each record where its time to live is, and where it ends.
    records: Box<[Place]>,
    /// Records in the answer and in the authority section; the rest is additional.
    answers: u16,
    authorities: u16,
    code: ResponseCode,
    /// Flags of the header that are the answer's own.
    flags: (u8, u8),
    /// Length of the records of the answer if they are all alike, so that their order may be changed.
    stride: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ttl: u16,
    end: u16,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// Room for the message.
    pub limit: usize,
    /// Which address comes first: the answers of several addresses are turned by this.
    pub turn: usize,
    /// Seconds since this was answered.
    pub age: u32,
    /// Seconds a record lives at least; for what is told though it is too old.
    pub least: u32,
}

impl Body {
    /// An answer without records.
    pub fn plain(code: ResponseCode) -> Self {
        Self {
            bytes: Box::default(),
            records: Box::default(),
            answers: 0,
            authorities: 0,
            code,
            flags: (0, 0),
            stride: 0,
        }
    }

    /// An answer from the index.
    pub fn of_answer(name: &Name, kind: RecordType, answer: &super::Answer) -> Result<Self, ProtoError> {
        if let Some(body) = Self::of_addresses(name, answer) {
            return Ok(body);
        }
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.authoritative = answer.code != ResponseCode::Refused;
        message.metadata.response_code = answer.code;
        message.add_query(Question::query(name.to_lowercase(), kind));
        message.answers.clone_from(&answer.answers);
        message.authorities.clone_from(&answer.authority);
        message.additionals.clone_from(&answer.additional);
        Self::of_message(&message)
    }

    /// Nearly all answers are a few addresses of the name asked for. As many as a message holds are kept.
    fn of_addresses(name: &Name, answer: &super::Answer) -> Option<Self> {
        if answer.answers.is_empty() || !answer.authority.is_empty() || !answer.additional.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(answer.answers.len() * 16);
        let mut records = Vec::with_capacity(answer.answers.len());
        let room = usize::from(u16::MAX) - HEADER - name.len() - 4 - EDNS_LENGTH;
        let mut is_cut = false;
        for record in &answer.answers {
            let ip = match &record.data {
                RData::A(ip) => IpAddr::V4(ip.0),
                RData::AAAA(ip) => IpAddr::V6(ip.0),
                _ => return None,
            };
            if record.name != *name {
                return None;
            }
            let begin = bytes.len();
            bytes.extend(POINTER_TO_QUESTION);
            bytes.extend(u16::from(record.record_type()).to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(record.ttl.to_be_bytes());
            match ip {
                IpAddr::V4(ip) => bytes.extend([&[0, 4][..], &ip.octets()].concat()),
                IpAddr::V6(ip) => bytes.extend([&[0, 16][..], &ip.octets()].concat()),
            }
            if bytes.len() > room {
                bytes.truncate(begin);
                is_cut = true;
                break;
            }
            let place = |at: usize| u16::try_from(at).ok();
            records.push(Place { ttl: place(begin + 6)?, end: place(bytes.len())? });
        }
        Some(Self {
            stride: if records.len() > 1 { records[0].end } else { 0 },
            answers: u16::try_from(records.len()).ok()?,
            authorities: 0,
            bytes: bytes.into(),
            records: records.into(),
            code: answer.code,
            flags: (AUTHORITATIVE | if is_cut { TRUNCATED } else { 0 }, 0),
        })
    }

    /// A message of one question.
    pub fn of_message(message: &Message) -> Result<Self, ProtoError> {
        let mut plain = message.clone();
        plain.edns = None;
        plain.signature = None;
        // The code beyond four bits belongs to EDNS, which is written anew for every client.
        plain.metadata.response_code = ResponseCode::NoError;
        let bytes = plain.to_vec()?;
        Self::read(&bytes, message.metadata.response_code)
            .ok_or(ProtoError::Message("an encoded answer cannot be read"))
    }

    /// Takes an encoded message apart.
    fn read(bytes: &[u8], code: ResponseCode) -> Option<Self> {
        let count = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (answers, authorities, additional) = (count(6)?, count(8)?, count(10)?);
        let start = HEADER + query::name_length(bytes.get(HEADER..)?)? + 4;
        let body = bytes.get(start..)?;
        let mut records = Vec::new();
        let mut at = 0;
        let mut lengths = std::collections::BTreeSet::new();
        let mut is_turnable = answers > 1;
        for number in 0..usize::from(answers) + usize::from(authorities) + usize::from(additional) {
            let rest = body.get(at..)?;
            let name = query::skip_name(rest)?;
            let fixed = rest.get(name..name + 10)?;
            let kind = RecordType::from(u16::from_be_bytes([fixed[0], fixed[1]]));
            let length = name + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            let ttl = u16::try_from(at + name + 4).ok()?;
            at += length;
            records.push(Place { ttl, end: u16::try_from(at).ok()? });
            if number < usize::from(answers) {
                lengths.insert(length);
                is_turnable &= matches!(kind, RecordType::A | RecordType::AAAA);
            }
        }
        let stride = lengths.first().filter(|_| is_turnable && lengths.len() == 1);
        Some(Self {
            bytes: body.get(..at)?.into(),
            records: records.into(),
            answers,
            authorities,
            code,
            flags: (bytes[2] & (AUTHORITATIVE | TRUNCATED), bytes[3] & AUTHENTIC),
            stride: stride.and_then(|length| u16::try_from(*length).ok()).unwrap_or(0),
        })
    }

    /// How it went.
    pub fn code(&self) -> ResponseCode {
        self.code
    }

    /// Whether this is only a part of the answer.
    pub fn is_truncated(&self) -> bool {
        self.flags.0 & TRUNCATED != 0
    }

    /// The shortest time to live of its records.
    pub fn ttl(&self) -> Option<u32> {
        self.records.iter().filter_map(|place| self.ttl_at(place)).min()
    }

    /// Bytes it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.records.len() * size_of::<Place>()
    }

    /// Whether it tells anything that was asked for.
    pub fn has_answers(&self) -> bool {
        self.answers > 0
    }

    /// For how long to believe that there is nothing: what the SOA record in the authority section says, or not at all.
    pub fn negative_ttl(&self) -> u32 {
        let first = usize::from(self.answers);
        let places = self.records.iter().skip(first).take(usize::from(self.authorities));
        let of_soa = places.filter_map(|place| {
            let at = usize::from(place.ttl).checked_sub(4)?;
            let kind = u16::from_be_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?);
            if RecordType::from(kind) != RecordType::SOA {
                return None;
            }
            let end = usize::from(place.end);
            let minimum = u32::from_be_bytes(self.bytes.get(end - 4..end)?.try_into().ok()?);
            Some(minimum.min(self.ttl_at(place)?))
        });
        of_soa.min().unwrap_or(0)
    }

    fn ttl_at(&self, place: &Place) -> Option<u32> {
        let at = usize::from(place.ttl);
        Some(u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    /// Appends the answer for this client.
    pub fn write(&self, query: &Query<'_>, writing: Writing, out: &mut Vec<u8>) {
        let begin = out.len();
        let around = HEADER + query.question.len() + if query.edns.is_some() { EDNS_LENGTH } else { 0 };
        let room = writing.limit.saturating_sub(around);
        let kept = if self.bytes.len() <= room {
            self.records.len()
        } else {
            self.records.partition_point(|place| usize::from(place.end) <= room)
        };
        let kept = u16::try_from(kept).unwrap_or(u16::MAX);
        let needed = self.answers.saturating_add(self.authorities);
        // Without what is only additional an answer is whole.
        let is_cut = kept < needed || self.is_truncated();
        let answers = kept.min(self.answers);
        let authorities = (kept - answers).min(self.authorities);
        let additional = kept - answers - authorities + u16::from(query.edns.is_some());
        let [id_high, id_low] = query.id.to_be_bytes();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let first = RESPONSE
            | (self.flags.0 & AUTHORITATIVE)
            | flag(is_cut, TRUNCATED)
            | flag(query.flags.recursion_desired, RECURSION_DESIRED);
        let second = RECURSION_AVAILABLE
            | self.flags.1
            | flag(query.flags.checking_disabled, CHECKING_DISABLED)
            | self.code.low();
        out.extend([id_high, id_low, first, second, 0, 1]);
        for count in [answers, authorities, additional] {
            out.extend(count.to_be_bytes());
        }
        out.extend(query.question);
        let start = out.len();
        self.write_records(usize::from(kept), usize::from(answers), writing.turn, out);
        if writing.age > 0 || writing.least > 0 {
            for place in &self.records[..usize::from(kept)] {
                let ttl = self.ttl_at(place).unwrap_or(0).saturating_sub(writing.age).max(writing.least);
                let at = start + usize::from(place.ttl);
                if let Some(bytes) = out.get_mut(at..at + 4) {
                    bytes.copy_from_slice(&ttl.to_be_bytes());
                }
            }
        }
        if let Some(edns) = query.edns {
            query::append_edns(out, self.code.high(), edns.dnssec_ok);
        }
        debug_assert!(out.len() - begin <= writing.limit.max(around), "an answer is too long");
    }

    /// Appends the first records; of answers that are all alike, another one comes first each time.
    fn write_records(&self, kept: usize, answers: usize, turn: usize, out: &mut Vec<u8>) {
        let end = match kept.checked_sub(1) {
            Some(last) => usize::from(self.records[last].end),
            None => 0,
        };
        let bytes = &self.bytes[..end];
        if self.stride == 0 || answers < 2 {
            out.extend(bytes);
            return;
        }
        // All of the answers take part, also if only some of them fit.
        let stride = usize::from(self.stride);
        let all = &self.bytes[..stride * usize::from(self.answers)];
        let (before, after) = all.split_at(turn % usize::from(self.answers) * stride);
        let wanted = stride * answers;
        out.extend(after.iter().chain(before).take(wanted));
        out.extend(&bytes[wanted..]);
    }
}

#[cfg(test)]
mod tests;
