//! A netlink socket: one request at a time, waiting for its answer.
//!
//! Must not know: what the messages mean.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};

use crate::netlink::{Error, Link, Mac, Netlink, Route, Veth, Vxlan, addr, link, neighbour, route};

/// The kernel's configuration of the namespace this was opened in.
#[derive(Debug)]
pub struct Socket {
    socket: RawSocket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<RawSocket> {
            let mut socket = RawSocket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Filters in dump requests are honoured, and unknown ones refused, instead of ignored.
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::new("open", "netlink socket", source))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits until the kernel has carried it out.
    pub(super) fn execute(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags, |_| {})
    }

    /// Asks for objects: all of them, or the one the message names.
    pub(super) fn query(
        &mut self,
        message: RouteNetlinkMessage,
        all: bool,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        // A dump that was interrupted by a change is begun again.
        for _ in 0..16 {
            let mut answers = Vec::new();
            let flags = if all { NLM_F_DUMP } else { NLM_F_ACK };
            match self.request(message.clone(), flags, |answer| answers.push(answer)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|()| answers),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables change faster than they can be read",
        ))
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(unreadable)?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::Done(_) if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return error.code.map_or(Ok(()), |code| {
                            Err(io::Error::from_raw_os_error(code.get().saturating_neg()))
                        });
                    }
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    _ => {}
                }
            }
        }
    }
}

/// The dump is not consistent because something changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 16;

fn unreadable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unreadable answer of the kernel: {error}"))
}

impl Netlink for Socket {
    fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        link::get(self, name)
    }

    fn links(&mut self) -> Result<Vec<Link>, Error> {
        link::list(self)
    }

    fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        link::add_veth(self, veth)
    }

    fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), Error> {
        link::add_vxlan(self, vxlan)
    }

    fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        link::delete(self, name)
    }

    fn set_up(&mut self, index: u32) -> Result<(), Error> {
        link::set_up(self, index)
    }

    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        link::set_mtu(self, index, mtu)
    }

    fn add_address(&mut self, index: u32, address: ipnet::IpNet) -> Result<(), Error> {
        addr::add(self, index, address)
    }

    fn delete_address(&mut self, index: u32, address: ipnet::IpNet) -> Result<(), Error> {
        addr::delete(self, index, address)
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<ipnet::IpNet>, Error> {
        addr::list(self, index)
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        route::replace(self, route)
    }

    fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        route::delete(self, route)
    }

    fn routes(&mut self) -> Result<Vec<Route>, Error> {
        route::list(self)
    }

    fn replace_neighbour(&mut self, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        neighbour::replace(self, index, ip, mac)
    }

    fn delete_neighbour(&mut self, index: u32, ip: IpAddr) -> Result<(), Error> {
        neighbour::delete(self, index, ip)
    }

    fn neighbours(&mut self, index: u32) -> Result<Vec<(IpAddr, Mac)>, Error> {
        neighbour::list(self, index)
    }

    fn replace_forwarding(&mut self, index: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        neighbour::replace_forwarding(self, index, mac, remote)
    }

    fn delete_forwarding(&mut self, index: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        neighbour::delete_forwarding(self, index, mac, remote)
    }

    fn forwarding(&mut self, index: u32) -> Result<Vec<(Mac, IpAddr)>, Error> {
        neighbour::list_forwarding(self, index)
    }
}
