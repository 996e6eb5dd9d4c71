//! The tables of validation: for each kind an object, changes of it, and what a Kubernetes API server says to each. Made of recorded
//! requests, so that the rules are tested wherever the project is built; the recordings stay where they are.
//!
//! | line | meaning |
//! |---|---|
//! | `O` path object | where objects of the kind are created, and one that is accepted |
//! | `S` pointer value | the object with this value at the place (RFC 6901) |
//! | `D` pointer | the object without it |
//! | `A` | accepted |
//! | `E` code reason message | refused, with one message |
//! | `C` reason field message | refused: one of its causes |
//! | `W` text | a warning that comes with it |
//!
//! Columns are separated by tabs, texts are JSON strings. Of a long text beginning and end are kept, with `…` between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Of longer texts so many characters are kept at each end.
const KEPT: usize = 150;

/// Writes a table per kind into a folder, in place of those that are there.
pub fn write(recorded: &Path, out: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(recorded).with_context(|| format!("read {}", recorded.display()))?;
    let tables = tables(&text).with_context(|| format!("in {}", recorded.display()))?;
    std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for (kind, table) in &tables {
        let path = out.join(format!("{kind}.txt"));
        std::fs::write(&path, table).with_context(|| format!("write {}", path.display()))?;
    }
    println!("wrote {} validation tables to {}", tables.len(), out.display());
    Ok(())
}

/// The tables by the names of their kinds.
fn tables(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut objects = serde_json::Map::new();
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        // Recorded requests have a namespace each; those of the tables share one.
        let line = line.replace("$NS", "n");
        let mut case: Value = serde_json::from_str(&line).with_context(|| format!("line {}", at + 1))?;
        if let Some(Value::Object(named)) = case.get_mut("objects").map(Value::take) {
            objects.extend(named);
            continue;
        }
        for step in case["steps"].as_array().map(Vec::as_slice).unwrap_or_default() {
            row(step, &objects, &mut tables).with_context(|| format!("line {}, {}", at + 1, case["name"]))?;
        }
    }
    Ok(tables)
}

fn row(
    step: &Value,
    objects: &serde_json::Map<String, Value>,
    tables: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let name = step["use"].as_str().context("a step without an object")?;
    let object = objects.get(name).with_context(|| format!("no object is named {name}"))?;
    ensure!(step["method"] == "POST", "only creations are expected");
    let path = step["path"].as_str().and_then(|p| p.strip_suffix("?dryRun=All")).context("not a dry run")?;
    let table = tables.entry(name.to_owned()).or_insert_with(|| format!("O\t{path}\t{object}\n"));
    if let Some(put) = step["put"].as_array() {
        let [place, value] = put.as_slice() else { bail!("put wants a place and a value") };
        writeln!(table, "S\t{}\t{value}", pointer(place)?)?;
    } else {
        writeln!(table, "D\t{}", pointer(&step["del"])?)?;
    }
    let expect = &step["expect"];
    let code = expect["code"].as_u64().context("no code is expected")?;
    let (status, causes) = (&expect["body"], expect["body"].pointer("/details/causes"));
    match causes.and_then(Value::as_array) {
        _ if code < 400 => writeln!(table, "A")?,
        Some(causes) => {
            for cause in causes {
                let (reason, field) = (text(&cause["reason"])?, text(&cause["field"])?);
                writeln!(
                    table,
                    "C\t{reason}\t{field}\t{}",
                    Value::from(shortened(text(&cause["message"])?))
                )?;
            }
        }
        None => {
            let message = Value::from(shortened(text(&status["message"])?));
            writeln!(table, "E\t{code}\t{}\t{message}", text(&status["reason"])?)?;
        }
    }
    for warning in expect["warnings"].as_array().into_iter().flatten() {
        // The header's form is 299 - "text".
        let quoted = text(warning)?.strip_prefix("299 - ").context("not a 299 warning")?;
        let plain: String = serde_json::from_str(quoted).context("a warning's quoted text")?;
        writeln!(table, "W\t{}", Value::from(shortened(&plain)))?;
    }
    Ok(())
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is not a text"))
}

/// A list of keys and indexes as a JSON pointer.
fn pointer(place: &Value) -> anyhow::Result<String> {
    let steps = place.as_array().with_context(|| format!("{place} is not a place"))?;
    let mut out = String::new();
    for step in steps {
        let step = step.as_str().map_or_else(|| step.to_string(), str::to_owned);
        write!(out, "/{}", step.replace('~', "~0").replace('/', "~1"))?;
    }
    Ok(out)
}

fn shortened(text: &str) -> String {
    let characters = text.chars().count();
    if characters <= 2 * KEPT {
        return text.to_owned();
    }
    let (begin, end) = (text.chars().take(KEPT), text.chars().skip(characters - KEPT));
    begin.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_requests_become_rows() {
        let recorded = concat!(
            r#"{"objects": {"Thing": {"a": {"b/c": [1]}}}}"#,
            "\n",
            r#"{"name": "x", "steps": [{"method": "POST", "path": "/apis/g/v1/namespaces/$NS/things?dryRun=All", "use": "Thing",
                "put": [["a", "b/c", 0], "z"], "expect": {"code": 422, "body": {"reason": "Invalid", "message": "m",
                "details": {"causes": [{"reason": "FieldValueInvalid", "field": "a.b/c[0]", "message": "bad"}]}}}},
                {"method": "POST", "path": "/apis/g/v1/namespaces/$NS/things?dryRun=All", "use": "Thing", "del": ["a"],
                "expect": {"code": 201, "warnings": ["299 - \"say \\\"please\\\"\""]}},
                {"method": "POST", "path": "/apis/g/v1/namespaces/$NS/things?dryRun=All", "use": "Thing", "put": [["a"], 1],
                "expect": {"code": 400, "body": {"reason": "BadRequest", "message": "no"}}}]}"#
        );
        let recorded: String =
            recorded.lines().map(str::trim).collect::<Vec<_>>().join(" ").replacen("}}}} {", "}}}}\n{", 1);
        let tables = tables(&recorded).expect("tables");
        let want = concat!(
            "O\t/apis/g/v1/namespaces/n/things\t{\"a\":{\"b/c\":[1]}}\n",
            "S\t/a/b~1c/0\t\"z\"\nC\tFieldValueInvalid\ta.b/c[0]\t\"bad\"\n",
            "D\t/a\nA\nW\t\"say \\\"please\\\"\"\n",
            "S\t/a\t1\nE\t400\tBadRequest\t\"no\"\n",
        );
        assert_eq!(tables["Thing"], want);
        assert_eq!(shortened(&"é".repeat(301)).chars().count(), 301);
    }
}
