//! Devices.
//!
//! Must not know: what a device is for.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::netlink::{Error, Link, Mac, Socket, Tunnel, Veth, Vxlan};

pub(super) fn get(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match socket.query(RouteNetlinkMessage::GetLink(message), false) {
        Ok(answers) => Ok(answers.into_iter().find_map(link)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(Error::new("look up link", name, error)),
    }
}

pub(super) fn list(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let answers = socket
        .query(RouteNetlinkMessage::GetLink(LinkMessage::default()), true)
        .map_err(|error| Error::new("list", "links", error))?;
    Ok(answers.into_iter().filter_map(link).collect())
}

pub(super) fn add_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), Error> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.peer.to_owned()),
        LinkAttribute::Address(veth.peer_mac.0.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NetNsFd(veth.peer_netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(veth.name.to_owned()),
        LinkAttribute::Address(veth.mac.0.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    socket
        .execute(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|error| Error::new("create veth", format!("{} with peer {}", veth.name, veth.peer), error))
}

pub(super) fn add_vxlan(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<(), Error> {
    let tunnel = &vxlan.tunnel;
    let local = match tunnel.local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    };
    let settings =
        vec![InfoVxlan::Id(tunnel.id), InfoVxlan::Port(tunnel.port), InfoVxlan::Learning(false), local];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(vxlan.name.to_owned()),
        LinkAttribute::Address(vxlan.mac.0.to_vec()),
        LinkAttribute::Mtu(vxlan.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(settings)),
        ]),
    ];
    socket.execute(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
        Error::new("create VXLAN device", format!("{} (VNI {})", vxlan.name, tunnel.id), error)
    })
}

pub(super) fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    absent_is_fine(socket.execute(RouteNetlinkMessage::DelLink(message), 0), libc::ENODEV)
        .map_err(|error| Error::new("delete link", name, error))
}

pub(super) fn set_up(socket: &mut Socket, index: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    socket
        .execute(RouteNetlinkMessage::SetLink(message), 0)
        .map_err(|error| Error::new("switch on link", index, error))
}

pub(super) fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    socket
        .execute(RouteNetlinkMessage::SetLink(message), 0)
        .map_err(|error| Error::new("set the MTU of link", index, error))
}

/// Success if the object has gone already.
pub(super) fn absent_is_fine(result: io::Result<()>, absent: i32) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(absent) => Ok(()),
        result => result,
    }
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        tunnel: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.tunnel = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(settings)) => tunnel(settings),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

fn tunnel(settings: &[InfoVxlan]) -> Option<Tunnel> {
    let (mut id, mut port, mut local, mut quiet) = (None, None, None, false);
    for setting in settings {
        match setting {
            InfoVxlan::Id(value) => id = Some(*value),
            InfoVxlan::Port(value) => port = Some(*value),
            InfoVxlan::Local(ip) => local = Some(IpAddr::from(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::from(*ip)),
            InfoVxlan::Learning(on) => quiet = !on,
            _ => {}
        }
    }
    Some(Tunnel { id: id?, port: port?, local: local? }).filter(|_| quiet)
}
