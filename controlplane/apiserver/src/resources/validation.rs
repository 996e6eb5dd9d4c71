//! The tables of validation (`validation/KIND.txt`, made by `cargo xtask codegen --cases`): an object of each kind, changes of it, and
//! what has to be said to each. Every row is a request to an engine with the standard admission. Rows that nobody recorded stand in
//! `validation/more/KIND.txt`, which is written by hand; `U` there is a change of the object when it exists already.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use pagurus_controlplane_store::embedded;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::admission::Chain;
use crate::authz::Authorizer;
use crate::engine::{Engine, EngineOptions};
use crate::engine_objects::EngineObjects;
use crate::objects::Objects;
use crate::request::{Call, Query, RequestInfo, UserInfo, Warnings, full_body};

/// What a request was answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Each `REASON FIELD` of the causes, or `CODE REASON` of an answer without; none if it was accepted.
    errors: Vec<(String, String)>,
    warnings: Vec<String>,
}

struct Row<'a> {
    change: &'a str,
    want: Answer,
}

async fn engine(directory: &Path) -> (Arc<Engine>, CancellationToken) {
    let store = embedded::Store::open(directory, embedded::Options::default()).unwrap();
    let cancel = CancellationToken::new();
    let engine = Engine::start(Arc::new(store), EngineOptions::default(), cancel.clone()).await.unwrap();
    let objects: Arc<dyn Objects> = Arc::new(EngineObjects::new(&engine));
    engine.set_admission(Chain::standard(&objects, &Arc::new(Authorizer::new(objects.clone()))));
    for (path, object) in [
        ("/api/v1/namespaces", json!({"metadata": {"name": "n"}})),
        ("/api/v1/namespaces/n/serviceaccounts", json!({"metadata": {"name": "default"}})),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
        ),
    ] {
        assert_eq!(ask(&engine, Method::POST, path, &object).await, Answer::default(), "{path}");
    }
    (engine, cancel)
}

async fn ask(engine: &Arc<Engine>, method: Method, address: &str, object: &Value) -> Answer {
    let uri: http::Uri = address.parse().unwrap();
    let call = Call {
        info: RequestInfo::parse(&method, &uri).unwrap(),
        user: UserInfo::authenticated("tester", ["system:masters"]),
        query: Query::parse(uri.query().unwrap_or_default()),
        headers: HeaderMap::new(),
        method,
        uri,
        extensions: http::Extensions::default(),
        warnings: Warnings::default(),
    };
    let warnings = call.warnings.clone();
    let response = engine.serve(call, full_body(object.to_string())).await;
    let code = response.status().as_u16();
    let body: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let errors: Vec<(String, String)> = match body.pointer("/details/causes").and_then(Value::as_array) {
        _ if code < 400 => Vec::new(),
        Some(causes) => causes
            .iter()
            .map(|c| (format!("{} {}", text(&c["reason"]), text(&c["field"])), text(&c["message"])))
            .collect(),
        None => vec![(format!("{code} {}", text(&body["reason"])), text(&body["message"]))],
    };
    Answer { errors, warnings: warnings.texts() }
}

/// Reads a table: the path, the object, the rows.
fn read(table: &str) -> (&str, Value, Vec<Row<'_>>) {
    let mut lines = table.lines();
    let [_, path, object] = lines.next().unwrap().splitn(3, '\t').collect::<Vec<_>>()[..] else {
        panic!("no object")
    };
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let text = |json: &str| serde_json::from_str::<String>(json).unwrap();
        let mut of_row = |error: (String, String)| rows.last_mut().unwrap().want.errors.push(error);
        match columns[..] {
            ["S" | "D" | "U", ..] => rows.push(Row { change: line, want: Answer::default() }),
            ["A"] => {}
            ["E" | "C", first, second, message] => of_row((format!("{first} {second}"), text(message))),
            ["W", warning] => rows.last_mut().unwrap().want.warnings.push(text(warning)),
            _ => panic!("no row: {line}"),
        }
    }
    (path, serde_json::from_str(object).unwrap(), rows)
}

/// The object with a row's change.
fn changed(object: &Value, change: &str) -> Value {
    let mut object = object.clone();
    let columns: Vec<&str> = change.splitn(3, '\t').collect();
    let (parent, last) = columns[1].rsplit_once('/').unwrap();
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no place: {change}"));
    match (parent, columns.get(2)) {
        (Value::Object(fields), Some(value)) => {
            drop(fields.insert(last, serde_json::from_str(value).unwrap()))
        }
        (Value::Object(fields), None) => drop(fields.remove(&last)),
        (Value::Array(items), value) => {
            let at: usize = last.parse().unwrap();
            match value {
                Some(value) if at < items.len() => items[at] = serde_json::from_str(value).unwrap(),
                Some(value) => items.push(serde_json::from_str(value).unwrap()),
                None => drop(items.remove(at)),
            }
        }
        (other, _) => panic!("{change}: {other} has no places"),
    }
    object
}

/// Whether a text is the one that a table has: whole, or by its ends; times are any times.
fn is(got: &str, want: &str) -> bool {
    let mut rest = got;
    let parts: Vec<&str> = want.split('…').flat_map(|part| part.split("<time>")).collect();
    for (at, part) in parts.iter().enumerate() {
        let found = match at {
            0 => rest.starts_with(part).then_some(0),
            _ if at + 1 == parts.len() => rest
                .len()
                .checked_sub(part.len())
                .filter(|from| rest.ends_with(part) && rest.is_char_boundary(*from)),
            _ => rest.find(part),
        };
        let Some(from) = found else { return false };
        rest = &rest[from + part.len()..];
    }
    parts.len() > 1 || rest.is_empty()
}

/// Whether the answers say the same, in whatever order.
fn agree(got: &Answer, want: &Answer) -> bool {
    fn pairs<T>(got: &[T], want: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
        let mut left: Vec<&T> = want.iter().collect();
        let each = got.iter().all(|got| {
            let found = left.iter().position(|want| same(got, want));
            found.map(|at| left.remove(at)).is_some()
        });
        each && left.is_empty()
    }
    pairs(&got.errors, &want.errors, |got, want| got.0 == want.0 && is(&got.1, &want.1))
        && pairs(&got.warnings, &want.warnings, |got, want| is(got, want))
}

#[tokio::test]
async fn every_kind_is_validated_as_its_table_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resources/validation");
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let kind = path.file_stem().unwrap().to_string_lossy().into_owned();
            tables.insert(kind, std::fs::read_to_string(&path).unwrap());
        }
    }
    assert!(tables.len() > 50, "{} tables", tables.len());
    for entry in std::fs::read_dir(folder.join("more")).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.file_stem().unwrap().to_string_lossy().into_owned();
        tables.get_mut(&kind).unwrap().push_str(&std::fs::read_to_string(&path).unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let (engine, cancel) = engine(directory.path()).await;
    let (mut rows, mut failures) = (0, Vec::new());
    for (kind, table) in &tables {
        let (path, object, of_kind) = read(table);
        let name = object["metadata"]["name"].as_str().unwrap();
        // What is created would stand in the way of creating it.
        let (of_new, of_old): (Vec<_>, Vec<_>) = of_kind.iter().partition(|row| !row.change.starts_with('U'));
        let mut requests: Vec<_> =
            of_new.iter().map(|row| (Method::POST, format!("{path}?dryRun=All"), row)).collect();
        requests.extend(of_old.iter().map(|row| (Method::PUT, format!("{path}/{name}?dryRun=All"), row)));
        let mut made = false;
        for (method, address, row) in requests {
            if method == Method::PUT && !std::mem::replace(&mut made, true) {
                assert_eq!(ask(&engine, Method::POST, path, &object).await.errors, [], "{kind}");
            }
            let got = ask(&engine, method, &address, &changed(&object, row.change)).await;
            rows += 1;
            if !agree(&got, &row.want) {
                failures.push(format!("{kind}: {}\n  want {:?}\n  got  {got:?}", row.change, row.want));
            }
        }
    }
    cancel.cancel();
    engine.ended().await;
    assert!(failures.is_empty(), "{} of {rows} rows:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn texts_are_compared_by_their_ends() {
    for (got, want, same) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abxyzcd", "ab…cd", true),
        ("abxyzce", "ab…cd", false),
        ("at 2026-01-01T00:00:00Z: no", "at <time>: no", true),
        ("ab", "ab…b", false),
    ] {
        assert_eq!(is(got, want), same, "{got} / {want}");
    }
}
