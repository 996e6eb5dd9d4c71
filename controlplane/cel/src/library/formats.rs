//! Named formats: the checks of names and values that Kubernetes' API itself uses.

use pagurus_controlplane_api::{formats, labels};

use super::{Opaque, Row};
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::Value;

/// A format: its name, its check, and how long the pattern is that the check is reckoned as.
#[derive(Debug)]
pub struct Format {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
    pattern: u64,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The lengths of the patterns upstream reckons with for what has no pattern of Kubernetes' own.
const URI: u64 = 596;
const UUID: u64 = 70;
const BASE64: u64 = 84;
const DATE_TIME: u64 = 129;

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: labels::dns_label, pattern: 30 },
    Format { name: "dns1123Subdomain", check: labels::dns_subdomain, pattern: 60 },
    Format { name: "dns1035Label", check: labels::dns1035_label, pattern: 30 },
    Format { name: "qualifiedName", check: labels::qualified_name, pattern: 60 },
    Format {
        name: "dns1123LabelPrefix",
        check: |text| labels::dns_label(&labels::mask_trailing_dash(text)),
        pattern: 30,
    },
    Format {
        name: "dns1123SubdomainPrefix",
        check: |text| labels::dns_subdomain(&labels::mask_trailing_dash(text)),
        pattern: 60,
    },
    Format {
        name: "dns1035LabelPrefix",
        check: |text| labels::dns1035_label(&labels::mask_trailing_dash(text)),
        pattern: 30,
    },
    Format { name: "labelValue", check: labels::label_value, pattern: 40 },
    Format { name: "uri", check: |text| super::url::parse(text).err().into_iter().collect(), pattern: URI },
    Format { name: "uuid", check: |text| as_in_schemas("uuid", text), pattern: UUID },
    Format { name: "byte", check: |text| as_in_schemas("byte", text), pattern: BASE64 },
    Format { name: "date", check: |text| as_in_schemas("date", text), pattern: DATE_TIME },
    Format { name: "datetime", check: |text| as_in_schemas("datetime", text), pattern: DATE_TIME },
];

/// Rows of the functions that give one format.
macro_rules! format_row {
    ($name:literal) => {
        (
            concat!("format.", $name),
            &[concat!("format.", $name, ": () -> kubernetes.NamedFormat")],
            Costing::Unit,
            |_, _| {
                named($name).map_or_else(
                    || failed("no such format"),
                    |format| Ok(Value::opaque(Opaque::Format(format))),
                )
            },
        )
    };
}

pub(super) static ROWS: &[Row] = &[
    (
        "validate",
        &["format-validate: kubernetes.NamedFormat.(string) -> optional(list(string))"],
        Costing::Validate,
        validate,
    ),
    (
        "format.named",
        &["format-named: (string) -> optional(kubernetes.NamedFormat)"],
        Costing::Unit,
        |_, args| match args {
            [Value::String(name)] => Ok(named(name)
                .map_or(Value::Optional(None), |format| Value::some(Value::opaque(Opaque::Format(format))))),
            _ => failed("no such overload"),
        },
    ),
    format_row!("dns1123Label"),
    format_row!("dns1123Subdomain"),
    format_row!("dns1035Label"),
    format_row!("qualifiedName"),
    format_row!("dns1123LabelPrefix"),
    format_row!("dns1123SubdomainPrefix"),
    format_row!("dns1035LabelPrefix"),
    format_row!("labelValue"),
    format_row!("uri"),
    format_row!("uuid"),
    format_row!("byte"),
    format_row!("date"),
    format_row!("datetime"),
];

fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// What is wrong with a text by a format that schemas have too.
fn as_in_schemas(format: &str, text: &str) -> Vec<String> {
    if formats::check(format, text) == Some(true) {
        return Vec::new();
    }
    let problem = match format {
        "uuid" => "does not match the UUID format",
        "byte" => "invalid base64",
        "date" => "invalid date",
        _ => "invalid datetime",
    };
    vec![problem.to_owned()]
}

fn validate<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Opaque(opaque), Value::String(text)] = args else { return failed("no such overload") };
    let Opaque::Format(format) = opaque.as_ref() else { return failed("no such overload") };
    machine.make(text.len() as u64)?;
    let problems = (format.check)(text);
    Ok(if problems.is_empty() {
        Value::Optional(None)
    } else {
        Value::some(Value::list(problems.into_iter().map(Value::text).collect()))
    })
}

/// How long the pattern of the format is that a call was made on.
pub(crate) fn pattern_size(format: Option<&Value<'_>>) -> u64 {
    match format {
        Some(Value::Opaque(opaque)) if let Opaque::Format(format) = opaque.as_ref() => format.pattern,
        _ => 1,
    }
}
