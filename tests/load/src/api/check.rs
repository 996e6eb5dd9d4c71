//! Whether an answer is right. As cheap as can be while every answer is looked at, since it costs the machine that is measured.
//!
//! Must not know: how answers are come by.

use std::io::BufRead as _;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::objects::IMAGE;

#[derive(Deserialize)]
struct Object<'a> {
    kind: &'a str,
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    #[serde(borrow)]
    resource_version: &'a str,
    #[serde(borrow)]
    uid: &'a str,
    #[serde(default)]
    managed_fields: Vec<IgnoredAny>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

fn object<'a>(body: &'a [u8], kind: &str, name: &str) -> Result<Object<'a>> {
    let object: Object<'_> = serde_json::from_slice(body).context("the answer is no object")?;
    ensure!(object.kind == kind && object.metadata.name == name, "not {kind} {name}: {}", text(body));
    ensure!(object.metadata.resource_version.parse::<u64>().is_ok(), "no resourceVersion: {}", text(body));
    ensure!(!object.metadata.uid.is_empty(), "no uid: {}", text(body));
    ensure!(
        kind != "Pod" || object.spec.is_some_and(|spec| spec.get().contains(IMAGE)),
        "without its spec: {}",
        text(body)
    );
    Ok(object)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned()
}

/// An object as it is read.
///
/// # Errors
/// It is another, or not whole.
pub fn read(body: &[u8], kind: &str, name: &str) -> Result<()> {
    object(body, kind, name).map(drop)
}

/// An object as it was created: with an owner of its fields.
///
/// # Errors
/// It is another, or not whole.
pub fn created(body: &[u8], kind: &str, name: &str) -> Result<()> {
    let object = object(body, kind, name)?;
    ensure!(object.metadata.managed_fields.len() == 1, "its fields have no owner: {}", text(body));
    Ok(())
}

/// An object as it was patched: the annotations hold this text.
///
/// # Errors
/// It is another, or not whole.
pub fn patched(body: &[u8], kind: &str, name: &str, annotation: &str) -> Result<()> {
    let object = object(body, kind, name)?;
    ensure!(
        object.metadata.annotations.is_some_and(|annotations| annotations.get().contains(annotation)),
        "without {annotation}: {}",
        text(body)
    );
    Ok(())
}

/// How long lists are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A `PodList` in JSON.
    Json,
    /// The same in protobuf.
    Protobuf,
    /// A `Table` in JSON.
    Table,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    kind: &'a str,
    items: Option<Vec<Item<'a>>>,
    rows: Option<Vec<TableRow<'a>>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    metadata: Named<'a>,
    spec: IgnoredAny,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: &'a str,
}

#[derive(Deserialize)]
struct TableRow<'a> {
    cells: Vec<IgnoredAny>,
    #[serde(borrow)]
    object: RowObject<'a>,
}

#[derive(Deserialize)]
struct RowObject<'a> {
    #[serde(borrow)]
    metadata: Named<'a>,
}

/// A list of pods: every one of them is there, in order of their names.
///
/// # Errors
/// It is not that.
pub fn list(form: Form, body: &[u8], count: u64, name: impl Fn(u64) -> String) -> Result<()> {
    let check = |names: &[&str]| {
        ensure!(names.len() as u64 == count, "{} pods instead of {count}", names.len());
        let wrong = names.iter().zip(0..).find(|(got, at)| **got != name(*at));
        ensure!(wrong.is_none(), "{wrong:?} is not the pod at this place");
        Ok(())
    };
    if form == Form::Protobuf {
        let names = protobuf_names(body).context("not a PodList in protobuf")?;
        return check(&names);
    }
    let list: List<'_> = serde_json::from_slice(body).context("the answer is no list")?;
    let expected = if form == Form::Table { "Table" } else { "PodList" };
    ensure!(list.kind == expected, "{} instead of {expected}", list.kind);
    if let Some(rows) = &list.rows {
        ensure!(rows.iter().all(|row| row.cells.len() >= 5), "a row without its cells");
        return check(&rows.iter().map(|row| row.object.metadata.name).collect::<Vec<_>>());
    }
    let items = list.items.context("no items")?;
    let _ = items.first().map(|item| item.spec);
    check(&items.iter().map(|item| item.metadata.name).collect::<Vec<_>>())
}

/// The names in a list in protobuf: `runtime.Unknown.raw` (2) holds the list, whose items (2) have metadata (1) with a name (1).
fn protobuf_names(body: &[u8]) -> Option<Vec<&str>> {
    let list = field(body.strip_prefix(b"k8s\0")?, 2)?;
    let mut names = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (number, value, after) = next_field(rest)?;
        rest = after;
        if number == 2 {
            names.push(std::str::from_utf8(field(field(value, 1)?, 1)?).ok()?);
        }
    }
    Some(names)
}

/// The first field of this number that has a length.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let (number, value, after) = next_field(message)?;
        if number == wanted {
            return Some(value);
        }
        message = after;
    }
    None
}

/// Number and value of the field that a message begins with, and what follows; numbers have an empty value.
fn next_field(message: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (tag, rest) = varint(message)?;
    match tag & 7 {
        0 => varint(rest).map(|(_, after)| (tag >> 3, &rest[..0], after)),
        2 => {
            let (length, rest) = varint(rest)?;
            let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((tag >> 3, value, after))
        }
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| *byte < 0x80)?;
    let value = bytes[..=end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, &bytes[end + 1..]))
}

/// The lines of a watch, as they come in pieces.
#[derive(Debug, Default)]
pub struct Events {
    begun: Vec<u8>,
    last: u64,
}

impl Events {
    /// Takes a piece; calls `each` with every whole event.
    ///
    /// # Errors
    /// A line is no change of a pod, or its revision is not later than that of the one before.
    pub fn take(&mut self, piece: &Bytes, mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let all = rest;
            let length = rest.skip_until(b'\n')?;
            let line = &all[..length];
            if line.last() != Some(&b'\n') {
                self.begun.extend_from_slice(line);
            } else if self.begun.is_empty() {
                self.last = event(line, self.last)?;
                each(line);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.last = event(&whole, self.last)?;
                each(&whole);
            }
        }
        Ok(())
    }
}

/// The revision of an event, which must be later than `last`.
fn event(line: &[u8], last: u64) -> Result<u64> {
    const BEGIN: &[u8] = br#"{"type":"MODIFIED","object":{"#;
    ensure!(line.starts_with(BEGIN) && line.ends_with(b"}}\n"), "not a change: {}", text(line));
    let revision =
        number_after(line, br#""resourceVersion":""#).context("an event without resourceVersion")?;
    ensure!(revision > last, "revision {revision} after {last}");
    Ok(revision)
}

/// The number behind the first place of this text.
pub fn number_after(line: &[u8], field: &[u8]) -> Option<u64> {
    let at = line.windows(field.len()).position(|window| window == field)? + field.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let pod = |image: &str| {
            format!(
                r#"{{"kind":"Pod","metadata":{{"name":"a","uid":"u","resourceVersion":"7","managedFields":[{{}}],
                "annotations":{{"k":"v5"}}}},"spec":{{"image":"{image}"}}}}"#
            )
        };
        let good = pod(IMAGE);
        assert!(created(good.as_bytes(), "Pod", "a").is_ok());
        assert!(patched(good.as_bytes(), "Pod", "a", "v5").is_ok());
        assert!(patched(good.as_bytes(), "Pod", "a", "v6").is_err());
        assert!(read(good.as_bytes(), "Pod", "b").is_err());
        assert!(read(pod("other").as_bytes(), "Pod", "a").is_err());
        assert!(read(&good.as_bytes()[..good.len() - 1], "Pod", "a").is_err());
    }

    #[test]
    fn lists() {
        let name = |at: u64| format!("p{at}");
        let json = br#"{"kind":"PodList","items":[{"metadata":{"name":"p0"},"spec":{}},{"metadata":{"name":"p1"},"spec":{}}]}"#;
        assert!(list(Form::Json, json, 2, name).is_ok());
        assert!(list(Form::Json, json, 3, name).is_err());
        assert!(list(Form::Table, json, 2, name).is_err());
        let table = br#"{"kind":"Table","rows":[{"cells":[1,2,3,4,5],"object":{"metadata":{"name":"p0"}}}]}"#;
        assert!(list(Form::Table, table, 1, name).is_ok());
        // Unknown{1: TypeMeta, 2: raw}, raw = PodList{1: metadata, 2: Pod{1: metadata{1: name}}}
        let pod = |name: &str| {
            [
                &[0x12, name.len() as u8 + 4, 0x0a, name.len() as u8 + 2, 0x0a, name.len() as u8],
                name.as_bytes(),
            ]
            .concat()
        };
        let raw = [&[0x0a, 0][..], &pod("p0"), &pod("p1")].concat();
        let whole = [b"k8s\0\x0a\x01x\x12".as_slice(), &[raw.len() as u8], &raw].concat();
        assert!(list(Form::Protobuf, &whole, 2, name).is_ok());
        assert!(list(Form::Protobuf, &whole, 1, name).is_err());
        assert!(list(Form::Protobuf, &whole[..whole.len() - 1], 2, name).is_err());
    }

    #[test]
    fn events_in_pieces() {
        let line = |revision: u64| {
            format!(
                "{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{revision}\"}}}}\n"
            )
        };
        let text = format!("{}{}{}", line(3), line(4), line(9));
        for size in [1, 7, 50, 1000] {
            let (mut events, mut count) = (Events::default(), 0);
            for piece in text.as_bytes().chunks(size) {
                events.take(&Bytes::copy_from_slice(piece), |_| count += 1).expect("in order");
            }
            assert_eq!(count, 3);
        }
        let mut events = Events::default();
        assert!(events.take(&format!("{}{}", line(4), line(4)).into(), |_| ()).is_err());
    }
}
