//! The text of an expression, places in it, and errors shown with the line they are in, as cel-go shows them.

use std::fmt;

/// An expression's text, cut into lines.
#[derive(Debug)]
pub struct Source {
    text: String,
    /// The character each line begins with.
    lines: Vec<usize>,
    /// The character that each byte is of.
    characters: Option<Vec<u32>>,
}

/// A place: line from 1, column in characters from 0 (-1: before the first, as for an empty text).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, from 1; -1 where there is no place.
    pub line: i64,
    /// Column in characters, from 0.
    pub column: i64,
}

/// An error at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// Where.
    pub location: Location,
    /// What.
    pub message: String,
}

/// The errors of one expression, in the order of their places, with the text they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// The errors by themselves.
    pub errors: Vec<SourceError>,
    /// All of them as cel-go prints them.
    pub text: String,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Errors {}

/// More errors than this are only counted.
const MAX_ERRORS: usize = 100;
/// Bytes from which on errors come without the line they are in, which may be long.
const MAX_TEXT: usize = 1 << 20;

impl Source {
    /// The source with that text.
    pub fn new(text: &str) -> Self {
        let starts = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        // Where all characters are of one byte, counting either is the same.
        let characters = (!text.is_ascii()).then(|| {
            let sized = text.chars().zip(0_u32..).flat_map(|(c, at)| std::iter::repeat_n(at, c.len_utf8()));
            sized.chain(std::iter::once(text.chars().count() as u32)).collect()
        });
        Self { text: text.to_owned(), lines, characters }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of the character with that number, from 0.
    pub fn location(&self, character: usize) -> Location {
        let line = self.lines.partition_point(|start| *start <= character);
        let start = line.checked_sub(1).map_or(0, |at| self.lines[at]);
        Location { line: line as i64, column: (character - start) as i64 }
    }

    /// The number of the character that begins at a byte.
    pub fn character(&self, byte: usize) -> usize {
        match &self.characters {
            Some(characters) => {
                characters.get(byte).or(characters.last()).copied().unwrap_or_default() as usize
            }
            None => byte,
        }
    }

    /// The errors, sorted by place, with their text.
    pub fn errors(&self, mut errors: Vec<SourceError>) -> Errors {
        errors.sort_by_key(|error| error.location);
        let mut size = 0;
        let mut lines = Vec::new();
        for error in errors.iter().take(MAX_ERRORS) {
            let line = self.show(error, size < MAX_TEXT);
            size += line.len();
            lines.push(line);
        }
        if errors.len() > MAX_ERRORS {
            lines.push(format!("{} more errors were truncated", errors.len() - MAX_ERRORS));
        }
        Errors { text: lines.join("\n"), errors }
    }

    fn show(&self, error: &SourceError, with_line: bool) -> String {
        let Location { line, column } = error.location;
        let mut shown = format!("ERROR: <input>:{line}:{}: {}", column + 1, error.message);
        let Some(snippet) = usize::try_from(line - 1)
            .ok()
            .and_then(|line| self.text.split('\n').nth(line))
            .filter(|_| with_line && !self.text.is_empty())
        else {
            return shown;
        };
        let snippet = snippet.replace('\t', " ");
        shown.push_str(&format!("\n | {snippet}\n | "));
        let mut rest = snippet.chars();
        for _ in 0..column {
            // A wide dot under a wide character, so that the mark stands where it should.
            match rest.next() {
                Some(c) => shown.push(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' }),
                None => break,
            }
        }
        shown.push(if rest.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_their_place() {
        let source = Source::new("a +\n  b\u{e9}x + c");
        let at = |character, message: &str| SourceError {
            location: source.location(character),
            message: message.to_owned(),
        };
        let errors = source.errors(vec![at(8, "second"), at(0, "first")]);
        assert_eq!(
            errors.text,
            "ERROR: <input>:1:1: first\n | a +\n | ^\nERROR: <input>:2:5: second\n |   b\u{e9}x + c\n | ...\u{ff0e}^"
        );
    }
}
