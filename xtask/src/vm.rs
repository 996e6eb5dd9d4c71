//! Another kernel: Debian's 6.12 in a machine emulated in software, whose root is this machine's own, read only, with a layer on top
//! that goes with it. For what the kernel here lacks (SCTP sockets), and as a second kernel for the BPF programs.
//!
//! Slow (an order of magnitude slower than here): for function, not for figures. Must not know: what is run there.

mod kernel;

use crate::{process, setup, workspace};
use anyhow::{Context as _, Result, bail};
pub use kernel::Kernel;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Before the exit code, on the last line that the guest writes.
const END: &str = "PAGURUS-VM-END ";
/// What the guest writes now and then, only to show that it lives.
const ALIVE: &str = "PAGURUS-VM-ALIVE";
/// The guest is given up when it has been silent for so long: many times longer than it takes for a sign of life.
const SILENCE: Duration = Duration::from_secs(600);
/// The guest's memory.
const MEMORY: &str = "4G";

/// A process of ours that ends with us, however we end.
struct Ours(Child);

impl Ours {
    fn start(command: &mut Command) -> Result<Self> {
        let child = process::end_with_us(command).spawn();
        child.map(Self).with_context(|| format!("cannot start `{}`", process::line(command)))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Either it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where what the guest needs is kept.
///
/// # Errors
/// It cannot be made.
pub fn folder() -> Result<PathBuf> {
    let folder = workspace::target().join("vm");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script came to its end, with this exit code.
    Code(i32),
    /// The guest did not get there; why.
    Died(String),
}

/// Runs a shell script as root in the guest, with our environment's PATH; each line of its output goes to `line`, with those that the
/// kernel writes. What the machine needs while it runs is kept in a directory in `folder`.
///
/// # Errors
/// The guest cannot be started.
pub fn run(kernel: &Kernel, folder: &Path, script: &str, mut line: impl FnMut(&str)) -> Result<End> {
    let folder = tempfile::tempdir_in(folder)
        .with_context(|| format!("cannot make a directory in {}", folder.display()))?;
    let initramfs = kernel.initramfs(folder.path(), &stage(kernel, script))?;
    let socket = folder.path().join("virtiofsd.sock");
    let _files = share_root(&socket)?;
    let mut guest = boot(kernel, &initramfs, &socket)?;
    let output = guest.0.stdout.take().context("the guest has no console")?;
    let (send, lines) = mpsc::sync_channel(1024);
    // Ends with the guest, whose output it reads.
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let mut end = End::Died("it stopped before the script came to its end".to_owned());
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(text) if text.contains(ALIVE) => {}
            Ok(text) => match text.split_once(END).and_then(|(_, number)| number.trim().parse().ok()) {
                Some(code) => {
                    // What is left is thrown away with the guest.
                    end = End::Code(code);
                    break;
                }
                None => line(&text),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                end = End::Died(format!("it said nothing for {} s", SILENCE.as_secs()));
                break;
            }
        }
    }
    // The reader ends with the guest.
    drop((lines, guest));
    let _ = reader.join();
    Ok(end)
}

/// The script of the guest's first process, once its root is there.
fn stage(kernel: &Kernel, script: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!(
        "export PATH='{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin' HOME=/root\n\
         mkdir -p /lib/modules && mount --bind {}/lib/modules /lib/modules\n\
         cd {}\n\
         while sleep 15; do echo {ALIVE}; done &\n\
         (\n{script}\n)\n\
         echo \"{END}$?\"\n\
         sync; echo o > /proc/sysrq-trigger; sleep 60\n",
        kernel.root().display(),
        workspace::root().display(),
    )
}

/// Shares this machine's root, read only, over a socket.
fn share_root(socket: &Path) -> Result<Ours> {
    let mut command = Command::new(setup::VIRTIOFSD);
    command
        .arg(format!("--socket-path={}", socket.display()))
        .args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot", "--rlimit-nofile=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = Ours::start(&mut command)?;
    for _ in 0..100 {
        if socket.exists() {
            return Ok(child);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("`{}` does not listen", process::line(&command))
}

/// Starts the machine; its console is our pipe.
fn boot(kernel: &Kernel, initramfs: &Path, socket: &Path) -> Result<Ours> {
    let cores = std::thread::available_parallelism().map(usize::from).unwrap_or(1);
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", MEMORY])
        .args(["-smp", &cores.to_string()])
        .args(["-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"])
        .arg("-object")
        .arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"))
        .args(["-numa", "node,memdev=memory"])
        .arg("-chardev")
        .arg(format!("socket,id=files,path={}", socket.display()))
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=root"])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(initramfs)
        // A guest that is kept waiting takes its clock for unstable, and the patching of code that follows is more than the emulation of
        // several processors stands: the clock is to be trusted. So is the timer, which a first look may find too late.
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    Ours::start(&mut command)
}

/// Writes a file of the first file system.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
