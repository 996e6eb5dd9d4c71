//! When memory, disk or process ids are scarce: thresholds against what is available.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pagurus_controlplane_api::quantity::Quantity;

/// A figure that has a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Bytes of memory that could be had without killing anything.
    MemoryAvailable,
    /// Bytes of the file system with the pods' volumes and logs.
    NodeFsAvailable,
    /// Inodes of it.
    NodeFsInodesFree,
    /// Bytes of the file system with the images.
    ImageFsAvailable,
    /// Process ids.
    PidAvailable,
}

impl Signal {
    const NAMES: [(&'static str, Self); 5] = [
        ("memory.available", Self::MemoryAvailable),
        ("nodefs.available", Self::NodeFsAvailable),
        ("nodefs.inodesFree", Self::NodeFsInodesFree),
        ("imagefs.available", Self::ImageFsAvailable),
        ("pid.available", Self::PidAvailable),
    ];

    /// The signal of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
    }
}

/// How much must be available.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// So much.
    Amount(u64),
    /// This share of the whole, in percent.
    Percent(f64),
}

impl Threshold {
    /// Reads `100Mi` or `10%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| format!("{text:?} is no percentage"))?;
            return if (0.0..=100.0).contains(&percent) {
                Ok(Self::Percent(percent))
            } else {
                Err(format!("{text:?} is not between 0% and 100%"))
            };
        }
        let quantity: Quantity = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        u64::try_from(quantity.value()).map(Self::Amount).map_err(|_| format!("{text:?} is negative"))
    }

    fn of(self, whole: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            // The whole is a size of a disk: far below where a double loses bytes that matter.
            Self::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

/// The thresholds of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Threshold>);

impl Default for Thresholds {
    /// The kubelet's.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Signal::MemoryAvailable, Threshold::Amount(100 << 20)),
            (Signal::NodeFsAvailable, Threshold::Percent(10.0)),
            (Signal::NodeFsInodesFree, Threshold::Percent(5.0)),
            (Signal::ImageFsAvailable, Threshold::Percent(15.0)),
        ]))
    }
}

impl Thresholds {
    /// The thresholds named, and no others.
    pub fn new(thresholds: impl IntoIterator<Item = (Signal, Threshold)>) -> Self {
        Self(thresholds.into_iter().collect())
    }

    /// How much of `whole` must be available; nothing if there is no threshold.
    pub fn amount(&self, signal: Signal, whole: u64) -> u64 {
        self.0.get(&signal).map_or(0, |threshold| threshold.of(whole))
    }
}

/// What is available of what, by signal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage(pub BTreeMap<Signal, (u64, u64)>);

/// What is scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

impl Pressure {
    fn of(thresholds: &Thresholds, usage: &Usage) -> Self {
        let scarce = |signal| {
            usage
                .0
                .get(&signal)
                .is_some_and(|(available, whole)| *available < thresholds.amount(signal, *whole))
        };
        Self {
            memory: scarce(Signal::MemoryAvailable),
            disk: [Signal::NodeFsAvailable, Signal::NodeFsInodesFree, Signal::ImageFsAvailable]
                .into_iter()
                .any(scarce),
            pids: scarce(Signal::PidAvailable),
        }
    }
}

/// Keeps a pressure standing for a while after it was last seen, so that it does not come and go.
#[derive(Clone, Copy, Debug, Default)]
pub struct PressureClock {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl PressureClock {
    /// Takes in what is seen now and says what is to be reported.
    pub fn observe(
        &mut self,
        thresholds: &Thresholds,
        usage: &Usage,
        now: Timestamp,
        period: SignedDuration,
    ) -> Pressure {
        let seen = Pressure::of(thresholds, usage);
        let hold = |seen: bool, last: &mut Option<Timestamp>| {
            if seen {
                *last = Some(now);
            }
            last.is_some_and(|last| seen || now.duration_since(last) < period)
        };
        Pressure {
            memory: hold(seen.memory, &mut self.memory),
            disk: hold(seen.disk, &mut self.disk),
            pids: hold(seen.pids, &mut self.pids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read() {
        let check = |text: &str, expected: Option<Threshold>| {
            assert_eq!(Threshold::parse(text).ok(), expected, "{text}")
        };
        check("100Mi", Some(Threshold::Amount(100 << 20)));
        check("10%", Some(Threshold::Percent(10.0)));
        check("0%", Some(Threshold::Percent(0.0)));
        check("101%", None);
        check("-1%", None);
        check("-5", None);
        check("x", None);
    }

    #[test]
    fn scarcity() {
        let check = |signal, available, whole, expected: Pressure| {
            let usage = Usage(BTreeMap::from([(signal, (available, whole))]));
            assert_eq!(
                Pressure::of(&Thresholds::default(), &usage),
                expected,
                "{signal:?} {available}/{whole}"
            );
        };
        let none = Pressure::default();
        check(Signal::MemoryAvailable, 100 << 20, 1 << 30, none);
        check(Signal::MemoryAvailable, (100 << 20) - 1, 1 << 30, Pressure { memory: true, ..none });
        check(Signal::NodeFsAvailable, 10, 100, none);
        check(Signal::NodeFsAvailable, 9, 100, Pressure { disk: true, ..none });
        check(Signal::NodeFsInodesFree, 4, 100, Pressure { disk: true, ..none });
        check(Signal::ImageFsAvailable, 14, 100, Pressure { disk: true, ..none });
        check(Signal::PidAvailable, 0, 100, none);
    }

    #[test]
    fn pressure_stands_for_a_while() {
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        let usage = |available| Usage(BTreeMap::from([(Signal::MemoryAvailable, (available, 1 << 30))]));
        let mut clock = PressureClock::default();
        let mut observe = |available, second| {
            clock
                .observe(
                    &Thresholds::default(),
                    &usage(available),
                    at(second),
                    SignedDuration::from_secs(300),
                )
                .memory
        };
        assert!(!observe(1 << 29, 0));
        assert!(observe(1, 10));
        assert!(observe(1 << 29, 20));
        assert!(observe(1 << 29, 309));
        assert!(!observe(1 << 29, 310));
    }
}
