//! JSONPath as printer columns use it (`.spec.l[*].a`, `.status.conditions[?(@.type=="Ready")].status`): the language of kubectl, without
//! templates around it. A field that is not there is nothing, not an error. It must not know columns.

use serde_json::Value;

/// Filters within filters go so deep, and no deeper.
const DEEPEST: usize = 8;
/// So many values are found at most, at any step: `..` and lists of subscripts can find a value many times.
pub const MOST_FOUND: usize = 10_000;

/// A path that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// All fields or items.
    All,
    /// The value and everything below it.
    Below,
    /// Items from, to (excluded), by steps of.
    Slice(Option<i64>, Option<i64>, i64),
    Item(i64),
    /// Several fields or items.
    Union(Vec<Step>),
    Filter(Operand, Comparison, Operand),
    /// Items that have something at the path.
    Exists(JsonPath),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

impl JsonPath {
    /// Reads a path; `None` if it is none, which finds nothing.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_at(text, 0)
    }

    /// Reads a path within so many filters.
    fn parse_at(text: &str, depth: usize) -> Option<Self> {
        if depth > DEEPEST {
            return None;
        }
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Below);
                rest = after;
                if !rest.starts_with('[') {
                    rest = name(rest, &mut steps)?;
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                // `.[0]` is `[0]`.
                rest =
                    if after.starts_with('[') || after.is_empty() { after } else { name(after, &mut steps)? };
            } else if rest.starts_with('[') {
                let end = closing(rest)?;
                steps.push(subscript(&rest[1..end], depth)?);
                rest = &rest[end + 1..];
            } else if steps.is_empty() {
                rest = name(rest, &mut steps)?;
            } else {
                return None;
            }
        }
        Some(Self { steps })
    }

    /// What is found, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.take(value, &mut next);
                if next.len() >= MOST_FOUND {
                    next.truncate(MOST_FOUND);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

/// A name after a dot, with `\` before characters that would end it.
fn name<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => return None,
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Some(&text[end..])
}

/// Where the bracket that begins the text is closed.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<&str> {
    let text = text.trim();
    let inside = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inside('\'').or_else(|| inside('"'))
}

fn subscript(text: &str, depth: usize) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return self::filter(filter, depth);
    }
    if text.contains(',') {
        return text
            .split(',')
            .map(|part| subscript(part, depth))
            .collect::<Option<Vec<_>>>()
            .map(Step::Union);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name.replace("\\.", ".")));
    }
    if text.contains(':') {
        let parts: Vec<&str> = text.split(':').collect();
        let bound = |at: usize| match parts.get(at).map(|p| p.trim()) {
            None | Some("") => Some(None),
            Some(number) => number.parse().ok().map(Some),
        };
        return Some(Step::Slice(bound(0)?, bound(1)?, bound(2)?.unwrap_or(1)));
    }
    text.parse().ok().map(Step::Item)
}

fn filter(text: &str, depth: usize) -> Option<Step> {
    const SIGNS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let found = SIGNS.iter().find_map(|(sign, comparison)| Some((text.split_once(sign)?, *comparison)));
    let Some(((left, right), comparison)) = found else {
        return JsonPath::parse_at(text.trim().strip_prefix('@')?, depth + 1).map(Step::Exists);
    };
    Some(Step::Filter(operand(left, depth)?, comparison, operand(right, depth)?))
}

fn operand(text: &str, depth: usize) -> Option<Operand> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix('@') {
        return JsonPath::parse_at(path, depth + 1).map(Operand::Path);
    }
    if let Some(text) = quoted(text) {
        return Some(Operand::Literal(text.into()));
    }
    serde_json::from_str(text).ok().map(Operand::Literal)
}

impl Step {
    fn take<'v>(&self, value: &'v Value, found: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Field(name), Value::Object(fields)) => found.extend(fields.get(name)),
            (Step::All, Value::Object(fields)) => found.extend(fields.values()),
            (Step::All, Value::Array(items)) => found.extend(items),
            (Step::Below, value) => below(value, found),
            (Step::Item(at), Value::Array(items)) => {
                let at = if *at < 0 { at + items.len() as i64 } else { *at };
                found.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
            }
            (Step::Slice(from, to, by), Value::Array(items)) => {
                let length = items.len() as i64;
                let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length) as usize;
                let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)));
                let by = usize::try_from(*by).unwrap_or(1).max(1);
                found.extend(items.get(from..to).unwrap_or_default().iter().step_by(by));
            }
            (Step::Union(steps), value) => {
                for step in steps {
                    if found.len() >= MOST_FOUND {
                        return;
                    }
                    step.take(value, found);
                }
            }
            (Step::Filter(left, comparison, right), Value::Array(items)) => {
                found.extend(items.iter().filter(|item| comparison.holds(left.of(item), right.of(item))));
            }
            (Step::Exists(path), Value::Array(items)) => {
                found.extend(items.iter().filter(|item| !path.find(item).is_empty()));
            }
            _ => {}
        }
    }
}

fn below<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    found.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| below(value, found)),
        Value::Array(items) => items.iter().for_each(|value| below(value, found)),
        _ => {}
    }
}

impl Operand {
    fn of<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Operand::Path(path) => path.find(item).first().copied(),
            Operand::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (Some(left), Some(right)) = (left, right) else { return false };
        let order = match (left, right) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Equal => order == Some(std::cmp::Ordering::Equal),
            Self::Unequal => order != Some(std::cmp::Ordering::Equal),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let value = json!({"spec": {"l": [{"a": 1}, {"a": 2}, {"b": 3}], "x.y": "z", "n": 5},
            "status": {"conditions": [{"type": "A", "status": "no"}, {"type": "Ready", "status": "yes"}]}});
        for (path, expected) in [
            (".spec.n", json!([5])),
            ("$.spec.n", json!([5])),
            (".spec.none", json!([])),
            (".spec.l[*].a", json!([1, 2])),
            (".spec.l[0].a", json!([1])),
            (".spec.l[-1].b", json!([3])),
            (".spec.l[0:2].a", json!([1, 2])),
            (".spec.l[0,1].a", json!([1, 2])),
            (".spec['n']", json!([5])),
            (r".spec.x\.y", json!(["z"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["yes"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["no"])),
            (".spec.l[?(@.a>1)].a", json!([2])),
            (".spec.l[?(@.b)].b", json!([3])),
            ("..a", json!([1, 2])),
        ] {
            let found: Vec<Value> = JsonPath::parse(path)
                .map(|p| p.find(&value).into_iter().cloned().collect())
                .unwrap_or_default();
            assert_eq!(Value::Array(found), expected, "{path}");
        }
        assert_eq!(JsonPath::parse(".a[").map(|_| ()), None);
    }

    #[test]
    fn paths_without_end() {
        let nested = |levels: usize| format!("{}.a{}", "[?(@".repeat(levels), ")]".repeat(levels));
        assert!(JsonPath::parse(&nested(8)).is_some());
        assert_eq!(JsonPath::parse(&nested(9)), None);
        assert_eq!(JsonPath::parse(&nested(500)), None);
        let deep = (0..60).fold(json!(1), |inner, _| json!({"a": [inner, 1]}));
        for path in ["..*..*..*..*..*..*", "[*,*].a[*,*].a[*,*].a[*,*]..*..*..*"] {
            let found = JsonPath::parse(path).map(|path| path.find(&deep).len());
            assert!(found.is_some_and(|found| found <= MOST_FOUND), "{path}: {found:?}");
        }
    }
}
