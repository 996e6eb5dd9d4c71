//! Cron schedules: five fields, or `@daily` and its kin, or `@every 1h30m`. Pure.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use thiserror::Error;

/// Why a text is no schedule.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ScheduleError {
    #[error("expected exactly 5 fields, found {0}")]
    Fields(usize),
    #[error("field {0:?} is malformed or out of range")]
    Field(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
}

/// How far ahead a next time is looked for: there may be none, as for the 31st of February.
const YEARS: i16 = 5;

/// The times at which something starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Schedule {
    Every(Duration),
    Fields(Fields),
}

/// Bits stand for the values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of the month, or that of the week, is free: then the other alone decides.
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule.
    pub(super) fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let duration = duration(every.trim()).filter(|d| *d >= Duration::from_secs(1));
            return duration.map(Self::Every).ok_or_else(|| ScheduleError::Descriptor(text.to_owned()));
        }
        let spelled = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(ScheduleError::Descriptor(other.to_owned())),
            other => other,
        };
        let parts: Vec<&str> = spelled.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(ScheduleError::Fields(parts.len()));
        };
        let free = |text: &str| text.starts_with('*') || text.starts_with('?');
        Ok(Self::Fields(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: free(days),
            any_weekday: free(weekdays),
        }))
    }

    /// The first time after `after`, in a time zone.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let fields = match self {
            Self::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                return whole.checked_add(*period).ok();
            }
            Self::Fields(fields) => fields,
        };
        let local = after.to_zoned(zone.clone()).datetime();
        let mut candidate =
            local.date().at(local.hour(), local.minute(), 0, 0).checked_add(1.minute()).ok()?;
        let last = local.year().checked_add(YEARS)?;
        loop {
            candidate = fields.at_or_after(candidate, last)?;
            // A time that the clock skips does not come; of one that comes twice the first counts.
            let ambiguous = zone.to_ambiguous_timestamp(candidate);
            let at =
                if ambiguous.is_ambiguous() && gap(&ambiguous) { None } else { ambiguous.earlier().ok() };
            if let Some(at) = at.filter(|at| *at > after) {
                return Some(at);
            }
            candidate = candidate.checked_add(1.minute()).ok()?;
        }
    }

    /// The last time in `(after, now]`, and whether more than a hundred lie there.
    pub(super) fn latest(
        &self,
        after: Timestamp,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Timestamp, bool)> {
        let first = self.next(after, zone).filter(|t| *t <= now)?;
        let mut last = first;
        let mut count = 1;
        while let Some(next) = self.next(last, zone).filter(|t| *t <= now) {
            last = next;
            count += 1;
            if count > 100 {
                break;
            }
        }
        if count <= 100 {
            return Some((last, false));
        }
        // Too many to walk through: look back in growing steps.
        let steps: [Span; 4] = [1.hour(), 24.hours(), (24 * 32).hours(), (24 * 366).hours()];
        for step in steps {
            let from = now.checked_sub(step).unwrap_or(after).max(after);
            if let Some(mut found) = self.next(from, zone).filter(|t| *t <= now) {
                while let Some(next) = self.next(found, zone).filter(|t| *t <= now) {
                    found = next;
                }
                return Some((found, true));
            }
        }
        Some((last, true))
    }
}

fn gap(ambiguous: &jiff::tz::AmbiguousTimestamp) -> bool {
    matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Gap { .. })
}

impl Fields {
    fn has(mask: u64, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|v| mask & (1 << v) != 0)
    }

    fn day(&self, date: Date) -> bool {
        let weekday = match date.weekday() {
            Weekday::Sunday => 0,
            other => other.to_monday_one_offset(),
        };
        let (day, weekday) = (Self::has(self.days, date.day()), Self::has(self.weekdays, weekday));
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    fn at_or_after(&self, from: DateTime, last_year: i16) -> Option<DateTime> {
        let mut at = from;
        loop {
            if at.year() > last_year {
                return None;
            }
            let date = at.date();
            if !Self::has(self.months, date.month()) {
                at = date.first_of_month().checked_add(1.month()).ok()?.to_datetime(jiff::civil::Time::MIN);
            } else if !self.day(date) {
                at = date.checked_add(1.day()).ok()?.to_datetime(jiff::civil::Time::MIN);
            } else if !Self::has(self.hours, at.hour()) {
                at = date.at(at.hour(), 0, 0, 0).checked_add(1.hour()).ok()?;
            } else if !Self::has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at);
            }
        }
    }
}

/// One field: `*`, numbers, names, ranges, steps, lists of these.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, ScheduleError> {
    let wrong = || ScheduleError::Field(text.to_owned());
    let number = |part: &str| -> Option<u32> {
        let by_name = names.iter().position(|n| n.eq_ignore_ascii_case(part));
        let value = by_name.and_then(|i| u32::try_from(i).ok()).map(|i| i + low).or(part.parse().ok())?;
        (low..=high).contains(&value).then_some(value)
    };
    let mut mask = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        let (first, last) = match range {
            "*" | "?" => (low, high),
            range => match range.split_once('-') {
                Some((first, last)) => (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?),
                // A start with a step goes on to the end.
                None => {
                    let first = number(range).ok_or_else(wrong)?;
                    (first, if step.is_some() { high } else { first })
                }
            },
        };
        let step: u32 = step.map_or(Ok(1), str::parse).map_err(|_| wrong())?;
        if step == 0 || first > last {
            return Err(wrong());
        }
        for value in (first..=last).step_by(step as usize) {
            mask |= 1 << value;
        }
    }
    Ok(mask)
}

/// `1h30m`, `45s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total += Duration::from_secs(number.checked_mul(seconds)?);
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(schedule: &str, zone: &TimeZone, after: &str, expected: &str) {
        let next = Schedule::parse(schedule).unwrap().next(at(after), zone);
        assert_eq!(next, Some(at(expected)), "{schedule} after {after}");
    }

    #[test]
    fn next_times() {
        let utc = TimeZone::UTC;
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:14:59Z", "2024-01-01T00:15:00Z"),
            ("5/20 * * * *", "2024-01-01T00:26:00Z", "2024-01-01T00:45:00Z"),
            ("0 9-17 * * mon-fri", "2024-01-05T17:30:00Z", "2024-01-08T09:00:00Z"),
            ("0 0 29 2 *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Day of the month or day of the week, if both are given.
            ("0 0 13 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 */2 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("@monthly", "2024-01-31T00:00:00Z", "2024-02-01T00:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:10Z", "2024-01-01T01:30:10Z"),
            ("0 0 1 JAN,jul *", "2024-01-01T00:00:00Z", "2024-07-01T00:00:00Z"),
        ] {
            check(schedule, &utc, after, expected);
        }
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().next(at("2024-01-01T00:00:00Z"), &utc), None);
    }

    #[test]
    fn summer_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // Half past two does not come on the last Sunday of March, and comes twice on that of October.
        check("30 2 * * *", &zone, "2024-03-30T12:00:00Z", "2024-04-01T00:30:00Z");
        check("30 2 * * *", &zone, "2024-10-26T12:00:00Z", "2024-10-27T00:30:00Z");
        check("30 2 * * *", &zone, "2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z");
    }

    #[test]
    fn malformed() {
        for text in
            ["", "* * * *", "60 * * * *", "* * * * 7", "a * * * *", "*/0 * * * *", "5-1 * * * *", "@often"]
        {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn latest_of_many() {
        let utc = TimeZone::UTC;
        let minutely = Schedule::parse("* * * * *").unwrap();
        let from = at("2024-01-01T00:00:30Z");
        assert_eq!(minutely.latest(from, at("2024-01-01T00:00:59Z"), &utc), None);
        assert_eq!(
            minutely.latest(from, at("2024-01-01T00:02:10Z"), &utc),
            Some((at("2024-01-01T00:02:00Z"), false))
        );
        assert_eq!(
            minutely.latest(from, at("2024-06-01T00:02:10Z"), &utc),
            Some((at("2024-06-01T00:02:00Z"), true))
        );
    }
}
