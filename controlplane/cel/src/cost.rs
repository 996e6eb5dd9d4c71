//! What expressions cost, as Kubernetes reckons it: the rules per function, both for the estimate from declared sizes and for the
//! evaluation. Sources: the cost rules of cel-go's checker and interpreter, and Kubernetes' own for its libraries.

mod estimate;

pub use estimate::Range;
pub(crate) use estimate::{Argument, estimate};

use crate::library::Overload;
use crate::types::Type;
use crate::value::{Map, Value};

/// A variable or a field.
pub(crate) const SELECT_AND_IDENT: u64 = 1;
/// A list literal.
pub(crate) const LIST: u64 = 10;
/// A map literal.
pub(crate) const MAP: u64 = 30;
/// An object literal.
pub(crate) const OBJECT: u64 = 40;
/// A character passed over.
const CHARACTER: f64 = 0.1;
/// A character of a regular expression, which is some quarter of a part of it.
const PATTERN: f64 = 0.25;
/// Longest pattern of a named format.
const FORMAT_PATTERN: u64 = 128;
/// A question to the authorizer.
const AUTHORIZATION: u64 = 350_000;
/// Longest name of a named format.
const FORMAT_NAME: u64 = 64;

/// The rule a call's cost follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Costing {
    /// One.
    Unit,
    /// Nothing of its own: `&&`, `||`.
    Logic,
    /// Nothing of its own: `?:`.
    Ternary,
    /// One; the estimate passes on the argument's size (`dyn`).
    Dyn,
    /// `list[i]`, `map[k]`: one; the estimate follows to the element.
    Index,
    /// `==`, `!=` and the order of texts: the shorter side.
    Compare,
    /// `==`, which is one for the libraries' types.
    Equal,
    /// `in` a list: its items.
    InList,
    /// `+` of texts: both.
    AddText,
    /// `+` of lists.
    AddList,
    /// `startsWith`, `endsWith`: estimated by the argument, counted by the target.
    Affix,
    /// `contains`: product of both.
    Contains,
    /// `matches`, product of text and pattern.
    Matches,
    /// `find`, `findAll`: as `matches`.
    Find,
    /// `bytes(string)`
    ToBytes,
    /// `string(bytes)`
    ToText,
    /// `strings.quote`
    Quote,
    /// `format`
    Format,
    /// A text parsed into something of one size (`ip`, `cidr`, `quantity`, ...).
    Parse,
    /// `ip.isCanonical`: parsing twice.
    ParseTwice,
    /// `url`: the text, once; the value is as long.
    Url,
    /// A text passed over into one as long (`lowerAscii`, `trim`, ...).
    Traverse,
    /// `replace`
    Replace,
    /// `split`
    Split,
    /// `join`
    Join,
    /// A list (or text) passed over (`sum`, `min`, `indexOf`, ...).
    Scan,
    /// `containsIP`; true if the argument is text.
    ContainsIp(bool),
    /// `containsCIDR`; true if the argument is text.
    ContainsCidr(bool),
    /// `validate` of a named format.
    Validate,
    /// `sets.*`: product of both sizes, so many times.
    Sets(u64),
    /// A list made as large as the result (`slice`, `reverse`, `lists.range`).
    Output,
    /// `flatten`
    Flatten,
    /// `distinct`: each item with each.
    Distinct,
    /// `sort`: each item with each.
    Sort,
    /// `sortBy`: each key with each.
    SortBy,
    /// A question to the authorizer: two are as much as an expression may cost.
    Authorization,
    /// A selector read from text.
    Selector,
}

/// A size times a cost per unit, rounded up.
fn scaled(size: u64, factor: f64) -> u64 {
    let cost = (size as f64 * factor).ceil();
    if cost >= u64::MAX as f64 { u64::MAX } else { cost as u64 }
}

impl Costing {
    /// What the call cost.
    pub(crate) fn actual(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let size = |at: usize| args.get(at).map_or(0, Value::size);
        let traverse = |at: usize, times: f64| scaled(size(at), times * CHARACTER);
        match self {
            Costing::Logic | Costing::Ternary => 0,
            Costing::Authorization => AUTHORIZATION,
            Costing::Selector => selector(Range::fixed(size(1))).max,
            Costing::Unit | Costing::Dyn | Costing::Index | Costing::AddList | Costing::Quote => 1,
            Costing::Format => traverse(0, 1.0).max(1),
            Costing::Equal if matches!(args.first(), Some(Value::Opaque(_))) => 1,
            Costing::Equal | Costing::Compare => scaled(size(0).min(size(1)), CHARACTER),
            Costing::InList => size(1),
            Costing::AddText => scaled(size(0) + size(1), CHARACTER),
            Costing::Affix
            | Costing::ToBytes
            | Costing::ToText
            | Costing::Parse
            | Costing::Url
            | Costing::Traverse => traverse(0, 1.0),
            Costing::ParseTwice | Costing::Replace | Costing::Split => traverse(0, 2.0),
            Costing::Join => scaled(result.size(), 2.0 * CHARACTER),
            Costing::Contains => traverse(0, 1.0).saturating_mul(traverse(1, 1.0)),
            Costing::Matches | Costing::Find => {
                scaled(size(0) + 1, CHARACTER).saturating_mul(scaled(size(1), PATTERN))
            }
            Costing::Scan => args.first().map_or(0, passed),
            Costing::ContainsIp(text) => {
                scaled(2 * size(0), CHARACTER) + if text { traverse(1, 1.0) } else { 0 }
            }
            Costing::ContainsCidr(text) => {
                scaled(2 * size(0), CHARACTER)
                    + traverse(0, 1.0)
                    + 1
                    + if text { traverse(1, 1.0) } else { 0 }
            }
            Costing::Validate => scaled(size(1) + 1, CHARACTER)
                .saturating_mul(scaled(crate::library::formats::pattern_size(args.first()), PATTERN)),
            Costing::Sets(times) => size(0).saturating_mul(size(1)).saturating_mul(times).saturating_add(1),
            Costing::Output => (LIST + 1).saturating_add(result.size()),
            Costing::Flatten => (LIST + 1).saturating_add(size(0).saturating_mul(depth(args.get(1)))),
            Costing::Distinct | Costing::Sort => self_compared(args.first()),
            Costing::SortBy => self_compared(args.get(1)),
        }
    }

    /// What the call may cost, and how large its result may be.
    pub(crate) fn estimated(self, overload: &Overload, args: &[Argument]) -> (Range, Option<Range>) {
        let size = |at: usize| args.get(at).map_or(Range::UNKNOWN, |arg| arg.size);
        let traverse = |at: usize, times: f64| size(at).scale(times * CHARACTER);
        match self {
            Costing::Unit | Costing::Dyn | Costing::Index => (Range::ONE, None),
            Costing::Parse => (traverse(0, 1.0), None),
            Costing::ParseTwice => (traverse(0, 2.0), None),
            Costing::Logic | Costing::Ternary => (Range::ZERO, None),
            Costing::Authorization => (Range::fixed(AUTHORIZATION), None),
            Costing::Selector => (selector(size(1)), None),
            Costing::Equal => (equal(args), None),
            Costing::Compare => (shorter(size(0), size(1)), None),
            Costing::InList => (size(1), None),
            Costing::AddText => {
                let sum = size(0).add(size(1));
                (sum.scale(CHARACTER), Some(sum))
            }
            Costing::AddList => (Range::ONE, Some(size(0).add(size(1)))),
            Costing::Affix => (traverse(1, 1.0), None),
            Costing::Contains => (traverse(0, 1.0).multiply(traverse(1, 1.0)), None),
            Costing::Matches => (pattern_cost(size(0), size(1)), None),
            Costing::Find => (pattern_cost(size(0), size(1)), Some(Range { min: 0, max: size(0).max })),
            Costing::ToBytes => {
                (traverse(0, 1.0), Some(Range { min: size(0).min, max: size(0).max.saturating_mul(4) }))
            }
            Costing::ToText => (traverse(0, 1.0), Some(Range { min: size(0).min / 4, max: size(0).max })),
            Costing::Quote => {
                let size = size(0);
                (
                    traverse(0, 1.0),
                    Some(Range {
                        min: size.min.saturating_add(2),
                        max: size.max.saturating_mul(2).saturating_add(2),
                    }),
                )
            }
            Costing::Format => (traverse(0, 1.0), None),
            Costing::Url | Costing::Traverse => (traverse(0, 1.0), Some(size(0))),
            Costing::Replace => (traverse(0, 2.0), Some(replaced(size(0), size(1), size(2)))),
            Costing::Split => {
                let most = args
                    .get(2)
                    .and_then(|arg| arg.literal)
                    .and_then(|most| u64::try_from(most).ok())
                    .unwrap_or(size(0).max);
                (traverse(0, 2.0), Some(Range { min: 0, max: most }))
            }
            Costing::Join => {
                let text = joined(args);
                (text.scale(CHARACTER), Some(text))
            }
            Costing::Scan => (scan(args), None),
            Costing::ContainsIp(text) => (address(text.then(|| size(1))), None),
            Costing::ContainsCidr(text) => {
                let both = Range { min: 4, max: 16 };
                (address(text.then(|| size(1))).add(both.scale(CHARACTER)).add(Range::ONE), None)
            }
            Costing::Validate => (traverse(1, 1.0).scale(FORMAT_PATTERN as f64 * PATTERN), None),
            Costing::Sets(times) => (size(0).multiply(size(1)).scale(times as f64).add(Range::ONE), None),
            other => other.estimated_list(overload, args),
        }
    }

    /// The rules of the list library: ten for the list made and one for the call, beside what is passed over.
    fn estimated_list(self, overload: &Overload, args: &[Argument]) -> (Range, Option<Range>) {
        let arg = |at: usize| args.get(at).map_or(Range::UNKNOWN, |arg| arg.size);
        let literal =
            |at: usize| args.get(at).and_then(|arg| arg.literal).and_then(|value| u64::try_from(value).ok());
        let (size, factor) = match self {
            Costing::Output if overload.id == "lists_range" => {
                (Range::fixed(literal(0).unwrap_or(u64::MAX)), 1.0)
            }
            Costing::Output if overload.id == "list_slice" => {
                let (start, end) = (literal(1).unwrap_or(0), literal(2).unwrap_or(arg(0).max));
                (Range::fixed(end.wrapping_sub(start)), 1.0)
            }
            Costing::Flatten => {
                (arg(0), if args.len() > 1 { literal(1).unwrap_or(u64::MAX) as f64 } else { 1.0 })
            }
            Costing::Distinct => (arg(0).multiply(arg(0)), 2.0),
            Costing::Sort => (arg(0).multiply(arg(0)), text_factor(args.first())),
            Costing::SortBy => (arg(1).multiply(arg(1)), text_factor(args.get(1))),
            _ => (arg(0), 1.0),
        };
        (size.scale(factor).add(Range::fixed(LIST + 1)), Some(size))
    }
}

/// Comparing two items costs two, and a tenth more if they are text.
fn text_factor(list: Option<&Argument>) -> f64 {
    match list.and_then(|list| list.item.as_ref()) {
        Some((Type::String | Type::Bytes, _)) => 2.0 + CHARACTER,
        _ => 2.0,
    }
}

/// Each item compared with each.
fn self_compared(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return LIST + 1 };
    let size = list.len() as u64;
    let factor = match list.get(0) {
        Some(Value::String(_) | Value::Bytes(_)) => 2.0 + CHARACTER,
        _ => 2.0,
    };
    ((size.saturating_mul(size) as f64 * factor) as u64).saturating_add(LIST + 1)
}

fn depth(arg: Option<&Value<'_>>) -> u64 {
    match arg {
        Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or(0),
        _ => 1,
    }
}

/// A selector read from that many characters: each requirement takes two of them, and makes a list and an object.
fn selector(text: Range) -> Range {
    Range::fixed(LIST).add(text.scale(CHARACTER)).add(text.scale(0.5).scale((LIST + OBJECT) as f64))
}

/// The shorter of two, of which at least one character is looked at.
fn shorter(left: Range, right: Range) -> Range {
    let max = left.max.min(right.max);
    Range { min: u64::from(max > 0), max }.scale(CHARACTER)
}

/// `==`: one for the libraries' types that are of one size.
fn equal(args: &[Argument]) -> Range {
    let [left, right] = args else { return Range::ONE };
    if left.of == right.of
        && let Type::Opaque(name) = left.of
    {
        return match name {
            crate::library::FORMAT => Range { min: 1, max: FORMAT_NAME }.scale(CHARACTER),
            crate::library::URL => {
                // Only the right one is looked at, for both.
                let max = if right.computed { right.size.max } else { 1 };
                Range { min: 1, max }.scale(CHARACTER)
            }
            _ => Range::ONE,
        };
    }
    shorter(left.size, right.size)
}

fn pattern_cost(text: Range, pattern: Range) -> Range {
    text.add(Range::ONE).scale(CHARACTER).multiply(pattern.scale(PATTERN))
}

/// Comparing two addresses, one of them parsed before if it is text of that size.
fn address(text: Option<Range>) -> Range {
    let cost = Range { min: 8, max: 32 }.scale(CHARACTER);
    text.map_or(cost, |text| cost.add(text.scale(CHARACTER)))
}

/// A list passed over: one for each item, and the items' characters; or a text.
fn scan(args: &[Argument]) -> Range {
    let Some(list) = args.first() else { return Range::ONE };
    match &list.item {
        Some((Type::String | Type::Bytes, size)) => list.size.multiply(Range::ONE.add(size.scale(CHARACTER))),
        Some(_) => list.size,
        None => list.size.scale(CHARACTER),
    }
}

/// How large a text with something replaced may be.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    // What is put between all characters, put in as it is, or put in for the shortest that may be found.
    let (most, kept) = match () {
        () if old.min == 0 => (text.max.saturating_add(1), text.max),
        () if new.max <= old.min => (0, text.max),
        () => (text.max.div_ceil(old.min), 0),
    };
    let (least, left) = match () {
        () if old.max == 0 => (text.min.saturating_add(1), text.min),
        () if old.max <= new.min => (0, text.min),
        () => (text.min.div_ceil(old.max), 0),
    };
    Range { min: least, max: most }.multiply(new).add(Range { min: left, max: kept })
}

/// How large a joined list may be.
fn joined(args: &[Argument]) -> Range {
    let Some(list) = args.first() else { return Range::UNKNOWN };
    let items = list.item.as_ref().map_or(Range::ZERO, |(_, size)| list.size.multiply(*size));
    match args.get(1) {
        Some(separator) => {
            items.add(separator.size.multiply(Range {
                min: list.size.min.saturating_sub(1),
                max: list.size.max.saturating_sub(1),
            }))
        }
        None => items,
    }
}

/// What passing over a value with all that is in it costs.
fn passed(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * CHARACTER) as u64,
        Value::List(list) => list.iter().map(|item| passed(&item)).sum(),
        Value::Map(map) => entries(map),
        _ => 1,
    }
}

fn entries(map: &Map<'_>) -> u64 {
    map.keys().iter().map(|key| passed(key) + map.get(key).map_or(0, |value| passed(&value))).sum()
}
