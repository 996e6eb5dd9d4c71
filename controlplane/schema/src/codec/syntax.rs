//! Says what is wrong with malformed JSON in the words that clients know (those of Go's scanner). Used only after
//! decoding failed. It must not build values.

/// The first syntax error, if there is one.
pub(super) fn first_error(bytes: &[u8]) -> Option<String> {
    Scanner { bytes, at: 0 }.document().err()
}

/// Nesting beyond this is refused.
const MOST_DEPTH: usize = 10_000;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Outcome = Result<(), String>;

/// What the scanner stands in.
enum Open {
    Object,
    Array,
}

impl Scanner<'_> {
    fn document(&mut self) -> Outcome {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // At the start of a value.
            self.space();
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? == b'}' {
                        self.at += 1;
                    } else {
                        self.key()?;
                        self.deeper(&mut open, Open::Object)?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? == b']' {
                        self.at += 1;
                    } else {
                        self.deeper(&mut open, Open::Array)?;
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => return self.wrong("looking for beginning of value"),
            }
            if self.after_value(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. True at the end of the document, false at the start of the next value.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Result<bool, String> {
        loop {
            self.space();
            let Some(container) = open.last() else {
                return if self.at == self.bytes.len() {
                    Ok(true)
                } else {
                    self.wrong("after top-level value").map(|()| true)
                };
            };
            match (container, self.peek()?) {
                (Open::Object, b',') => {
                    self.at += 1;
                    self.space();
                    self.key()?;
                    return Ok(false);
                }
                (Open::Array, b',') => {
                    self.at += 1;
                    return Ok(false);
                }
                (Open::Object, b'}') | (Open::Array, b']') => {
                    self.at += 1;
                    open.pop();
                }
                (Open::Object, _) => return self.wrong("after object key:value pair").map(|()| true),
                (Open::Array, _) => return self.wrong("after array element").map(|()| true),
            }
        }
    }

    fn deeper(&self, open: &mut Vec<Open>, container: Open) -> Outcome {
        if open.len() >= MOST_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        open.push(container);
        Ok(())
    }

    fn key(&mut self) -> Outcome {
        if self.peek()? != b'"' {
            return self.wrong("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.peek()? != b':' {
            return self.wrong("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Outcome {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        b'u' => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return self.wrong("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return self.wrong("in string escape code"),
                    }
                }
                0..=0x1f => return self.wrong("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Outcome {
        if self.peek()? == b'-' {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return self.wrong("in numeric literal");
            }
        }
        if self.peek()? == b'0' {
            self.at += 1
        } else {
            self.digits()
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return self.wrong("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return self.wrong("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Outcome {
        for (i, expected) in word.bytes().enumerate() {
            if self.peek()? != expected {
                let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                return if i == 0 {
                    self.wrong("looking for beginning of value")
                } else {
                    self.wrong(&context)
                };
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, String> {
        self.bytes.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn wrong(&self, context: &str) -> Outcome {
        let character = match self.bytes.get(self.at).copied() {
            None => return Err("unexpected end of JSON input".to_owned()),
            Some(b'\'') => "'\\''".to_owned(),
            Some(b'\\') => "'\\\\'".to_owned(),
            Some(b'\n') => "'\\n'".to_owned(),
            Some(b'\r') => "'\\r'".to_owned(),
            Some(b'\t') => "'\\t'".to_owned(),
            Some(c @ b' '..=b'~') => format!("'{}'", char::from(c)),
            Some(c @ 0x80..) => format!("'{}'", char::from(c)),
            Some(c) => format!("'\\x{c:02x}'"),
        };
        Err(format!("invalid character {character} {context}"))
    }
}

#[cfg(test)]
mod tests {
    use super::first_error;

    #[test]
    fn errors_read_as_clients_know_them() {
        let check = |input: &str, expected: Option<&str>| {
            assert_eq!(first_error(input.as_bytes()).as_deref(), expected, "{input}")
        };
        check("{}", None);
        check(" [1, {\"a\": [true, null, -1.5e+3]}] ", None);
        check("", Some("unexpected end of JSON input"));
        check("{", Some("unexpected end of JSON input"));
        check("{}x", Some("invalid character 'x' after top-level value"));
        check("{a", Some("invalid character 'a' looking for beginning of object key string"));
        check("{\"a\" 1}", Some("invalid character '1' after object key"));
        check("{\"a\":1 2}", Some("invalid character '2' after object key:value pair"));
        check("{\"a\":1,}", Some("invalid character '}' looking for beginning of object key string"));
        check("[1 2]", Some("invalid character '2' after array element"));
        check("nul", Some("unexpected end of JSON input"));
        check("nulx", Some("invalid character 'x' in literal null (expecting 'l')"));
        check("-x", Some("invalid character 'x' in numeric literal"));
        check("hello", Some("invalid character 'h' looking for beginning of value"));
        check("\"a\nb\"", Some("invalid character '\\n' in string literal"));
    }
}
