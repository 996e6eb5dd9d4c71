//! A raw socket of IP protocol 132: SCTP packets without their IP headers, whichever the family.
//!
//! Must not know: chunks.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{SockaddrStorage, bind};

use crate::packet::{Body, Packet, Sctp, protocol};

/// Datagrams of another protocol: everything but making it is the same.
#[derive(Debug)]
pub(super) struct RawSocket {
    socket: UdpSocket,
    v4: bool,
}

impl RawSocket {
    fn new(v4: bool) -> io::Result<Self> {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: a system call on numbers alone.
        let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol::SCTP.into()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self { socket: unsafe { UdpSocket::from_raw_fd(fd) }, v4 })
    }

    /// A socket that speaks with one host, and is told of its ICMP errors.
    pub(super) fn connect(to: IpAddr) -> io::Result<Self> {
        let made = Self::new(to.is_ipv4())?;
        made.socket.connect(SocketAddr::new(to, 0))?;
        Ok(made)
    }

    /// A socket that receives what is for an address.
    pub(super) fn bind(ip: IpAddr) -> io::Result<Self> {
        let made = Self::new(ip.is_ipv4())?;
        bind(made.socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, 0)))?;
        Ok(made)
    }

    /// Sends to the host to which it is connected.
    pub(super) fn send(&self, packet: &Sctp) -> io::Result<()> {
        self.socket.send(&packet.build()).map(|_| ())
    }

    /// Sends to any host.
    pub(super) fn send_to(&self, to: IpAddr, packet: &Sctp) -> io::Result<()> {
        self.socket.send_to(&packet.build(), SocketAddr::new(to, 0)).map(|_| ())
    }

    /// The next packet and whom it is from; `WouldBlock` if there is none in time.
    pub(super) fn receive(&self, limit: Duration) -> io::Result<(IpAddr, Sctp)> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 65_536];
        let (length, from) = self.socket.recv_from(&mut buffer)?;
        let bytes = &buffer[..length];
        // IPv4 raw sockets show the IP header, IPv6 ones do not.
        let packet = if self.v4 {
            Packet::parse_ip(bytes).and_then(|packet| match packet.body {
                Body::Sctp(sctp) => Ok(sctp),
                other => anyhow::bail!("no SCTP packet: {other:?}"),
            })
        } else {
            Sctp::parse(bytes)
        };
        let packet = packet.map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("{error:#}")))?;
        Ok((from.ip(), packet))
    }
}
