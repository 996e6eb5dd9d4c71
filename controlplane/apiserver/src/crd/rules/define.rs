//! Rules when a definition is written: whether they compile, and what they may cost.

use std::sync::Arc;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_cel::{DeclType, MAX_REQUEST};
use pagurus_controlplane_schema::structural::Schema;
use serde_json::Value;

use super::declare::declare;
use super::evaluate::Rules;
use crate::resources::extensions::shown_rule;
use crate::resources::fields::Fields;

/// Most that one expression may be estimated to cost.
const EXPRESSION_LIMIT: u64 = 10_000_000;
/// Most that all expressions of a schema may be estimated to cost.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// So many expressions are named as having made a schema too costly.
const NAMED: usize = 4;

/// What is wrong with the expressions of a definition's schema, which is sound otherwise: whether they compile, and what they may cost.
pub(crate) fn definition(path: &Path, schema: &Value) -> Vec<FieldError> {
    let mut visitor = Visitor { errors: Vec::new(), total: 0, costly: Vec::new() };
    visitor.visit(path, schema, &Place { root: true, cardinality: Some(1), uncorrelated: None });
    if visitor.errors.is_empty() {
        visitor.defaults(path, schema);
    }
    let Visitor { mut errors, total, costly } = visitor;
    if total > SCHEMA_LIMIT {
        let detail =
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.extend(costly.into_iter().map(|(path, _)| FieldError::forbidden(path, detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path.clone(), over_budget(what, total, SCHEMA_LIMIT)));
    }
    errors
}

/// Where in a schema we are.
struct Place {
    root: bool,
    /// How many values of this schema an object may hold, if lists and maps above have bounds.
    cardinality: Option<u64>,
    /// The list or map above whose parts cannot be told from those of the object that is replaced.
    uncorrelated: Option<Path>,
}

struct Visitor {
    errors: Vec<FieldError>,
    total: u64,
    costly: Vec<(Path, u64)>,
}

impl Visitor {
    fn visit(&mut self, path: &Path, schema: &Value, place: &Place) {
        if !schema.is_object() {
            return;
        }
        let below = |uncorrelated: bool| Place {
            root: false,
            cardinality: place
                .cardinality
                .zip(elements(schema))
                .map(|(many, each)| many.saturating_mul(each)),
            uncorrelated: if uncorrelated { Some(path.clone()) } else { place.uncorrelated.clone() },
        };
        let atomic = schema.text("x-kubernetes-map-type") == "atomic";
        self.visit(&path.child("additionalProperties"), schema.at("additionalProperties"), &below(atomic));
        for (name, property) in schema.entries("properties") {
            self.visit(&path.child("properties").key(name), property, &below(atomic));
        }
        let by_key = schema.text("x-kubernetes-list-type") == "map";
        self.visit(&path.child("items"), schema.at("items"), &below(!by_key));
        if schema.has("x-kubernetes-validations") {
            self.rules(path, schema, place);
        }
    }

    /// Defaults must keep to the rules: they become part of objects.
    fn defaults(&mut self, path: &Path, schema: &Value) {
        let default = schema.at("default");
        if !default.is_null() {
            self.errors.extend(Rules::check_default(&Schema::parse(schema), &path.child("default"), default));
        }
        for (name, property) in schema.entries("properties") {
            self.defaults(&path.child("properties").key(name), property);
        }
        for below in ["items", "additionalProperties"] {
            if schema.at(below).is_object() {
                self.defaults(&path.child(below), schema.at(below));
            }
        }
    }

    fn rules(&mut self, path: &Path, schema: &Value, place: &Place) {
        let rules = schema.items("x-kubernetes-validations");
        let path = path.child("x-kubernetes-validations");
        let root = place.root || schema.flag("x-kubernetes-embedded-resource");
        let Some(known) = declare(&Schema::parse(schema), root, "selfType") else {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            self.errors.push(FieldError::invalid(path, "", detail));
            return;
        };
        let many = place.cardinality.unwrap_or(MAX_REQUEST / (known.least + 1));
        for (at, rule) in rules.iter().enumerate() {
            self.rule(&path.index(at), rule, &known.declared, many, place);
        }
    }

    fn rule(&mut self, path: &Path, rule: &Value, declared: &Arc<DeclType>, many: u64, place: &Place) {
        let text = rule.text("rule");
        if text.trim().is_empty() {
            return;
        }
        let optional_old = rule.flag("optionalOldSelf");
        let variables = super::variables(declared, optional_old);
        let rule_path = path.child("rule");
        let program = match super::compile_rule(text, &variables) {
            Ok(program) => program,
            Err(detail) => {
                self.errors.push(FieldError::invalid(rule_path, shown_rule(rule), detail));
                return;
            }
        };
        let cost = program.cost().max.saturating_mul(many);
        self.spend(&rule_path, "estimated rule cost", cost);
        let uses_old = program.uses("oldSelf");
        if rule.has("optionalOldSelf") && !uses_old {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(path.child("optionalOldSelf"), optional_old, detail));
        }
        let message = rule.text("messageExpression");
        if !message.trim().is_empty() {
            let path = path.child("messageExpression");
            match super::compile_message(message, &variables) {
                Ok(program) => self.spend(&path, "estimated messageExpression cost", program.cost().max),
                Err(detail) => self.errors.push(FieldError::invalid(path, shown_rule(rule), detail)),
            }
        }
        if let (true, Some(uncorrelated)) = (uses_old, &place.uncorrelated) {
            let detail = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {}",
                uncorrelated.as_str()
            );
            self.errors.push(FieldError::invalid(rule_path, text, detail));
        }
    }

    /// Notes what an expression may cost, which is an error by itself if it is too much.
    fn spend(&mut self, path: &Path, what: &str, cost: u64) {
        if cost > EXPRESSION_LIMIT {
            self.errors.push(FieldError::forbidden(path.clone(), over_budget(what, cost, EXPRESSION_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.costly.push((path.clone(), cost));
            self.costly.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.costly.truncate(NAMED);
        }
    }
}

/// How many times a schema multiplies what is in it; nothing if it sets no bound.
fn elements(schema: &Value) -> Option<u64> {
    let bound = |name: &str| schema.at(name).as_i64().map(|most| u64::try_from(most).unwrap_or(0));
    match schema.text("type") {
        "object" if schema.has("additionalProperties") => bound("maxProperties"),
        "array" => bound("maxItems"),
        _ => Some(1),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a factor is shown with a digit or six")]
fn over_budget(what: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = match times {
        times if times > 100.0 => "more than 100x".to_owned(),
        // One digit would say 1.0.
        times if times < 1.5 => format!("{times:.6}x"),
        times => format!("{times:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: Value) -> Vec<String> {
        definition(&Path::new("s"), &schema).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_must_compile_and_be_affordable() {
        let field = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
        let rule = |rule: &str| json!([{"rule": rule}]);
        for (schema, wanted) in [
            (json!({"type": "integer", "x-kubernetes-validations": rule("self > 3")}), vec![]),
            (
                json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule("self == oldSelf")}}),
                vec![
                    "s.properties[a].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
                    "s.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[a]",
                    "s.properties[a].items.x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total",
                    "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x",
                ],
            ),
            (
                json!({"x-kubernetes-int-or-string": true, "x-kubernetes-validations":
                    rule("type(self) == string ? self.matches('^[0-9]+%$') : self == 42")}),
                vec![],
            ),
            (
                json!({"type": "array", "maxItems": 1000, "items": {"type": "string", "maxLength": 63}, "x-kubernetes-validations": rule("self.all(a, self.all(b, a.contains(b)))")}),
                vec![
                    "s.properties[a].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 68.1x",
                ],
            ),
            (
                json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": true}]}),
                vec![
                    "s.properties[a].x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
                ],
            ),
            (
                json!({"type": "integer", "x-kubernetes-validations": [{"rule": "true", "messageExpression": "self"}]}),
                vec![
                    "s.properties[a].x-kubernetes-validations[0].messageExpression: Invalid value: {\"Rule\":\"true\",\"Message\":\"\",\"MessageExpression\":\"self\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: messageExpression must evaluate to a string",
                ],
            ),
            (
                json!({"type": "integer", "default": 1, "x-kubernetes-validations": rule("self > 3")}),
                vec!["s.properties[a].default: Invalid value: 1: failed rule: self > 3"],
            ),
        ] {
            let got = errors(field(schema.clone()));
            assert!(got.len() >= wanted.len(), "{schema}: {got:#?}");
            for wanted in &wanted {
                assert!(got.iter().any(|got| got.starts_with(wanted)), "{wanted}\n{got:#?}");
            }
            assert_eq!(wanted.is_empty(), got.is_empty(), "{schema}: {got:#?}");
        }
    }
}
