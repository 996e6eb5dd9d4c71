//! Regular expressions as Go reads them (RE2), on the crate `regex`, which reads almost the same: what differs is rewritten, and what is
//! wrong is said in Go's words. It must not know who matches what.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// A regular expression that is compiled when it is first looked for: most definitions are never used by most of their fields.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Box<str>,
    compiled: OnceLock<Option<Box<Regex>>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// The expression, not looked at yet.
    pub fn new(source: &str) -> Self {
        Pattern { source: source.into(), compiled: OnceLock::new() }
    }

    /// As it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether there is a match anywhere in the text. An expression that does not compile matches nothing.
    pub fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile(&self.source).ok().map(Box::new));
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// The longest expression that is looked at, bytes: few longer ones fit into the memory below.
const MOST_LENGTH: usize = 64 << 10;
/// Memory a compiled expression may take, bytes.
const MOST_MEMORY: usize = 4 << 20;

/// Compiles an expression as Go reads it; the error is Go's text, such as ``error parsing regexp: missing closing ): `(` ``.
pub fn compile(source: &str) -> Result<Regex, String> {
    let told = |what: &str, part: &str| format!("error parsing regexp: {what}: `{part}`");
    if source.len() > MOST_LENGTH {
        return Err(told("expression nests too deeply", source));
    }
    let rewritten = rewrite(source).map_err(|(what, part)| told(what, &part))?;
    RegexBuilder::new(&rewritten).size_limit(MOST_MEMORY).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => told("expression nests too deeply", source),
        _ => told("invalid or unsupported syntax", source),
    })
}

type Problem = (&'static str, String);

/// Reads an expression once: finds what Go refuses, and writes what `regex` reads otherwise in a form that both read alike.
fn rewrite(source: &str) -> Result<String, Problem> {
    let mut reader = Reader {
        chars: source.chars().collect(),
        at: 0,
        out: String::with_capacity(source.len()),
        endless: false,
    };
    reader.run(source)?;
    Ok(reader.out)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    out: String,
    /// No `:]` is left.
    endless: bool,
}

/// The most that may be asked for in `{n,m}`.
const MOST_REPEATS: u32 = 1000;

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn text(&self, from: usize) -> String {
        self.chars[from.min(self.at)..self.at].iter().collect()
    }

    fn rest(&self, from: usize) -> String {
        self.chars[from..].iter().collect()
    }

    fn run(&mut self, source: &str) -> Result<(), Problem> {
        let mut depth = 0usize;
        // Whether there is something that an operator can repeat, and where the last operator began.
        let (mut operand, mut repeated): (bool, Option<usize>) = (false, None);
        while let Some(c) = self.peek() {
            let from = self.at;
            match c {
                '(' => {
                    self.group()?;
                    depth += 1;
                    (operand, repeated) = (false, None);
                }
                ')' => {
                    if depth == 0 {
                        return Err(("unexpected )", source.to_owned()));
                    }
                    depth -= 1;
                    self.take();
                    (operand, repeated) = (true, None);
                }
                '|' => {
                    self.take();
                    (operand, repeated) = (false, None);
                }
                '*' | '+' | '?' => {
                    self.take();
                    if self.peek() == Some('?') {
                        self.take();
                    }
                    self.repeat(from, operand, &mut repeated)?;
                }
                '{' if self.counts() => {
                    self.count()?;
                    self.repeat(from, operand, &mut repeated)?;
                }
                '{' | '}' => {
                    self.at += 1;
                    self.out.push('\\');
                    self.out.push(c);
                    (operand, repeated) = (true, None);
                }
                '[' => {
                    self.class()?;
                    (operand, repeated) = (true, None);
                }
                '\\' => {
                    self.escape(false)?;
                    (operand, repeated) = (true, None);
                }
                _ => {
                    self.take();
                    (operand, repeated) = (true, None);
                }
            }
        }
        if depth > 0 { Err(("missing closing )", source.to_owned())) } else { Ok(()) }
    }

    fn take(&mut self) {
        if let Some(c) = self.peek() {
            self.out.push(c);
            self.at += 1;
        }
    }

    /// An operator has been read from `from` on.
    fn repeat(&self, from: usize, operand: bool, repeated: &mut Option<usize>) -> Result<(), Problem> {
        if !operand {
            return Err(("missing argument to repetition operator", self.text(from)));
        }
        if let Some(before) = *repeated {
            return Err(("invalid nested repetition operator", self.text(before)));
        }
        *repeated = Some(from);
        Ok(())
    }

    /// Whether a brace begins a count; a literal otherwise.
    fn counts(&self) -> bool {
        let inside: String = self.chars[self.at + 1..].iter().take_while(|c| **c != '}').collect();
        let closed = self.chars.len() > self.at + 1 + inside.chars().count();
        let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        closed
            && match inside.split_once(',') {
                None => number(&inside),
                Some((least, most)) => number(least) && (most.is_empty() || number(most)),
            }
    }

    fn count(&mut self) -> Result<(), Problem> {
        let from = self.at;
        while self.peek() != Some('}') {
            self.take();
        }
        self.take();
        let inside = self.text(from);
        let bounds: Vec<Option<u32>> = inside
            .trim_matches(['{', '}'])
            .split(',')
            .map(|text| if text.is_empty() { None } else { Some(text.parse().unwrap_or(u32::MAX)) })
            .collect();
        let large = bounds.iter().flatten().any(|n| *n > MOST_REPEATS);
        let turned = matches!(bounds[..], [Some(least), Some(most)] if least > most);
        if large || turned {
            return Err(("invalid repeat count", inside));
        }
        if self.peek() == Some('?') {
            self.take();
        }
        Ok(())
    }

    /// An opening parenthesis with what it says of the group.
    fn group(&mut self) -> Result<(), Problem> {
        let from = self.at;
        self.take();
        if self.peek() != Some('?') {
            return Ok(());
        }
        let begins = |prefix: &str| prefix.chars().zip(&self.chars[from..]).filter(|(a, b)| a == *b).count();
        let named = ["(?P<", "(?<"].into_iter().find(|prefix| begins(prefix) == prefix.len());
        if let Some(prefix) = named {
            let Some(length) = self.chars[from..].iter().position(|c| *c == '>') else {
                return Err(("invalid named capture", self.rest(from)));
            };
            let text: String = self.chars[from..=from + length].iter().collect();
            let name = &text[prefix.len()..text.len() - 1];
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return Err(("invalid named capture", text));
            }
            for _ in 0..length {
                self.take();
            }
            return Ok(());
        }
        self.take();
        while let Some(c) = self.peek() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => self.take(),
                ':' | ')' => {
                    self.take();
                    if c == ')' {
                        // Flags for what follows open no group, but the caller counts one: an empty one.
                        self.out.push_str("(?:");
                        self.chars.insert(self.at, ')');
                    }
                    return Ok(());
                }
                _ => {
                    self.at += 1;
                    return Err(("invalid or unsupported Perl syntax", self.text(from)));
                }
            }
        }
        Err(("missing closing )", self.rest(0)))
    }

    fn escape(&mut self, in_class: bool) -> Result<(), Problem> {
        let from = self.at;
        self.at += 1;
        let Some(c) = self.peek() else {
            return Err(("trailing backslash at end of expression", String::new()));
        };
        self.at += 1;
        let (open, close) = if in_class { ("", "") } else { ("[", "]") };
        match c {
            'd' => self.out.push_str(&format!("{open}0-9{close}")),
            's' => self.out.push_str(&format!("{open}\\t\\n\\f\\r {close}")),
            'w' => self.out.push_str(&format!("{open}0-9A-Za-z_{close}")),
            'D' => self.out.push_str("[^0-9]"),
            'S' => self.out.push_str("[^\\t\\n\\f\\r ]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            'b' if !in_class => self.out.push_str("(?-u:\\b)"),
            'B' if !in_class => self.out.push_str("(?-u:\\B)"),
            'A' | 'z' if !in_class => {
                self.out.push('\\');
                self.out.push(c);
            }
            'C' if !in_class => self.out.push_str("(?s:.)"),
            'Q' if !in_class => self.quoted(),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
                self.out.push('\\');
                self.out.push(c);
            }
            'p' | 'P' => self.unicode_class(from)?,
            'x' => self.hexadecimal(from)?,
            '0'..='7' => self.octal(c, from)?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => {
                self.out.push_str(&regex::escape(&c.to_string()))
            }
            _ => return Err(("invalid escape sequence", self.text(from))),
        }
        Ok(())
    }

    /// Everything up to `\E`, as it stands.
    fn quoted(&mut self) {
        while let Some(c) = self.peek() {
            if c == '\\' && self.chars.get(self.at + 1) == Some(&'E') {
                self.at += 2;
                return;
            }
            self.out.push_str(&regex::escape(&c.to_string()));
            self.at += 1;
        }
    }

    fn unicode_class(&mut self, from: usize) -> Result<(), Problem> {
        if self.peek() == Some('{') {
            while self.peek().is_some_and(|c| c != '}') {
                self.at += 1;
            }
        }
        if self.peek().is_none() {
            return Err(("invalid character class range", self.text(from)));
        }
        self.at += 1;
        let text = self.text(from);
        if Regex::new(&text).is_err() {
            return Err(("invalid character class range", text));
        }
        self.out.push_str(&text);
        Ok(())
    }

    fn hexadecimal(&mut self, from: usize) -> Result<(), Problem> {
        let digits: String = if self.peek() == Some('{') {
            self.at += 1;
            let inside: String = self.chars[self.at..].iter().take_while(|c| **c != '}').collect();
            self.at = (self.at + inside.chars().count() + 1).min(self.chars.len());
            inside
        } else {
            let two: String = self.chars[self.at..].iter().take(2).collect();
            self.at += two.chars().count();
            if two.chars().count() < 2 { String::new() } else { two }
        };
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        match code {
            Some(c) => self.out.push_str(&regex::escape(&c.to_string())),
            None => return Err(("invalid escape sequence", self.text(from))),
        }
        Ok(())
    }

    fn octal(&mut self, first: char, from: usize) -> Result<(), Problem> {
        let more: String =
            self.chars[self.at..].iter().take_while(|c| ('0'..='7').contains(*c)).take(2).collect();
        if first != '0' && more.is_empty() {
            // A reference to a group, which RE2 does not have.
            return Err(("invalid escape sequence", self.text(from)));
        }
        self.at += more.chars().count();
        let code = u32::from_str_radix(&format!("{first}{more}"), 8).ok().and_then(char::from_u32);
        if let Some(c) = code {
            self.out.push_str(&regex::escape(&c.to_string()));
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), Problem> {
        let from = self.at;
        self.take();
        if self.peek() == Some('^') {
            self.take();
        }
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(("missing closing ]", self.rest(from))),
                Some(']') if !first => {
                    self.take();
                    return Ok(());
                }
                Some('[') if self.chars.get(self.at + 1) == Some(&':') => self.posix()?,
                Some(_) => self.range()?,
            }
            first = false;
        }
    }

    /// `[:alpha:]`
    fn posix(&mut self) -> Result<(), Problem> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        // The colon that begins it does not end it too. Where no end was found, none is found further on.
        let after = self.chars.get(self.at + 2..).filter(|_| !self.endless).unwrap_or_default();
        let Some(length) = after.windows(2).position(|pair| pair == [':', ']']) else {
            self.endless = true;
            return self.range();
        };
        let text: String = self.chars[self.at..self.at + length + 4].iter().collect();
        let name = &text[2..text.len() - 2];
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(("invalid character class range", text));
        }
        self.at += length + 4;
        self.out.push_str(&text);
        Ok(())
    }

    /// One character of a class, or a range of them.
    fn range(&mut self) -> Result<(), Problem> {
        let from = self.at;
        let is_set = |reader: &Self| {
            reader.peek() == Some('\\')
                && matches!(
                    reader.chars.get(reader.at + 1),
                    Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P')
                )
        };
        let set = is_set(self);
        let low = self.class_char()?;
        let follows = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|c| *c != ']');
        if set || !follows {
            return Ok(());
        }
        self.at += 1;
        self.out.push('-');
        let high = self.class_char()?;
        match (low, high) {
            (Some(low), Some(high)) if low <= high => Ok(()),
            _ => Err(("invalid character class range", self.text(from))),
        }
    }

    /// One character of a class as it is, if it is one.
    fn class_char(&mut self) -> Result<Option<char>, Problem> {
        match self.peek() {
            Some('\\') => {
                let before = self.out.len();
                self.escape(true)?;
                let written = self.out[before..].trim_start_matches('\\');
                let mut chars = written.chars();
                Ok(chars.next().filter(|_| chars.next().is_none()))
            }
            Some(c) => {
                if matches!(c, '[' | ']' | '&' | '~' | '-' | '^') {
                    self.out.push('\\');
                }
                self.take();
                Ok(Some(c))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_go_refuses() {
        for (source, expected) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("+", "missing argument to repetition operator: `+`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("\\y", "invalid escape sequence: `\\y`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?<!a)", "invalid named capture: `(?<!a)`"),
            ("\\1", "invalid escape sequence: `\\1`"),
            ("\\pX", "invalid character class range: `\\pX`"),
            ("[[:]ah:]]", "invalid character class range: `[:]ah:]`"),
            ("[[:^^alpha:]]", "invalid character class range: `[:^^alpha:]`"),
        ] {
            let error = compile(source).map(|_| ()).unwrap_err();
            assert_eq!(error, format!("error parsing regexp: {expected}"), "{source}");
        }
    }

    #[test]
    fn long_ones_end_soon() {
        for part in ["(?i)", "[[:", "((", "[a]", "(?P<a>", "\\Q"] {
            let read = rewrite(&part.repeat(10_000));
            assert!(read.is_ok() || part != "[a]", "{part}: {read:?}");
            assert!(compile(&part.repeat(64 << 10)).is_err(), "{part}");
        }
    }

    #[test]
    fn what_is_read_alike() {
        for (source, text, expected) in [
            ("^a", "abc", true),
            ("^a$", "abc", false),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "ä", false),
            (r"^[\w.-]+$", "a.b-c", true),
            ("a{,2}", "a{,2}", true),
            ("^a{1,2}$", "aaa", false),
            ("[[:alpha:]]", "1", false),
            ("[[a]", "[", true),
            ("[[:]", ":", true),
            ("[[:^alpha:]]", "1", true),
            ("[a&&b]", "&", true),
            ("[]a]", "]", true),
            (r"\Qa.b\E", "axb", false),
            ("(?i)ABC", "abc", true),
            ("(?P<x>a)|b", "b", true),
            ("^(a|b)*$", "abab", true),
            (r"\x41", "A", true),
            (r"^\ \_$", " _", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
        ] {
            assert_eq!(compile(source).unwrap().is_match(text), expected, "{source} {text}");
        }
    }
}
