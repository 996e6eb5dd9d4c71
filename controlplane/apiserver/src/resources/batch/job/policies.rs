//! The rules for when a Job counts as failed or as succeeded.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use pagurus_controlplane_api::go::quote;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::internal::{Member, Shape};
use crate::resources::rules::{Errors, names, non_negative, nothing, one_of};

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// The shape of a failure policy.
pub(super) const FAILURE_POLICY: &[Member] = &[(
    "rules",
    "Rules",
    Shape::List(&[
        ("action", "Action", Shape::Text),
        (
            "onExitCodes",
            "OnExitCodes",
            Shape::Pointer(&[
                ("containerName", "ContainerName", Shape::Any),
                ("operator", "Operator", Shape::Text),
                ("values", "Values", Shape::Any),
            ]),
        ),
        (
            "onPodConditions",
            "OnPodConditions",
            Shape::List(&[("type", "Type", Shape::Text), ("status", "Status", Shape::Text)]),
        ),
    ]),
)];

/// The shape of a success policy.
pub(super) const SUCCESS_POLICY: &[Member] = &[(
    "rules",
    "Rules",
    Shape::List(&[
        ("succeededIndexes", "SucceededIndexes", Shape::Any),
        ("succeededCount", "SucceededCount", Shape::Any),
    ]),
)];

/// Both policies.
pub(super) fn check(errors: &mut Errors, path: &Path, spec: &Value, indexed: bool) {
    if spec.has("podFailurePolicy") {
        failure(errors, &path.child("podFailurePolicy.rules"), spec);
    }
    if spec.has("successPolicy") {
        if !indexed {
            let value = crate::resources::internal::shown(spec.at("successPolicy"), SUCCESS_POLICY);
            let text = "requires indexed completion mode";
            errors.push(FieldError::invalid(path.child("successPolicy"), value, text));
            return;
        }
        success(errors, &path.child("successPolicy.rules"), spec);
    }
}

fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| quote(v)).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

/// A text that must be there and one of the values.
fn choice(errors: &mut Errors, path: &Path, text: &str, values: &[&str]) {
    if text.is_empty() {
        errors.push(FieldError::required(path, valid_values(values)));
    } else {
        one_of(errors, path, text, values);
    }
}

fn too_many(errors: &mut Errors, path: &Path, count: usize, most: usize) -> bool {
    if count > most {
        errors.push(FieldError::too_many(path, count as i64, most as i64));
    }
    count > most
}

fn failure(errors: &mut Errors, path: &Path, spec: &Value) {
    let rules = spec.items("podFailurePolicy.rules");
    too_many(errors, path, rules.len(), MAX_RULES);
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let action = rule.text("action");
        choice(errors, &path.child("action"), action, &ACTIONS);
        if action == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            let text = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(path.child("action"), action, text));
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.items("onPodConditions"));
        if !codes.is_null() {
            exit_codes(errors, &path.child("onExitCodes"), codes, spec);
        }
        let list = path.child("onPodConditions");
        too_many(errors, &list, conditions.len(), MAX_RULES);
        for (j, pattern) in conditions.iter().enumerate() {
            let path = list.index(j);
            let kind = pattern.text("type");
            names(errors, &path.child("type"), kind, labels::qualified_name(kind));
            choice(errors, &path.child("status"), pattern.text("status"), &["False", "True", "Unknown"]);
        }
        let text = match (codes.is_null(), conditions.is_empty()) {
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            _ => continue,
        };
        errors.push(FieldError::invalid(&path, BadValue::Omitted, text));
    }
}

fn exit_codes(errors: &mut Errors, path: &Path, codes: &Value, spec: &Value) {
    let operator = codes.text("operator");
    choice(errors, &path.child("operator"), operator, &["In", "NotIn"]);
    if let Some(name) = codes.some_text("containerName") {
        let known = ["containers", "initContainers"]
            .iter()
            .any(|list| spec.at("template.spec").items(list).iter().any(|c| c.text("name") == name));
        if !known {
            let text = "must be one of the container or initContainer names in the pod template";
            errors.push(FieldError::invalid(path.child("containerName"), name, text));
        }
    }
    let path = path.child("values");
    let values: Vec<i64> = codes.items("values").iter().filter_map(Value::as_i64).collect();
    let shown = || if codes.has("values") { codes.at("values").clone().into() } else { nothing() };
    if values.is_empty() {
        errors.push(FieldError::invalid(&path, shown(), "at least one value is required"));
    }
    too_many(errors, &path, values.len(), MAX_EXIT_CODES);
    let mut taken = HashSet::new();
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.push(FieldError::invalid(path.index(i), 0, "must not be 0 for the In operator"));
        }
        if !taken.insert(*value) {
            errors.push(FieldError::duplicate(path.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&path, shown(), "must be ordered"));
    }
}

fn success(errors: &mut Errors, path: &Path, spec: &Value) {
    let rules = spec.items("successPolicy.rules");
    if rules.is_empty() {
        let text = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path, text));
    }
    too_many(errors, path, rules.len(), MAX_RULES);
    let completions = spec.int("completions");
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let (count, indexes) = (rule.some_int("succeededCount"), rule.some_text("succeededIndexes"));
        if count.is_none() && indexes.is_none() {
            let text = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&path, text));
        }
        let mut total = None;
        if let Some(indexes) = indexes {
            let parsed = parse_indexes(indexes, completions);
            total = Some(parsed.as_ref().copied().unwrap_or_default());
            if let Err(why) = parsed {
                let text = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(path.child("succeededIndexes"), indexes, text));
            }
        }
        let Some(count) = count else { continue };
        let path = path.child("succeededCount");
        non_negative(errors, &path, count);
        if count > completions {
            let text =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(&path, count, text));
        }
        if let Some(total) = total.filter(|total| count > *total) {
            let text = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(&path, count, text));
        }
    }
}

/// Counts the indexes in a text such as `1,3-5,7`.
fn parse_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last): (i64, Option<i64>) = (0, None);
    if text.is_empty() {
        return Ok(0);
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .ok()
            .filter(|n| *n >= 0)
            .ok_or_else(|| format!("cannot convert string to integer for index: {}", quote(text)))
    };
    for part in text.split(',') {
        let limits: Vec<&str> = part.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
                quote(part)
            ));
        }
        let first = number(limits[0])?;
        if first >= completions {
            return Err("too large index: ".to_owned() + &quote(limits[0]));
        }
        if last.is_some_and(|last| last >= first) {
            return Err(format!(
                "non-increasing order, previous: {}, current: {first}",
                last.unwrap_or_default()
            ));
        }
        let end = match limits.get(1) {
            None => first,
            Some(end) => {
                let value = number(end)?;
                if value >= completions {
                    return Err("too large index: ".to_owned() + &quote(end));
                }
                if first >= value {
                    return Err(format!("non-increasing order, previous: {first}, current: {value}"));
                }
                value
            }
        };
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes() {
        for (text, expected) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0-2", Ok(3)),
            ("0,2-3", Ok(3)),
            ("1,0", Err(())),
            ("0-9", Err(())),
            ("x", Err(())),
        ] {
            assert_eq!(parse_indexes(text, 5).map_err(|_| ()), expected, "{text}");
        }
    }
}
