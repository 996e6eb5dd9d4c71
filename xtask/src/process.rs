//! Running other programs: errors name the command line and show what it said.

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// The command line, for messages.
pub fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs with our own output; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs quietly; its standard output is the answer, its standard error part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// As [`output`], of what need not be text.
pub fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&out.stdout) } else { said };
        bail!("`{}` failed ({}): {}", line(command), out.status, said.trim());
    }
    Ok(out.stdout)
}

/// Has the kernel end the child, at once, when the thread that starts it ends, and so however this process ends (prctl(2),
/// PR_SET_PDEATHSIG). The child's own children are not meant.
pub fn end_with_us(command: &mut Command) -> &mut Command {
    let us = std::process::id();
    // SAFETY: between fork and exec only system calls that take and return numbers.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // Had we ended before it asked, it would be somebody else's child, and never told.
            if libc::getppid() != us as i32 {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}

/// A command from words split at white space; for fixed command lines only.
pub fn words(text: &str) -> Command {
    let mut parts = text.split_whitespace();
    let mut command = Command::new(parts.next().unwrap_or_default());
    command.args(parts);
    command
}

/// The first directory of PATH (and the usual system ones) that holds an executable `name`.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    path.split(':')
        .chain(system)
        .filter(|d| !d.is_empty())
        .map(|d| std::path::Path::new(d).join(name))
        .find(|p| p.is_file())
}
