//! Rules when an object is written: each is asked of each value that its schema describes, within a budget.

use std::sync::Arc;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_cel::{CALL_LIMIT, DeclType, EvalError, Program, Value as CelValue};
use pagurus_controlplane_schema::structural::{Rule, Schema, Type};
use pagurus_controlplane_schema::table::ListType;
use serde_json::Value;

use super::declare::{declare, escape};

/// Most that all rules of an object may cost together.
const OBJECT_LIMIT: u64 = 10_000_000;
/// Longest message that an expression may make, bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// The rules of a schema and of those in it, compiled. Schemas without any rule in them are left out.
#[derive(Debug)]
pub(crate) struct Rules {
    declared: Option<Arc<DeclType>>,
    type_: Type,
    rules: Vec<Compiled>,
    properties: Vec<(Box<str>, Rules)>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    /// Fields are replaced as a whole.
    atomic: bool,
    /// What tells the items of a list apart, if anything does.
    keys: Option<Vec<Box<str>>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Result<Program, String>,
    message: Option<Program>,
    uses_old: bool,
    optional_old: bool,
}

/// What rules found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Rules that do not hold.
    pub(crate) errors: Vec<FieldError>,
    /// Rules that do not hold for values that stay as they were: these are no reason to refuse the object.
    pub(crate) kept: Vec<FieldError>,
}

impl Rules {
    /// The rules of the schema of a whole object; nothing if there are none.
    pub(crate) fn of(schema: &Schema) -> Option<Rules> {
        Self::compile(schema, true, "selfType")
    }

    fn compile(schema: &Schema, root: bool, name: &str) -> Option<Rules> {
        if !schema.has_rules() {
            return None;
        }
        let declared = declare(schema, root, name).map(|known| known.declared);
        let below =
            |schema: &Schema, step: &str| Self::compile(schema, schema.embedded, &format!("{name}.{step}"));
        let rules = match &declared {
            Some(declared) => schema.rules.iter().map(|rule| Compiled::of(rule, declared)).collect(),
            None => Vec::new(),
        };
        Some(Rules {
            type_: schema.type_,
            rules,
            properties: schema
                .properties
                .iter()
                .filter_map(|(name, schema)| Some((name.clone(), below(schema, name)?)))
                .collect(),
            additional: schema.additional_schema().and_then(|schema| below(schema, "@elem")).map(Box::new),
            items: schema.items.as_deref().and_then(|schema| below(schema, "@idx")).map(Box::new),
            atomic: schema.atomic,
            keys: (schema.list_type == ListType::Map).then(|| schema.map_keys.clone()),
            declared,
        })
    }

    /// What the rules of a schema say against its default.
    pub(super) fn check_default(schema: &Schema, path: &Path, default: &Value) -> Vec<FieldError> {
        let Some(rules) = Self::compile(schema, schema.embedded, "selfType") else { return Vec::new() };
        let mut run = Run { found: Found::default(), budget: OBJECT_LIMIT, over: false };
        run.value(&rules, path, default, None, false);
        run.found.errors
    }

    /// Asks all rules of an object, and of what it replaces where they ask for that.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Found {
        let mut run = Run { found: Found::default(), budget: OBJECT_LIMIT, over: false };
        run.value(self, &Path::default(), object, old, false);
        run.found
    }
}

impl Compiled {
    fn of(rule: &Rule, declared: &Arc<DeclType>) -> Self {
        let optional_old = rule.optional_old_self.unwrap_or(false);
        let variables = super::variables(declared, optional_old);
        let program = super::compile_rule(&rule.rule, &variables);
        let message =
            rule.message_expression.as_deref().and_then(|text| super::compile_message(text, &variables).ok());
        let uses_old = program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
        Self { rule: rule.clone(), program, message, uses_old, optional_old }
    }

    /// What names the rule in messages.
    fn name(&self) -> &str {
        self.rule.message.as_deref().unwrap_or(&self.rule.rule).trim()
    }

    fn message_or_default(&self) -> String {
        match &self.rule.message {
            Some(message) => message.trim().to_owned(),
            None => format!("failed rule: {}", self.name()),
        }
    }
}

struct Run {
    found: Found,
    budget: u64,
    over: bool,
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Run {
    /// A value and all in it. `same`: something above it is as it was.
    fn value(&mut self, rules: &Rules, path: &Path, value: &Value, old: Option<&Value>, same: bool) {
        if value.is_null() || self.over {
            return;
        }
        // A value that can be told from others is looked at by itself.
        let same = old.map_or(same, |old| old == value);
        let old = old.filter(|old| !old.is_null());
        if let Some(declared) = &rules.declared {
            for rule in &rules.rules {
                self.rule(rules, rule, declared, path, (value, old), same);
                if self.over {
                    return;
                }
            }
        }
        match value {
            Value::Array(items) => {
                let Some(inner) = &rules.items else { return };
                for (at, item) in items.iter().enumerate() {
                    let old = rules.keys.as_ref().zip(old).and_then(|(keys, old)| same_keys(keys, old, item));
                    self.value(inner, &path.index(at), item, old, same);
                }
            }
            Value::Object(fields) => {
                let old_field = |name: &str| old.filter(|_| !rules.atomic).and_then(|old| old.get(name));
                for (name, field) in fields {
                    let named = rules.properties.binary_search_by(|(known, _)| (**known).cmp(name));
                    if let Ok(at) = named {
                        self.value(&rules.properties[at].1, &path.child(name), field, old_field(name), same);
                    } else if let Some(inner) = &rules.additional {
                        self.value(inner, &path.key(name), field, old_field(name), same);
                    }
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        rules: &Rules,
        rule: &Compiled,
        declared: &Arc<DeclType>,
        path: &Path,
        (value, old): (&Value, Option<&Value>),
        same: bool,
    ) {
        let shown = shown(rules.type_, value);
        let program = match &rule.program {
            Ok(program) => program,
            Err(_) if rule.rule.rule.trim().is_empty() => return,
            Err(error) => {
                let detail = format!("rule compile error: {error}");
                self.found.errors.push(FieldError::invalid(path.clone(), shown, detail));
                return;
            }
        };
        // A rule about a change has nothing to say of what is new.
        if rule.uses_old && old.is_none() && !rule.optional_old {
            return;
        }
        let old_value = || old.map(|old| CelValue::from_json(old, Some(declared)));
        let old_self = match rule.optional_old {
            true => old_value().map_or(CelValue::Optional(None), CelValue::some),
            false => old_value().unwrap_or(CelValue::Null),
        };
        let variables = [("self", CelValue::from_json(value, Some(declared))), ("oldSelf", old_self)];
        let run = program.run(&variables, CALL_LIMIT);
        if run.cost > self.budget {
            return self.stop(path, shown, OUT_OF_BUDGET.to_owned());
        }
        self.budget -= run.cost;
        match run.value {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => {
                let Some(detail) = self.message(rule, path, &shown, &variables) else { return };
                let path = rule
                    .rule
                    .field_path
                    .as_deref()
                    .map_or_else(|| path.clone(), |text| below(path, text, declared));
                let error = failure(rule.rule.reason.as_deref(), path, shown, detail);
                let list = if same && !rule.uses_old { &mut self.found.kept } else { &mut self.found.errors };
                list.push(error);
            }
            Err(error @ EvalError::OverBudget) => {
                let detail = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.name()
                );
                self.stop(path, shown, detail);
            }
            Err(EvalError::Failed(error)) => {
                let name = rule.name();
                let detail = match error.starts_with("no such overload") {
                    true => format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                    ),
                    false => format!("{error} evaluating rule: {name}"),
                };
                self.found.errors.push(FieldError::invalid(path.clone(), shown, detail));
            }
        }
    }

    /// Ends the evaluation of all rules.
    fn stop(&mut self, path: &Path, shown: Value, detail: String) {
        self.found.errors.push(FieldError::invalid(path.clone(), shown, detail));
        self.over = true;
    }

    /// What to say of a rule that does not hold: what its expression makes, if that is of use. Nothing if that ended all evaluation.
    fn message<'a>(
        &mut self,
        rule: &'a Compiled,
        path: &Path,
        shown: &Value,
        variables: &[(&'a str, CelValue<'a>)],
    ) -> Option<String> {
        let Some(program) = &rule.message else { return Some(rule.message_or_default()) };
        let run = program.run(variables, CALL_LIMIT);
        let source = rule.rule.message_expression.as_deref().unwrap_or_default();
        if run.cost > self.budget {
            let detail = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
            self.stop(path, shown.clone(), detail.to_owned());
            return None;
        }
        self.budget -= run.cost;
        match run.value {
            Ok(CelValue::String(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
                Some(if fits { text.to_owned() } else { rule.message_or_default() })
            }
            Err(EvalError::OverBudget) => {
                let quoted = pagurus_controlplane_api::go::quote(source);
                let detail = format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {quoted}"
                );
                self.stop(path, shown.clone(), detail);
                None
            }
            // A message that fails is no reason to hide what it was to be about.
            _ => Some(rule.message_or_default()),
        }
    }
}

/// How errors show a value: lists and objects by their type only.
fn shown(type_: Type, value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => type_.name().into(),
        scalar => scalar.clone(),
    }
}

/// The item of a list with the same keys.
fn same_keys<'v>(keys: &[Box<str>], list: &'v Value, item: &Value) -> Option<&'v Value> {
    list.as_array()?.iter().find(|other| keys.iter().all(|key| other.get(&**key) == item.get(&**key)))
}

fn failure(reason: Option<&str>, path: Path, shown: Value, detail: String) -> FieldError {
    match reason {
        Some("FieldValueForbidden") => FieldError::forbidden(path, detail),
        Some("FieldValueRequired") => FieldError::required(path, detail),
        Some("FieldValueDuplicate") => FieldError::duplicate(path, shown),
        _ => FieldError::invalid(path, shown, detail),
    }
}

/// The path that a rule's `fieldPath` (`.a['b c']`) leads to, below the value that carries the rule: fields by their names, entries of
/// maps by their keys.
fn below(path: &Path, text: &str, declared: &Arc<DeclType>) -> Path {
    let (mut path, mut here) = (path.clone(), Some(declared.clone()));
    let mut rest = text;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let (quoted, after) = after.split_once("']").unwrap_or((after, ""));
            name = quoted.replace("\\'", "'");
            rest = after;
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (plain, after) = after.split_at(end);
            // A bracket that opens no quoted name ends the path.
            if plain.is_empty() {
                break;
            }
            name = plain.to_owned();
            rest = after;
        }
        let map = here.as_deref().is_some_and(|here| here.key().is_some());
        path = if map { path.key(&name) } else { path.child(&name) };
        here = here.and_then(|here| match map {
            true => here.element().cloned(),
            false => escape(&name).and_then(|name| here.field(&name).map(|field| field.declared.clone())),
        });
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, object: Value, old: Option<Value>) -> Found {
        let rules = Rules::of(&Schema::parse(&schema)).unwrap_or_else(|| panic!("no rules in {schema}"));
        rules.check(&object, old.as_ref())
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn with(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "x-y": {"type": "string"}, "namespace": {"type": "string"},
            "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
            "s": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
            "io": {"x-kubernetes-int-or-string": true},
        }, "x-kubernetes-validations": rules}}})
    }

    #[test]
    fn rules_say_what_does_not_hold() {
        for (rule, spec, wanted) in [
            (json!({"rule": "self.a > 3"}), json!({"a": 4}), vec![]),
            (
                json!({"rule": "self.a > 3"}),
                json!({"a": 1}),
                vec!["spec: Invalid value: \"object\": failed rule: self.a > 3"],
            ),
            (
                json!({"rule": "self.a > 3", "message": "too small"}),
                json!({"a": 1}),
                vec!["spec: Invalid value: \"object\": too small"],
            ),
            (
                json!({"rule": "self.a > 3", "messageExpression": "'got %d'.format([self.a])"}),
                json!({"a": 1}),
                vec!["spec: Invalid value: \"object\": got 1"],
            ),
            (
                json!({"rule": "self.a > 3", "messageExpression": "''"}),
                json!({"a": 1}),
                vec!["spec: Invalid value: \"object\": failed rule: self.a > 3"],
            ),
            (
                json!({"rule": "self.a > 3", "fieldPath": ".m['b c']"}),
                json!({"a": 1}),
                vec!["spec.m[b c]: Invalid value: \"object\": failed rule: self.a > 3"],
            ),
            (
                json!({"rule": "self.a > 3", "reason": "FieldValueForbidden", "fieldPath": ".a"}),
                json!({"a": 1}),
                vec!["spec.a: Forbidden: failed rule: self.a > 3"],
            ),
            (
                json!({"rule": "self.a > 3"}),
                json!({}),
                vec!["spec: Invalid value: \"object\": no such key: a evaluating rule: self.a > 3"],
            ),
            (json!({"rule": "!has(self.a) || self.a > 3"}), json!({}), vec![]),
            (
                json!({"rule": "self.x__dash__y == self.__namespace__"}),
                json!({"x-y": "1", "namespace": "1"}),
                vec![],
            ),
            (
                json!({"rule": "self.io + 1 == 2"}),
                json!({"io": "x"}),
                vec![
                    "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self.io + 1 == 2",
                ],
            ),
            (
                json!({"rule": "type(self.io) == string ? self.io == '5%' : self.io == 5"}),
                json!({"io": 5}),
                vec![],
            ),
            (
                json!({"rule": "self.s == ['b', 'a'] && self.l == self.l"}),
                json!({"s": ["a", "b"], "l": [{"k": "1"}]}),
                vec![],
            ),
        ] {
            let found = check(with(json!([rule])), json!({"spec": spec}), None);
            assert_eq!(texts(&found.errors), wanted, "{rule}");
        }
    }

    #[test]
    fn changes_are_judged_where_there_is_something_to_compare() {
        let rule = |rule: &str| json!([{"rule": rule}]);
        let object = |a: i64| json!({"spec": {"a": a}});
        assert_eq!(check(with(rule("self.a >= oldSelf.a")), object(1), None).errors, []);
        assert_eq!(check(with(rule("self.a >= oldSelf.a")), object(2), Some(object(1))).errors, []);
        assert_eq!(check(with(rule("self.a >= oldSelf.a")), object(1), Some(object(2))).errors.len(), 1);
        let optional =
            json!([{"rule": "!oldSelf.hasValue() || oldSelf.value().a == self.a", "optionalOldSelf": true}]);
        assert_eq!(check(with(optional.clone()), object(1), None).errors, []);
        assert_eq!(check(with(optional), object(1), Some(object(2))).errors.len(), 1);
    }

    #[test]
    fn what_stays_as_it_was_is_not_held_against_the_object() {
        let rules = json!([{"rule": "self.a > 3"}]);
        let (object, old) = (json!({"spec": {"a": 1}, "other": 1}), json!({"spec": {"a": 1}}));
        let found = check(with(rules.clone()), object.clone(), Some(old));
        assert_eq!((found.errors.len(), found.kept.len()), (0, 1));
        assert_eq!(check(with(rules), object, Some(json!({"spec": {"a": 2}}))).errors.len(), 1);
    }

    #[test]
    fn items_are_found_again_by_their_keys() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]}}}});
        let list = |items: &[(&str, i64)]| json!({"l": items.iter().map(|(k, v)| json!({"k": k, "v": v})).collect::<Vec<_>>()});
        let found = check(schema, list(&[("b", 1), ("a", 1), ("c", 0)]), Some(list(&[("a", 2), ("b", 1)])));
        assert_eq!(
            texts(&found.errors),
            ["l[1]: Invalid value: \"object\": failed rule: self.v >= oldSelf.v"]
        );
    }

    #[test]
    fn what_costs_too_much_ends_the_evaluation() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, self.all(c, a + b + c > 0)))"}, {"rule": "false"}]}}});
        let found = check(schema, json!({"l": (1..200).collect::<Vec<i64>>()}), None);
        assert_eq!(
            texts(&found.errors),
            [
                "l: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(a, self.all(b, self.all(c, a + b + c > 0)))",
            ]
        );
    }
}
