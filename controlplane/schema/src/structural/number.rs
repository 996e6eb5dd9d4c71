//! Numbers as messages show them, and which of them fit a type. It must not know schemas.

use serde_json::Number;

/// The largest integer that every reader of JSON takes exactly, plus one.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// Whether the number was given as an integer.
pub(super) fn as_integer(number: &Number) -> Option<i64> {
    number.as_i64()
}

/// Whether a number with a fraction part is a whole one after all.
pub(super) fn is_whole(number: f64) -> bool {
    if !number.is_finite() || !(-EXACT..=EXACT).contains(&number) {
        return false;
    }
    let difference = (number - number.round()).abs();
    difference == 0.0 || difference < 1e-9 * number.abs().min(1.0)
}

/// A float as Go prints it: with an exponent where that is below -4 or above 5.
pub(super) fn shown(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or_default();
    if (-4..6).contains(&power) {
        return format!("{number}");
    }
    format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_go_prints_them() {
        for (number, expected) in [
            (2.5, "2.5"),
            (0.0, "0"),
            (-3.0, "-3"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e30, "1e+30"),
        ] {
            assert_eq!(shown(number), expected);
        }
    }

    #[test]
    fn whole_numbers() {
        for (number, expected) in [(2.0, true), (2.5, false), (1e20, false), (-7.0, true), (0.1, false)] {
            assert_eq!(is_whole(number), expected, "{number}");
        }
    }
}
