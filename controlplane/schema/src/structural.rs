//! Structural schemas: what a CustomResourceDefinition says of the objects of one version, and what follows from it for an
//! object: which fields are kept, which are filled in, and what is wrong with their values.
//!
//! The language is OpenAPI v3 as far as custom resources may use it (Kubernetes' documentation, "Specifying a structural schema").
//! This module must not know how a definition is checked or stored, nor how objects are served. Expressions
//! (`x-kubernetes-validations`) are carried along as plain data.

mod default;
mod lists;
mod number;
mod parse;
mod prune;
mod selectable;
mod validate;

use serde_json::Value;

pub use default::{apply as default, drop_nulls};
pub use lists::duplicates;
pub use pagurus_controlplane_api::regexp::Pattern;
pub use prune::prune;
pub use selectable::{PathProblem, field_at};
pub use validate::{validate, validate_change};

use crate::table::ListType;

/// What the root of every object and of every embedded one has beside the schema.
pub const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The type of a value. `x-kubernetes-int-or-string` stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Not said.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Type {
    /// The type of this name.
    pub fn named(name: &str) -> Option<Type> {
        Some(match name {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return None,
        })
    }

    /// Its name; empty if none is said.
    pub fn name(self) -> &'static str {
        match self {
            Type::Any => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// What a schema says of the fields of an object that it does not name.
#[derive(Debug, Clone, PartialEq)]
pub enum Additional {
    /// Whether there may be any.
    Any(bool),
    /// What they look like.
    Of(Box<Schema>),
}

/// A schema. Values that are not said take no room: most schemas of a definition say little.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// `type`
    pub type_: Type,
    /// `nullable`: `null` is a value.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`: fields that are not named are kept.
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`: a whole object, with `apiVersion`, `kind` and `metadata` of its own.
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-map-type: atomic`: owned and replaced as a whole.
    pub atomic: bool,
    /// `x-kubernetes-list-type`
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub map_keys: Vec<Box<str>>,
    /// `default`
    pub default: Option<Box<Value>>,
    /// `properties`, sorted by name.
    pub properties: Vec<(Box<str>, Schema)>,
    /// `additionalProperties`
    pub additional: Option<Additional>,
    /// `items`
    pub items: Option<Box<Schema>>,
    /// What else it says of values.
    pub limits: Option<Box<Limits>>,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
}

/// What a schema says of values beyond their shape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// `format`, if it is one that is looked at.
    pub format: Option<Box<str>>,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxLength`, in characters.
    pub max_length: Option<i64>,
    /// `minLength`, in characters.
    pub min_length: Option<i64>,
    /// `pattern`
    pub pattern: Option<Pattern>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `required`
    pub required: Vec<Box<str>>,
    /// `enum`
    pub values: Vec<Value>,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Schema>,
}

/// An entry of `x-kubernetes-validations`, as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The expression that must hold.
    pub rule: Box<str>,
    /// What to say when it does not.
    pub message: Option<Box<str>>,
    /// An expression for what to say.
    pub message_expression: Option<Box<str>>,
    /// The reason of the error, such as `FieldValueForbidden`.
    pub reason: Option<Box<str>>,
    /// The field to name, as a path below the one that carries the rule.
    pub field_path: Option<Box<str>>,
    /// `oldSelf` is an optional, and the rule also holds for new objects.
    pub optional_old_self: Option<bool>,
}

impl Schema {
    /// The schema of a definition's `openAPIV3Schema`. Keywords that it must not use are passed over (a definition that has any was
    /// refused before it was stored).
    pub fn parse(schema: &Value) -> Schema {
        parse::schema(schema)
    }

    /// The schema of a field that it names.
    pub fn property(&self, name: &str) -> Option<&Schema> {
        let found = self.properties.binary_search_by(|(known, _)| (**known).cmp(name));
        found.ok().map(|at| &self.properties[at].1)
    }

    /// The schema of the fields that it does not name, if it says what they look like.
    pub fn additional_schema(&self) -> Option<&Schema> {
        match &self.additional {
            Some(Additional::Of(schema)) => Some(schema),
            _ => None,
        }
    }

    /// Whether there is a rule in it or below.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || self.additional_schema().is_some_and(Schema::has_rules)
            || self.properties.iter().any(|(_, schema)| schema.has_rules())
    }

    /// Whether there is a default in it or below.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.items.as_ref().is_some_and(|items| items.has_defaults())
            || self.additional_schema().is_some_and(Schema::has_defaults)
            || self.properties.iter().any(|(_, schema)| schema.has_defaults())
    }
}

#[cfg(test)]
mod tests;
