//! Label selectors: requirements on label keys and values, all of which must hold.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::{SelectorError, parse};
use crate::field::{FieldError, Path, aggregate};
use crate::labels;

/// What a requirement asks of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is asked.
    pub operator: Operator,
    /// The values, sorted.
    pub values: Vec<String>,
}

impl Requirement {
    /// A checked requirement.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        values.sort();
        values.dedup();
        let mut errors = Vec::new();
        let complaints = labels::qualified_name(key);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid("key", key, complaints.join("; ")));
        }
        let path = Path::new("values");
        let shown = || Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => errors.push(FieldError::invalid(
                &path,
                shown(),
                "for 'in', 'notin' operators, values set can't be empty",
            )),
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                let text = "exact-match compatibility requires one single value";
                errors.push(FieldError::invalid(&path, shown(), text));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                let text = "values set must be empty for exists and does not exist";
                errors.push(FieldError::invalid(&path, shown(), text));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let text = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(FieldError::invalid(&path, shown(), text));
                }
                for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                    let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(FieldError::invalid(path.index(i), value.as_str(), text));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let complaints = labels::label_value(value);
            if !complaints.is_empty() {
                let path = path.index(i).key(key);
                errors.push(FieldError::invalid(path, value.as_str(), complaints.join("; ")));
            }
        }
        if errors.is_empty() {
            Ok(Self { key: key.to_owned(), operator, values })
        } else {
            Err(SelectorError(aggregate(&errors)))
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    /// Whether a label's value (or its absence) satisfies this.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(|v| self.has(v)),
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !self.has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(have), Some(want)) if self.operator == Operator::GreaterThan => have > want,
                    (Some(have), Some(want)) => have < want,
                    _ => false,
                }
            }
        }
    }
}

/// A label selector. The default one selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the query syntax (`a=b,c in (d,e),!f`).
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object; `null` selects nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        if let Some(map) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in map {
                let value = value.as_str().unwrap_or_default().to_owned();
                requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
            }
        }
        for entry in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        crate::go::quote(other)
                    )));
                }
            };
            let values = entry
                .get("values")
                .and_then(Value::as_array)
                .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Selects objects that carry all these labels (a Service's or ReplicationController's selector); the values are
    /// taken as they are. An empty map selects everything.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        let requirements = map
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// The requirements, all of which must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether labels, looked up by key, are selected.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether these labels, as JSON, are selected.
    pub fn matches_map(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// Whether an object's labels are selected.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches_map(labels::labels_of(object))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let values = r.values.join(",");
            match r.operator {
                Operator::In => write!(f, "{} in ({values})", r.key)?,
                Operator::NotIn => write!(f, "{} notin ({values})", r.key)?,
                Operator::Equals => write!(f, "{}={values}", r.key)?,
                Operator::DoubleEquals => write!(f, "{}=={values}", r.key)?,
                Operator::NotEquals => write!(f, "{}!={values}", r.key)?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{values}", r.key)?,
                Operator::LessThan => write!(f, "{}<{values}", r.key)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn query_syntax() {
        for (selector, good, bad) in [
            ("", "a=b", "none"),
            ("a=b", "a=b,c=d", "a=c"),
            ("a==b", "a=b", "c=d"),
            ("a!=b", "a=c", "a=b"),
            ("a!=b", "c=d", "a=b"),
            ("a in (b, c)", "a=c", "a=d"),
            ("a notin (b,c)", "x=y", "a=b"),
            ("a", "a=", "b=c"),
            ("!a", "b=c", "a=b"),
            ("a>5", "a=6", "a=5"),
            ("a<5", "a=4", "a=x"),
            ("a=", "a=", "a=b"),
            ("in in (in)", "in=in", "in=notin"),
            ("a in (,b)", "a=", "a=c"),
            ("x.io/a=b , !c", "x.io/a=b", "x.io/a=b,c=d"),
        ] {
            let parsed = LabelSelector::parse(selector).expect(selector);
            assert!(parsed.matches(&labels(good)), "{selector} selects {good}");
            if bad != "none" {
                assert!(!parsed.matches(&labels(bad)), "{selector} leaves {bad}");
            }
            let again = LabelSelector::parse(&parsed.to_string()).expect("its own text");
            assert_eq!(again, parsed);
        }
    }

    #[test]
    fn query_errors() {
        for (selector, expected) in [
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
        ] {
            assert_eq!(LabelSelector::parse(selector), Err(SelectorError(expected.to_owned())), "{selector}");
        }
    }

    #[test]
    fn objects() {
        let selector = json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]});
        let selector = LabelSelector::from_json(&selector).expect("a selector");
        assert!(selector.matches(&labels("a=b")) && !selector.matches(&labels("a=b,c=d")));
        assert!(LabelSelector::from_json(&json!({})).expect("a selector").is_everything());
        let nothing = LabelSelector::from_json(&Value::Null).expect("a selector");
        assert!(!nothing.matches(&labels("")) && !nothing.is_everything());
        assert!(
            LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "X"}]})).is_err()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-c!=<>(), inot/]|\\PC){0,30}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let again = LabelSelector::parse(&selector.to_string()).expect("its own text");
                for case in ["", "a=b", "b=,c=a", "in=a"] {
                    prop_assert_eq!(again.matches(&labels(case)), selector.matches(&labels(case)));
                }
            }
        }
    }
}
