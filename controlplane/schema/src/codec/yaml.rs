//! YAML to values and back, as clients know it from the reference implementation: YAML 1.1 scalars (`yes` is true, `010`
//! is eight), keys sorted on output. It must not know of objects; JSON is YAML too.

mod emit;
mod resolve;

use std::collections::HashMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::{DecodeError, Decoded, Typed, typed};
use crate::check::{self, Walk};
use crate::table::{FieldKind, Table, TypeId};

pub use emit::encode;

/// Decodes the first document. Keys given twice are told as the strict converter tells them.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = document(bytes)?;
    Ok(Decoded { value, duplicate_fields: duplicates })
}

/// Decodes the first document as an object of a type.
pub fn decode_as(table: &Table, id: TypeId, bytes: &[u8]) -> Result<Typed, DecodeError> {
    let (value, duplicates) = document(bytes)?;
    let mut walk = Walk::new(table);
    let value = check::run(&mut walk, &FieldKind::Object(id), value)
        .map_err(|e| DecodeError::Syntax(e.to_string()))?;
    let (strict, error) = walk.finish();
    let mut typed = typed(value, strict, error)?;
    if !duplicates.is_empty() {
        typed.strict.insert(0, format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")));
    }
    Ok(typed)
}

/// Up to this many nodes, aliases unfolded, nearly all may come from aliases.
const FEW_NODES: f64 = 400_000.0;

/// From this many nodes on only a tenth may come from aliases.
const MANY_NODES: f64 = 4_000_000.0;

/// Nesting that is refused before the stack runs out.
const MOST_DEPTH: usize = 500;

fn document(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| DecodeError::Syntax(format!("yaml: invalid UTF-8 at byte {}", e.valid_up_to())))?;
    let events = Parser::new_from_str(text);
    let mut composer = Composer {
        text,
        events,
        anchors: HashMap::new(),
        duplicates: Vec::new(),
        nodes: 0,
        aliased: 0,
        depth: 0,
    };
    let value = composer.first()?;
    Ok((value, composer.duplicates))
}

struct Composer<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    duplicates: Vec<String>,
    nodes: usize,
    aliased: usize,
    depth: usize,
}

impl<'a> Composer<'a> {
    /// The first document; an empty stream is `null`.
    fn first(&mut self) -> Result<Value, DecodeError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(Value::Null),
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => return self.node(event, span),
            }
        }
    }

    /// The next event that stands for something.
    fn next(&mut self) -> Result<(Event<'a>, Span), DecodeError> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(syntax(&error, self.text)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Value, DecodeError> {
        self.nodes += 1;
        if self.depth > MOST_DEPTH {
            return Err(DecodeError::Syntax(format!("yaml: line {}: exceeded max depth", span.start.line())));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| tag.suffix().to_owned());
                let value = match (tag.as_deref(), style) {
                    (Some("str" | "binary"), _) => Value::String(text.into_owned()),
                    (Some("int" | "float" | "bool" | "null"), _) | (None, ScalarStyle::Plain) => {
                        resolve::plain(&text)
                    }
                    _ => Value::String(text.into_owned()),
                };
                Ok(self.remember(anchor, value))
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(value) => {
                    let size = size(value);
                    self.nodes += size;
                    self.aliased += size;
                    if self.is_bomb() {
                        return Err(DecodeError::Syntax(
                            "yaml: document contains excessive aliasing".to_owned(),
                        ));
                    }
                    Ok(value.clone())
                }
                None => Err(DecodeError::Syntax(format!(
                    "yaml: line {}: unknown anchor referenced",
                    span.start.line()
                ))),
            },
            Event::SequenceStart(_, anchor, ..) => self.sequence(anchor),
            Event::MappingStart(_, anchor, ..) => self.mapping(anchor),
            other => {
                Err(DecodeError::Syntax(format!("yaml: line {}: unexpected {other:?}", span.start.line())))
            }
        }
    }

    /// Whether aliases make far more of the document than is written in it.
    fn is_bomb(&self) -> bool {
        let (nodes, aliased) = (self.nodes as f64, self.aliased as f64);
        let beyond = ((nodes - FEW_NODES) / (MANY_NODES - FEW_NODES)).clamp(0.0, 1.0);
        self.aliased > 100 && self.nodes > 1000 && aliased / nodes > 0.99 - 0.89 * beyond
    }

    fn remember(&mut self, anchor: usize, value: Value) -> Value {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        value
    }

    fn sequence(&mut self, anchor: usize) -> Result<Value, DecodeError> {
        self.depth += 1;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, span) => items.push(self.node(event, span)?),
            }
        }
        self.depth -= 1;
        Ok(self.remember(anchor, Value::Array(items)))
    }

    fn mapping(&mut self, anchor: usize) -> Result<Value, DecodeError> {
        self.depth += 1;
        let mut out = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let line = span.start.line();
            let key = resolve::key(self.node(event, span)?)
                .map_err(|kind| DecodeError::Syntax(format!("unsupported map key of type: {kind}")))?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            if is_merge {
                merged.push(value);
            } else if out.insert(key.clone(), value).is_some() {
                self.duplicates.push(format!("line {line}: key {key:?} already set in map"));
            }
        }
        self.depth -= 1;
        for source in merged.into_iter().flat_map(|v| if let Value::Array(all) = v { all } else { vec![v] }) {
            let Value::Object(source) = source else {
                return Err(DecodeError::Syntax(
                    "yaml: map merge requires map or sequence of maps as the value".to_owned(),
                ));
            };
            for (key, value) in source {
                out.entry(key).or_insert(value);
            }
        }
        Ok(self.remember(anchor, Value::Object(out)))
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// A syntax error in the words that clients know (those of libyaml).
fn syntax(error: &ScanError, text: &str) -> DecodeError {
    let info = error.info();
    let known = if info.contains("unclosed bracket") {
        match text.trim_end().chars().next_back() {
            Some('[' | '{' | ',') => "did not find expected node content",
            _ if info.contains('{') => "did not find expected ',' or '}'",
            _ => "did not find expected ',' or ']'",
        }
    } else if info.contains("unclosed quote") || info.contains("quoted scalar") {
        "found unexpected end of stream"
    } else if info.contains("unexpected character") || info.contains("tabs disallowed") {
        "found character that cannot start any token"
    } else {
        info.rsplit_once(", ").map_or(&*info, |(_, rest)| rest)
    };
    DecodeError::Syntax(format!("yaml: line {}: {known}", error.marker().line()))
}

#[cfg(test)]
mod tests;
