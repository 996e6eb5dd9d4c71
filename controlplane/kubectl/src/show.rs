//! Histories for people: a table, one write in full, or the API's JSON. Pure.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::find::{list, text};

/// How much of a value a line of the wide table shows, in characters.
const SHORT: usize = 60;

/// An `ObjectHistory`, as far as it has been read.
pub struct Page(Value);

impl Page {
    /// From the server's answer.
    pub fn read(answer: Value) -> Result<Self> {
        answer["items"].as_array().context("the server's history has no items")?;
        Ok(Self(answer))
    }

    /// The writes, the newest first.
    pub fn items(&self) -> &[Value] {
        list(&self.0["items"])
    }

    /// Where to go on, if there is more and fewer than `limit` have been read.
    pub fn next(&self, limit: usize) -> Option<String> {
        let next = self.0["metadata"]["continue"].as_str().filter(|_| self.items().len() < limit);
        next.map(str::to_owned)
    }

    /// Puts the next page behind this one.
    pub fn append(&mut self, next: Page) {
        let Page(mut next) = next;
        if let (Value::Array(items), Value::Array(more)) = (&mut self.0["items"], next["items"].take()) {
            items.extend(more);
        }
        for place in ["metadata", "forgottenWrites", "compactedResourceVersion"] {
            match (next[place].take(), place) {
                (Value::Null, _) => {}
                // The revision is that of the first page.
                (metadata, "metadata") => match metadata["continue"].as_str() {
                    Some(token) => self.0["metadata"]["continue"] = token.into(),
                    None => {
                        self.0["metadata"].as_object_mut().map(|metadata| metadata.remove("continue"));
                    }
                },
                (value, place) => self.0[place] = value,
            }
        }
    }

    /// The document as a whole.
    pub fn document(&self) -> &Value {
        &self.0
    }

    /// The write of a revision, which must be the first of the page.
    pub fn write_of(&self, revision: u64) -> Result<&Value> {
        let newest = self.items().first().context("the object was not there yet at this revision")?;
        let made = text(&newest["resourceVersion"]);
        if made != revision.to_string() {
            bail!("revision {revision} did not write this object; the last one before it that did is {made}");
        }
        Ok(newest)
    }
}

/// As JSON.
pub fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A line for each write, and what else there is to know.
pub fn table(page: &Page, wide: bool) -> String {
    let mut rows = vec![row(["REVISION", "TIME", "EVENT", "BY", if wide { "CHANGES" } else { "FIELDS" }])];
    for item in page.items() {
        let changes = list(&item["changes"]).iter().map(|change| match wide {
            true => {
                format!("{}: {} -> {}", text(&change["path"]), short(change, "old"), short(change, "new"))
            }
            false => text(&change["path"]).to_owned(),
        });
        let changes = changes.collect::<Vec<_>>().join(if wide { "; " } else { "," });
        let (revision, event) = (text(&item["resourceVersion"]), text(&item["event"]));
        rows.push(row([revision, time(item), event, &managers(item), or_none(&changes)]));
    }
    let mut out = aligned(&rows);
    if page.0["metadata"]["continue"].is_string() {
        out.push_str("There are older writes: --limit shows more.\n");
    }
    if let Some(count) = page.0["forgottenWrites"].as_u64() {
        let upto = text(&page.0["compactedResourceVersion"]);
        out.push_str(&format!(
            "{count} older writes of this object are forgotten (compacted up to revision {upto}).\n"
        ));
    }
    out
}

/// One write with every field it changed, old and new.
pub fn changes(object: &str, item: &Value) -> String {
    let (revision, event) = (text(&item["resourceVersion"]), text(&item["event"]));
    let mut out =
        format!("{object} at revision {revision}: {event}, {}, by {}\n", time(item), managers(item));
    for change in list(&item["changes"]) {
        out.push_str(&format!("{}\n", text(&change["path"])));
        for (sign, side) in [('-', "old"), ('+', "new")] {
            let Some(value) = change.get(side) else { continue };
            let shown = format!("{value:#}");
            shown.lines().for_each(|line| out.push_str(&format!("  {sign} {line}\n")));
        }
    }
    out
}

fn time(item: &Value) -> &str {
    item["time"].as_str().unwrap_or("<unknown>")
}

fn managers(item: &Value) -> String {
    let shown = list(&item["managers"]).iter().map(|manager| {
        let (name, operation) = (text(&manager["manager"]), text(&manager["operation"]));
        match (manager["subresource"].as_str(), manager["user"].as_str()) {
            (Some(sub), _) => format!("{name} ({operation} of {sub})"),
            (None, Some(user)) => format!("{name} ({operation} as {user})"),
            (None, None) => format!("{name} ({operation})"),
        }
    });
    or_none(&shown.collect::<Vec<_>>().join(",")).to_owned()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// A value on one line, cut.
fn short(change: &Value, side: &str) -> String {
    let Some(value) = change.get(side) else { return "<none>".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn row(cells: [&str; 5]) -> [String; 5] {
    cells.map(str::to_owned)
}

/// Columns three spaces apart, as kubectl has them.
fn aligned(rows: &[[String; 5]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn page(items: Value, next: Option<&str>) -> Page {
        let mut page =
            json!({"metadata": {"resourceVersion": "9"}, "compactedResourceVersion": "3", "items": items});
        if let Some(next) = next {
            page["metadata"]["continue"] = next.into();
        }
        Page::read(page).unwrap()
    }

    fn scaled() -> Value {
        json!({"resourceVersion": "12", "event": "Modified", "time": "2026-01-01T00:00:00Z",
            "managers": [{"manager": "kubectl", "operation": "Update", "subresource": "scale"}],
            "changes": [{"path": ".spec.replicas", "old": 1, "new": 2}, {"path": ".spec.paused", "old": true}]})
    }

    fn deleted() -> Value {
        json!({"resourceVersion": "9", "event": "Deleted", "managers": [], "changes": []})
    }

    #[test]
    fn tables() {
        let mut whole = page(json!([scaled(), deleted()]), Some("9"));
        assert_eq!(
            table(&whole, false),
            "REVISION   TIME                   EVENT      BY                          FIELDS\n\
             12         2026-01-01T00:00:00Z   Modified   kubectl (Update of scale)   .spec.replicas,.spec.paused\n\
             9          <unknown>              Deleted    <none>                      <none>\n\
             There are older writes: --limit shows more.\n"
        );
        whole.0["metadata"] = json!({});
        whole.0["forgottenWrites"] = json!(4);
        let shown = table(&whole, true);
        assert!(shown.contains("  .spec.replicas: 1 -> 2; .spec.paused: true -> <none>\n"), "{shown}");
        assert!(
            shown.ends_with("4 older writes of this object are forgotten (compacted up to revision 3).\n")
        );
    }

    #[test]
    fn one_write() {
        assert_eq!(
            changes("deployments.apps/web", &scaled()),
            "deployments.apps/web at revision 12: Modified, 2026-01-01T00:00:00Z, by kubectl (Update of scale)\n\
             .spec.replicas\n  - 1\n  + 2\n.spec.paused\n  - true\n"
        );
        let page = page(json!([scaled(), deleted()]), None);
        assert_eq!(page.write_of(12).unwrap(), &scaled());
        let error = page.write_of(13).unwrap_err().to_string();
        assert_eq!(error, "revision 13 did not write this object; the last one before it that did is 12");
    }

    #[test]
    fn pages_are_put_together() {
        let mut all = page(json!([scaled()]), Some("12"));
        assert_eq!((all.next(2).as_deref(), all.next(1)), (Some("12"), None));
        let mut last = page(json!([deleted()]), None);
        last.0["forgottenWrites"] = json!(1);
        all.append(last);
        assert_eq!((all.items().len(), all.next(9)), (2, None));
        assert_eq!(
            (&all.0["forgottenWrites"], &all.0["metadata"]),
            (&json!(1), &json!({"resourceVersion": "9"}))
        );
        assert!(Page::read(json!({"kind": "ConfigMap"})).is_err());
    }

    #[test]
    fn long_values_are_cut() {
        let long = json!({"path": ".data", "new": "\u{e4}".repeat(100)});
        assert_eq!(
            (short(&long, "new").chars().count(), short(&long, "old").as_str()),
            (SHORT + 3, "<none>")
        );
    }
}
