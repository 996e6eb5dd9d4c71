//! Parts of points in time, in UTC or a time zone, and of durations.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::Row;
use crate::cost::Costing;
use crate::eval::{Outcome, failed};
use crate::value::Value;

/// The table's row for a part of a point in time.
macro_rules! part {
    ($name:literal, $id:literal, $part:expr) => {
        (
            $name,
            &[
                concat!("timestamp_to_", $id, ": timestamp.() -> int"),
                concat!("timestamp_to_", $id, "_with_tz: timestamp.(string) -> int"),
            ],
            Costing::Unit,
            |_, args| time_part(args, $part),
        )
    };
}

/// The table's row for a part that durations have too.
macro_rules! span {
    ($name:literal, $id:literal, $scale:literal) => {
        (
            $name,
            &[concat!("duration_to_", $id, ": duration.() -> int")],
            Costing::Unit,
            |_, args| match args {
                [Value::Duration(span)] => Ok(Value::Int(span / $scale)),
                _ => failed("no such overload"),
            },
        )
    };
}

pub(super) static ROWS: &[Row] = &[
    part!("getFullYear", "year", |time| time.year().into()),
    part!("getMonth", "month", |time| i64::from(time.month()) - 1),
    part!("getDayOfYear", "day_of_year", |time| i64::from(time.day_of_year()) - 1),
    part!("getDayOfMonth", "day_of_month", |time| i64::from(time.day()) - 1),
    part!("getDate", "day_of_month_1_based", |time| time.day().into()),
    part!("getDayOfWeek", "day_of_week", |time| time.weekday().to_sunday_zero_offset().into()),
    part!("getHours", "hours", |time| time.hour().into()),
    part!("getMinutes", "minutes", |time| time.minute().into()),
    part!("getSeconds", "seconds", |time| time.second().into()),
    part!("getMilliseconds", "milliseconds", |time| time.millisecond().into()),
    span!("getHours", "hours", 3_600_000_000_000),
    span!("getMinutes", "minutes", 60_000_000_000),
    span!("getSeconds", "seconds", 1_000_000_000),
    // Milliseconds of a duration are all of it, not those beyond its seconds.
    span!("getMilliseconds", "milliseconds", 1_000_000),
];

fn time_part<'a>(args: &[Value<'a>], part: fn(&Zoned) -> i64) -> Outcome<'a> {
    let (time, zone) = match args {
        [Value::Timestamp(time)] => (time, TimeZone::UTC),
        [Value::Timestamp(time), Value::String(name)] => match zone(name) {
            Some(zone) => (time, zone),
            None => return failed(format!("unknown time zone {}", &**name)),
        },
        _ => return failed("no such overload"),
    };
    Ok(Value::Int(part(&time.to_zoned(zone))))
}

/// A time zone by its name, or by its difference from UTC (`-08:00`).
fn zone(name: &str) -> Option<TimeZone> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok().filter(|hours| *hours < 24)?;
        let minutes: i32 = minutes.parse().ok().filter(|minutes| (0..60).contains(minutes))?;
        let seconds = (hours * 60 + minutes) * 60;
        return Offset::from_seconds(if negative { -seconds } else { seconds })
            .ok()
            .map(Offset::to_time_zone);
    }
    match name {
        "" | "UTC" | "Z" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    }
}

/// Whether CEL can hold the time: years 1 to 9999.
pub(super) fn in_range(time: &Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&time.as_second())
}
