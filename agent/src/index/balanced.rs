//! What the watches of Services and EndpointSlices hand on: what the balancer needs of each object, what DNS needs of it, what
//! pods are told of it, and what makes no sense in it. Everything else is left where it lay.
//!
//! Must not know: who takes it, what was there before.

use pagurus_agent_core::{dns as names, services as balanced};

use crate::index::feed::{Named, Reader};
use crate::index::service_links::{self, Linked};
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
    fn of<L, A>(metadata: &wire::Metadata<'_, L, A>) -> Self {
        let part = |part: &Option<wire::Text<'_>>| part.as_deref().unwrap_or_default().into();
        let wire::Metadata { namespace, name, uid, .. } = metadata;
        Self { namespace: part(namespace), name: part(name), uid: part(uid) }
    }
}

/// What is handed on of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<B, N> {
    /// Which one.
    pub about: About,
    /// For the balancer, if it has anything to do.
    pub balanced: Option<B>,
    /// For DNS, if there is anything to say.
    pub named: Option<N>,
    /// What pods are told, if it is a Service and there is anything to tell.
    pub linked: Option<Box<Linked>>,
    /// What makes no sense.
    pub problems: Problems,
}

/// A Service.
pub type Service = Object<balanced::Service, names::Service>;

/// An EndpointSlice.
pub type Slice = Object<balanced::Slice, names::Slice>;

impl<B, N> Named for Object<B, N> {
    fn name(&self) -> (&str, &str) {
        (&self.about.namespace, &self.about.name)
    }
}

impl<B, N> Object<B, N> {
    fn unreadable(head: &wire::Head<'_>, error: &serde_json::Error) -> Self {
        let problems = vec![format!("it is not as the API says ({error}); not served")];
        Self { about: About::of(&head.metadata), balanced: None, named: None, linked: None, problems }
    }
}

/// How Services are read.
#[derive(Clone, Debug, Default)]
pub struct ServiceReader {
    /// What holds for those that say nothing.
    pub defaults: Defaults,
    /// Whether DNS is to be told.
    pub dns: bool,
    /// Whether pods are to be told.
    pub links: bool,
}

impl Reader for ServiceReader {
    type Raw<'a> = wire::Service<'a>;
    type Object = Service;

    fn read(&self, raw: wire::Service<'_>) -> Service {
        let mut problems = Vec::new();
        Service {
            about: About::of(&raw.metadata),
            balanced: services::service(&raw, &self.defaults, &mut problems),
            named: if self.dns { dns::service(&raw) } else { None },
            linked: if self.links { service_links::read(&raw).map(Box::new) } else { None },
            problems,
        }
    }

    fn unreadable(&self, head: &wire::Head<'_>, error: &serde_json::Error) -> Option<Service> {
        Some(Service::unreadable(head, error))
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
        let mut problems = Vec::new();
        Slice {
            about: About::of(&raw.metadata),
            balanced: endpoint_slices::slice(&raw, &self.node_name, &mut problems),
            named: if self.dns { dns::slice(&raw) } else { None },
            linked: None,
            problems,
        }
    }

    fn unreadable(&self, head: &wire::Head<'_>, error: &serde_json::Error) -> Option<Slice> {
        Some(Slice::unreadable(head, error))
    }
}
