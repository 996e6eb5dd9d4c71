//! Writes the served resources: discovery, columns and where objects are stored.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::source::Spec;

/// Resources stored in another group's or version's form than the preferred one: from, to.
const STORED_ELSEWHERE: &[(&str, &str)] = &[("events.k8s.io/v1/events", "/v1/events")];

pub(crate) fn render(spec: &Spec, text: &mut String) -> anyhow::Result<()> {
    for root in ["/api", "/apis"] {
        for item in list(&spec.discovery[root], "items") {
            let group = item["metadata"]["name"].as_str().unwrap_or("");
            let preferred = string(&item["versions"][0], "version")?;
            for version in list(item, "versions") {
                let name = string(version, "version")?;
                for resource in list(version, "resources") {
                    render_resource(spec, text, group, name, preferred, resource)
                        .with_context(|| format!("resource {group}/{name} {}", resource["resource"]))?;
                }
            }
        }
    }
    Ok(())
}

fn render_resource(
    spec: &Spec,
    text: &mut String,
    group: &str,
    version: &str,
    preferred: &str,
    resource: &Value,
) -> anyhow::Result<()> {
    let plural = string(resource, "resource")?;
    let kind = string(&resource["responseKind"], "kind")?;
    let here = format!("{group}/{version}/{plural}");
    let at_preferred = format!("{group}/{preferred}/{plural}");
    let storage =
        STORED_ELSEWHERE.iter().find(|(from, _)| *from == here).map_or(at_preferred.as_str(), |(_, to)| *to);
    let scope = if string(resource, "scope")? == "Namespaced" { "N" } else { "C" };
    let singular = resource["singularResource"].as_str().unwrap_or("");
    let verbs = joined(resource, "verbs");
    let stored = verbs.split(',').any(|v| v == "watch");
    writeln!(
        text,
        "R\t{group}\t{version}\t{plural}\t{singular}\t{kind}\t{kind}List\t{scope}\t{verbs}\t{}\t{}\t{storage}\t{}",
        joined(resource, "shortNames"),
        joined(resource, "categories"),
        if stored { storage_hash(storage, kind) } else { String::new() }
    )?;
    for sub in list(resource, "subresources") {
        let response = &sub["responseKind"];
        let own = response["version"].as_str().is_some_and(|v| !v.is_empty());
        let (g, v) = if own {
            (response["group"].as_str().unwrap_or(""), string(response, "version")?)
        } else {
            (group, version)
        };
        writeln!(
            text,
            "S\t{}\t{g}\t{v}\t{}\t{}",
            string(sub, "subresource")?,
            string(response, "kind")?,
            joined(sub, "verbs")
        )?;
    }
    let key = if group.is_empty() { format!("{version}/{plural}") } else { here };
    for column in spec.columns.get(&key).into_iter().flatten() {
        let (name, type_) = (string(column, "name")?, string(column, "type")?);
        writeln!(
            text,
            "C\t{name}\t{type_}\t{}\t{}",
            column["format"].as_str().unwrap_or(""),
            column["priority"]
        )?;
    }
    Ok(())
}

/// Discovery's hash: the first eight bytes of SHA-256 over `group/version/Kind` of the stored form.
fn storage_hash(storage: &str, kind: &str) -> String {
    let (group_version, _) = storage.rsplit_once('/').unwrap_or((storage, ""));
    let digest = Sha256::digest(format!("{group_version}/{kind}"));
    base64(&digest[..8])
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn joined(value: &Value, key: &str) -> String {
    list(value, key).filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn string<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    value[key].as_str().with_context(|| format!("{key} is missing"))
}
