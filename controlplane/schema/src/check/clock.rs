//! Times as the API writes them: parsing with the messages that clients know, and the canonical text. It reads no clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// How many digits a layout wants for the fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `2006-01-02T15:04:05Z07:00`; a fraction is taken and dropped.
    Seconds,
    /// `2006-01-02T15:04:05.000000Z07:00`; six digits are a must.
    Micros,
}

impl Layout {
    fn text(self) -> &'static str {
        match self {
            Layout::Seconds => "2006-01-02T15:04:05Z07:00",
            Layout::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// Parses a time and writes it in UTC with the layout's precision.
pub(crate) fn canonical(layout: Layout, input: &str) -> Result<String, String> {
    if is_canonical(layout, input) {
        return Ok(input.to_owned());
    }
    Parser { layout, input, rest: input }.parse()
}

/// The form that nearly every stored time has already; checked without allocating.
fn is_canonical(layout: Layout, input: &str) -> bool {
    let pattern: &[u8] = match layout {
        Layout::Seconds => b"0000-00-00T00:00:00Z",
        Layout::Micros => b"0000-00-00T00:00:00.000000Z",
    };
    let bytes = input.as_bytes();
    let shaped = bytes.len() == pattern.len()
        && bytes.iter().zip(pattern).all(|(b, p)| if *p == b'0' { b.is_ascii_digit() } else { b == p });
    shaped && input.parse::<Timestamp>().is_ok() && &input[17..19] != "60"
}

struct Parser<'a> {
    layout: Layout,
    input: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn parse(mut self) -> Result<String, String> {
        let year = self.year()?;
        self.literal("-")?;
        let month = self.two("01", true, "month", 1..=12)?;
        self.literal("-")?;
        let day = self.two("02", true, "day", 0..=99)?;
        self.literal("T")?;
        let hour = self.two("15", false, "hour", 0..=23)?;
        self.literal(":")?;
        let minute = self.two("04", true, "minute", 0..=59)?;
        self.literal(":")?;
        let second = self.two("05", true, "second", 0..=59)?;
        let nanos = self.fraction()?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(format!("parsing time {}: extra text: {}", quoted(self.input), quoted(self.rest)));
        }
        let local =
            DateTime::new(year, month as i8, day as i8, hour as i8, minute as i8, second as i8, nanos)
                .map_err(|_| self.out_of_range("day"))?;
        let zone = TimeZone::fixed(
            Offset::from_seconds(offset).map_err(|_| self.out_of_range("time zone offset hour"))?,
        );
        let utc = zone.to_timestamp(local).map_err(|_| self.out_of_range("day"))?;
        Ok(match self.layout {
            Layout::Seconds => utc.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Layout::Micros => utc.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        })
    }

    fn cannot(&self, element: &str) -> String {
        let (input, layout) = (quoted(self.input), self.layout.text());
        format!("parsing time {input} as \"{layout}\": cannot parse {} as \"{element}\"", quoted(self.rest))
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", quoted(self.input))
    }

    fn literal(&mut self, expected: &str) -> Result<(), String> {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.cannot(expected)),
        }
    }

    fn digits(&self, most: usize) -> usize {
        self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count()
    }

    fn take(&mut self, count: usize) -> i32 {
        let (number, rest) = self.rest.split_at(count);
        self.rest = rest;
        number.parse().unwrap_or(0)
    }

    fn year(&mut self) -> Result<i16, String> {
        if self.digits(4) < 4 {
            return Err(self.cannot("2006"));
        }
        Ok(self.take(4) as i16)
    }

    fn two(
        &mut self,
        element: &str,
        fixed: bool,
        what: &str,
        range: std::ops::RangeInclusive<i32>,
    ) -> Result<i32, String> {
        let count = self.digits(2);
        if count == 0 || (fixed && count < 2) {
            return Err(self.cannot(element));
        }
        let number = self.take(count);
        if range.contains(&number) { Ok(number) } else { Err(self.out_of_range(what)) }
    }

    fn fraction(&mut self) -> Result<i32, String> {
        let mut after = self.rest.bytes();
        let dot = matches!(after.next(), Some(b'.' | b','));
        let digits = if dot { self.rest[1..].bytes().take_while(u8::is_ascii_digit).count() } else { 0 };
        match self.layout {
            Layout::Seconds if digits == 0 => return Ok(0),
            Layout::Micros if digits < 6 || !self.rest.starts_with('.') => return Err(self.cannot(".000000")),
            _ => {}
        }
        let used = if self.layout == Layout::Micros { 6 } else { digits };
        let text = &self.rest[1..=used];
        self.rest = &self.rest[used + 1..];
        let nanos: String = text.chars().chain("000000000".chars()).take(9).collect();
        Ok(nanos.parse().unwrap_or(0))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i32, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, ..] = bytes else {
            return Err(self.cannot("Z07:00"));
        };
        if ![h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) {
            return Err(self.cannot("Z07:00"));
        }
        let (hours, minutes) = (
            i32::from(h1 - b'0') * 10 + i32::from(h2 - b'0'),
            i32::from(m1 - b'0') * 10 + i32::from(m2 - b'0'),
        );
        if hours > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        let seconds = (hours * 60 + minutes) * 60;
        self.rest = &self.rest[6..];
        Ok(if *sign == b'-' { -seconds } else { seconds })
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => c.to_string().bytes().for_each(|b| out.push_str(&format!("\\x{b:02x}"))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::{Layout, canonical};

    fn check(layout: Layout, input: &str, expected: Result<&str, &str>) {
        assert_eq!(canonical(layout, input), expected.map(str::to_owned).map_err(str::to_owned), "{input}");
    }

    #[test]
    fn times_become_utc() {
        check(Layout::Seconds, "2025-01-02T03:04:05Z", Ok("2025-01-02T03:04:05Z"));
        check(Layout::Seconds, "2025-01-02T03:04:05.999Z", Ok("2025-01-02T03:04:05Z"));
        check(Layout::Seconds, "2025-01-02T03:04:05+02:30", Ok("2025-01-02T00:34:05Z"));
        check(Layout::Micros, "2025-01-02T03:04:05.123456Z", Ok("2025-01-02T03:04:05.123456Z"));
        check(Layout::Micros, "2025-01-02T03:04:05.123456-01:00", Ok("2025-01-02T04:04:05.123456Z"));
    }

    #[test]
    fn bad_times_are_refused_in_known_words() {
        let layout = "2006-01-02T15:04:05Z07:00";
        let cannot = |v: &str, rest: &str, element: &str| {
            format!("parsing time \"{v}\" as \"{layout}\": cannot parse \"{rest}\" as \"{element}\"")
        };
        check(Layout::Seconds, "", Err(&cannot("", "", "2006")));
        check(Layout::Seconds, "Not Valid!", Err(&cannot("Not Valid!", "Not Valid!", "2006")));
        check(
            Layout::Seconds,
            "2025-1-02T03:04:05Z",
            Err(&cannot("2025-1-02T03:04:05Z", "1-02T03:04:05Z", "01")),
        );
        check(
            Layout::Seconds,
            "2025-01-02 03:04:05Z",
            Err(&cannot("2025-01-02 03:04:05Z", " 03:04:05Z", "T")),
        );
        check(Layout::Seconds, "2025-01-02T03:04:05", Err(&cannot("2025-01-02T03:04:05", "", "Z07:00")));
        check(
            Layout::Seconds,
            "2025-13-02T03:04:05Z",
            Err("parsing time \"2025-13-02T03:04:05Z\": month out of range"),
        );
        check(
            Layout::Seconds,
            "2025-02-30T03:04:05Z",
            Err("parsing time \"2025-02-30T03:04:05Z\": day out of range"),
        );
        check(
            Layout::Seconds,
            "2025-02-03T03:04:05Zx",
            Err("parsing time \"2025-02-03T03:04:05Zx\": extra text: \"x\""),
        );
    }
}
