//! `cargo xtask fixtures DIR`: every wire fixture below DIR (`group.version.kind.{json,yaml,pb,cbor}`) must decode through our
//! codecs without a strict objection, survive the round trip through its type, and encode back equal as data. Where DIR has no
//! CBOR, the JSON fixtures must survive the way through it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pagurus_controlplane_schema::codec::{self, Format};
use pagurus_controlplane_schema::{Table, normalize};
use serde_json::Value;

/// Arguments of `fixtures`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder with the fixtures; folders below it are searched too
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Checks every fixture; an error if one fails or there is none.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut files = Vec::new();
    collect(&options.dir, &mut files)?;
    files.sort();
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for file in &files {
        let (name, format) = match file.extension().and_then(|e| e.to_str()) {
            Some("json") => ("JSON", Format::Json),
            Some("yaml") => ("YAML", Format::Yaml),
            Some("cbor") => ("CBOR", Format::Cbor),
            Some("pb") => {
                let count = counts.entry("protobuf").or_default();
                count.0 += 1;
                if let Err(error) = check_protobuf(file) {
                    count.1 += 1;
                    println!("FAIL {}: {error:#}", file.display());
                }
                continue;
            }
            _ => continue,
        };
        let count = counts.entry(name).or_default();
        count.0 += 1;
        if let Err(error) = check(file, format) {
            count.1 += 1;
            println!("FAIL {}: {error:#}", file.display());
        }
    }
    if !counts.contains_key("CBOR") {
        through_cbor(&files, &mut counts);
    }
    for (name, (all, failed)) in &counts {
        println!("{name}: {} passed, {failed} failed", all - failed);
    }
    let failed: usize = counts.values().map(|(_, failed)| failed).sum();
    anyhow::ensure!(!counts.is_empty(), "no fixtures below {}", options.dir.display());
    anyhow::ensure!(failed == 0, "{failed} fixtures failed");
    Ok(())
}

/// Where there is no CBOR to read, what is written of the JSON fixtures must say the same.
fn through_cbor(files: &[PathBuf], counts: &mut BTreeMap<&str, (usize, usize)>) {
    let is_json = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "json");
    for file in files.iter().filter(is_json) {
        let count = counts.entry("CBOR made of JSON").or_default();
        count.0 += 1;
        if let Err(error) = check_through_cbor(file) {
            count.1 += 1;
            println!("FAIL {} through CBOR: {error:#}", file.display());
        }
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn check(file: &Path, format: Format) -> anyhow::Result<()> {
    check_bytes(&std::fs::read(file)?, format)
}

fn check_through_cbor(file: &Path) -> anyhow::Result<()> {
    let plain = decode_plain(&std::fs::read(file)?, Format::Json)?;
    let bytes = codec::cbor::document(Table::builtin(), &plain);
    same(&plain, &decode_plain(&bytes, Format::Cbor)?, "in CBOR")?;
    check_bytes(&bytes, Format::Cbor)
}

fn check_bytes(bytes: &[u8], format: Format) -> anyhow::Result<()> {
    let table = Table::builtin();
    let plain = decode_plain(bytes, format)?;
    let (api_version, kind) =
        (plain["apiVersion"].as_str().context("no apiVersion")?, plain["kind"].as_str().context("no kind")?);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let id = table
        .kind_type(group, version, kind)
        .with_context(|| format!("{api_version} {kind} is not in the table"))?;
    let typed = codec::decode_as(table, id, format, bytes)?;
    anyhow::ensure!(typed.strict.is_empty(), "{}", typed.strict.join(", "));
    let mut value = typed.value;
    normalize(table, id, &mut value);
    same(&plain, &value, "after the round trip through its type")?;
    let encoded = match format {
        Format::Json => codec::json::encode(&value),
        Format::Yaml => codec::yaml::encode(&value),
        Format::Cbor => codec::cbor::encode(table, id, &value),
    };
    same(&plain, &decode_plain(&encoded, format)?, "after encoding")
}

/// A protobuf fixture must decode to what the JSON one beside it says, where there is one, and encode back byte for byte.
fn check_protobuf(file: &Path) -> anyhow::Result<()> {
    let table = Table::builtin();
    let bytes = std::fs::read(file)?;
    let envelope = codec::protobuf::envelope(&bytes)?;
    let (group, version) = envelope.api_version.rsplit_once('/').unwrap_or(("", &envelope.api_version));
    let id = table
        .kind_type(group, version, &envelope.kind)
        .with_context(|| format!("{} {} is not in the table", envelope.api_version, envelope.kind))?;
    let typed = codec::protobuf::decode_as(table, id, &bytes)?;
    if let Ok(json) = std::fs::read(file.with_extension("json")) {
        same(&decode_plain(&json, Format::Json)?, &typed.value, "decoded")?;
    }
    let encoded = codec::protobuf::encode(table, id, &typed.value);
    let at = encoded.iter().zip(&bytes).position(|(a, b)| a != b).unwrap_or(encoded.len().min(bytes.len()));
    anyhow::ensure!(
        encoded == bytes,
        "encoded back it differs from byte {at} on ({} bytes, not {}): {:02x?}, not {:02x?}",
        encoded.len(),
        bytes.len(),
        &encoded[at..encoded.len().min(at + 12)],
        &bytes[at..bytes.len().min(at + 12)]
    );
    Ok(())
}

fn decode_plain(bytes: &[u8], format: Format) -> anyhow::Result<Value> {
    let decoded = match format {
        Format::Json => codec::json::decode(bytes)?,
        Format::Yaml => codec::yaml::decode(bytes)?,
        Format::Cbor => codec::cbor::decode(bytes)?,
    };
    anyhow::ensure!(
        decoded.duplicate_fields.is_empty(),
        "keys given twice: {}",
        decoded.duplicate_fields.join(", ")
    );
    Ok(decoded.value)
}

fn same(expected: &Value, got: &Value, when: &str) -> anyhow::Result<()> {
    match difference(expected, got, "") {
        None => Ok(()),
        Some((path, expected, got)) => anyhow::bail!("{when}, {path} is {got}, not {expected}"),
    }
}

/// The first place where two values differ, with both sides.
fn difference(expected: &Value, got: &Value, path: &str) -> Option<(String, String, String)> {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.map(|key| (key, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null)))
                .find_map(|(key, a, b)| difference(a, b, &format!("{path}.{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]")))
        }
        (a, b) if a == b => None,
        (a, b) => Some((path.to_owned(), a.to_string(), b.to_string())),
    }
}
