//! The label selector's query syntax: a lexer and a recursive descent over it. Error texts are kube-apiserver's.

use super::SelectorError;
use super::label::{Operator, Requirement};
use crate::field::FieldError;
use crate::labels;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Closed,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

const SPECIALS: &[(&str, Token)] = &[
    (")", Token::Closed),
    (",", Token::Comma),
    ("!", Token::Not),
    ("==", Token::DoubleEquals),
    ("=", Token::Equals),
    (">", Token::Greater),
    ("<", Token::Less),
    ("!=", Token::NotEquals),
    ("(", Token::Open),
];

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The next token, its text, and what is left.
fn lex(text: &str) -> (Token, &str, &str) {
    let text = text.trim_start_matches(is_space);
    let Some(first) = text.chars().next() else { return (Token::End, "", "") };
    if is_special(first) {
        let best = SPECIALS.iter().filter(|(s, _)| text.starts_with(s)).max_by_key(|(s, _)| s.len());
        return match best {
            Some((s, token)) => (*token, &text[..s.len()], &text[s.len()..]),
            None => (Token::Error, &text[..1], &text[1..]),
        };
    }
    let end = text.find(|c| is_special(c) || is_space(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let token = match word {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, word, rest)
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(mut text: &'a str) -> Self {
        let mut tokens = Vec::new();
        loop {
            let (token, word, rest) = lex(text);
            tokens.push((token, word));
            if token == Token::End {
                return Self { tokens, at: 0 };
            }
            text = rest;
        }
    }

    fn raw(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    /// The next token where values stand: `in` and `notin` are words there.
    fn peek(&self) -> (Token, &'a str) {
        match self.raw() {
            (Token::In | Token::NotIn, word) => (Token::Identifier, word),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut word) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, word) = self.take();
        }
        if token != Token::Identifier {
            return Err(SelectorError(format!("found '{word}', expected: identifier")));
        }
        let complaints = labels::qualified_name(word);
        if !complaints.is_empty() {
            return Err(SelectorError(FieldError::invalid("key", word, complaints.join("; ")).to_string()));
        }
        if negated {
            return Requirement::new(word, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(word, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(word, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, word) = self.raw();
        self.at += 1;
        match token {
            Token::DoubleEquals => Ok(Operator::DoubleEquals),
            Token::Equals => Ok(Operator::Equals),
            Token::Greater => Ok(Operator::GreaterThan),
            Token::In => Ok(Operator::In),
            Token::Less => Ok(Operator::LessThan),
            Token::NotEquals => Ok(Operator::NotEquals),
            Token::NotIn => Ok(Operator::NotIn),
            _ => Err(SelectorError(format!("found '{word}', expected: in, notin, =, ==, !=, gt, lt"))),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (token, word) = self.take();
        if token != Token::Open {
            return Err(SelectorError(format!("found '{word}' expected: '('")));
        }
        let (token, first) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.value_list()?;
                if self.take().0 != Token::Closed {
                    return Err(SelectorError(format!("found '{first}', expected: ')'")));
                }
                Ok(values)
            }
            Token::Closed => {
                self.take();
                Ok(Vec::new())
            }
            _ => Err(SelectorError(format!("found '{first}', expected: ',', ')' or identifier"))),
        }
    }

    fn value_list(&mut self) -> Result<Vec<String>, SelectorError> {
        let mut out: Vec<String> = Vec::new();
        loop {
            let (token, word) = self.take();
            match token {
                Token::Identifier => {
                    out.push(word.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Closed, _) => return Ok(out),
                        (_, word) => {
                            return Err(SelectorError(format!("found '{word}', expected: ',' or ')'")));
                        }
                    }
                }
                Token::Comma => {
                    if out.is_empty() {
                        out.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Closed => {
                            out.push(String::new());
                            return Ok(out);
                        }
                        Token::Comma => {
                            self.take();
                            out.push(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return Err(SelectorError(format!("found '{word}', expected: ',', or identifier"))),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, word) => Ok(word.to_owned()),
            (_, word) => Err(SelectorError(format!("found '{word}', expected: identifier"))),
        }
    }
}

/// All requirements of a query.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser::new(text);
    let mut out = Vec::new();
    loop {
        let (token, word) = parser.peek();
        match token {
            Token::Identifier | Token::Not => {
                let requirement = parser
                    .requirement()
                    .map_err(|e| SelectorError(format!("unable to parse requirement: {}", e.0)))?;
                out.push(requirement);
            }
            Token::End => return Ok(out),
            _ => {
                let text = format!("found '{word}', expected: !, identifier, or 'end of string'");
                return Err(SelectorError(text));
            }
        }
        match parser.take() {
            (Token::End, _) => return Ok(out),
            (Token::Comma, _) => {
                let (next, word) = parser.peek();
                if !matches!(next, Token::Identifier | Token::Not) {
                    return Err(SelectorError(format!("found '{word}', expected: identifier after ','")));
                }
            }
            (_, word) => {
                return Err(SelectorError(format!("found '{word}', expected: ',' or 'end of string'")));
            }
        }
    }
}
