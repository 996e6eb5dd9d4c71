//! Cluster DNS: what the names of the cluster's domain mean, as the DNS specification of Kubernetes (1.1.0) says.
//!
//! [`Index`] is filled from the watches of Services and EndpointSlices and answers questions; [`query`] reads what a client
//! sent, [`body`] keeps an answer as bytes that fit every client who asks the same, [`cache`] keeps those of other servers.
//! Must not know: sockets, clocks, API objects.

pub mod body;
pub mod cache;
mod index;
mod names;
mod packed;
pub mod query;
mod resolve;
pub mod saved;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record};

use crate::addr::Protocol;

pub use index::{Generations, Index, Used};

/// Seconds for which an address of a Service may be remembered.
pub const TTL: u32 = 30;
/// Seconds for which the address of an endpoint, or that there is nothing, may be remembered.
pub const SHORT_TTL: u32 = 5;

/// A Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What its name leads to.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// What the name of a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of its own.
    ClusterIp(Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Its endpoints.
    Headless {
        /// Those that are not ready, too.
        not_ready_too: bool,
    },
    /// Another name.
    External(String),
}

/// A port of a Service or an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name; ports without one have no records.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// An EndpointSlice as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Its name below that of the Service, if it was given one.
    pub hostname: Option<String>,
}

/// What is known about a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// This.
    Answer(Answer),
    /// Nothing: the name is not ours.
    Forward,
    /// The name is an alias of one that is not ours: these records, then what is known about `target`.
    Chase {
        /// The way to the target.
        aliases: Vec<Record>,
        /// The name to ask others about.
        target: Name,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How it went.
    pub code: ResponseCode,
    /// The answer.
    pub answers: Vec<Record>,
    /// For answers that say that there is nothing: for how long to believe it.
    pub authority: Vec<Record>,
    /// What the client will ask next.
    pub additional: Vec<Record>,
    /// What this answer came from: it stays right as long as [`Index::generation`] of this stays the same.
    pub topic: Topic,
}

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic(pub(crate) usize);

#[cfg(test)]
mod tests;
