//! Errors about one field of an object, and the paths that name fields. Texts are those of kube-apiserver, since
//! clients show them and scripts match them. Knows nothing of HTTP or of any kind's rules.

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use crate::go;

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A reference to something that does not exist.
    NotFound,
    /// A value must be there and is not.
    Required,
    /// A value that must be unique is there twice.
    Duplicate,
    /// A value breaks a rule.
    Invalid,
    /// A value is not one of those known.
    NotSupported,
    /// The field may not be set here.
    Forbidden,
    /// A text is too long.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// The server's own fault.
    InternalError,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The text that begins the message.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::InternalError => "Internal error",
        }
    }

    /// The cause's reason in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::InternalError => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// The offending value, as the message shows it.
#[derive(Debug, Clone, PartialEq)]
pub enum BadValue {
    /// A JSON value.
    Json(Value),
    /// Text that is already in its final form (a struct in the order of its fields).
    Text(String),
    /// Nothing: the detail says it all.
    Omitted,
}

impl<T: Into<Value>> From<T> for BadValue {
    fn from(value: T) -> Self {
        Self::Json(value.into())
    }
}

impl BadValue {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Omitted => String::new(),
            Self::Json(Value::Null) => "\"null\"".to_owned(),
            Self::Json(Value::String(text)) => go::quote(text),
            Self::Json(value) => go::json(value),
        }
    }
}

/// One field's error.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The field's path.
    pub path: String,
    /// The offending value.
    pub value: BadValue,
    /// Why.
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        path: impl Into<Path>,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path: path.into().0, value: value.into(), detail: detail.into() }
    }

    /// A reference to something that does not exist.
    pub fn not_found(path: impl Into<Path>, value: impl Into<BadValue>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value, "")
    }

    /// A value must be there.
    pub fn required(path: impl Into<Path>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, "", detail)
    }

    /// A value is there twice.
    pub fn duplicate(path: impl Into<Path>, value: impl Into<BadValue>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    /// A value breaks a rule.
    pub fn invalid(path: impl Into<Path>, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    /// A value has the wrong type.
    pub fn type_invalid(
        path: impl Into<Path>,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value, detail)
    }

    /// A value is none of those known; `supported` in the order to show.
    pub fn not_supported(path: impl Into<Path>, value: impl Into<BadValue>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let names: Vec<String> = supported.iter().map(|name| go::quote(name)).collect();
            format!("supported values: {}", names.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    /// The field may not be set.
    pub fn forbidden(path: impl Into<Path>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, "", detail)
    }

    /// A text is longer than `max` bytes.
    pub fn too_long(path: impl Into<Path>, max: i64) -> Self {
        let detail = if max >= 0 {
            format!("may not be more than {max} {}", if max == 1 { "byte" } else { "bytes" })
        } else {
            "value is too long".to_owned()
        };
        Self::new(FieldErrorKind::TooLong, path, "", detail)
    }

    /// A text has more than `max` characters.
    pub fn too_long_text(path: impl Into<Path>, max: i64) -> Self {
        let detail = format!("may not be more than {max} characters");
        Self::new(FieldErrorKind::TooLong, path, "", detail)
    }

    /// A list has more than `max` items.
    pub fn too_many(path: impl Into<Path>, actual: i64, max: i64) -> Self {
        let detail = if max >= 0 {
            format!("must have at most {max} {}", if max == 1 { "item" } else { "items" })
        } else {
            "has too many items".to_owned()
        };
        let value = if actual >= 0 { Value::from(actual) } else { Value::from("<unknown>") };
        Self::new(FieldErrorKind::TooMany, path, value, detail)
    }

    /// The server's own fault.
    pub fn internal(path: impl Into<Path>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::InternalError, path, "", detail)
    }

    /// The message without the path: what a Status cause carries.
    pub fn body(&self) -> String {
        use FieldErrorKind as K;
        let mut out = self.kind.text().to_owned();
        let shown = !matches!(self.kind, K::Required | K::Forbidden | K::TooLong | K::InternalError);
        if shown && self.value != BadValue::Omitted {
            out.push_str(": ");
            out.push_str(&self.value.text());
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// All errors in one line: one as it is, several in brackets, each text once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let mut told = HashSet::with_capacity(texts.len());
    let once: Vec<&str> = texts.iter().map(String::as_str).filter(|text| told.insert(*text)).collect();
    if let [only] = once[..] { only.to_owned() } else { format!("[{}]", once.join(", ")) }
}

/// A field's path, such as `spec.containers[0].name` or `metadata.labels[app]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field, or of nothing for the empty name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The path of a field below this one (`name` may itself be dotted).
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        // Made for each field that is looked at, so as few steps as can be.
        if self.0.is_empty() { Self(name.to_owned()) } else { Self([&self.0, ".", name].concat()) }
    }

    /// The path of a list's item.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of a map's entry.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self([&self.0, "[", key, "]"].concat())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

impl From<&Path> for Path {
    fn from(path: &Path) -> Self {
        path.clone()
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl From<String> for Path {
    fn from(path: String) -> Self {
        Self(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages() {
        let path = Path::new("spec").child("ports").index(1).child("port");
        for (error, expected) in [
            (FieldError::required(&path, ""), "spec.ports[1].port: Required value"),
            (FieldError::required(&path, "say it"), "spec.ports[1].port: Required value: say it"),
            (FieldError::invalid(&path, 0, "too small"), "spec.ports[1].port: Invalid value: 0: too small"),
            (FieldError::invalid("a", "x\"y", "no"), r#"a: Invalid value: "x\"y": no"#),
            (FieldError::invalid("a", Value::Null, "no"), "a: Invalid value: \"null\": no"),
            (FieldError::invalid("a", json!({"k": 1}), "no"), r#"a: Invalid value: {"k":1}: no"#),
            (
                FieldError::not_supported("a", "z", &["A", "B"]),
                r#"a: Unsupported value: "z": supported values: "A", "B""#,
            ),
            (FieldError::duplicate(Path::new("m").key("k"), "v"), r#"m[k]: Duplicate value: "v""#),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (FieldError::too_long("a", 5), "a: Too long: may not be more than 5 bytes"),
            (FieldError::too_many("a", 3, 1), "a: Too many: 3: must have at most 1 item"),
            (FieldError::not_found("a", "v"), "a: Not found: \"v\""),
            (FieldError::internal("a", "boom"), "a: Internal error: boom"),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn aggregates() {
        let a = FieldError::required("a", "");
        let b = FieldError::required("b", "");
        assert_eq!(aggregate(std::slice::from_ref(&a)), "a: Required value");
        assert_eq!(aggregate(&[a.clone(), b, a]), "[a: Required value, b: Required value]");
    }
}
