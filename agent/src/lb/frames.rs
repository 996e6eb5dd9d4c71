//! The frames by which a node says that an address is its own now: gratuitous ARP, unsolicited neighbour advertisement.
//!
//! Must not know: when that is said.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A socket that sends frames as they are.
#[derive(Debug)]
pub(super) struct Frames(OwnedFd);

impl Frames {
    /// For devices of the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: a system call with constants.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Says on a device's link that its hardware address is that of an address.
    pub(super) fn claim(&self, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> io::Result<()> {
        let frame = frame(mac, ip);
        // SAFETY: all bytes of the structure may be zero.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        // SAFETY: both pointers are to values that live during the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The group that neighbour solicitations for an address are sent to.
pub(super) fn solicited_group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

fn frame(mac: [u8; 6], ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    }
}

/// A request for the own address, which everybody takes over who knows it already.
fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, lengths of addresses, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame
}

/// To all nodes, with the flag that what they know is to be replaced.
fn unsolicited_advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(ip.octets());
    // Option: the target's hardware address.
    message.extend([2, 1]);
    message.extend(mac);
    let mut summed: Vec<u8> = ip.octets().into_iter().chain(all_nodes.octets()).collect();
    summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    summed.extend(&message);
    let checksum = checksum(&summed);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(ip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

/// The Internet checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.fold(0_u32, u32::wrapping_add);
    let folded = (sum >> 16) + (sum & 0xffff);
    !(((folded >> 16) + folded) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn arp() {
        let frame = frame(MAC, "192.168.0.9".parse().expect("an address"));
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6]);
        assert_eq!((&frame[28..32], &frame[38..42]), (&[192, 168, 0, 9][..], &[192, 168, 0, 9][..]));
    }

    #[test]
    fn advertisement() {
        let ip: Ipv6Addr = "fd77::9".parse().expect("an address");
        let frame = frame(MAC, ip.into());
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!((frame[20], frame[21]), (58, 255), "ICMPv6 with all hops left");
        // With its checksum in place everything adds up.
        let mut summed = frame[22..54].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(&frame[54..]);
        assert_eq!(checksum(&summed), 0);
        assert_eq!(solicited_group(ip).to_string(), "ff02::1:ff00:9");
        let other = "fd77::12:3456".parse().expect("an address");
        assert_eq!(solicited_group(other).to_string(), "ff02::1:ff12:3456");
    }
}
