//! How fast this machine is. An emulated one is told apart by one setting: waiting times are longer there, repetitions fewer.
//!
//! Must not know: what is waited for or repeated.

use std::sync::OnceLock;
use std::time::Duration;

/// How many times slower than an ordinary machine this one is: a whole number, 1 if it is not set.
pub const VARIABLE: &str = "PAGURUS_SLOWNESS";

/// What [`VARIABLE`] says.
///
/// # Panics
/// It says no whole number from 1 on.
pub fn slowness() -> u32 {
    static VALUE: OnceLock<u32> = OnceLock::new();
    *VALUE.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(text) => read(&text).unwrap_or_else(|| panic!("{VARIABLE}={text} is no whole number from 1 on")),
        Err(_) => 1,
    })
}

fn read(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number > 0)
}

/// How long to wait here for what takes less than `limit` on an ordinary machine.
pub fn patience(limit: Duration) -> Duration {
    limit * slowness()
}

/// How often to do here what is done `count` times on an ordinary machine, but `least` times at least.
pub fn repetitions(count: u64, least: u64) -> u64 {
    (count / u64::from(slowness())).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, wanted) in [("1", Some(1)), ("10", Some(10)), ("0", None), ("-1", None), ("fast", None)] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }
}
