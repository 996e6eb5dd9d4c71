//! What the maps hold and the writes that change it, as plain data.
//!
//! Must not know: Services; it has only frontends, numbers, extents and backends.

use std::net::IpAddr;
use std::ops::BitOr;

use ipnet::IpNet;

use crate::addr::{Backend, BackendId, Frontend};
use crate::services::NodeAddress;

/// How a frontend behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// Clients stay with their endpoint.
    pub const AFFINITY: Self = Self(1 << 0);
    /// Only clients in the Service's source ranges may use it.
    pub const SOURCE_RANGES: Self = Self(1 << 1);
    /// `externalTrafficPolicy: Local`.
    pub const OUTSIDE_LOCAL: Self = Self(1 << 2);
    /// `internalTrafficPolicy: Local`.
    pub const INSIDE_LOCAL: Self = Self(1 << 3);
    /// Meant to be reached from outside.
    pub const EXTERNAL: Self = Self(1 << 4);
    /// Endpoints of other nodes answer the client themselves.
    pub const DSR: Self = Self(1 << 5);
    /// Connections from outside choose at random.
    pub const RANDOM: Self = Self(1 << 6);
    /// There are endpoints somewhere: where this frontend may use none of them packets are dropped and not refused.
    pub const HAS_ENDPOINTS: Self = Self(1 << 7);
    /// A host port.
    pub const HOST_PORT: Self = Self(1 << 8);

    /// Whether all of these are set.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Places `first..first + count` of the flat table of backends' ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The first place; 0 if there are none.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Extent {
    /// Nothing.
    pub const EMPTY: Self = Self { first: 0, count: 0 };

    /// The place behind the last one.
    pub const fn end(self) -> u64 {
        self.first as u64 + self.count as u64
    }
}

/// Number of a Service in the maps; never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceNumber(pub u32);

/// What is behind a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The Service: the same for all its frontends.
    pub service: ServiceNumber,
    /// How it behaves.
    pub flags: Flags,
    /// For so many seconds a client stays with its backend; 0: it does not.
    pub affinity: u32,
    /// Another one each time anything else here, or in the extents, is another.
    pub generation: u32,
    /// Backends for clients on this node.
    pub inside: Extent,
    /// Backends for others.
    pub outside: Extent,
    /// Maglev table over `outside`.
    pub maglev: Extent,
}

impl Value {
    /// Its extents that are not empty.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<> {
        [self.inside, self.outside, self.maglev].into_iter().filter(|extent| extent.count > 0)
    }

    /// Whether this one says the same, whatever its generation.
    pub fn says(&self, other: &Self) -> bool {
        Self { generation: 0, ..*self } == Self { generation: 0, ..*other }
    }
}

/// A backend as the maps hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Where it is.
    pub backend: Backend,
    /// Runs on this node.
    pub local: bool,
    /// Takes no new connections.
    pub draining: bool,
}

/// A table that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grown {
    /// Frontends.
    Services,
    /// The flat table of backends' ids.
    Slots,
    /// Backends, and what is counted of each.
    Backends,
    /// What is counted of each Service.
    Numbers,
}

impl Grown {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Services, Self::Slots, Self::Backends, Self::Numbers];

    /// What it holds.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Slots => "slots",
            Self::Backends => "backends",
            Self::Numbers => "service numbers",
        }
    }
}

/// One write to the kernel maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// A larger map in the place of one.
    Grow(Grown, u32),
    /// Ids in places that no frontend leads to yet.
    WriteSlots(u32, Box<[u32]>),
    /// A backend under its id.
    PutBackend(BackendId, Held),
    /// Clients of this range may use the Service.
    PutSourceRange(ServiceNumber, IpNet),
    /// Where a frontend leads.
    PutService(Frontend, Value),
    /// A frontend goes.
    DeleteService(Frontend),
    /// Clients of this range may no longer use the Service.
    DeleteSourceRange(ServiceNumber, IpNet),
    /// Places that no frontend has led to for some time: they are emptied.
    FreeSlots(Extent),
    /// An id that no frontend has led to for some time: it is emptied, and its count begins anew.
    FreeBackend(BackendId),
    /// A number that no frontend has had for some time: its counts begin anew.
    FreeNumber(ServiceNumber),
    /// An address of a node.
    PutNode(IpAddr, NodeAddress),
    /// A node's address goes.
    DeleteNode(IpAddr),
}

/// How many entries each table has room for, or holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends.
    pub services: u32,
    /// Places of the flat table of backends' ids.
    pub slots: u32,
    /// Backends' ids, with 0.
    pub backends: u32,
    /// Services' numbers, with 0.
    pub numbers: u32,
}

impl Capacity {
    /// Of one table.
    pub fn of(&self, table: Grown) -> u32 {
        match table {
            Grown::Services => self.services,
            Grown::Slots => self.slots,
            Grown::Backends => self.backends,
            Grown::Numbers => self.numbers,
        }
    }

    /// Sets that of one table.
    pub fn set(&mut self, table: Grown, capacity: u32) {
        *match table {
            Grown::Services => &mut self.services,
            Grown::Slots => &mut self.slots,
            Grown::Backends => &mut self.backends,
            Grown::Numbers => &mut self.numbers,
        } = capacity;
    }
}

/// The entries read from the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Frontends.
    pub services: Vec<(Frontend, Value)>,
    /// The flat table of backends' ids, at least up to its last one that is not 0.
    pub slots: Vec<u32>,
    /// Backends.
    pub backends: Vec<(BackendId, Held)>,
    /// Who may use what.
    pub ranges: Vec<(ServiceNumber, IpNet)>,
    /// Node addresses.
    pub nodes: Vec<(IpAddr, NodeAddress)>,
    /// How much there is room for.
    pub capacity: Capacity,
}
