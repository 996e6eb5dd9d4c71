//! Definitions of custom resources, and objects of them, that no well-behaved client sends; and definitions that come and go for ever.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use pagurus_tests::wire::{Answer, Dialer};
use serde_json::{Value, json};

use super::{MAPS, MIB, against, bounded, create, map, none};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// An answer that takes longer keeps others from theirs.
const PATIENCE: Duration = Duration::from_secs(20);

fn definition(plural: &str, schema: Value, columns: Value) -> Value {
    let group = "bomb.test";
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": format!("K{plural}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": columns}],
        },
    })
}

fn with_rule(plural: &str, rule: &str) -> Value {
    let spec = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 10}}});
    let schema =
        json!({"type": "object", "properties": {"spec": spec}, "x-kubernetes-validations": [{"rule": rule}]});
    definition(plural, schema, json!([]))
}

fn with_column(plural: &str, path: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    definition(plural, schema, json!([{"name": "A", "type": "string", "jsonPath": path}]))
}

async fn post(dialer: &Dialer, path: &str, body: String) -> Result<(Answer, Duration)> {
    let begun = Instant::now();
    let answer = dialer.ask(&Method::POST, path, &["content-type: application/json"], body).await?;
    Ok((answer, begun.elapsed()))
}

/// Waits until objects of a definition can be made.
async fn served(dialer: &Dialer, plural: &str) -> Result<String> {
    let path = format!("/apis/bomb.test/v1/namespaces/default/{plural}");
    for _ in 0..200 {
        if dialer.get(&path).await?.code == 200 {
            return Ok(path);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{plural} is not served")
}

/// Expressions, schemas, patterns and paths that nest or repeat without bound: refused or taken, but answered.
#[test]
fn definitions_without_bound() -> Result<()> {
    let around = |open: &str, inside: &str, close: &str, times: usize| {
        format!("{}{inside}{}", open.repeat(times), close.repeat(times))
    };
    let nested = (0..4000).fold("{\"type\":\"string\"}".to_owned(), |inner, _| {
        format!("{{\"type\":\"object\",\"properties\":{{\"a\":{inner}}}}}")
    });
    let pattern = |pattern: &str| json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}});
    let mut rows: Vec<(String, String)> = vec![
        (
            "a schema in a schema".to_owned(),
            definition("a", json!("SCHEMA"), json!([])).to_string().replace("\"SCHEMA\"", &nested),
        ),
        (
            "a pattern of patterns".to_owned(),
            definition("b", pattern("((((a{1000}){1000}){1000}){1000})"), json!([])).to_string(),
        ),
        (
            "a pattern of groups".to_owned(),
            definition("c", pattern(&around("(", "a", ")", 100_000)), json!([])).to_string(),
        ),
        (
            "many columns".to_owned(),
            definition(
                "d",
                json!({"type": "object"}),
                (0..20_000)
                    .map(|at| json!({"name": format!("c{at}"), "type": "string", "jsonPath": ".a"}))
                    .collect(),
            )
            .to_string(),
        ),
        (
            "filters in filters".to_owned(),
            with_column("e", &format!(".x{}", around("[?(@", ".a", ")]", 100_000))).to_string(),
        ),
        (
            "brackets in brackets".to_owned(),
            with_column("f", &format!(".x{}", around("[", "0", "]", 20_000))).to_string(),
        ),
    ];
    let rules = [
        ("brackets", around("(", "true", ")", 50_000)),
        ("lists", around("[", "1", "]", 50_000)),
        ("negations", format!("{}true", "!".repeat(50_000))),
        ("signs", format!("{}1 == 1", "-".repeat(50_000))),
        ("fields", format!("self{} == 1", ".a".repeat(50_000))),
        ("choices", format!("{}true", "true ? true : ".repeat(20_000))),
        ("conjunctions", format!("true{}", " && true".repeat(50_000))),
        ("sums", format!("1{} > 0", "+1".repeat(50_000))),
        ("comprehensions", format!("{}true{}", "[1].all(x, ".repeat(2000), ")".repeat(2000))),
        ("comparisons", format!("1{}", "<1".repeat(50_000))),
        ("indexes", format!("self{}", "[0]".repeat(50_000))),
        ("a long text", format!("'{}' == ''", "x".repeat(1 << 20))),
        ("texts without an end", "'".repeat(50_000)),
    ];
    rows.extend(rules.iter().enumerate().map(|(at, (what, rule))| {
        (
            format!("a rule of {what}"),
            with_rule(&format!("r{}", char::from(b'a' + at as u8)), rule).to_string(),
        )
    }));
    against(async |server, dialer| {
        let (before, mut wrong) = (server.memory()?, Vec::new());
        create(dialer, MAPS, &map("m")).await?;
        for (what, body) in rows {
            let (answer, taken) = match post(dialer, DEFINITIONS, body).await {
                Ok(answered) => answered,
                Err(error) => {
                    ensure!(!server.has_ended(), "{what}: the server ended: {}", server.log_end());
                    wrong.push(error.context(what));
                    continue;
                }
            };
            let code = answer.code.as_u16();
            if !matches!(code, 201 | 400 | 413 | 422) || taken > PATIENCE {
                wrong.push(anyhow::anyhow!(
                    "{what}: {code} after {taken:?}: {:.300}",
                    answer.json()["message"]
                ));
            }
        }
        none(&wrong)?;
        ensure!(dialer.get(&format!("{MAPS}/m")).await?.code == 200, "others are served");
        bounded("definitions without bound", before, server.memory()?, 192 * MIB)
    })
}

/// Objects that are wrong in a hundred thousand places, and tables of values that a column finds again and again.
#[test]
fn objects_of_definitions_without_bound() -> Result<()> {
    against(async |server, dialer| {
        let list = json!({"type": "array", "items": {"type": "integer", "maximum": 5}});
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        let tree = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = json!({"type": "object", "properties": {"l": list, "s": set, "t": tree}});
        let column = json!([{"name": "A", "type": "string", "jsonPath": ".t..*..*..*..*..*[*,*,*,*]"}]);
        create(dialer, DEFINITIONS, &definition("wrongs", schema, column)).await?;
        let path = served(dialer, "wrongs").await?;
        let before = server.memory()?;
        let object = |name: &str, field: &str, value: Value| {
            json!({"apiVersion": "bomb.test/v1", "kind": "Kwrongs", "metadata": {"name": name}, field: value})
                .to_string()
        };
        let rows = [
            ("wrong numbers", object("a", "l", (0..100_000).map(|_| json!(7)).collect()), 422),
            ("wrong types", object("b", "l", (0..100_000).map(|at| json!(format!("x{at}"))).collect()), 422),
            ("doubled values", object("c", "s", (0..100_000).map(|_| json!("x")).collect()), 422),
            ("many values", object("d", "s", (0..100_000).map(|at| json!(at.to_string())).collect()), 201),
            (
                "a deep tree",
                object("e", "t", (0..90).fold(json!(1), |inner, _| json!({"a": inner, "b": 1}))),
                201,
            ),
        ];
        let mut wrong = Vec::new();
        for (what, body, code) in rows {
            let (answer, taken) = post(dialer, &path, body).await.with_context(|| what.to_owned())?;
            println!("{what}: {} after {taken:.1?}", answer.code);
            if answer.code != code || taken > PATIENCE {
                wrong.push(anyhow::anyhow!(
                    "{what}: {} after {taken:?}: {:.300}",
                    answer.code,
                    answer.json()["message"]
                ));
            }
        }
        none(&wrong)?;
        let begun = Instant::now();
        let table = ["accept: application/json;as=Table;v=v1;g=meta.k8s.io"];
        let shown = dialer.ask(&Method::GET, &path, &table, Bytes::new()).await?;
        ensure!(
            shown.code == 200 && begun.elapsed() < PATIENCE,
            "a table: {} after {:?}",
            shown.code,
            begun.elapsed()
        );
        bounded("objects without bound", before, server.memory()?, 256 * MIB)
    })
}

/// What is told and kept of a resource goes with its definition.
#[test]
fn definitions_that_come_and_go() -> Result<()> {
    const ROUNDS: usize = 25;
    against(async |server, dialer| {
        let mut settled = 0;
        for round in 0..ROUNDS {
            let plural = format!("gone{}", char::from(b'a' + round as u8));
            create(dialer, DEFINITIONS, &definition(&plural, json!({"type": "object"}), json!([]))).await?;
            let path = served(dialer, &plural).await?;
            let object = json!({"apiVersion": "bomb.test/v1", "kind": format!("K{plural}"), "metadata": {"name": "a"}});
            create(dialer, &path, &object).await?;
            for name in ["a", "b"] {
                dialer.get(&format!("{path}/{name}")).await?;
            }
            let gone = dialer
                .ask(&Method::DELETE, &format!("{DEFINITIONS}/{plural}.bomb.test"), &[], Bytes::new())
                .await?;
            ensure!(gone.code == 200, "delete: {}", gone.code);
            while dialer.get(&path).await?.code != 404 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if round == 4 {
                settled = server.memory()?;
            }
        }
        bounded("twenty definitions that came and went", settled, server.memory()?, 24 * MIB)?;
        let told = dialer.get("/metrics").await?;
        let told = String::from_utf8_lossy(&told.body);
        let left: Vec<&str> = told.lines().filter(|line| line.contains("bomb.test")).collect();
        ensure!(told.contains("apiserver_request_total") && left.is_empty(), "still told: {left:#?}");
        Ok(())
    })
}
