//! SCTP by the kernel, where it has it: one-to-one sockets, which are used as TCP's are.
//!
//! Must not know: packets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen};

use crate::packet::protocol;
use crate::topology::{Answer, Host, ask_on, serve_streams};

/// A socket for addresses like this one.
fn socket(like: IpAddr) -> io::Result<OwnedFd> {
    let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a system call on numbers alone.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol::SCTP.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this kernel has SCTP sockets.
pub fn has_sockets() -> bool {
    socket(IpAddr::from([127, 0, 0, 1])).is_ok()
}

/// A server that says its name and the client's address, and then echoes lines. Lives as long as the process.
///
/// # Errors
/// This kernel has no such sockets, or the address cannot be listened at.
pub fn kernel_server(host: &Host, ip: IpAddr, port: u16, name: &str) -> Result<SocketAddr> {
    let name = name.to_owned();
    host.run(|| {
        let socket = socket(ip).context("SCTP socket")?;
        let address = SocketAddr::new(ip, port);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
            .with_context(|| format!("bind {address}"))?;
        listen(&socket, Backlog::MAXCONN).with_context(|| format!("listen at {address}"))?;
        // The calls of the standard library are those of any stream socket.
        let listener = TcpListener::from(socket);
        thread::spawn(move || serve_streams(&listener, &name, &AtomicBool::new(false)));
        Ok(address)
    })
}

/// Connects from a host, reads who answers, and sends `size` bytes there and back.
///
/// # Errors
/// Refused, or nobody answers.
pub fn kernel_ask(host: &Host, to: SocketAddr, size: usize) -> Result<Answer> {
    host.run(|| {
        let socket = socket(to.ip()).context("SCTP socket")?;
        let limit = libc::timeval { tv_sec: 10, tv_usec: 0 };
        for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
            // SAFETY: the value lives during the call, which gets its true size.
            let done = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const limit).cast(),
                    size_of::<libc::timeval>() as libc::socklen_t,
                )
            };
            ensure!(done == 0, "time limit of an SCTP socket: {}", io::Error::last_os_error());
        }
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
            .with_context(|| format!("connect to {to}"))?;
        ask_on(TcpStream::from(socket), &vec![b'?'; size]).with_context(|| format!("ask {to}"))
    })
}
