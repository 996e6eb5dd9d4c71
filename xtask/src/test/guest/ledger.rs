//! What became of each test of a run: told line by line, and summed up per part.
//!
//! Must not know: where the tests run.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    NotRun,
    Passed,
    /// Why.
    Failed(String),
    Skipped,
}

/// The test that is running.
struct Running {
    place: usize,
    begun: Instant,
    said: Vec<String>,
}

/// The tests of a run, in order, and what became of them.
pub struct Ledger {
    tests: Vec<(String, Outcome, Duration)>,
    running: Option<Running>,
    /// After so many seconds a test is ended.
    limit: u32,
    begun: Instant,
}

/// What a part of the tests came to.
#[derive(Default)]
struct Sum {
    passed: u32,
    failed: u32,
    skipped: u32,
    time: Duration,
}

impl Ledger {
    pub fn new(tests: Vec<String>, limit: u32) -> Self {
        let tests = tests.into_iter().map(|name| (name, Outcome::NotRun, Duration::ZERO)).collect();
        Self { tests, running: None, limit, begun: Instant::now() }
    }

    /// The tests that have not been run.
    pub fn left(&self) -> Vec<String> {
        let left = self.tests.iter().filter(|(_, outcome, _)| *outcome == Outcome::NotRun);
        left.map(|(name, _, _)| name.clone()).collect()
    }

    /// A test begins.
    pub fn begin(&mut self, test: &str) {
        self.end(|_| Outcome::Failed("its end was not heard of".to_owned()));
        let place = self.tests.iter().position(|(name, _, _)| name == test);
        self.running = place.map(|place| Running { place, begun: Instant::now(), said: Vec::new() });
    }

    /// A line that is no mark.
    pub fn hear(&mut self, line: &str) {
        match &mut self.running {
            Some(running) => running.said.push(line.to_owned()),
            None => println!("vm: {line}"),
        }
    }

    /// The test that is running has ended.
    pub fn over(&mut self, code: &str) {
        let limit = self.limit;
        self.end(|said| match code {
            // A test that found the machine lacking passes for the harness; it is counted for what it is.
            "0" if said
                .iter()
                .any(|line| own_words(line).is_some_and(|words| words.starts_with("SKIPPED"))) =>
            {
                Outcome::Skipped
            }
            "0" => Outcome::Passed,
            "124" | "137" => Outcome::Failed(format!("not over within {limit} s")),
            _ => Outcome::Failed(format!("exit code {code}")),
        });
    }

    /// The guest is no more.
    pub fn death(&mut self, why: &str) {
        let Some(running) = &self.running else {
            println!("vm: THE GUEST DIED: {why}");
            return;
        };
        println!("vm: THE GUEST DIED in {}: {why}", self.tests[running.place].0);
        self.end(|_| Outcome::Failed(format!("the guest died: {why}")));
    }

    fn end(&mut self, outcome: impl FnOnce(&[String]) -> Outcome) {
        let Some(Running { place, begun, said }) = self.running.take() else { return };
        let outcome = outcome(&said);
        let time = begun.elapsed();
        let done = 1 + self.tests.iter().filter(|(_, outcome, _)| *outcome != Outcome::NotRun).count();
        let (name, word) = (&self.tests[place].0, outcome.word());
        println!("vm: [{done}/{}] {name} ... {word} ({:.1} s)", self.tests.len(), time.as_secs_f64());
        for line in &said {
            match own_words(line) {
                _ if outcome.is_failure() => println!("        {line}"),
                Some(words) => println!("        {words}"),
                None => {}
            }
        }
        self.tests[place].1 = outcome;
        self.tests[place].2 = time;
    }

    fn sums(&self) -> BTreeMap<&str, Sum> {
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for (name, outcome, time) in &self.tests {
            let sum = sums.entry(part(name)).or_default();
            sum.time += *time;
            match outcome {
                Outcome::Passed => sum.passed += 1,
                Outcome::Skipped => sum.skipped += 1,
                Outcome::Failed(_) | Outcome::NotRun => sum.failed += 1,
            }
        }
        sums
    }

    /// Prints what everything came to.
    ///
    /// # Errors
    /// Not every test passed, or none did.
    pub fn close(mut self) -> Result<()> {
        self.end(|_| Outcome::Failed("its end was not heard of".to_owned()));
        println!("vm: {:<28}{:>8}{:>8}{:>8}{:>9}", "part", "passed", "failed", "skipped", "seconds");
        let mut total = Sum::default();
        for (part, sum) in self.sums() {
            println!("vm: {part:<28}{}", sum.row());
            total.passed += sum.passed;
            total.failed += sum.failed;
            total.skipped += sum.skipped;
            total.time += sum.time;
        }
        println!("vm: {:<28}{}", "all", total.row());
        let mut failed = Vec::new();
        for (name, outcome, _) in &self.tests {
            let why = match outcome {
                Outcome::Failed(why) => why,
                Outcome::NotRun => "not run: the guest died too often",
                Outcome::Passed | Outcome::Skipped => continue,
            };
            println!("vm: FAILED {name}: {why} (again: cargo xtask test --vm {name})");
            failed.push(name.as_str());
        }
        println!(
            "{} passed, {} failed, {} skipped, in {:.1} minutes",
            total.passed,
            total.failed,
            total.skipped,
            self.begun.elapsed().as_secs_f64() / 60.0
        );
        if !failed.is_empty() {
            bail!("failed on another kernel: {}", failed.join(", "));
        }
        if total.passed == 0 {
            bail!("no test could be run on another kernel");
        }
        Ok(())
    }
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::NotRun => "not run",
            Self::Passed => "ok",
            Self::Failed(_) => "FAILED",
            Self::Skipped => "skipped",
        }
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl Sum {
    fn row(&self) -> String {
        format!("{:>8}{:>8}{:>8}{:>9.0}", self.passed, self.failed, self.skipped, self.time.as_secs_f64())
    }
}

/// The module a test is in.
fn part(test: &str) -> &str {
    test.rsplit_once("::").map_or(test, |(module, _)| module)
}

/// What a line says beside what the test harness says around every test.
fn own_words(line: &str) -> Option<&str> {
    let line = line.trim();
    // The harness leaves the line open on which it names the test.
    let line = match line.strip_prefix("test ") {
        Some(rest) => rest.split_once(" ... ").map_or("", |(_, own)| own),
        None => line,
    };
    (!matches!(line, "" | "ok") && !line.starts_with("running 1 test")).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(tests: &[&str]) -> Ledger {
        Ledger::new(tests.iter().map(|test| (*test).to_owned()).collect(), 900)
    }

    fn outcome<'a>(ledger: &'a Ledger, test: &str) -> Option<&'a Outcome> {
        ledger.tests.iter().find(|(name, _, _)| name == test).map(|(_, outcome, _)| outcome)
    }

    #[test]
    fn codes() {
        let cases = [
            ("0", "    test a ... ok", Outcome::Passed),
            ("0", "    SKIPPED: built without BPF programs", Outcome::Skipped),
            ("101", "SKIPPED: but then it failed", Outcome::Failed("exit code 101".to_owned())),
            ("124", "", Outcome::Failed("not over within 900 s".to_owned())),
        ];
        for (code, said, wanted) in cases {
            let mut ledger = ledger(&["a::b"]);
            ledger.begin("a::b");
            ledger.hear(said);
            ledger.over(code);
            assert_eq!(outcome(&ledger, "a::b"), Some(&wanted), "{code} {said}");
            let passed = matches!(wanted, Outcome::Passed);
            assert_eq!(ledger.close().is_ok(), passed, "{code} {said}");
        }
    }

    #[test]
    fn what_a_test_says_itself() {
        let cases = [
            ("running 1 test", None),
            ("    test a::b ... ok", None),
            ("test a::b ...", None),
            ("ok", None),
            ("", None),
            ("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; finished in 0.10s", None),
            ("    test a::b ... PAGURUS_SEED=7 is this run", Some("PAGURUS_SEED=7 is this run")),
            ("    connect4: 99 instructions verified", Some("connect4: 99 instructions verified")),
        ];
        for (line, wanted) in cases {
            assert_eq!(own_words(line), wanted, "{line}");
        }
    }

    #[test]
    fn the_test_in_which_the_guest_died() {
        let mut ledger = ledger(&["a::b", "a::c", "d::e"]);
        ledger.begin("a::b");
        ledger.over("0");
        ledger.begin("a::c");
        ledger.death("no sign of life");
        assert_eq!(ledger.left(), ["d::e"], "the others are run all the same");
        assert_eq!(
            outcome(&ledger, "a::c"),
            Some(&Outcome::Failed("the guest died: no sign of life".to_owned()))
        );
        ledger.begin("d::e");
        ledger.over("0");
        assert!(ledger.left().is_empty());
        let sums = ledger.sums();
        assert_eq!((sums["a"].passed, sums["a"].failed, sums["d"].passed), (1, 1, 1));
        let error = ledger.close().expect_err("one failed").to_string();
        assert!(error.contains("a::c") && !error.contains("a::b"), "{error}");
    }

    #[test]
    fn a_test_that_is_not_run_is_a_failure() {
        let mut ledger = ledger(&["a::b", "a::c"]);
        ledger.begin("a::b");
        ledger.begin("a::c");
        ledger.over("0");
        assert!(ledger.left().is_empty());
        assert!(ledger.close().is_err(), "the end of the first was not heard of");
        assert!(super::tests::ledger(&["a::b"]).close().is_err());
    }
}
