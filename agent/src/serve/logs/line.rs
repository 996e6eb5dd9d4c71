//! Lines as runtimes write them, `TIME STREAM TAGS TEXT`, and what a client is to see of them. Pure; it must not read files.

use jiff::Timestamp;

/// What a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    source: Source,
    /// The container's line goes on in the next line of the file.
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let source = match fields.next()? {
            b"stdout" => Source::Stdout,
            b"stderr" => Source::Stderr,
            _ => return None,
        };
        let tags = fields.next()?;
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Self { time, source, partial, text: fields.next().unwrap_or_default() })
    }
}

/// A line longer than this without an end is passed on in pieces. Runtimes end theirs at 16 kB.
const MAX_LINE: usize = 1024 * 1024;

/// Turns bytes of the file into bytes for the client.
#[derive(Debug)]
pub(super) struct Formatter {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<Source>,
    /// The beginning of a line whose end has not been read yet.
    rest: Vec<u8>,
    /// The next line begins a line of the container's.
    at_start: bool,
}

impl Formatter {
    pub(super) fn new(timestamps: bool, since: Option<Timestamp>, stream: Option<Source>) -> Self {
        Self { timestamps, since, stream, rest: Vec::new(), at_start: true }
    }

    /// Takes bytes of the file in and appends what the client is to see.
    pub(super) fn format(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len());
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = bytes.split_at(end);
            bytes = &after[1..];
            if self.rest.is_empty() {
                self.line(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole, out);
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_LINE {
            self.finish(out);
        }
    }

    /// There is no more: a line without an end is a line, too.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, out);
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else {
            // Half a line, as a crash of the runtime leaves it. Kept back: it may be anything.
            tracing::debug!("a line of a log is not in the runtime's format");
            return;
        };
        if self.stream.is_some_and(|wanted| wanted != line.source) {
            return;
        }
        let time: Option<Timestamp> =
            if self.since.is_some() || self.timestamps { line.time.parse().ok() } else { None };
        if let Some(since) = self.since {
            if time.is_none_or(|time| time < since) {
                return;
            }
            // Times only grow: no need to look at the others.
            self.since = None;
        }
        if self.timestamps && self.at_start {
            match time {
                Some(time) => out.extend_from_slice(format!("{time:.9} ").as_bytes()),
                None => out.extend_from_slice(format!("{} ", line.time).as_bytes()),
            }
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.at_start = !line.partial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, expected: Option<(Source, bool, &str)>| {
            let parsed = Line::parse(line.as_bytes());
            let got =
                parsed.map(|line| (line.source, line.partial, std::str::from_utf8(line.text).expect("text")));
            assert_eq!(got, expected, "{line}");
        };
        check("2024-01-02T03:04:05.1Z stdout F hello world", Some((Source::Stdout, false, "hello world")));
        check("2024-01-02T03:04:05.1Z stderr P part", Some((Source::Stderr, true, "part")));
        check("2024-01-02T03:04:05.1Z stderr P:x part", Some((Source::Stderr, true, "part")));
        check("2024-01-02T03:04:05.1Z stdout F ", Some((Source::Stdout, false, "")));
        check("2024-01-02T03:04:05.1Z stdout F", Some((Source::Stdout, false, "")));
        check("2024-01-02T03:04:05.1Z stdin F x", None);
        check("nonsense", None);
        check("", None);
    }

    const LOG: &str = "2024-01-02T03:04:05Z stdout F one\n\
        2024-01-02T03:04:06.5Z stderr P tw\n\
        2024-01-02T03:04:06.6Z stderr F o\n\
        half a li\n\
        2024-01-02T05:04:07.123456789+02:00 stdout F three\n\
        2024-01-02T03:04:08Z stdout F four";

    #[test]
    fn what_clients_see() {
        let check = |timestamps, since: Option<&str>, stream, expected: &str| {
            for step in [1, 10, LOG.len()] {
                let since = since.map(|since| since.parse().expect("a time"));
                let mut formatter = Formatter::new(timestamps, since, stream);
                let mut out = Vec::new();
                for chunk in LOG.as_bytes().chunks(step) {
                    formatter.format(chunk, &mut out);
                }
                formatter.finish(&mut out);
                assert_eq!(String::from_utf8_lossy(&out), expected, "in steps of {step}");
            }
        };
        check(false, None, None, "one\ntwo\nthree\nfour\n");
        check(false, None, Some(Source::Stdout), "one\nthree\nfour\n");
        check(false, None, Some(Source::Stderr), "two\n");
        check(false, Some("2024-01-02T03:04:07Z"), None, "three\nfour\n");
        check(false, Some("2030-01-01T00:00:00Z"), None, "");
        check(
            true,
            None,
            None,
            "2024-01-02T03:04:05.000000000Z one\n2024-01-02T03:04:06.500000000Z two\n\
             2024-01-02T03:04:07.123456789Z three\n2024-01-02T03:04:08.000000000Z four\n",
        );
    }
}
