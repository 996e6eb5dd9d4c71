//! Cron schedules: five fields, or `@daily` and its kin, or `@every 1h30m`. Pure.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use thiserror::Error;

use crate::runtime::object::after_seconds;

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
/// More missed times than this are worth a warning.
const MANY: i64 = 100;

/// The times at which something starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Schedule {
    /// So many seconds apart.
    Every(i64),
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
            return duration(every.trim())
                .map(Self::Every)
                .ok_or_else(|| ScheduleError::Descriptor(text.to_owned()));
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
        Ok(Self::Fields(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: is_free(days),
            any_weekday: is_free(weekdays),
        }))
    }

    /// The first time after `now`. Periods count from `since`, which is one of the times or the beginning.
    pub(super) fn upcoming(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(period) => Some(after_seconds(since, (periods(since, now, *period) + 1) * period)),
            Self::Fields(fields) => fields.next(now, zone),
        }
    }

    /// The last time in `(since, now]` that is after `floor`, and whether more than a hundred lie there.
    pub(super) fn latest(
        &self,
        since: Timestamp,
        floor: Timestamp,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Timestamp, bool)> {
        match self {
            Self::Every(period) => {
                let count = periods(since, now, *period);
                let last = after_seconds(since, count * period);
                (count > 0 && last > floor).then_some((last, count > MANY))
            }
            Self::Fields(fields) => fields.latest(since.max(floor), now, zone),
        }
    }
}

/// How many whole periods lie between two times.
fn periods(since: Timestamp, now: Timestamp, period: i64) -> i64 {
    (now.as_second() - since.as_second()).max(0) / period
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

    /// The first time after `after`. A time that the clock skips does not come, one that it shows twice comes twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        let mut at = minute.to_zoned(zone.clone());
        let last_year = at.year().checked_add(YEARS)?;
        while at.year() <= last_year {
            let day = at.date();
            let next = if !Self::has(self.months, at.month()) {
                day.first_of_month().checked_add(1.month()).ok()?.to_zoned(zone.clone()).ok()?
            } else if !self.day(day) {
                day.tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else if !Self::has(self.hours, at.hour()) {
                minutes_later(&at, 60 - at.minute())?
            } else if !Self::has(self.minutes, at.minute()) {
                let next = (at.minute() + 1..60).find(|m| Self::has(self.minutes, *m)).unwrap_or(60);
                minutes_later(&at, next - at.minute())?
            } else {
                return Some(at.timestamp());
            };
            at = if next > at { next } else { minutes_later(&at, 1)? };
        }
        None
    }

    fn latest(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, bool)> {
        let next = |from| self.next(from, zone).filter(|t| *t <= now);
        let mut last = next(after)?;
        for _ in 0..MANY {
            match next(last) {
                Some(later) => last = later,
                None => return Some((last, false)),
            }
        }
        // Too many to walk through: look back in growing steps.
        for hours in [1, 24, 24 * 32, 24 * 366] {
            let from = after_seconds(now, -hours * 3600).max(after);
            if let Some(mut found) = next(from) {
                while let Some(later) = next(found) {
                    found = later;
                }
                return Some((found, true));
            }
        }
        Some((last, true))
    }
}

fn minutes_later(at: &Zoned, minutes: i8) -> Option<Zoned> {
    at.checked_add(SignedDuration::from_mins(i64::from(minutes))).ok()
}

/// Whether a field leaves its day free: `*` or `?`, with no step.
fn is_free(text: &str) -> bool {
    let free = |part: &str| match part.split_once('/') {
        Some((range, step)) => matches!(range, "*" | "?") && step == "1",
        None => matches!(part, "*" | "?"),
    };
    text.split(',').any(free)
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

/// `1h30m`, `1.5h`, `45s`, in whole seconds and at least one.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(1);
    }
    let mut total = 0.0;
    while !rest.is_empty() || total == 0.0 {
        let of_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !of_number(c))?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(of_number).map_or(rest.len(), |i| digits + i);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit_end..];
        if rest.is_empty() {
            break;
        }
    }
    // A century is as good as never, and still far from what times can hold.
    #[allow(clippy::cast_possible_truncation, reason = "clamped")]
    Some((sign * total).clamp(1.0, 3e9) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(schedule: &str, zone: &TimeZone, after: &str, expected: &str) {
        let next = Schedule::parse(schedule).unwrap().upcoming(at(after), at(after), zone);
        assert_eq!(next, Some(at(expected)), "{schedule} after {after}");
    }

    #[test]
    fn next_times() {
        let utc = TimeZone::UTC;
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:14:59Z", "2024-01-01T00:15:00Z"),
            ("5/20 * * * *", "2024-01-01T00:26:00Z", "2024-01-01T00:45:00Z"),
            ("59 23 31 12 *", "2024-01-01T00:00:00Z", "2024-12-31T23:59:00Z"),
            ("0 9-17 * * mon-fri", "2024-01-05T17:30:00Z", "2024-01-08T09:00:00Z"),
            ("0 9-17/4 ? * *", "2024-01-05T09:30:00Z", "2024-01-05T13:00:00Z"),
            ("0 0 29 2 *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Day of the month or day of the week, if neither is free; a step makes a star unfree.
            ("0 0 13 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 */2 * 5", "2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z"),
            ("0 0 */1 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 * * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("@monthly", "2024-01-31T00:00:00Z", "2024-02-01T00:00:00Z"),
            ("@weekly", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z"),
            ("@hourly", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:10Z", "2024-01-01T01:30:10Z"),
            ("@every 1.5h", "2024-01-01T00:00:10Z", "2024-01-01T01:30:10Z"),
            ("@every 10ms", "2024-01-01T00:00:10Z", "2024-01-01T00:00:11Z"),
            ("0 0 1 JAN,jul *", "2024-01-01T00:00:00Z", "2024-07-01T00:00:00Z"),
        ] {
            check(schedule, &utc, after, expected);
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(never.upcoming(at("2024-01-01T00:00:00Z"), at("2024-01-01T00:00:00Z"), &utc), None);
        let tens = Schedule::parse("@every 10m").unwrap();
        let next = tens.upcoming(at("2024-01-01T00:00:07Z"), at("2024-01-01T00:25:00Z"), &utc);
        assert_eq!(next, Some(at("2024-01-01T00:30:07Z")), "periods count from where they began");
    }

    #[test]
    fn summer_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // Half past two does not come on the last Sunday of March, and comes twice on that of October.
        check("30 2 * * *", &zone, "2024-03-30T12:00:00Z", "2024-04-01T00:30:00Z");
        check("30 2 * * *", &zone, "2024-10-26T12:00:00Z", "2024-10-27T00:30:00Z");
        check("30 2 * * *", &zone, "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z");
        check("30 2 * * *", &zone, "2024-10-27T01:30:00Z", "2024-10-28T01:30:00Z");
        // What comes every few minutes goes on through both.
        check("*/20 * * * *", &zone, "2024-10-27T00:40:00Z", "2024-10-27T01:00:00Z");
        check("*/20 * * * *", &zone, "2024-03-31T00:40:00Z", "2024-03-31T01:00:00Z");
        // Where the clock skips midnight.
        let zone = TimeZone::posix("<-04>4<-03>,M9.1.0/0,M4.1.0/0").unwrap();
        check("30 0 * * *", &zone, "2024-08-31T12:00:00Z", "2024-09-02T03:30:00Z");
        check("0 1 * * *", &zone, "2024-08-31T12:00:00Z", "2024-09-01T04:00:00Z");
    }

    #[test]
    fn zones_are_known_on_every_machine() {
        let zone = TimeZone::get("America/New_York").unwrap();
        check("0 8 * * *", &zone, "2024-07-01T00:00:00Z", "2024-07-01T12:00:00Z");
        check("0 8 * * *", &zone, "2024-12-01T00:00:00Z", "2024-12-01T13:00:00Z");
    }

    #[test]
    fn malformed() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* * * * 7",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@often",
            "@every",
            "@every x",
            "@every 5",
            "@every 5d",
            "1, * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn latest_of_many() {
        let utc = TimeZone::UTC;
        let from = at("2024-01-01T00:00:30Z");
        for (schedule, floor, now, expected) in [
            ("* * * * *", from, "2024-01-01T00:00:59Z", None),
            ("* * * * *", from, "2024-01-01T00:02:10Z", Some(("2024-01-01T00:02:00Z", false))),
            ("* * * * *", from, "2024-06-01T00:02:10Z", Some(("2024-06-01T00:02:00Z", true))),
            ("0 0 1 * *", from, "2044-06-15T00:00:00Z", Some(("2044-06-01T00:00:00Z", true))),
            ("0 * * * *", at("2024-06-01T00:00:00Z"), "2024-06-01T00:02:10Z", None),
            ("@every 7m", from, "2024-01-01T00:07:29Z", None),
            ("@every 7m", from, "2024-01-01T00:15:00Z", Some(("2024-01-01T00:14:30Z", false))),
            ("@every 7m", at("2024-01-01T00:14:45Z"), "2024-01-01T00:15:00Z", None),
            ("@every 1s", from, "2024-01-01T01:00:00Z", Some(("2024-01-01T01:00:00Z", true))),
        ] {
            let found = Schedule::parse(schedule).unwrap().latest(from, floor, at(now), &utc);
            assert_eq!(found, expected.map(|(t, many)| (at(t), many)), "{schedule} at {now}");
        }
    }
}
