//! Writes what OpenAPI documents say that follows from nothing else: unions, the values of maps, what deletions answer, and the versions
//! that have options of their own. No prose goes in.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::source::Spec;

/// Writes the facts to their place in the source tree.
pub(crate) fn write(spec: &Spec, version: &str) -> anyhow::Result<()> {
    let name = format!("v{}.txt", version.replace('.', "_"));
    let out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../controlplane/schema/src/openapi").join(name);
    std::fs::write(&out, render(spec)?).with_context(|| format!("write {}", out.display()))
}

fn render(spec: &Spec) -> anyhow::Result<String> {
    let mut text = String::new();
    for (name, definition) in &spec.definitions {
        if let Some(unions) = definition.get("x-kubernetes-unions") {
            writeln!(text, "U\t{name}\t{unions}")?;
        }
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            if let Some(map_type) = property["x-kubernetes-map-type"].as_str().filter(|t| *t != "atomic") {
                writeln!(text, "M\t{name}\t{field}\t{map_type}")?;
            }
            if let Some(values) = property["additionalProperties"]["enum"].as_array() {
                let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                writeln!(text, "V\t{name}\t{field}\t{}", values.join(","))?;
            }
        }
    }
    for (path, item) in &spec.paths {
        let operation = &item["delete"];
        let answer = operation.pointer("/responses/200/schema/$ref").and_then(Value::as_str);
        let is_status = answer.is_none_or(|schema| schema.ends_with(".Status"));
        if operation["x-kubernetes-action"] != "delete" || is_status {
            continue;
        }
        let kind = &operation["x-kubernetes-group-version-kind"];
        let plural = path.rsplit('/').nth(1).with_context(|| format!("{path} names no resource"))?;
        let said = |name: &str| kind[name].as_str().with_context(|| format!("{path} has no {name}"));
        writeln!(text, "D\t{}\t{}\t{plural}", said("group")?, said("version")?)?;
    }
    let options = &spec.definitions["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    for kind in options["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
        let said = |name: &str| kind[name].as_str().unwrap_or_default();
        writeln!(text, "G\t{}\t{}", said("group"), said("version"))?;
    }
    Ok(text)
}
