//! Semantic versions (2.0.0).

use std::cmp::Ordering;

use super::quantity::sign;
use super::{Opaque, Row};
use crate::cost::Costing;
use crate::eval::{Outcome, failed};
use crate::value::Value;

/// A version. What was built (`+...`) does not count when versions are compared.
#[derive(Clone, Debug)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    before: Vec<Part>,
}

/// A part of what says that a version is before its release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    fn order(&self, other: &Version) -> Ordering {
        let release = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        release.then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.before.cmp(&other.before),
        })
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }
}

pub(super) static ROWS: &[Row] = &[
    (
        "semver",
        &[
            "string_to_semver: (string) -> kubernetes.Semver",
            "string_bool_to_semver: (string, bool) -> kubernetes.Semver",
        ],
        Costing::Parse,
        |_, args| {
            read(args, |version| {
                version.map_or_else(failed, |version| Ok(Value::opaque(Opaque::Semver(version))))
            })
        },
    ),
    (
        "isSemver",
        &["is_semver_string: (string) -> bool", "is_semver_string_bool: (string, bool) -> bool"],
        Costing::Parse,
        |_, args| read(args, |version| Ok(Value::Bool(version.is_ok()))),
    ),
    ("major", &["semver_major: kubernetes.Semver.() -> int"], Costing::Unit, |_, args| {
        part(args, |version| version.major)
    }),
    ("minor", &["semver_minor: kubernetes.Semver.() -> int"], Costing::Unit, |_, args| {
        part(args, |version| version.minor)
    }),
    ("patch", &["semver_patch: kubernetes.Semver.() -> int"], Costing::Unit, |_, args| {
        part(args, |version| version.patch)
    }),
    (
        "isLessThan",
        &["semver_is_less_than: kubernetes.Semver.(kubernetes.Semver) -> bool"],
        Costing::Unit,
        |_, args| two(args, |order| Value::Bool(order.is_lt())),
    ),
    (
        "isGreaterThan",
        &["semver_is_greater_than: kubernetes.Semver.(kubernetes.Semver) -> bool"],
        Costing::Unit,
        |_, args| two(args, |order| Value::Bool(order.is_gt())),
    ),
    (
        "compareTo",
        &["semver_compare_to: kubernetes.Semver.(kubernetes.Semver) -> int"],
        Costing::Unit,
        |_, args| two(args, |order| Value::Int(sign(order))),
    ),
];

fn read<'a>(args: &[Value<'a>], make: impl FnOnce(Result<Version, String>) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [Value::String(text)] => make(parse(text, false)),
        [Value::String(text), Value::Bool(normal)] => make(parse(text, *normal)),
        _ => failed("no such overload"),
    }
}

fn version<'v>(value: Option<&'v Value<'_>>) -> Option<&'v Version> {
    match value {
        Some(Value::Opaque(opaque)) if let Opaque::Semver(version) = opaque.as_ref() => Some(version),
        _ => None,
    }
}

fn part<'a>(args: &[Value<'a>], part: fn(&Version) -> u64) -> Outcome<'a> {
    version(args.first()).map_or_else(
        || failed("no such overload"),
        |version| Ok(Value::Int(i64::try_from(part(version)).unwrap_or(i64::MAX))),
    )
}

fn two<'a>(args: &[Value<'a>], make: fn(Ordering) -> Value<'a>) -> Outcome<'a> {
    match (version(args.first()), version(args.get(1))) {
        (Some(a), Some(b)) => Ok(make(a.order(b))),
        _ => failed("no such overload"),
    }
}

/// Reads a version. `normal`: a `v` before it, leading zeros and missing parts are put right first.
pub(crate) fn parse(text: &str, normal: bool) -> Result<Version, String> {
    let normalized = if normal { normalize(text)? } else { text.to_owned() };
    let text = normalized.as_str();
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let numbers: Vec<&str> = text.splitn(3, '.').collect();
    let [major, minor, rest] = numbers.as_slice() else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (major, minor) = (number(major, "major")?, number(minor, "minor")?);
    let (rest, build) = rest.split_once('+').map_or((*rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, before) = rest.split_once('-').map_or((rest, None), |(patch, before)| (patch, Some(before)));
    let patch = number(patch, "patch")?;
    let before = before.map_or(Ok(Vec::new()), |before| before.split('.').map(part_before).collect())?;
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !part.bytes().all(identifier) {
            let quoted = pagurus_controlplane_api::go::quote(part);
            return Err(format!("Invalid character(s) found in build meta data {quoted}"));
        }
    }
    Ok(Version { major, minor, patch, before })
}

/// The text with three numbers, none of which begins with zeros; what follows them stays as it is.
fn normalize(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let without_zeros = |part: &str| match part.trim_start_matches('0') {
        _ if part.len() < 2 => part.to_owned(),
        cut if cut.starts_with(|c: char| c.is_ascii_digit()) => cut.to_owned(),
        cut => format!("0{cut}"),
    };
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

fn identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn number(text: &str, which: &str) -> Result<u64, String> {
    let quoted = pagurus_controlplane_api::go::quote(text);
    let name = which[..1].to_ascii_uppercase() + &which[1..];
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {which} number {quoted}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {quoted}"));
    }
    text.parse().map_err(|_| {
        format!(
            "strconv.ParseUint: parsing {quoted}: {}",
            if text.is_empty() { "invalid syntax" } else { "value out of range" }
        )
    })
}

fn part_before(text: &str) -> Result<Part, String> {
    let quoted = pagurus_controlplane_api::go::quote(text);
    match text {
        "" => Err("Prerelease is empty".to_owned()),
        text if !text.bytes().all(identifier) => {
            Err(format!("Invalid character(s) found in prerelease {quoted}"))
        }
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("Numeric PreRelease version must not contain leading zeroes {quoted}"));
            }
            text.parse()
                .map(Part::Number)
                .map_err(|_| format!("strconv.ParseUint: parsing {quoted}: value out of range"))
        }
        text => Ok(Part::Text(text.to_owned())),
    }
}
