//! Writes values as block YAML: keys sorted, two spaces, lists at their key's level. It must not know of objects.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::resolve;

/// Encodes a value as one document.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => mapping(&mut out, entries, 0, false),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0, false),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out.into_bytes()
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// `inline`: the first key stands on a line that has begun (`- key: ...`).
fn mapping(out: &mut String, entries: &Map<String, Value>, level: usize, inline: bool) {
    for (at, (key, value)) in entries.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, level);
        }
        text(out, key, level + 1, false);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, level + 1, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, level, false);
            }
            other => {
                out.push(' ');
                scalar(out, other, level + 1);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], level: usize, inline: bool) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, level);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, level + 1, true),
            Value::Array(inner) if !inner.is_empty() => sequence(out, inner, level + 1, true),
            other => {
                scalar(out, other, level + 1);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => drop(write!(out, "{n}")),
        Value::String(s) => text(out, s, level, true),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(out: &mut String, s: &str, level: usize, may_break: bool) {
    if s.contains('\n') && may_break && is_block(s) {
        block(out, s, level);
    } else if resolve::is_ambiguous(s) || s.chars().any(needs_escape) {
        double_quoted(out, s);
    } else if is_plain(s) {
        out.push_str(s);
    } else {
        single_quoted(out, s);
    }
}

/// Whether a text of several lines can stand as a literal block.
fn is_block(s: &str) -> bool {
    !s.chars().any(|c| c != '\n' && needs_escape(c)) && !s.starts_with([' ', '\n']) && !s.contains(" \n")
}

fn block(out: &mut String, s: &str, level: usize) {
    out.push('|');
    let body = s.trim_end_matches('\n');
    match s.len() - body.len() {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, level);
            out.push_str(line);
        }
    }
}

fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{85}' | '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn is_plain(s: &str) -> bool {
    let bytes = s.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let second_is_space = bytes.get(1).is_none_or(|b| *b == b' ');
    let bad_start = match first {
        b'-' | b'?' | b':' => second_is_space || (*first == b'-' && s.starts_with("---")),
        b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%'
        | b'@' | b'`' | b' ' => true,
        b'.' => s.starts_with("..."),
        _ => false,
    };
    !bad_start && *last != b' ' && *last != b':' && !s.contains(": ") && !s.contains(" #")
}

fn single_quoted(out: &mut String, s: &str) {
    out.push('\'');
    out.push_str(&s.replace('\'', "''"));
    out.push('\'');
}

fn double_quoted(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            c if needs_escape(c) && (c as u32) < 0x100 => drop(write!(out, "\\x{:02X}", c as u32)),
            c if needs_escape(c) => drop(write!(out, "\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
