//! The listening sockets: the one asked for, and those the parent process hands over (`LISTEN_FDS`).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context, Result, bail};

/// Opens the socket to listen on.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} of {} is taken; stop what listens there or choose another --secure-port",
            address.port(),
            address.ip()
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{} is no address of this machine; choose another --bind-address", address.ip())
        }
        _ => anyhow::Error::new(e).context(format!("cannot listen on {address}")),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("cannot set up the socket of {address}"))?;
    Ok(listener)
}

/// The first descriptor that socket activation hands over.
const FIRST_INHERITED: i32 = 3;

/// Takes the sockets that the parent process opened: `LISTEN_FDS` of them from descriptor 3 on, if `LISTEN_PID` is
/// absent or this process. Must be called before anything else opens or adopts descriptors by number.
pub fn inherited() -> Result<Vec<TcpListener>> {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(Vec::new()) };
    if std::env::var("LISTEN_PID").is_ok_and(|pid| pid != std::process::id().to_string()) {
        return Ok(Vec::new());
    }
    let count: i32 = match count.parse() {
        Ok(count @ 0..=64) => count,
        _ => bail!("LISTEN_FDS: \"{count}\" is not a number of sockets"),
    };
    (FIRST_INHERITED..FIRST_INHERITED + count).map(adopt).collect()
}

fn adopt(fd: i32) -> Result<TcpListener> {
    // SAFETY: fcntl with F_GETFD only reads the flags of a descriptor and reports one that is not open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        bail!("LISTEN_FDS: descriptor {fd} is not open");
    }
    // SAFETY: as above; marks the descriptor so that children do not inherit it.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: the descriptor is open, and by the contract of socket activation it is this process's to own.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    listener
        .local_addr()
        .with_context(|| format!("LISTEN_FDS: descriptor {fd} is not a listening TCP socket"))?;
    listener.set_nonblocking(true).with_context(|| format!("cannot set up inherited socket {fd}"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_named() {
        let first = bind("127.0.0.1:0".parse().expect("address")).expect("free port");
        let address = first.local_addr().expect("bound");
        let error = bind(address).expect_err("taken").to_string();
        assert!(error.contains(&format!("port {} of 127.0.0.1 is taken", address.port())), "{error}");
    }
}
