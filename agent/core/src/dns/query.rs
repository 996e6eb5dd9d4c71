//! What a client sent: its header, its one question and its EDNS options, read in place without an allocation.
//!
//! Must not know: what the answer is.

use hickory_proto::op::ResponseCode;

/// Length of a message's header.
pub const HEADER: usize = 12;
/// What fits into a datagram for clients that do not say more.
pub const PLAIN: u16 = 512;
/// What we send in one datagram at most, whatever the client says: more would be cut into fragments.
pub const LARGEST: u16 = 1232;
/// The longest question: a name and two numbers.
const LONGEST_QUESTION: usize = 255 + 4;

const OPT: u16 = 41;
const IN: u16 = 1;
const ANY_CLASS: u16 = 255;

/// A question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The number by which the client finds its answer.
    pub id: u16,
    /// Flags that an answer repeats.
    pub flags: Flags,
    /// The question as sent: name, type, class.
    pub question: &'a [u8],
    /// Type asked for.
    pub kind: u16,
    /// EDNS, if the client speaks it.
    pub edns: Option<Edns>,
}

/// Flags of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// The client wants others to be asked.
    pub recursion_desired: bool,
    /// The client checks signatures itself.
    pub checking_disabled: bool,
}

/// What a client says of itself by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest datagram it takes.
    pub payload: u16,
    /// It wants signatures.
    pub dnssec_ok: bool,
}

/// What to do about a message that is no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: no answer could be understood as one, or it is an answer itself.
    Drop,
    /// Say so.
    Answer {
        /// How it went.
        code: ResponseCode,
        /// Operation of the query, as it was.
        opcode: u8,
        /// The client speaks EDNS.
        edns: bool,
    },
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let Some(header) = message.get(..HEADER) else { return Err(Refusal::Drop) };
        let is_response = header[2] & 0x80 != 0;
        if is_response {
            return Err(Refusal::Drop);
        }
        let opcode = (header[2] >> 3) & 0xf;
        let refuse = |code, edns| Refusal::Answer { code, opcode, edns };
        if opcode != 0 {
            return Err(refuse(ResponseCode::NotImp, false));
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let malformed = refuse(ResponseCode::FormErr, false);
        if count(4) != 1 || count(6) != 0 {
            return Err(malformed);
        }
        let name = name_length(&message[HEADER..]).ok_or(malformed)?;
        let question = message.get(HEADER..HEADER + name + 4).ok_or(malformed)?;
        let word = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
        let (kind, class) = (word(name), word(name + 2));
        let records = usize::from(count(8)) + usize::from(count(10));
        let edns = match read_edns(message, HEADER + name + 4, usize::from(count(8)), records) {
            Ok(edns) => edns,
            Err(code) => return Err(refuse(code, code == ResponseCode::BADVERS)),
        };
        if class != IN {
            let code = if class == ANY_CLASS { ResponseCode::NotImp } else { ResponseCode::Refused };
            return Err(refuse(code, edns.is_some()));
        }
        let flags = Flags { recursion_desired: header[2] & 1 != 0, checking_disabled: header[3] & 0x10 != 0 };
        Ok(Self { id: u16::from_be_bytes([header[0], header[1]]), flags, question, kind, edns })
    }

    /// The name asked for, as on the wire.
    pub fn name(&self) -> &'a [u8] {
        &self.question[..self.question.len() - 4]
    }

    /// The largest datagram to answer with.
    pub fn limit(&self) -> usize {
        usize::from(self.edns.map_or(PLAIN, |edns| edns.payload.clamp(PLAIN, LARGEST)))
    }

    /// Name and type in lower case: by this, the same question of another client is known again.
    pub fn key<'b>(&self, buffer: &'b mut KeyBuffer) -> &'b [u8] {
        let length = self.question.len() - 2;
        let key = &mut buffer.0[..length];
        key.copy_from_slice(&self.question[..length]);
        // Lengths of labels are below 'A'; the type comes last and is no letter.
        key[..length - 2].make_ascii_lowercase();
        key
    }
}

/// The key of a question to others: name and type as in [`Query::key`], and what of the client's wishes changes the answer.
pub fn foreign_key(key: &[u8], dnssec_ok: bool, checking_disabled: bool) -> ForeignKey {
    let mut bytes = [0; LONGEST_QUESTION];
    let length = key.len().min(LONGEST_QUESTION - 1);
    bytes[..length].copy_from_slice(&key[..length]);
    bytes[length] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
    ForeignKey { bytes, length: length + 1 }
}

/// A key of a question to others.
#[derive(Clone, Copy)]
pub struct ForeignKey {
    bytes: [u8; LONGEST_QUESTION],
    length: usize,
}

impl std::ops::Deref for ForeignKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Room for a key.
pub struct KeyBuffer([u8; LONGEST_QUESTION]);

impl Default for KeyBuffer {
    fn default() -> Self {
        Self([0; LONGEST_QUESTION])
    }
}

/// The bytes that an uncompressed name takes at the start of this; `None` if there is no such name.
pub fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += 1 + label;
        if label > 63 || at > 255 {
            return None;
        }
        if label == 0 {
            return Some(at);
        }
    }
}

/// The bytes that a name takes, which may end with a pointer.
pub fn skip_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let label = usize::from(*bytes.get(at)?);
        match label {
            0 => return Some(at + 1),
            1..=63 => at += 1 + label,
            0xc0.. => return (bytes.len() >= at + 2).then_some(at + 2),
            _ => return None,
        }
    }
}

/// Walks over the records after the question to find EDNS among the last ones.
fn read_edns(
    message: &[u8],
    mut at: usize,
    authorities: usize,
    records: usize,
) -> Result<Option<Edns>, ResponseCode> {
    let mut found = None;
    for number in 0..records {
        let rest = message.get(at..).ok_or(ResponseCode::FormErr)?;
        let name = skip_name(rest).ok_or(ResponseCode::FormErr)?;
        let fixed = rest.get(name..name + 10).ok_or(ResponseCode::FormErr)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        at += name + 10 + usize::from(word(8));
        if at > message.len() {
            return Err(ResponseCode::FormErr);
        }
        if word(0) == OPT {
            let is_misplaced = number < authorities || name != 1;
            if is_misplaced || found.is_some() {
                return Err(ResponseCode::FormErr);
            }
            let version = fixed[5];
            found = Some((version, Edns { payload: word(2), dnssec_ok: fixed[6] & 0x80 != 0 }));
        }
    }
    match found {
        Some((0, edns)) => Ok(Some(edns)),
        Some(_) => Err(ResponseCode::BADVERS),
        None => Ok(None),
    }
}

/// Appends what answers a message that is no question.
pub fn refuse(message: &[u8], refusal: Refusal, out: &mut Vec<u8>) {
    let Refusal::Answer { code, opcode, edns } = refusal else { return };
    let Some(header) = message.get(..HEADER) else { return };
    // The question is repeated where there is a readable one.
    let question = name_length(&message[HEADER..]).map_or(0, |name| name + 4);
    let question = message.get(HEADER..HEADER + question).unwrap_or_default();
    let recursion_desired = header[2] & 1;
    out.extend([header[0], header[1], 0x80 | (opcode << 3) | recursion_desired, 0x80 | code.low()]);
    out.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend(question);
    if edns {
        append_edns(out, code.high(), false);
    }
}

/// Appends our side of EDNS.
pub(super) fn append_edns(out: &mut Vec<u8>, high_code: u8, dnssec_ok: bool) {
    let [high, low] = LARGEST.to_be_bytes();
    out.extend([0, 0, 41, high, low, high_code, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

#[cfg(test)]
mod tests;
