//! Times as the API writes them (RFC 3339, whole seconds or microseconds) and ages as tables show them.

use jiff::Timestamp;

/// The clock.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A `Time`: whole seconds in UTC, such as `2024-01-02T03:04:05Z`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A `MicroTime`: six digits below the second.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The present moment as a `Time`.
pub fn now_text() -> String {
    format(now())
}

/// Reads an RFC 3339 time.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whole seconds from `since` to `now`; less than 0 if `since` lies ahead.
pub fn seconds_between(since: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - since.as_second()
}

/// The age that a table shows for a creation time: `5s`, `3m20s`, `2d`; `<unknown>` for none. With [`LATER`](crate::ages::LATER) for
/// the present moment a mark, see [`crate::ages`].
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(parse) {
        Some(since) if now == crate::ages::LATER => crate::ages::mark(since),
        Some(since) => {
            human_duration(i64::try_from(now.duration_since(since).as_millis()).unwrap_or(i64::MAX))
        }
        None => "<unknown>".to_owned(),
    }
}

/// A duration of so many milliseconds in at most two units.
pub fn human_duration(millis: i64) -> String {
    let seconds = millis / 1000;
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        pair(hours / 24, 'd', hours % 24, 'h')
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        pair(hours / 24 / 365, 'y', (hours / 24) % 365, 'd')
    } else {
        format!("{}y", hours / 24 / 365)
    }
}

fn pair(large: i64, large_unit: char, small: i64, small_unit: char) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        const S: i64 = 1000;
        const H: i64 = 3600 * S;
        for (millis, expected) in [
            (-2 * S, "<invalid>"),
            (-S, "0s"),
            (0, "0s"),
            (S, "1s"),
            (119 * S, "119s"),
            (120 * S, "2m"),
            (121 * S, "2m1s"),
            (10 * 60 * S, "10m"),
            (179 * 60 * S, "179m"),
            (3 * H, "3h"),
            (3 * H + 60 * S, "3h1m"),
            (8 * H, "8h"),
            (47 * H, "47h"),
            (48 * H, "2d"),
            (49 * H, "2d1h"),
            (8 * 24 * H, "8d"),
            (2 * 365 * 24 * H, "2y"),
            (2 * 365 * 24 * H + 24 * H, "2y1d"),
            (9 * 365 * 24 * H, "9y"),
        ] {
            assert_eq!(human_duration(millis), expected, "{millis}");
        }
    }

    #[test]
    fn times() {
        let time = parse("2024-01-02T03:04:05.678901Z").expect("a time");
        assert_eq!(format(time), "2024-01-02T03:04:05Z");
        assert_eq!(format_micro(time), "2024-01-02T03:04:05.678901Z");
        assert_eq!(age(Some("2024-01-02T03:04:00Z"), time), "5s");
        assert_eq!(age(None, time), "<unknown>");
    }
}
