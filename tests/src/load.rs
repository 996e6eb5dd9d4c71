//! Constant traffic while something happens: clients at any number of places, and what they have seen in the end.
//!
//! A place is a [`Host`] of a topology, or the namespaces of a process, such as a pod of a cluster. Must not know: what happens
//! meanwhile.

mod client;

pub use client::{Counts, Kind};

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

use crate::eventually::eventually;
use crate::topology::Host;
use client::Control;

/// Reads [`Counts::line`].
fn parse(line: &str) -> Option<Counts> {
    let mut words = line.trim_end().splitn(4, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let (answered, failed, longest) = (number()?, number()?, Duration::from_micros(number()?));
    let problem = words.next().filter(|rest| !rest.is_empty()).map(str::to_owned);
    Some(Counts { answered, failed, longest, problem })
}

/// Where a program runs: in a network namespace, and perhaps in a cgroup.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it is called in reports.
    pub name: String,
    /// File of the network namespace.
    pub netns: PathBuf,
    /// Directory of the cgroup2.
    pub cgroup: Option<PathBuf>,
}

impl Place {
    /// A command that is run there.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn command(&self, program: &str) -> Result<Command> {
        let netns = fs::File::open(&self.netns).with_context(|| format!("open {}", self.netns.display()))?;
        let procs = self.cgroup.as_ref().map(|cgroup| cgroup.join("cgroup.procs"));
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only system calls are made; the path and the file are from before.
        unsafe {
            command.pre_exec(move || {
                if let Some(procs) = &procs {
                    fs::write(procs, "0")?;
                }
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            });
        }
        Ok(command)
    }
}

/// A client that runs.
enum Running {
    Thread(Arc<Control>, JoinHandle<Counts>),
    Process(Child, BufReader<ChildStdout>),
}

/// Clients that run, until [`finish`](Self::finish).
#[derive(Default)]
pub struct Load {
    clients: Vec<(String, Running)>,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clients.iter().map(|(name, _)| name)).finish()
    }
}

impl Load {
    /// Starts a client as a thread of this process.
    ///
    /// # Errors
    /// The place cannot be entered.
    pub fn add(&mut self, host: &Host, kind: Kind, to: SocketAddr, pause: Duration) -> Result<()> {
        let control = Arc::new(Control::default());
        let seen = control.clone();
        let thread = host.run(|| Ok(std::thread::spawn(move || client::run(kind, to, pause, &seen))))?;
        let name = format!("{} from {} to {to}", kind.word(), host.name);
        self.clients.push((name, Running::Thread(control, thread)));
        Ok(())
    }

    /// Starts a client as a process of its own, by the program `probe` of the test images; returns when its first question was
    /// answered.
    ///
    /// # Errors
    /// The program cannot be started there, or the first question failed.
    pub fn add_process(
        &mut self,
        place: &Place,
        probe: &str,
        kind: Kind,
        to: SocketAddr,
        pause: Duration,
    ) -> Result<()> {
        let mut command = place.command(probe)?;
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        command.args(["load", kind.word(), &ip, &port, &pause.as_micros().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {probe} in {}", place.name))?;
        let mut said = BufReader::new(child.stdout.take().context("no output")?);
        let name = format!("{} from {} to {to}", kind.word(), place.name);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let begun = line.trim_end() == "begun";
        self.clients.push((name.clone(), Running::Process(child, said)));
        ensure!(begun, "{name}: {line:?}");
        Ok(())
    }

    /// Waits until every client that is a thread has asked so many times more.
    ///
    /// # Errors
    /// One is stuck.
    pub fn go_on(&self, times: u64) -> Result<()> {
        let asked = |control: &Control| control.asked.load(Ordering::Relaxed);
        let threads = || {
            self.clients.iter().filter_map(|(name, running)| match running {
                Running::Thread(control, _) => Some((name, control)),
                Running::Process(..) => None,
            })
        };
        let before: Vec<u64> = threads().map(|(_, control)| asked(control)).collect();
        for ((name, control), before) in threads().zip(before) {
            eventually(&format!("{name} goes on"), Duration::from_secs(30), || {
                Ok((asked(control) >= before + times).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Ends all clients; what they have seen.
    ///
    /// # Errors
    /// A client ended before.
    pub fn finish(mut self) -> Result<Report> {
        let mut report = Report::default();
        for (_, running) in &mut self.clients {
            match running {
                Running::Thread(control, _) => control.stop.store(true, Ordering::Relaxed),
                // The end of its input tells it to end.
                Running::Process(child, _) => drop(child.stdin.take()),
            }
        }
        for (name, running) in self.clients.drain(..) {
            let counts = match running {
                Running::Thread(_, thread) => match thread.join() {
                    Ok(counts) => counts,
                    Err(_) => bail!("{name}: panicked"),
                },
                Running::Process(mut child, mut said) => {
                    let mut line = String::new();
                    said.read_to_string(&mut line)?;
                    child.wait()?;
                    parse(&line).with_context(|| format!("{name}: said {line:?}"))?
                }
            };
            report.clients.push((name, counts));
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for (_, running) in &mut self.clients {
            match running {
                Running::Thread(control, _) => control.stop.store(true, Ordering::Relaxed),
                Running::Process(child, _) => {
                    // It may have ended already.
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        }
    }
}

/// What all clients have seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each with its name.
    pub clients: Vec<(String, Counts)>,
}

impl Report {
    /// Answers that all have got.
    pub fn answered(&self) -> u64 {
        self.clients.iter().map(|(_, counts)| counts.answered).sum()
    }

    /// Questions of all that failed.
    pub fn failed(&self) -> u64 {
        self.clients.iter().map(|(_, counts)| counts.failed).sum()
    }

    /// The longest that any had to wait.
    pub fn longest(&self) -> Duration {
        self.clients.iter().map(|(_, counts)| counts.longest).max().unwrap_or_default()
    }

    /// Checks that nothing failed and everybody was served. A datagram is never sent again, so that each one lost is a failure.
    ///
    /// # Errors
    /// Something was lost; all that is known.
    pub fn nothing_lost(&self) -> Result<()> {
        let fine = |counts: &Counts| counts.failed == 0 && counts.answered > 0;
        let bad: Vec<String> = self
            .clients
            .iter()
            .filter(|(_, counts)| !fine(counts))
            .map(|(name, counts)| format!("{name}: {counts:?}"))
            .collect();
        ensure!(bad.is_empty(), "lost something:\n{}\nof all:\n{self}", bad.join("\n"));
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counts) in &self.clients {
            let longest = counts.longest.as_secs_f64() * 1000.0;
            writeln!(
                f,
                "{name}: {} answers, {} failed, {longest:.1} ms at most",
                counts.answered, counts.failed
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_are_written() {
        for problem in [None, Some("connect: Connection refused (os error 111)".to_owned())] {
            let longest = Duration::from_micros(12_345);
            let counts = Counts { answered: 7, failed: 2, longest, problem };
            assert_eq!(parse(&counts.line()), Some(counts));
        }
        assert_eq!(parse("7 two 3 "), None);
    }
}
