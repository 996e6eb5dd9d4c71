//! `cargo xtask test --fuzz`: every fuzz target for a while, one after the other (`fuzz/`, by cargo-fuzz and libFuzzer).
//!
//! Must not know: what the targets do.

use super::Count;
use super::guard::Guard;
use crate::{process, setup, workspace};
use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An input may be so long (bytes), take so long (seconds), and the program be so big (MiB).
const LIMITS: [&str; 3] = ["-max_len=65536", "-timeout=20", "-rss_limit_mb=2048"];
/// How often a line says how far a target has come.
const PROGRESS: Duration = Duration::from_secs(10);
/// So many of its last lines are shown of a target that failed.
const TAIL: usize = 60;

/// Runs the targets whose names hold `filter`, each for so many seconds; the others go on when one fails.
pub fn run(filter: Option<&str>, seconds: u64) -> Result<()> {
    setup::run(&setup::Options::for_fuzz())?;
    let names: Vec<String> =
        targets()?.into_iter().filter(|name| filter.is_none_or(|f| name.contains(f))).collect();
    if names.is_empty() {
        bail!("no fuzz target has {:?} in its name", filter.unwrap_or_default());
    }
    println!("fuzz: building {} targets", names.len());
    build()?;
    let programs = programs()?;
    let mut guard = Guard::start()?;
    let mut count = Count::default();
    let mut failed = Vec::new();
    for name in &names {
        match fuzz(&programs.join(name), name, seconds, &mut guard)? {
            Outcome::Held { inputs } => {
                println!("fuzz: {name}: ok, {inputs} inputs");
                count.passed += 1;
            }
            Outcome::Failed { tail, input } => {
                tail.iter().for_each(|line| println!("{line}"));
                println!("fuzz: {name}: FAILED{}", input.as_deref().map_or_else(String::new, told));
                count.failed += 1;
                failed.push(name.as_str());
            }
        }
    }
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

/// The names of all targets: of their files.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let files = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds them all. Nothing of what is fuzzed is C, so no sanitizer is needed; what else cargo-fuzz wants of a compiler, a stable one gives
/// only if it is told so.
fn build() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder()).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", workspace::target());
    process::run(cargo.args(["fuzz", "build", "--sanitizer", "none"]))
}

/// Where cargo-fuzz puts what it builds: below the name of the machine it is for.
fn programs() -> Result<PathBuf> {
    let said = process::output(Command::new("rustc").arg("-vV"))?;
    let host =
        said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    Ok(workspace::target().join(host).join("release"))
}

/// How a target's time ended.
enum Outcome {
    Held { inputs: u64 },
    Failed { tail: VecDeque<String>, input: Option<PathBuf> },
}

fn fuzz(program: &Path, name: &str, seconds: u64, guard: &mut Guard) -> Result<Outcome> {
    let work = workspace::target().join("fuzz");
    let (seeds, words) = (work.join("seeds").join(name), work.join("words"));
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|part| folder().join(part).join(name));
    for made in [&corpus, &artifacts, &seeds] {
        std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    let mut command = Command::new(program);
    command.current_dir(folder()).env("PAGURUS_FUZZ_FOLDER", &work).arg(&corpus).arg(&seeds);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(LIMITS).arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    command.arg(format!("-dict={}", words.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = process::end_with_us(&mut command)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    guard.group(Some(&child))?;
    let said = child.stderr.take().context("a target has no standard error")?;
    let heard = hear(name, said)?;
    let status = child.wait()?;
    guard.group(None)?;
    Ok(if status.success() {
        Outcome::Held { inputs: heard.inputs }
    } else {
        Outcome::Failed { tail: heard.tail, input: heard.input }
    })
}

/// What libFuzzer said.
#[derive(Default)]
struct Heard {
    inputs: u64,
    tail: VecDeque<String>,
    input: Option<PathBuf>,
}

impl Heard {
    fn take(&mut self, line: String) {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.inputs = number.trim().parse().unwrap_or_default();
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(PathBuf::from(path.trim()));
        }
        // New paths are told by the thousand; what went wrong is not among these lines.
        if !line.starts_with('#') {
            self.tail.push_back(line);
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
    }
}

/// Listens to the end, and says now and then how far it is.
fn hear(name: &str, said: impl Read) -> Result<Heard> {
    let (mut heard, mut told) = (Heard::default(), Instant::now());
    for line in BufReader::new(said).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if line.starts_with('#') && told.elapsed() >= PROGRESS {
            told = Instant::now();
            println!("fuzz: {name}: {line}");
        }
        heard.take(line);
    }
    Ok(heard)
}

/// The input that failed: where it lies, and how it begins.
fn told(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let begin = &bytes[..bytes.len().min(2000)];
    format!("\n  input of {} bytes, {}:\n  {}", bytes.len(), path.display(), begin.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says() {
        let said = "#2\tINITED cov: 3\nthread panicked\nartifact_prefix='a/'; Test unit written to a/crash-1\nstat::number_of_executed_units: 17\n";
        let heard = hear("x", said.as_bytes()).expect("text");
        assert_eq!((heard.inputs, heard.input.as_deref()), (17, Some(Path::new("a/crash-1"))));
        assert_eq!(heard.tail.len(), 3);
    }

    #[test]
    fn there_are_targets() {
        assert!(targets().expect("the folder of targets").iter().any(|name| name == "json"));
    }
}
