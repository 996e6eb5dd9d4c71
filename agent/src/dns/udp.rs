//! Datagrams: a thread per socket takes what has come with one system call, answers what is known, and sends the answers
//! with another one. What takes time is handed on.
//!
//! Must not know: what is answered.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::clients::{Clients, Share};
use super::server::{Attempt, Server};

/// Datagrams taken at once.
const BATCH: usize = 32;
/// How long a thread stays awake for a client's next question. Programs ask for a name in several steps (each family, each domain of the
/// search path), one as soon as the last is answered; to wake a sleeping CPU for each takes longer than to answer it.
const AWAKE: Duration = Duration::from_micros(100);
/// The longest question: a name, and EDNS with some options.
const LONGEST: usize = 2048;

/// A question that takes time, and where its answer goes.
pub(super) struct Later {
    pub(super) message: Box<[u8]>,
    pub(super) from: SocketAddr,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) arrived: Instant,
    /// What its client has of the room for such questions.
    pub(super) share: Share,
}

/// Where questions go that take time.
pub(super) struct Queue {
    pub(super) questions: mpsc::Sender<Later>,
    pub(super) clients: Clients,
}

impl Queue {
    /// Whether there was room for it.
    fn take(&self, message: &[u8], from: SocketAddr, socket: &Arc<UdpSocket>, arrived: Instant) -> bool {
        let Some(share) = self.clients.enter(from.ip().to_canonical()) else { return false };
        let question = Later { message: message.into(), from, socket: socket.clone(), arrived, share };
        self.questions.try_send(question).is_ok()
    }
}

/// Ends the threads when dropped.
pub(super) struct Stop {
    is_time: Arc<AtomicBool>,
    _write: OwnedFd,
}

/// How threads see that: by the end of a pipe while they wait, and by the flag while they are busy.
pub(super) struct Stopped {
    is_time: Arc<AtomicBool>,
    read: OwnedFd,
}

impl Drop for Stop {
    fn drop(&mut self) {
        // The pipe is closed after this.
        self.is_time.store(true, Ordering::Relaxed);
    }
}

pub(super) fn stop() -> io::Result<(Stop, Stopped)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let is_time = Arc::new(AtomicBool::new(false));
    Ok((Stop { is_time: is_time.clone(), _write: write }, Stopped { is_time, read }))
}

/// Whether a thread waits for the next question awake: where the last one came soon after the answer before it. Questions that come one
/// by one cost no more than their answers.
#[derive(Default)]
struct Awake {
    answered: Option<Instant>,
    is_worth: bool,
}

impl Awake {
    /// Questions came.
    fn asked(&mut self, now: Instant) {
        self.is_worth = self.is_soon(now);
    }

    /// They are answered.
    fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// Whether to look for the next one without sleeping.
    fn stays(&self, now: impl Fn() -> Instant) -> bool {
        self.is_worth && self.is_soon(now())
    }

    fn is_soon(&self, now: Instant) -> bool {
        self.answered.is_some_and(|answered| now.saturating_duration_since(answered) < AWAKE)
    }
}

/// Answers until told to stop; what has been taken from the socket by then is answered.
pub(super) fn serve(
    socket: &Arc<UdpSocket>,
    stop: &Stopped,
    server: &Server,
    later: &Queue,
) -> io::Result<()> {
    let mut own = server.memory();
    let mut batch = Batch::new();
    let mut awake = Awake::default();
    while !stop.is_time.load(Ordering::Relaxed) {
        let count = match batch.receive(socket) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if awake.stays(Instant::now) {
                    std::thread::yield_now();
                } else {
                    wait(socket, &stop.read)?;
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let arrived = Instant::now();
        awake.asked(arrived);
        let mut answers = 0;
        for number in 0..count {
            let Some(from) = batch.sender(number) else { continue };
            let message = &batch.received[number][..batch.lengths[number]];
            let out = &mut batch.answers[answers];
            out.clear();
            let answered = match server.try_answer(message, None, &mut own, out) {
                Attempt::Answered => true,
                Attempt::Dropped => false,
                Attempt::Later => {
                    let refused = !later.take(message, from, socket, arrived);
                    if refused {
                        server.fail(message, None, out);
                    }
                    refused
                }
            };
            if answered {
                batch.targets[answers] = number;
                answers += 1;
            }
        }
        batch.send(socket, answers);
        awake.answered(Instant::now());
        let elapsed = arrived.elapsed().as_secs_f64();
        for _ in 0..answers {
            server.metrics.latency.observe(elapsed);
        }
    }
    Ok(())
}

/// Waits for datagrams, or for the end.
fn wait(socket: &UdpSocket, stop: &OwnedFd) -> io::Result<()> {
    let watched = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [watched(socket.as_raw_fd()), watched(stop.as_raw_fd())];
    // SAFETY: the array lives through the call, and its length is right.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    Ok(())
}

/// Room for datagrams, and for what the kernel is told about them.
struct Batch {
    received: Vec<Vec<u8>>,
    lengths: [usize; BATCH],
    senders: Vec<libc::sockaddr_storage>,
    sender_lengths: [libc::socklen_t; BATCH],
    answers: Vec<Vec<u8>>,
    /// Whose answer each of them is.
    targets: [usize; BATCH],
}

impl Batch {
    fn new() -> Self {
        Self {
            received: vec![vec![0; LONGEST]; BATCH],
            lengths: [0; BATCH],
            // SAFETY: all zeroes is an address of no family.
            senders: vec![unsafe { MaybeUninit::zeroed().assume_init() }; BATCH],
            sender_lengths: [0; BATCH],
            answers: (0..BATCH).map(|_| Vec::with_capacity(LONGEST)).collect(),
            targets: [0; BATCH],
        }
    }

    /// Takes the datagrams that are there.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|number| libc::iovec {
            iov_base: self.received[number].as_mut_ptr().cast(),
            iov_len: LONGEST,
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|number| {
            // SAFETY: all zeroes is a header of nothing.
            let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            header.msg_hdr.msg_name = (&raw mut self.senders[number]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut parts[number];
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        // SAFETY: every header points to a buffer and an address of the lengths it says, which live through the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (number, header) in headers.iter().enumerate().take(count) {
            self.lengths[number] = (header.msg_len as usize).min(LONGEST);
            self.sender_lengths[number] = header.msg_hdr.msg_namelen;
        }
        Ok(count)
    }

    fn sender(&self, number: usize) -> Option<SocketAddr> {
        let address = &raw const self.senders[number];
        match libc::c_int::from(self.senders[number].ss_family) {
            libc::AF_INET => {
                // SAFETY: storage is large enough and aligned for every family; the kernel wrote this one.
                let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
                let ip = u32::from_be(address.sin_addr.s_addr).into();
                Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
                let (ip, port) = (address.sin6_addr.s6_addr.into(), u16::from_be(address.sin6_port));
                Some(SocketAddrV6::new(ip, port, 0, address.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    /// Sends the first answers, each to its own target. One that cannot be sent is passed over: its client asks again.
    fn send(&mut self, socket: &UdpSocket, count: usize) {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|number| libc::iovec {
            iov_base: self.answers[number].as_mut_ptr().cast(),
            iov_len: self.answers[number].len(),
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|number| {
            let target = self.targets[number];
            // SAFETY: all zeroes is a header of nothing.
            let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            header.msg_hdr.msg_name = (&raw mut self.senders[target]).cast();
            header.msg_hdr.msg_namelen = self.sender_lengths[target];
            header.msg_hdr.msg_iov = &raw mut parts[number];
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let mut sent = 0;
        while sent < count {
            // SAFETY: every header points to a buffer and an address of the lengths it says, which live through the call;
            // `sent` is below `count`, which is at most the length of the array.
            let more = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(sent),
                    (count - sent) as libc::c_uint,
                    0,
                )
            };
            match usize::try_from(more) {
                Ok(more) if more > 0 => sent += more,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => sent += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (&'static [(u64, u64)], u64, bool);

    #[test]
    fn stays_awake_for_those_who_ask_on() {
        let start = Instant::now();
        let at = |micros: u64| start + Duration::from_micros(micros);
        // When questions came and were answered, and whether the thread waits awake so long after the last answer.
        let cases: &[Case] = &[
            (&[], 0, false),
            (&[(0, 10)], 20, false),
            (&[(0, 10), (50, 60)], 70, true),
            (&[(0, 10), (50, 60)], 159, true),
            (&[(0, 10), (50, 60)], 160, false),
            // The last one came late.
            (&[(0, 10), (50, 60), (500, 510)], 520, false),
            (&[(0, 10), (500, 510), (520, 530)], 540, true),
        ];
        for (questions, now, expected) in cases {
            let mut awake = Awake::default();
            for (asked, answered) in *questions {
                awake.asked(at(*asked));
                awake.answered(at(*answered));
            }
            assert_eq!(awake.stays(|| at(*now)), *expected, "{questions:?} at {now}");
        }
    }
}
