//! Checks schedules in Cron's format, with the words of the parser that the API has always used. Must not know Jobs.

/// What is wrong with a schedule, if anything.
pub(super) fn complaint(schedule: &str) -> Option<String> {
    check(schedule).err()
}

struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    first: u32,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[], first: 0 },
    Field { low: 0, high: 23, names: &[], first: 0 },
    Field { low: 1, high: 31, names: &[], first: 0 },
    Field { low: 1, high: 12, names: &MONTHS, first: 1 },
    Field { low: 0, high: 6, names: &DAYS, first: 0 },
];

fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if schedule.starts_with('@') {
        return descriptor(schedule);
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',') {
            self::range(range, field)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(()),
        _ => match text.strip_prefix("@every ") {
            Some(duration) if is_duration(duration) => Ok(()),
            Some(duration) => Err(format!(
                "failed to parse duration {text}: time: invalid duration {}",
                pagurus_controlplane_api::go::quote(duration)
            )),
            None => Err(format!("unrecognized descriptor: {text}")),
        },
    }
}

/// A Go duration: numbers with units, such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let some = !rest.is_empty();
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let after = &rest[number..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let known = ["ns", "us", "µs", "ms", "s", "m", "h"].contains(&&after[..unit]);
        if number == 0 || !known {
            return false;
        }
        rest = &after[unit..];
    }
    some
}

fn range(text: &str, field: &Field) -> Result<(), String> {
    let (span, step) = match text.split('/').collect::<Vec<_>>()[..] {
        [span] => (span, None),
        [span, step] => (span, Some(step)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let limits: Vec<&str> = span.split('-').collect();
    let (start, mut end) = match limits[..] {
        ["*" | "?"] => (field.low, field.high),
        [one] => {
            let n = value(one, field)?;
            (n, n)
        }
        [from, to] => (value(from, field)?, value(to, field)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    if let Some(step) = step {
        if number(step)? == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        if limits.len() == 1 {
            end = field.high;
        }
    }
    if start < field.low {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", field.low));
    }
    if end > field.high {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", field.high));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

fn value(text: &str, field: &Field) -> Result<u32, String> {
    let name = text.to_lowercase();
    match field.names.iter().position(|n| *n == name).and_then(|n| u32::try_from(n).ok()) {
        Some(n) => Ok(field.first + n),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => u32::try_from(n).map_err(|_| format!("failed to parse int from {text}: value out of range")),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            pagurus_controlplane_api::go::quote(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-3 1,15 JAN-MAR mon", "@hourly", "@every 1h30m", "0 0 ? * 0"] {
            assert_eq!(complaint(good), None, "{good}");
        }
        for (bad, expected) in [
            ("", "empty spec string"),
            ("a b", "expected exactly 5 fields, found 2: [a b]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@now", "unrecognized descriptor: @now"),
        ] {
            assert_eq!(complaint(bad).as_deref(), Some(expected), "{bad}");
        }
    }
}
