//! Routes of the main table.
//!
//! Must not know: what a route is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::addr::family;
use crate::netlink::link::absent_is_fine;
use crate::netlink::{Error, Route, Socket};

pub(super) fn replace(socket: &mut Socket, route: &Route) -> Result<(), Error> {
    socket
        .execute(RouteNetlinkMessage::NewRoute(message(route)), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(|error| Error::new("set route to", describe(route), error))
}

pub(super) fn delete(socket: &mut Socket, route: &Route) -> Result<(), Error> {
    let result = socket.execute(RouteNetlinkMessage::DelRoute(message(route)), 0);
    absent_is_fine(result, libc::ESRCH).map_err(|error| Error::new("delete route to", describe(route), error))
}

pub(super) fn list(socket: &mut Socket) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let answers = socket
            .query(RouteNetlinkMessage::GetRoute(message), true)
            .map_err(|error| Error::new("list", "routes", error))?;
        routes.extend(answers.into_iter().filter_map(route));
    }
    Ok(routes)
}

fn describe(route: &Route) -> String {
    match route.gateway {
        Some(gateway) => format!("{} via {gateway}", route.destination),
        None => route.destination.to_string(),
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.trunc();
    message.header.address_family = family(&destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    let on_link = route.gateway.is_none() && destination.addr().is_ipv4();
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message.attributes.extend(route.device.map(RouteAttribute::Oif));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    message
}

fn route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut gateway, mut device, mut source) = (any, None, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(&address)?,
            RouteAttribute::Gateway(address) => gateway = ip(&address),
            RouteAttribute::Oif(index) => device = Some(index),
            RouteAttribute::PrefSource(address) => source = ip(&address),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let onlink = header.flags.contains(RouteFlags::Onlink);
    Some(Route { destination, gateway, device, source, protocol: header.protocol.into(), onlink })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
