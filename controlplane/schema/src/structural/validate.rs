//! What is wrong with an object's values, in the words that custom resources' clients know (those of go-openapi, and of the API
//! server where that says it otherwise). It must not know lists' keys (`lists`) nor rules.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use pagurus_controlplane_api::{formats, go};
use serde_json::{Map, Number, Value};

use super::number::{as_integer, is_whole, shown};
use super::{Additional, Limits, Schema, Type};

/// The path of errors that name their place in the text only.
const NOWHERE: &str = "<nil>";

/// What is wrong with a value below `base`.
pub fn validate(base: &Path, value: &Value, schema: &Schema) -> Vec<FieldError> {
    validate_change(base, value, None, schema)
}

/// The same for a value that was `old`: what did not change is not looked at, so that objects from before a schema became stricter
/// can still be changed elsewhere.
pub fn validate_change(base: &Path, value: &Value, old: Option<&Value>, schema: &Schema) -> Vec<FieldError> {
    let mut outcome = check(base, "", value, old, schema);
    // A list can be wrong in a hundred thousand places: each text is looked up, not compared with all.
    let mut told = HashSet::with_capacity(outcome.errors.len());
    outcome.errors.retain(|error| told.insert(error.to_string()));
    outcome.errors
}

/// What a check came to.
#[derive(Default)]
struct Outcome {
    errors: Vec<FieldError>,
    /// How many checks were passed: of alternatives that all fail, the one with most is told.
    matches: u32,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }
}

/// A place: where errors about it go and what texts call it.
#[derive(Clone, Copy)]
struct Place<'a> {
    base: &'a Path,
    path: &'a str,
}

impl Place<'_> {
    fn named(&self, path: &str) -> Path {
        match path.trim_start_matches('.') {
            "" if self.base.as_str().is_empty() => Path::from(NOWHERE),
            "" => self.base.clone(),
            name => self.base.child(name),
        }
    }

    fn here(&self) -> Path {
        self.named(self.path)
    }

    /// An error without a place of its own.
    fn nowhere(&self, text: String) -> FieldError {
        let path = if self.base.as_str().is_empty() { Path::from(NOWHERE) } else { self.base.clone() };
        FieldError::invalid(path, "", text)
    }

    fn invalid(&self, value: impl Into<BadValue>, what: &str) -> FieldError {
        FieldError::invalid(self.here(), value, format!("{} in body {what}", self.path))
    }

    fn mistyped(&self, wanted: &str, found: &str) -> FieldError {
        let text = format!("{} in body must be of type {wanted}: {}", self.path, go::quote(found));
        FieldError::type_invalid(self.here(), found, text)
    }
}

fn check(base: &Path, path: &str, value: &Value, old: Option<&Value>, schema: &Schema) -> Outcome {
    let mut outcome = Outcome::default();
    if old == Some(value) {
        return outcome;
    }
    let place = Place { base, path };
    let types = types(schema);
    let limits = schema.limits.as_deref();
    if !types.is_empty() || limits.is_some_and(|l| l.format.is_some()) || value.is_null() {
        outcome.merge(type_of(&place, value, schema, types));
        outcome.matches += 1;
    }
    let Some(limits) = limits else {
        match value {
            Value::Object(fields) => outcome.merge(object(&place, fields, old, schema, None)),
            Value::Array(items) => outcome.merge(array(&place, items, old, schema, None)),
            Value::Number(n) => outcome.errors.extend(range(&place, n, types, None)),
            _ => {}
        }
        return outcome;
    };
    if value.is_null() {
        outcome.errors.extend(listed(&place, value, limits));
        return outcome;
    }
    outcome.merge(alternatives(&place, value, old, limits));
    match value {
        Value::String(text) => {
            outcome.errors.extend(string(&place, text, limits));
            outcome.errors.extend(format(&place, text, limits));
        }
        Value::Number(n) => outcome.errors.extend(number(&place, n, types, limits)),
        Value::Array(items) => outcome.merge(array(&place, items, old, schema, Some(limits))),
        _ => {}
    }
    outcome.errors.extend(listed(&place, value, limits));
    if let Value::Object(fields) = value {
        outcome.merge(object(&place, fields, old, schema, Some(limits)));
    }
    outcome.matches += 1;
    outcome
}

/// The types that a value may be of.
fn types(schema: &Schema) -> &'static [&'static str] {
    if schema.int_or_string {
        return &["integer", "string"];
    }
    match schema.type_ {
        Type::Any => &[],
        Type::Object => &["object"],
        Type::Array => &["array"],
        Type::String => &["string"],
        Type::Integer => &["integer"],
        Type::Number => &["number"],
        Type::Boolean => &["boolean"],
    }
}

/// The type of a value, and the format that goes with it.
fn kind(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(n) if as_integer(n).is_some() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
    }
}

fn type_of(place: &Place<'_>, value: &Value, schema: &Schema, types: &[&str]) -> Outcome {
    let passed = || Outcome { errors: Vec::new(), matches: 1 };
    let failed = |error| Outcome { errors: vec![error], matches: 0 };
    let (kind, its_format) = kind(value);
    if value.is_null() {
        let refused = !types.is_empty() && !schema.nullable;
        return if refused { failed(place.mistyped(&types.join(","), "null")) } else { passed() };
    }
    let whole = matches!(value, Value::Number(n) if kind == "number" && n.as_f64().is_some_and(is_whole));
    let fits = types.contains(&kind)
        || (whole && types.contains(&"integer"))
        || (kind == "integer" && types.contains(&"number"));
    let format = schema.limits.as_ref().and_then(|limits| limits.format.as_deref());
    if let Some(format) = format {
        let textual = matches!(value, Value::String(_) | Value::Array(_));
        if !textual && !fits && format != its_format {
            return failed(place.mistyped(format, its_format));
        }
        let numeric = types.contains(&"number") || types.contains(&"integer");
        if textual && !numeric {
            // The format decides.
            return passed();
        }
    }
    if fits { passed() } else { failed(place.mistyped(&types.join(","), kind)) }
}

fn string(place: &Place<'_>, text: &str, limits: &Limits) -> Option<FieldError> {
    let length = text.chars().count() as i64;
    if let Some(most) = limits.max_length.filter(|most| length > *most) {
        return Some(FieldError::too_long(place.here(), most));
    }
    if let Some(least) = limits.min_length.filter(|least| length < *least) {
        return Some(place.invalid(text, &format!("should be at least {least} chars long")));
    }
    let pattern = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text))?;
    Some(place.invalid(text, &format!("should match '{}'", pattern.source())))
}

fn format(place: &Place<'_>, text: &str, limits: &Limits) -> Option<FieldError> {
    let format = limits.format.as_deref()?;
    (formats::check(format, text) == Some(false)).then(|| place.mistyped(format, text))
}

/// A number as it is shown.
fn bad_number(number: &Number) -> BadValue {
    match as_integer(number) {
        Some(integer) => integer.into(),
        None => BadValue::Text(shown(number.as_f64().unwrap_or_default())),
    }
}

/// Whether a number is in the range of its type and format.
fn in_range(number: f64, integer: Option<i64>, type_: &str, format: &str) -> bool {
    let whole = integer.is_some() || (number.fract() == 0.0 && number.abs() < 9.3e18);
    let within = |low: f64, high: f64| whole && (low..=high).contains(&number);
    match (type_, format) {
        ("integer", "int32") => within(f64::from(i32::MIN), f64::from(i32::MAX)),
        ("integer", "uint32") => within(0.0, f64::from(u32::MAX)),
        ("integer", "uint64") => within(0.0, 18_446_744_073_709_549_568.0),
        ("integer", _) => whole,
        (_, "float" | "float32") => number.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

fn out_of_range(place: &Place<'_>, what: &str, type_: &str, format: &str) -> FieldError {
    let path = place.path;
    place.nowhere(if format.is_empty() {
        format!("{what} value must be of type {type_} (default format) in {path}")
    } else {
        format!("{what} value must be of type {type_} with format {format} in {path}")
    })
}

fn range(place: &Place<'_>, number: &Number, types: &[&str], limits: Option<&Limits>) -> Option<FieldError> {
    let (type_, format) = (types.first().copied().unwrap_or(""), format_of(limits));
    let float = number.as_f64().unwrap_or_default();
    let fits = in_range(float, as_integer(number), type_, format);
    (!fits).then(|| out_of_range(place, "Checked", type_, format))
}

fn format_of(limits: Option<&Limits>) -> &str {
    limits.and_then(|limits| limits.format.as_deref()).unwrap_or("")
}

fn number(place: &Place<'_>, number: &Number, types: &[&str], limits: &Limits) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = range(place, number, types, Some(limits)).into_iter().collect();
    let (type_, format) = (types.first().copied().unwrap_or(""), format_of(Some(limits)));
    let float = number.as_f64().unwrap_or_default();
    let integer = as_integer(number);
    // A bound that its own type cannot hold is said so, and then the number is compared as a float.
    let mut bound = |what: &str, bound: f64| {
        let fits = in_range(bound, None, type_, format);
        if !fits {
            errors.push(out_of_range(place, what, type_, format));
        }
        fits && integer.is_some()
    };
    let multiple = limits.multiple_of.map(|factor| (factor, bound("MultipleOf", factor)));
    let least = limits.minimum.map(|least| (least, bound("Minimum boundary", least)));
    let most = limits.maximum.map(|most| (most, bound("Maximum boundary", most)));
    let text = |bound: f64, as_int: bool| if as_int { (bound as i64).to_string() } else { shown(bound) };
    if let Some((factor, as_int)) = multiple {
        let fits = match integer.filter(|_| as_int && factor as i64 != 0) {
            Some(integer) => integer % (factor as i64) == 0,
            None if factor < 1.0 => is_whole(1.0 / factor * float),
            None => is_whole(float / factor),
        };
        if !fits {
            let what = format!("should be a multiple of {}", text(factor, as_int));
            errors.push(place.invalid(bad_number(number), &what));
        }
    }
    if let Some((least, as_int)) = least {
        let order = compare(float, integer.filter(|_| as_int), least);
        let exclusive = limits.exclusive_minimum;
        if order.is_lt() || (exclusive && order.is_eq()) {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            errors.push(
                place.invalid(bad_number(number), &format!("should be {than} {}", text(least, as_int))),
            );
        }
    }
    if let Some((most, as_int)) = most {
        let order = compare(float, integer.filter(|_| as_int), most);
        let exclusive = limits.exclusive_maximum;
        if order.is_gt() || (exclusive && order.is_eq()) {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            errors
                .push(place.invalid(bad_number(number), &format!("should be {than} {}", text(most, as_int))));
        }
    }
    errors
}

fn compare(float: f64, integer: Option<i64>, bound: f64) -> std::cmp::Ordering {
    match integer {
        Some(integer) => integer.cmp(&(bound as i64)),
        None => float.total_cmp(&bound),
    }
}

/// Whether a value is one of those listed.
fn listed(place: &Place<'_>, value: &Value, limits: &Limits) -> Option<FieldError> {
    let equal = |known: &Value| match (known, value) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (known, value) => known == value,
    };
    if limits.values.is_empty() || limits.values.iter().any(equal) {
        return None;
    }
    let names: Vec<String> = limits
        .values
        .iter()
        .map(|known| known.as_str().map_or_else(|| go::json(known), str::to_owned))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(FieldError::not_supported(place.here(), value.clone(), &names))
}

fn array(
    place: &Place<'_>,
    items: &[Value],
    old: Option<&Value>,
    schema: &Schema,
    limits: Option<&Limits>,
) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(of_items) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            let before = old.and_then(|old| same_item(old, item, schema));
            outcome.merge(check(place.base, &format!("{}[{at}]", place.path), item, before, of_items));
        }
    }
    let size = items.len() as i64;
    if let Some(limits) = limits {
        if let Some(least) = limits.min_items.filter(|least| size < *least) {
            outcome.errors.push(place.invalid(size, &format!("should have at least {least} items")));
        }
        if let Some(most) = limits.max_items.filter(|most| size > *most) {
            outcome.errors.push(FieldError::too_many(place.here(), size, most));
        }
        if limits.unique_items && items.iter().enumerate().any(|(at, item)| items[..at].contains(item)) {
            outcome.errors.push(place.invalid("", "shouldn't contain duplicates"));
        }
    }
    outcome.matches += 1;
    outcome
}

/// The item of the list as it was that is the same by its keys. Lists without keys have no such item.
fn same_item<'a>(old: &'a Value, item: &Value, schema: &Schema) -> Option<&'a Value> {
    if schema.map_keys.is_empty() {
        return None;
    }
    let same = |other: &&Value| schema.map_keys.iter().all(|key| other.get(&**key) == item.get(&**key));
    old.as_array()?.iter().find(same)
}

fn object(
    place: &Place<'_>,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    schema: &Schema,
    limits: Option<&Limits>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let size = fields.len() as i64;
    if let Some(least) = limits.and_then(|l| l.min_properties).filter(|least| size < *least) {
        outcome.errors.push(place.invalid(size, &format!("should have at least {least} properties")));
        return outcome;
    }
    if let Some(most) = limits.and_then(|l| l.max_properties).filter(|most| size > *most) {
        outcome.errors.push(FieldError::too_many(place.here(), size, most));
        return outcome;
    }
    let before = |name: &str| old.and_then(|old| old.get(name));
    let others = fields.iter().filter(|(name, _)| schema.property(name).is_none());
    match &schema.additional {
        Some(Additional::Any(false)) => {
            for (name, _) in others {
                let text = format!("{}.{name} in body is a forbidden property", place.path);
                outcome.errors.push(FieldError::invalid(place.here(), name.as_str(), text));
            }
        }
        Some(Additional::Of(of_others)) => {
            for (name, value) in others {
                let path = format!("{}.{name}", place.path);
                outcome.merge(check(place.base, &path, value, before(name), of_others));
            }
        }
        Some(Additional::Any(true)) | None => {}
    }
    for (name, of_field) in &schema.properties {
        let Some(value) = fields.get(&**name) else { continue };
        let path = if place.path.is_empty() { name.to_string() } else { format!("{}.{name}", place.path) };
        outcome.merge(check(place.base, &path, value, before(name), of_field));
    }
    for name in limits.iter().flat_map(|limits| &limits.required) {
        if !fields.contains_key(&**name) {
            let path = place.named(&format!("{}.{name}", place.path));
            outcome.errors.push(FieldError::required(path, ""));
        }
    }
    outcome.matches += 1;
    outcome
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn alternatives(place: &Place<'_>, value: &Value, old: Option<&Value>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome { errors: Vec::new(), matches: 1 };
    let run = |schema: &Schema| check(place.base, place.path, value, old, schema);
    let quoted = go::quote(place.path);
    if !limits.any_of.is_empty() {
        let outcomes: Vec<Outcome> = limits.any_of.iter().map(run).collect();
        match outcomes.iter().position(|o| o.errors.is_empty()) {
            Some(at) => outcome.matches += outcomes[at].matches,
            None => {
                let text = format!("{quoted} must validate at least one schema (anyOf)");
                outcome.errors.push(place.nowhere(text));
                outcome.merge(best(outcomes));
            }
        }
    }
    if !limits.one_of.is_empty() {
        let outcomes: Vec<Outcome> = limits.one_of.iter().map(run).collect();
        let passed = outcomes.iter().filter(|o| o.errors.is_empty()).count();
        if passed != 1 {
            let found = match passed {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            let text = format!("{quoted} must validate one and only one schema (oneOf). {found}");
            outcome.errors.push(place.nowhere(text));
        }
        if passed == 0 {
            outcome.merge(best(outcomes));
        }
    }
    if !limits.all_of.is_empty() {
        let mut passed = 0;
        for schema in &limits.all_of {
            let one = run(schema);
            passed += usize::from(one.errors.is_empty());
            outcome.merge(one);
        }
        if passed != limits.all_of.len() {
            let none = if passed == 0 { ". None validated" } else { "" };
            let text = format!("{quoted} must validate all the schemas (allOf){none}");
            outcome.errors.push(place.nowhere(text));
        }
    }
    if let Some(not) = &limits.not
        && run(not).errors.is_empty()
    {
        outcome.errors.push(place.nowhere(format!("{quoted} must not validate the schema (not)")));
    }
    outcome
}

/// The one that came farthest, the first of those.
fn best(outcomes: Vec<Outcome>) -> Outcome {
    let mut best: Option<Outcome> = None;
    for outcome in outcomes {
        if best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
            best = Some(outcome);
        }
    }
    best.unwrap_or_default()
}
