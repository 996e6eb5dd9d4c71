//! Text as Go's standard library writes it, because clients see it in messages: quoted strings and JSON.
//! Knows nothing of objects or errors.

use std::fmt::Write as _;

use serde_json::Value;

/// A string in double quotes with Go's escapes (the verb `%q`).
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => escape(&mut out, "\\x", 2, c),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x10000 => escape(&mut out, "\\u", 4, c),
            c => escape(&mut out, "\\U", 8, c),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, prefix: &str, width: usize, c: char) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{prefix}{:0width$x}", c as u32);
}

fn printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c as u32, 0xe000..=0xf8ff | 0xfff9..=0xfffb | 0xf0000..))
}

/// JSON as Go's `json.Marshal` writes it: compact, with `<`, `>`, `&` and the line separators escaped.
pub fn json(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let mut out = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape(&mut out, "\\u", 4, c),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quotes_like_go() {
        for (input, expected) in [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("tab\tnl\n", r#""tab\tnl\n""#),
            ("\u{1}", r#""\x01""#),
            ("ä→", r#""ä→""#),
            ("\u{a0}", r#""\u00a0""#),
            ("\u{200b}", r#""\u200b""#),
        ] {
            assert_eq!(quote(input), expected);
        }
    }

    #[test]
    fn json_escapes_html() {
        assert_eq!(super::json(&json!({"a": "<b>&"})), r#"{"a":"\u003cb\u003e\u0026"}"#);
    }
}
