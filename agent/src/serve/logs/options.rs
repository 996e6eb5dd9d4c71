//! The options of a log request, as the query says them.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::super::reply::Refusal;
use super::line::Source;

/// What of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    /// Only what was written to this; both without it.
    pub(super) stream: Option<Source>,
}

impl Options {
    /// Reads a query string.
    pub(super) fn parse(query: &str, now: Timestamp) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let (mut since_seconds, mut since_time) = (None, None);
        for (name, value) in super::super::query::pairs(query) {
            match name.as_ref() {
                "follow" => options.follow = boolean(&name, &value)?,
                "previous" => options.previous = boolean(&name, &value)?,
                "timestamps" => options.timestamps = boolean(&name, &value)?,
                "tailLines" => options.tail_lines = Some(number(&name, &value, 0)?),
                "limitBytes" => options.limit_bytes = Some(number(&name, &value, 1)?),
                "sinceSeconds" => since_seconds = Some(number(&name, &value, 1)?),
                "sinceTime" => {
                    since_time = Some(value.parse::<Timestamp>().map_err(|_| invalid(&name, &value))?)
                }
                "stream" => {
                    options.stream = match value.as_ref() {
                        "All" => None,
                        "Stdout" => Some(Source::Stdout),
                        "Stderr" => Some(Source::Stderr),
                        _ => return Err(invalid(&name, &value)),
                    }
                }
                _ => {}
            }
        }
        options.since = match (since_seconds, since_time) {
            (Some(_), Some(_)) => {
                let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text));
            }
            (Some(seconds), None) => {
                let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Some(now.checked_sub(back).unwrap_or(Timestamp::MIN))
            }
            (None, time) => time,
        };
        Ok(options)
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(name, value)),
    }
}

fn number(name: &str, value: &str, least: u64) -> Result<u64, Refusal> {
    let number = value.parse::<u64>().ok().filter(|number| *number >= least);
    number.ok_or_else(|| {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: {value:?} must be at least {least}"))
    })
}

fn invalid(name: &str, value: &str) -> Refusal {
    Refusal::bad_request(format!("unable to decode query: {name}={value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now = Timestamp::from_second(1000).expect("in range");
        let check = |query: &str, expected: Option<Options>| {
            assert_eq!(Options::parse(query, now).ok(), expected, "{query}");
        };
        let none = Options::default();
        check("", Some(none.clone()));
        check("follow=true&tailLines=5", Some(Options { follow: true, tail_lines: Some(5), ..none.clone() }));
        check("sinceSeconds=10", Some(Options { since: Timestamp::from_second(990).ok(), ..none.clone() }));
        check(
            "sinceTime=1970-01-01T00%3A00%3A07Z",
            Some(Options { since: Timestamp::from_second(7).ok(), ..none.clone() }),
        );
        check(
            "stream=Stderr&previous=1",
            Some(Options { stream: Some(Source::Stderr), previous: true, ..none.clone() }),
        );
        check(
            "limitBytes=1&timestamps=true",
            Some(Options { limit_bytes: Some(1), timestamps: true, ..none }),
        );
        check("limitBytes=0", None);
        check("tailLines=-1", None);
        check("follow=maybe", None);
        check("sinceSeconds=1&sinceTime=1970-01-01T00:00:07Z", None);
        check("sinceTime=yesterday", None);
        check("stream=Stdin", None);
    }
}
