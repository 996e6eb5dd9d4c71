//! What the watches of Services and EndpointSlices hand on: what the balancer needs of each object, what DNS needs of it, and what
//! makes no sense in it. Everything else is left where it lay.
//!
//! Must not know: who takes it, what was there before.

use pagurus_agent_core::{dns as names, services as balanced};

use crate::index::feed::{Named, Reader};
use crate::index::services::{Defaults, Problems};
use crate::index::{dns, endpoint_slices, services, wire};

/// Which object it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Unique over time.
    pub uid: Box<str>,
}

impl About {
    fn new(namespace: Option<&str>, name: Option<&str>, uid: Option<&str>) -> Self {
        let part = |part: Option<&str>| part.unwrap_or_default().into();
        Self { namespace: part(namespace), name: part(name), uid: part(uid) }
    }

    fn of_head(head: &wire::Head<'_>) -> Self {
        let wire::HeadMetadata { namespace, name, uid, .. } = &head.metadata;
        Self::new(namespace.as_deref(), name.as_deref(), uid.as_deref())
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub about: About,
    /// For the balancer, if it has anything to do.
    pub balanced: Option<balanced::Service>,
    /// For DNS, if there is anything to say.
    pub named: Option<names::Service>,
    /// What makes no sense.
    pub problems: Problems,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which one.
    pub about: About,
    /// For the balancer.
    pub balanced: Option<balanced::Slice>,
    /// For DNS.
    pub named: Option<names::Slice>,
    /// What makes no sense.
    pub problems: Problems,
}

impl Named for Service {
    fn name(&self) -> (&str, &str) {
        (&self.about.namespace, &self.about.name)
    }
}

impl Named for Slice {
    fn name(&self) -> (&str, &str) {
        (&self.about.namespace, &self.about.name)
    }
}

/// How Services are read.
#[derive(Clone, Debug, Default)]
pub struct ServiceReader {
    /// What holds for those that say nothing.
    pub defaults: Defaults,
    /// Whether DNS is to be told.
    pub dns: bool,
}

impl Reader for ServiceReader {
    type Raw<'a> = wire::Service<'a>;
    type Object = Service;

    fn read(&self, raw: wire::Service<'_>) -> Service {
        let wire::ServiceMetadata { namespace, name, uid, .. } = &raw.metadata;
        let mut problems = Vec::new();
        Service {
            about: About::new(namespace.as_deref(), name.as_deref(), uid.as_deref()),
            balanced: services::service(&raw, &self.defaults, &mut problems),
            named: if self.dns { dns::service(&raw) } else { None },
            problems,
        }
    }

    fn unreadable(&self, head: &wire::Head<'_>, error: &serde_json::Error) -> Option<Service> {
        let problems = vec![unreadable(error)];
        Some(Service { about: About::of_head(head), balanced: None, named: None, problems })
    }
}

/// How EndpointSlices are read.
#[derive(Clone, Debug, Default)]
pub struct SliceReader {
    /// This node.
    pub node_name: String,
    /// Whether DNS is to be told.
    pub dns: bool,
}

impl Reader for SliceReader {
    type Raw<'a> = wire::EndpointSlice<'a>;
    type Object = Slice;

    fn read(&self, raw: wire::EndpointSlice<'_>) -> Slice {
        let wire::SliceMetadata { namespace, name, uid, .. } = &raw.metadata;
        let mut problems = Vec::new();
        Slice {
            about: About::new(namespace.as_deref(), name.as_deref(), uid.as_deref()),
            balanced: endpoint_slices::slice(&raw, &self.node_name, &mut problems),
            named: if self.dns { dns::slice(&raw) } else { None },
            problems,
        }
    }

    fn unreadable(&self, head: &wire::Head<'_>, error: &serde_json::Error) -> Option<Slice> {
        let problems = vec![unreadable(error)];
        Some(Slice { about: About::of_head(head), balanced: None, named: None, problems })
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("it is not as the API says ({error}); not served")
}
