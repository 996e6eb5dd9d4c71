//! Addresses of devices.
//!
//! Must not know: what a device is for.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Error, Socket};

pub(super) fn family(ip: &IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) fn add(socket: &mut Socket, index: u32, address: IpNet) -> Result<(), Error> {
    let mut message = AddressMessage::default();
    message.header.family = family(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    if address.addr().is_ipv6() {
        // Nobody else can have it, so nobody is asked.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    socket
        .execute(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(|error| Error::new("add address", format!("{address} to link {index}"), error))
}

pub(super) fn delete(socket: &mut Socket, index: u32, address: IpNet) -> Result<(), Error> {
    let mut message = AddressMessage::default();
    message.header.family = family(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.addr())];
    match socket.execute(RouteNetlinkMessage::DelAddress(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        done => {
            done.map_err(|error| Error::new("remove address", format!("{address} from link {index}"), error))
        }
    }
}

pub(super) fn list(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, Error> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    let answers = socket
        .query(RouteNetlinkMessage::GetAddress(message), true)
        .map_err(|error| Error::new("list addresses of link", index, error))?;
    let address = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        let ip = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })?;
        IpNet::new(ip, message.header.prefix_len).ok().filter(|_| message.header.index == index)
    };
    Ok(answers.into_iter().filter_map(address).collect())
}
