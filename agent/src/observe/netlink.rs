//! Netlink, as little as observing needs: ask for a list, or listen to a group. Attributes that nobody asks for are not
//! read, so that nothing a machine has can make its list unreadable.
//!
//! Must not know: what messages mean.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Bytes before the body of a message.
const HEADER: usize = 16;
/// A list that changes while it is read is begun again so many times.
const TRIES: usize = 16;
/// Datagrams of lists are at most this long.
const DATAGRAM: usize = 64 * 1024;

/// One answer: its type and its body.
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A socket of one netlink family.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread; `groups` is a mask of what to listen to.
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let flags =
            SockFlag::SOCK_CLOEXEC | if groups == 0 { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for a list.
    pub(crate) fn list(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 0..TRIES {
            match self.request(kind, NLM_F_DUMP, body) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's list changes faster than it can be read",
        ))
    }

    /// Asks for something to be done, and waits until it is.
    pub(crate) fn execute(&mut self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.request(kind, NLM_F_ACK, body).map(drop)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(HEADER + body.len());
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        send(self.fd.as_raw_fd(), &request, MsgFlags::empty())?;
        let (mut answers, mut interrupted) = (Vec::new(), false);
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
            let mut rest = datagram.get(..length).unwrap_or_default();
            while let Some((header, body, next)) = split(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match word(body, 0).map_or(0, u32::cast_signed) {
                        0 => return Ok(answers),
                        code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    },
                    kind => answers.push(Message { kind, body: body.to_vec() }),
                }
            }
        }
    }

    /// Takes everything that has been told; whether there was anything. For sockets that listen.
    pub(crate) fn drain(&self) -> io::Result<bool> {
        let mut told = false;
        let mut datagram = [0; 8 * 1024];
        loop {
            match recv(self.fd.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
                Ok(_) => told = true,
                Err(nix::errno::Errno::EAGAIN) => return Ok(told),
                // More was told than there was room for: that something changed is known.
                Err(nix::errno::Errno::ENOBUFS) => told = true,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl std::os::fd::AsRawFd for Netlink {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The first message of some bytes: its header, its body, and what comes behind it.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    let header = Header { kind: half(bytes, 4)?, flags: half(bytes, 6)?, sequence: word(bytes, 8)? };
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes behind the first `skip` bytes of a body: number and value.
pub(crate) fn attributes(body: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(skip..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        // The two highest bits say how the value is to be read.
        let number = half(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    })
}

/// The two bytes at this place, as the machine orders them.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The four bytes at this place, as the machine orders them.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A value that is text, with or without a zero at its end.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_broken_messages_end() {
        let check = |body: &[u8], expected: &[(u16, usize)]| {
            let found: Vec<(u16, usize)> =
                attributes(body, 0).map(|(number, value)| (number, value.len())).collect();
            assert_eq!(found, expected, "{body:?}");
        };
        check(&[], &[]);
        check(&[6, 0, 3, 0, b'l', b'o'], &[(3, 2)]);
        check(&[6, 0, 3, 0, b'l', b'o', 0, 0, 4, 0, 9, 0x80], &[(3, 2), (9, 0)]);
        check(&[60, 0, 3, 0, 1], &[]);
        check(&[0, 0, 3, 0, 1], &[]);
        check(&[2, 0, 3, 0, 1], &[]);
    }

    #[test]
    fn messages_of_broken_datagrams_end() {
        assert!(split(&[]).is_none());
        assert!(split(&[0; 16]).is_none(), "shorter than its header");
        assert!(split(&[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
        let (header, body, rest) =
            split(&[17, 0, 0, 0, 3, 0, 16, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5]).expect("one message");
        assert_eq!((header.kind, header.flags, header.sequence), (3, 16, 7));
        assert_eq!((body, rest.len()), (&[5][..], 0));
    }
}
