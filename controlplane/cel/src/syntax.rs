//! Expressions as trees: read by the parser of the crate `cel`, rewritten into our own nodes with dense numbers, macros expanded.
//! Knows nothing of types.

use cel::Env;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo};

use crate::macros;
use crate::source::{Errors, Location, Source, SourceError};

/// Longest expression in characters.
const MAX_CHARACTERS: usize = 100_000;
/// Deepest nesting of parts within parts.
const MAX_DEPTH: usize = 250;
/// Nesting up to which the parser runs on the caller's stack.
const SHALLOW: usize = 12;
/// Stack of the thread that parses what is deeper, bytes (only what is touched costs memory).
const STACK: usize = 64 << 20;

/// A part of an expression with its number, by which types, costs and places are kept.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub id: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select(Box<Select>),
    Call(Box<Call>),
    List { elements: Vec<Node>, optional: Vec<usize> },
    Map(Vec<Entry>),
    Struct { name: String, fields: Vec<Node> },
    Fold(Box<Fold>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// `operand.field`, or `has(operand.field)`.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub operand: Node,
    pub field: String,
    pub test: bool,
}

/// A function or operator; `target.function(args)` has a target.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub function: String,
    pub target: Option<Node>,
    pub args: Vec<Node>,
}

/// An entry of a map literal.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

/// A loop over a list or map, what the macros become: the accumulator starts as `init` and becomes `step` for each element while
/// `condition` holds; the value is `result`.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub range: Node,
    pub var: String,
    pub var2: Option<String>,
    pub accu: String,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

/// The expression read, with the places of its parts.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub root: Node,
    pub places: Places,
}

/// The character each part begins with, by its number.
#[derive(Debug, Default)]
pub(crate) struct Places {
    characters: Vec<u32>,
}

impl Places {
    pub(crate) fn len(&self) -> usize {
        self.characters.len()
    }

    pub(crate) fn of(&self, id: u32) -> usize {
        self.characters.get(id as usize).copied().unwrap_or_default() as usize
    }

    /// A new number for a part at that character.
    pub(crate) fn add(&mut self, character: usize) -> u32 {
        self.characters.push(character as u32);
        (self.characters.len() - 1) as u32
    }
}

/// Reads an expression. `bindings`: with `cel.bind`.
pub(crate) fn parse(source: &Source, bindings: bool) -> Result<Parsed, Errors> {
    let text = source.text();
    let size = text.chars().count();
    if size > MAX_CHARACTERS {
        return Err(nowhere(format!(
            "expression code point size exceeds limit: size: {size}, limit {MAX_CHARACTERS}"
        )));
    }
    let depth = depth(text);
    if depth > MAX_DEPTH {
        return Err(nowhere(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
    }
    if depth <= SHALLOW {
        return convert(source, bindings);
    }
    // Deep expressions are read on a stack of their own: the parser recurses several frames per level.
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new()
            .name("cel-parse".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || convert(source, bindings));
        match parser.map(|parser| parser.join()) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) => Err(nowhere("the expression could not be read".to_owned())),
            Err(error) => Err(nowhere(format!("no thread to read the expression on: {error}"))),
        }
    })
}

/// An error about the whole expression, without a line.
fn nowhere(message: String) -> Errors {
    let text = format!("ERROR: <input>:-1:0: {message}");
    Errors { errors: vec![SourceError { location: Location { line: -1, column: -1 }, message }], text }
}

fn convert(source: &Source, bindings: bool) -> Result<Parsed, Errors> {
    let parser = Env::default().parser().enable_optional_syntax(true).max_recursion_depth(MAX_DEPTH as u16);
    let (tree, info) = match parser.parse_with_source_info(source.text()) {
        Ok(read) => read,
        Err(failed) => return Err(source.errors(syntax_errors(failed.errors, source.text().is_empty()))),
    };
    let mut converter = Converter { info, places: Places::default(), errors: Vec::new(), source, bindings };
    let root = converter.node(tree);
    if !converter.errors.is_empty() {
        return Err(source.errors(converter.errors));
    }
    Ok(Parsed { root, places: converter.places })
}

/// The parser's errors without those that only say that a part of a broken tree is missing. Those of an empty text are before it.
fn syntax_errors(errors: Vec<cel::ParseError>, empty: bool) -> Vec<SourceError> {
    let broken = errors.iter().any(|error| error.msg.starts_with("Syntax error"));
    let follows = |message: &str| {
        message.starts_with("No `")
            || message.starts_with("Incomplete ")
            || message.starts_with("unexpected character, wanted")
    };
    let shown = errors.into_iter().filter(|error| !broken || !follows(&error.msg));
    let column = |column: isize| if empty { -1 } else { column as i64 - 1 };
    shown
        .map(|error| SourceError {
            location: Location { line: error.pos.0 as i64, column: column(error.pos.1) },
            message: expected(error.msg),
        })
        .collect()
}

/// What may follow any operand.
const OPERATORS: [&str; 17] = [
    "'=='", "'!='", "'in'", "'<'", "'<='", "'>='", "'>'", "'&&'", "'||'", "'['", "'.'", "'-'", "'?'", "'+'",
    "'*'", "'/'", "'%'",
];

/// The message without the operators that might have followed, which cel-go's parser does not list after an operand.
fn expected(message: String) -> String {
    let Some((before, set)) = message.split_once(" expecting {") else { return message };
    let tokens: Vec<&str> = set.trim_end_matches('}').split(", ").collect();
    if !["'=='", "'&&'", "'%'"].iter().all(|operator| tokens.contains(operator)) {
        return message;
    }
    let rest: Vec<&str> = tokens.into_iter().filter(|token| !OPERATORS.contains(token)).collect();
    match rest.as_slice() {
        [] => message,
        [one] => format!("{before} expecting {one}"),
        several => format!("{before} expecting {{{}}}", several.join(", ")),
    }
}

/// Turns the parser's tree into ours.
pub(crate) struct Converter<'s> {
    info: SourceInfo,
    pub places: Places,
    errors: Vec<SourceError>,
    source: &'s Source,
    /// `cel.bind` is a macro.
    pub bindings: bool,
}

impl Converter<'_> {
    fn at(&self, id: u64) -> usize {
        // The parser counts bytes.
        self.info.offset_for(id).map_or(0, |(start, _)| self.source.character(start as usize))
    }

    /// A new part at the place of another.
    pub(crate) fn new_node(&mut self, like: u32, kind: Kind) -> Node {
        let at = self.places.of(like);
        Node { id: self.places.add(at), kind }
    }

    pub(crate) fn error(&mut self, id: u32, message: &str) {
        let location = self.source.location(self.places.of(id));
        self.errors.push(SourceError { location, message: message.to_owned() });
    }

    /// The error of an expression that macros made too large, once.
    pub(crate) fn too_large(&mut self, id: u32) {
        let message = "expression is too large after macros were expanded";
        if self.errors.last().is_none_or(|error| error.message != message) {
            self.error(id, message);
        }
    }

    fn node(&mut self, from: IdedExpr) -> Node {
        let at = self.at(from.id);
        let id = self.places.add(at);
        let kind = match from.expr {
            Expr::Unspecified => Kind::Literal(Literal::Null),
            Expr::Literal(literal) => Kind::Literal(literal_of(literal)),
            Expr::Ident(name) => Kind::Ident(name),
            Expr::Select(select) => {
                let operand = self.node(*select.operand);
                Kind::Select(Box::new(Select { operand, field: select.field, test: select.test }))
            }
            Expr::Call(call) => {
                let target = call.target.map(|target| self.node(*target));
                let args = call.args.into_iter().map(|arg| self.node(arg)).collect();
                return macros::expand(self, id, Call { function: call.func_name, target, args });
            }
            Expr::List(list) => {
                let elements = list.elements.into_iter().map(|element| self.node(element)).collect();
                Kind::List { elements, optional: list.optional_indices }
            }
            Expr::Map(map) => {
                Kind::Map(map.entries.into_iter().filter_map(|entry| self.entry(entry.expr)).collect())
            }
            Expr::Struct(made) => {
                let fields = made.entries.into_iter().filter_map(|entry| match entry.expr {
                    EntryExpr::StructField(field) => Some(self.node(field.value)),
                    EntryExpr::MapEntry(_) => None,
                });
                Kind::Struct { name: made.type_name, fields: fields.collect() }
            }
            // The parser runs without macros, and nothing else makes one.
            Expr::Comprehension(_) => Kind::Literal(Literal::Null),
        };
        Node { id, kind }
    }

    fn entry(&mut self, entry: EntryExpr) -> Option<Entry> {
        match entry {
            EntryExpr::MapEntry(entry) => {
                let key = self.node(entry.key);
                let value = self.node(entry.value);
                Some(Entry { key, value, optional: entry.optional })
            }
            EntryExpr::StructField(_) => None,
        }
    }
}

fn literal_of(literal: LiteralValue) -> Literal {
    match literal {
        LiteralValue::Boolean(value) => Literal::Bool(value.into_inner()),
        LiteralValue::Bytes(value) => Literal::Bytes(value.into_inner()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(value.into_inner()),
        LiteralValue::Null => Literal::Null,
        LiteralValue::String(value) => Literal::String(value.into_inner()),
        LiteralValue::UInt(value) => Literal::Uint(value.into_inner()),
    }
}

/// An upper bound of the depth of the tree, from the text alone, so that no text can make the parser recurse without end:
/// brackets nest, and within them operators, selections and calls hang one in another. `&&` and `||` become balanced trees, and
/// commas and colons begin anew.
fn depth(text: &str) -> usize {
    #[derive(Default)]
    struct Level {
        chain: usize,
        inner: usize,
        deepest: usize,
    }
    impl Level {
        fn cut(&mut self) {
            self.deepest = self.deepest.max(self.chain + self.inner);
            self.chain = 0;
            self.inner = 0;
        }
    }
    let mut levels = vec![Level::default()];
    let mut deepest = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let level = levels.len() - 1;
        match bytes[at] {
            b'"' | b'\'' | b'`' => {
                at = after_string(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end);
                continue;
            }
            b'(' | b'[' | b'{' => {
                levels[level].chain += 1;
                levels.push(Level::default());
            }
            b')' | b']' | b'}' if level > 0 => {
                levels[level].cut();
                let closed = levels.pop().map_or(0, |closed| closed.deepest);
                let parent = &mut levels[level - 1];
                parent.inner = parent.inner.max(closed);
            }
            b'&' | b'|' | b',' => levels[level].cut(),
            b':' | b'?' => levels[level].chain += 1,
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' => levels[level].chain += 1,
            _ => {}
        }
        // What is open may be more than what will be closed.
        deepest = deepest.max(levels.len());
        at += 1;
    }
    while let Some(mut level) = levels.pop() {
        level.cut();
        deepest = deepest.max(level.deepest);
        if let Some(parent) = levels.last_mut() {
            parent.inner = parent.inner.max(level.deepest);
        }
    }
    deepest
}

/// The place after the string literal that begins there.
fn after_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let raw = start > 0 && matches!(bytes[start - 1], b'r' | b'R');
    let triple =
        bytes.get(start + 1) == Some(&quote) && bytes.get(start + 2) == Some(&quote) && quote != b'`';
    let mut at = start + if triple { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if !raw => at += 1,
            byte if byte == quote && !triple => return at + 1,
            byte if byte == quote
                && bytes.get(at + 1) == Some(&quote)
                && bytes.get(at + 2) == Some(&quote) =>
            {
                return at + 3;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        parse(&Source::new(text), false).map_or_else(|errors| errors.text, |_| "ok".to_owned())
    }

    #[test]
    fn syntax_errors_read_as_those_of_cel_go() {
        let expecting = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
        for (text, wanted) in [
            ("self ++ 1", format!("ERROR: <input>:1:7: Syntax error: extraneous input '+' expecting {expecting}\n | self ++ 1\n | ......^")),
            ("", format!("ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {expecting}")),
            ("Not Valid!", "ERROR: <input>:1:5: Syntax error: mismatched input 'Valid' expecting <EOF>\n | Not Valid!\n | ....^".to_owned()),
            ("has(1)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(1)\n | ....^".to_owned()),
            ("[].all(a.b, true)", "ERROR: <input>:1:9: argument must be a simple name\n | [].all(a.b, true)\n | ........^".to_owned()),
        ] {
            assert_eq!(errors(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_too_deep_or_long_is_refused() {
        let limit = "ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
        for text in [
            "(".repeat(9_000),
            "[".repeat(300) + &"]".repeat(300),
            "a+".repeat(40_000) + "a",
            "a.b".to_owned() + &".c".repeat(5_000),
            "-".repeat(400) + "1",
        ] {
            assert_eq!(errors(&text), limit, "{:.20}", text);
        }
        assert!(errors(&"a".repeat(100_001)).contains("exceeds limit: size: 100001, limit 100000"));
        assert_eq!(errors(&("(".repeat(60) + "1" + &")".repeat(60))), "ok");
        assert_eq!(errors(&("a == 1 && ".repeat(2_000) + "true")), "ok");
        assert_eq!(errors("'((((' + r\"\\\" + '''(''(''' // ((("), "ok");
    }
}
