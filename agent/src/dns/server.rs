//! From a question to its answer: at once if it is known, else after others have been asked.
//!
//! Must not know: how questions come and answers go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use pagurus_agent_core::dns::Lookup;
use pagurus_agent_core::dns::body::{Body, Writing};
use pagurus_agent_core::dns::cache::Own;
use pagurus_agent_core::dns::query::{self, KeyBuffer, Query};

use super::forward::{Forwarder, Outcome};
use super::metrics::DnsMetrics;
use super::table::{Known, Table};

/// The most answers of the cluster's own names that are kept as bytes.
const OWN_ANSWERS: usize = 16_384;
/// How long a question waits for the API server's first list after a start. Clients ask again after five seconds.
const FIRST_LIST: Duration = Duration::from_secs(4);

/// What every listener shares.
pub(super) struct Server {
    pub(super) table: Table,
    pub(super) forwarder: Forwarder,
    pub(super) metrics: DnsMetrics,
    turn: AtomicUsize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The answer was written.
    Answered,
    /// It cannot be answered.
    Dropped,
    /// The answer takes time.
    Later,
}

impl Server {
    pub(super) fn new(table: Table, forwarder: Forwarder, metrics: DnsMetrics) -> Arc<Self> {
        Arc::new(Self { table, forwarder, metrics, turn: AtomicUsize::new(0) })
    }

    /// A memory for a listener of its own: no lock is taken for what is in it.
    pub(super) fn memory(&self) -> Own {
        Own::new(self.table.generations(), OWN_ANSWERS)
    }

    /// Answers at once if possible. `limit` is the room of a message; none is that of the client's datagrams.
    pub(super) fn try_answer(
        &self,
        message: &[u8],
        limit: Option<usize>,
        own: &mut Own,
        out: &mut Vec<u8>,
    ) -> Attempt {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(refusal) => return self.refuse(message, refusal, out),
        };
        let writing = self.writing(&query, limit);
        let mut buffer = KeyBuffer::default();
        let key = query.key(&mut buffer);
        if let Some(body) = own.get(key) {
            return self.write(&query, body, writing, out);
        }
        let Some(name) = name_of(&query) else {
            return self.write(&query, &Body::plain(ResponseCode::FormErr), writing, out);
        };
        let kind = RecordType::from(query.kind);
        let (lookup, known) = self.table.answer(&name, kind);
        if self.must_wait(&lookup, known, kind) {
            return Attempt::Later;
        }
        match lookup {
            Lookup::Answer(answer) => match Body::of_answer(&name, kind, &answer) {
                Ok(body) => {
                    let attempt = self.write(&query, &body, writing, out);
                    if let Known::Now(generation) = known {
                        own.put(key, answer.topic, generation, body);
                    }
                    attempt
                }
                Err(error) => {
                    tracing::error!(%name, %kind, %error, "an answer cannot be encoded");
                    self.write(&query, &Body::plain(ResponseCode::ServFail), writing, out)
                }
            },
            Lookup::Forward => {
                if kind == RecordType::HINFO && self.forwarder.saw(&name) {
                    return self.write(&query, &Body::plain(ResponseCode::NXDomain), writing, out);
                }
                match self.forwarder.known(key, &query) {
                    Some((body, age)) => {
                        self.metrics.cache_hits.inc();
                        self.write(&query, &body, Writing { age, ..writing }, out)
                    }
                    None => Attempt::Later,
                }
            }
            Lookup::Chase { .. } => Attempt::Later,
        }
    }

    /// Answers a question that [`Self::try_answer`] found to take time.
    pub(super) async fn answer_later(
        &self,
        message: &[u8],
        limit: Option<usize>,
        arrived: Instant,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let Ok(query) = Query::read(message) else { return out };
        let (body, age, least) = self.resolve(&query).await;
        let writing = Writing { age, least, ..self.writing(&query, limit) };
        self.write(&query, &body, writing, &mut out);
        self.metrics.latency.observe(arrived.elapsed().as_secs_f64());
        out
    }

    /// An answer that says that there is none now: for questions that there is no room for.
    pub(super) fn fail(&self, message: &[u8], limit: Option<usize>, out: &mut Vec<u8>) {
        if let Ok(query) = Query::read(message) {
            self.write(&query, &Body::plain(ResponseCode::ServFail), self.writing(&query, limit), out);
        }
    }

    async fn resolve(&self, query: &Query<'_>) -> Outcome {
        let failed = || (Arc::new(Body::plain(ResponseCode::ServFail)), 0, 0);
        let Some(name) = name_of(query) else { return failed() };
        let kind = RecordType::from(query.kind);
        let (lookup, known) = self.table.answer(&name, kind);
        if self.must_wait(&lookup, known, kind) {
            let patience = self.table.patience(FIRST_LIST);
            let in_time = tokio::time::timeout(patience, self.table.completed()).await.is_ok();
            if !in_time && known == Known::Partly {
                return failed();
            }
        }
        match self.table.answer(&name, kind).0 {
            Lookup::Answer(answer) => match Body::of_answer(&name, kind, &answer) {
                Ok(body) => (Arc::new(body), 0, 0),
                Err(_) => failed(),
            },
            Lookup::Forward => self.forwarder.ask(&name, query).await,
            Lookup::Chase { aliases, target } => {
                let (body, age, least) = self.forwarder.ask(&target, query).await;
                match behind_aliases(&name, kind, aliases, &target, &body) {
                    Some(body) => (Arc::new(body), age, least),
                    None => failed(),
                }
            }
        }
    }

    /// Whether the lists of the API server are to be waited for, which may say something else.
    fn must_wait(&self, lookup: &Lookup, known: Known, kind: RecordType) -> bool {
        let says_something = match lookup {
            Lookup::Answer(answer) => !answer.answers.is_empty(),
            Lookup::Chase { .. } => true,
            // Whose addresses are ours is not known yet.
            Lookup::Forward if kind == RecordType::PTR => false,
            Lookup::Forward => return false,
        };
        match known {
            Known::Now(_) => false,
            Known::Last => !says_something && !self.table.patience(FIRST_LIST).is_zero(),
            Known::Partly => true,
        }
    }

    fn writing(&self, query: &Query<'_>, limit: Option<usize>) -> Writing {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Writing { limit: limit.unwrap_or_else(|| query.limit()), turn, age: 0, least: 0 }
    }

    fn write(&self, query: &Query<'_>, body: &Body, writing: Writing, out: &mut Vec<u8>) -> Attempt {
        body.write(query, writing, out);
        self.metrics.count(query.kind, body.code());
        Attempt::Answered
    }

    fn refuse(&self, message: &[u8], refusal: query::Refusal, out: &mut Vec<u8>) -> Attempt {
        match refusal {
            query::Refusal::Drop => {
                self.metrics.dropped.inc();
                Attempt::Dropped
            }
            query::Refusal::Answer { code, .. } => {
                query::refuse(message, refusal, out);
                self.metrics.count(0, code);
                Attempt::Answered
            }
        }
    }
}

fn name_of(query: &Query<'_>) -> Option<Name> {
    Name::read(&mut BinDecoder::new(query.name())).ok()
}

/// The answer for the name that an alias leads to, put behind the alias.
fn behind_aliases(
    name: &Name,
    kind: RecordType,
    aliases: Vec<Record>,
    target: &Name,
    body: &Body,
) -> Option<Body> {
    let mut asked = Message::query();
    asked.add_query(Question::query(target.to_lowercase(), kind));
    let bytes = asked.to_vec().ok()?;
    let mut answer = Vec::new();
    body.write(
        &Query::read(&bytes).ok()?,
        Writing { limit: usize::from(u16::MAX), ..Writing::default() },
        &mut answer,
    );
    let found = Message::from_vec(&answer).ok()?;
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = found.metadata.response_code;
    message.metadata.truncation = found.metadata.truncation;
    message.add_query(Question::query(name.to_lowercase(), kind));
    message.answers = aliases;
    message.answers.extend(found.answers.iter().cloned());
    message.authorities.clone_from(&found.authorities);
    Body::of_message(&message).ok()
}
