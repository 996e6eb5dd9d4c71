//! Named formats: the checks of names and values that Kubernetes' API itself uses.

use base64::Engine;
use pagurus_controlplane_api::labels;

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
const UUID: u64 = 55;
const BASE64: u64 = 75;
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
    Format {
        name: "uuid",
        check: |text| problem(uuid(text), "does not match the UUID format"),
        pattern: UUID,
    },
    Format {
        name: "byte",
        check: |text| {
            problem(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")
        },
        pattern: BASE64,
    },
    Format {
        name: "date",
        check: |text| problem(crate::time::parse_date(text).is_some(), "invalid date"),
        pattern: DATE_TIME,
    },
    Format {
        name: "datetime",
        check: |text| problem(crate::time::parse_timestamp(text).is_some(), "invalid datetime"),
        pattern: DATE_TIME,
    },
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

fn problem(right: bool, message: &str) -> Vec<String> {
    if right { Vec::new() } else { vec![message.to_owned()] }
}

/// Hexadecimal digits in the groups of a UUID, with or without dashes.
fn uuid(text: &str) -> bool {
    let digits: String = text.split('-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    digits.len() == 32
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && matches!(groups.as_slice(), [32] | [8, 4, 4, 4, 12])
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
