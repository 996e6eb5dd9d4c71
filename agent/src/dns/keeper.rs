//! A tiny process that holds the DNS sockets while the agent is away: what comes meanwhile waits in them.
//!
//! It is this program with another first argument, lives through the agent's death, gives the sockets to the next agent,
//! and ends when told to or when no agent has come for some minutes. Must not know: what the sockets are for.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recvmsg, sendmsg, socket,
};

/// The first argument of the process.
pub const ARGUMENT: &str = "dns-sockets";
/// The control group it makes for itself beside the service manager's unit.
pub const CGROUP: &str = "pagurus-dns-sockets";
/// How long sockets are held without an agent.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a process that was started may take until it can be reached, and an answer of it.
const START: Duration = Duration::from_secs(3);
/// The most sockets in one message.
const MOST: usize = 16;

const TAKE: u8 = b'T';
const KEEP: u8 = b'K';
const END: u8 = b'E';
const DONE: u8 = b'D';

/// How the process is started, and where it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its socket.
    pub socket: PathBuf,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

impl Settings {
    /// This program itself.
    pub fn own(socket: PathBuf) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program's file")?;
        let command = vec![program.into(), ARGUMENT.into(), socket.clone().into()];
        Ok(Self { socket, command })
    }
}

/// The connection to the process: as long as it is open, the process knows of an agent.
#[derive(Debug)]
pub(super) struct Keeper(OwnedFd);

impl Keeper {
    /// Connects to the process, if it is there.
    pub(super) fn find(settings: &Settings) -> Option<Self> {
        connection(&settings.socket).ok().map(Self)
    }

    /// Starts the process and connects to it.
    pub(super) fn start(settings: &Settings) -> anyhow::Result<Self> {
        if let Some(directory) = settings.socket.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("make directory {}", directory.display()))?;
        }
        let [program, arguments @ ..] = &*settings.command else { bail!("no program to start") };
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made. The process is forked once more, so that it is nobody's
        // child and nobody has to wait for it.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::fork() {
                    -1 => Err(io::Error::last_os_error()),
                    0 => Ok(()),
                    _ => libc::_exit(0),
                }
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {} to hold the DNS sockets", Path::new(program).display()))?;
        child.wait().context("wait for the process that holds the DNS sockets")?;
        let begun = Instant::now();
        loop {
            match connection(&settings.socket) {
                Ok(connection) => return Ok(Self(connection)),
                Err(error) if begun.elapsed() > START => {
                    return Err(error).with_context(|| {
                        format!(
                            "reach the process that holds the DNS sockets at {}",
                            settings.socket.display()
                        )
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The sockets that the process holds; it goes on holding them.
    pub(super) fn take(&self) -> io::Result<Vec<OwnedFd>> {
        self.call(TAKE, &[])
    }

    /// Gives the process these sockets to hold, in place of those it has.
    pub(super) fn keep(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.call(KEEP, sockets).map(drop)
    }

    fn call(&self, operation: u8, sockets: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
        send(self.0.as_fd(), operation, sockets)?;
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(START).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, wait)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match receive(self.0.as_fd())? {
            Some((DONE, sockets)) => Ok(sockets),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Tells the process to end; false if there is none.
pub fn end(settings: &Settings) -> io::Result<bool> {
    let Some(keeper) = Keeper::find(settings) else { return Ok(false) };
    keeper.call(END, &[]).map(|_| true)
}

/// Whether there is such a process.
pub fn is_there(settings: &Settings) -> bool {
    Keeper::find(settings).is_some()
}

fn endpoint() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

fn connection(path: &Path) -> io::Result<OwnedFd> {
    let socket = endpoint()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

fn send(to: BorrowedFd<'_>, operation: u8, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&[operation])], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// A message and the sockets that came with it; `None` at the end of the connection.
fn receive(from: BorrowedFd<'_>) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut byte = [0];
    let mut control = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
            sockets.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    let length = message.bytes;
    Ok((length > 0).then_some((byte[0], sockets)))
}

/// The process. Ends when told to, or without an agent for too long.
pub fn main(path: &Path) -> anyhow::Result<()> {
    leave_service();
    let Some(listener) = listen_at(path)? else { return Ok(()) };
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut agents: Vec<OwnedFd> = Vec::new();
    let mut alone_since = Instant::now();
    loop {
        let wait = if agents.is_empty() {
            let left = PATIENCE.saturating_sub(alone_since.elapsed());
            if left.is_zero() {
                break;
            }
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        let mut fds: Vec<PollFd<'_>> = [&listener]
            .into_iter()
            .chain(&agents)
            .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for agents"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut next = Vec::new();
        for (agent, is_ready) in agents.into_iter().zip(ready.iter().skip(1)) {
            if !is_ready {
                next.push(agent);
                continue;
            }
            let answer: Vec<BorrowedFd<'_>> = match receive(agent.as_fd()) {
                Ok(Some((KEEP, sockets))) => {
                    held = sockets;
                    Vec::new()
                }
                Ok(Some((TAKE, _))) => held.iter().map(|socket| socket.as_fd()).collect(),
                Ok(Some((END, _))) => {
                    // The path goes first: who connects after the answer is to find nobody.
                    let _ = std::fs::remove_file(path);
                    let _ = send(agent.as_fd(), DONE, &[]);
                    return Ok(());
                }
                _ => continue,
            };
            if send(agent.as_fd(), DONE, &answer).is_ok() {
                next.push(agent);
            }
        }
        agents = next;
        if ready.first() == Some(&true)
            && let Ok(agent) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
            agents.push(unsafe { OwnedFd::from_raw_fd(agent) });
        }
        if !agents.is_empty() {
            alone_since = Instant::now();
        }
    }
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

/// Listens; `None` if another such process does already.
fn listen_at(path: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let socket = endpoint()?;
    let address = UnixAddr::new(path)?;
    let told = || format!("listen on {}", path.display());
    if bind(socket.as_raw_fd(), &address).is_err() {
        if connection(path).is_ok() {
            return Ok(None);
        }
        // Left behind by one that was killed.
        let _ = std::fs::remove_file(path);
        bind(socket.as_raw_fd(), &address).with_context(told)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(told)?;
    listen(&socket, Backlog::new(8)?).with_context(told)?;
    Ok(Some(socket))
}

/// Leaves the control group of the service manager's unit, which ends all processes in it with the agent. Where that is
/// not possible, the sockets end with the unit, and the next agent makes new ones.
fn leave_service() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return };
    let Some((slice, unit)) = own.rsplit_once('/').or(Some(("", own))) else { return };
    if unit.ends_with(".service") {
        let group = Path::new("/sys/fs/cgroup").join(slice).join(CGROUP);
        if std::fs::create_dir_all(&group).is_ok() {
            let _ = std::fs::write(group.join("cgroup.procs"), "0");
        }
    }
}
