//! Neighbours of devices, and the forwarding entries of VXLAN devices (which the kernel keeps as neighbours of the bridge
//! family).
//!
//! Must not know: what a device is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::addr::family;
use crate::netlink::link::absent_is_fine;
use crate::netlink::{Error, Mac, Socket};

pub(super) fn replace(socket: &mut Socket, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Error> {
    let mut message = neighbour(index, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    socket
        .execute(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(|error| Error::new("set neighbour", format!("{ip} of link {index}"), error))
}

pub(super) fn delete(socket: &mut Socket, index: u32, ip: IpAddr) -> Result<(), Error> {
    let result = socket.execute(RouteNetlinkMessage::DelNeighbour(neighbour(index, ip)), 0);
    absent_is_fine(result, libc::ENOENT)
        .map_err(|error| Error::new("delete neighbour", format!("{ip} of link {index}"), error))
}

pub(super) fn list(socket: &mut Socket, index: u32) -> Result<Vec<(IpAddr, Mac)>, Error> {
    let mut neighbours = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for message in dump(socket, family, index)? {
            if message.header.state == NeighbourState::Permanent
                && let (Some(ip), Some(mac)) = (address(&message), hardware(&message))
            {
                neighbours.push((ip, mac));
            }
        }
    }
    Ok(neighbours)
}

pub(super) fn replace_forwarding(
    socket: &mut Socket,
    index: u32,
    mac: Mac,
    remote: IpAddr,
) -> Result<(), Error> {
    let message = forwarding(index, mac, remote);
    socket
        .execute(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(|error| Error::new("forward", format!("{mac} of link {index} to {remote}"), error))
}

pub(super) fn delete_forwarding(
    socket: &mut Socket,
    index: u32,
    mac: Mac,
    remote: IpAddr,
) -> Result<(), Error> {
    let result = socket.execute(RouteNetlinkMessage::DelNeighbour(forwarding(index, mac, remote)), 0);
    absent_is_fine(result, libc::ENOENT).map_err(|error| {
        Error::new("delete forwarding of", format!("{mac} of link {index} to {remote}"), error)
    })
}

pub(super) fn list_forwarding(socket: &mut Socket, index: u32) -> Result<Vec<(Mac, IpAddr)>, Error> {
    let entries = dump(socket, AddressFamily::Bridge, index)?;
    Ok(entries.iter().filter_map(|message| Some((hardware(message)?, address(message)?))).collect())
}

fn neighbour(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(&ip);
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

fn forwarding(index: u32, mac: Mac, remote: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(index, remote);
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message.header.state = NeighbourState::Other(PERMANENT | NO_ARP);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// `NUD_PERMANENT`
const PERMANENT: u16 = 0x80;
/// `NUD_NOARP`: the entry does not age.
const NO_ARP: u16 = 0x40;

fn dump(socket: &mut Socket, family: AddressFamily, index: u32) -> Result<Vec<NeighbourMessage>, Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    let answers = socket
        .query(RouteNetlinkMessage::GetNeighbour(message), true)
        .map_err(|error| Error::new("list neighbours of link", index, error))?;
    let ours = |answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => Some(message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(ours).collect())
}

fn hardware(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some((*ip).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((*ip).into()),
        // In entries of the bridge family the length tells.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            match bytes.as_slice().try_into() {
                Ok(octets) => Some(Ipv4Addr::from_octets(octets).into()),
                Err(_) => bytes.as_slice().try_into().ok().map(|octets| Ipv6Addr::from_octets(octets).into()),
            }
        }
        _ => None,
    })
}
