//! More small languages: regular expressions, paths of columns, the tokens of lists and of those who ask.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use pagurus_controlplane_api::regexp::{self, Pattern};
use pagurus_controlplane_apiserver::crd::json_path::{JsonPath, MOST_FOUND};
use pagurus_controlplane_apiserver::objects::{Objects, Stored};
use pagurus_controlplane_apiserver::token::Tokens;
use pagurus_controlplane_apiserver::verbs::list::Place;
use pagurus_controlplane_schema::codec::json as json_codec;
use serde_json::{Value, json};

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A regular expression, a zero byte, and a text.
pub(crate) fn regexp(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (source, subject) = text.split_once('\0').unwrap_or((text, "abc"));
    let pattern = Pattern::new(source);
    assert_eq!(pattern.source(), source, "as it was given");
    match regexp::compile(source) {
        Ok(compiled) => assert_eq!(compiled.is_match(subject), pattern.is_match(subject), "{source:?}"),
        Err(why) => {
            assert!(why.starts_with("error parsing regexp: "), "{source:?}: {why}");
            assert!(!pattern.is_match(subject), "{source:?} matches nothing");
        }
    }
}

/// A path, a zero byte, and a document as JSON.
pub(crate) fn json_path(data: &[u8]) {
    let (path, document) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => {
            (&data[..at], json_codec::decode(&data[at + 1..]).map_or(Value::Null, |found| found.value))
        }
        None => (data, json!({"a": [{"a": 1, "b": {"a": "x"}}, {"a": 2}], "b": {"c": [[1, 2], [3]]}})),
    };
    let Some(path) = text(path).and_then(JsonPath::parse) else { return };
    let found = path.find(&document);
    assert!(found.len() <= MOST_FOUND, "{} found", found.len());
    assert_eq!(found, path.find(&document), "the same each time");
}

/// A token of a list.
pub(crate) fn continue_token(data: &[u8]) {
    let Some(text) = text(data) else { return };
    // Most texts are no base64, so the bytes are also taken for what would be in it.
    for token in [text.to_owned(), Place::wrapped(text)] {
        match Place::read(&token) {
            Ok(place) => {
                let again = Place::read(&place.to_token());
                assert_eq!(again.ok().as_ref(), Some(&place), "{token:?} there and back");
            }
            Err(error) => assert_eq!(error.code, 400, "{token:?}: it is the client's fault"),
        }
    }
}

/// Nothing is stored.
struct Nothing;

#[async_trait]
impl Objects for Nothing {
    fn get(&self, _: &str, _: &str, _: &str, _: &str) -> Option<Stored> {
        None
    }

    async fn fresh(&self, _: &str, _: &str, _: &str, _: &str) -> Option<Stored> {
        None
    }

    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Stored> {
        Vec::new()
    }

    fn list_where(&self, _: &str, _: &str, _: &str, _: &str, _: &str) -> Vec<Stored> {
        Vec::new()
    }

    fn generation(&self, _: &str, _: &str) -> u64 {
        0
    }
}

/// What somebody gives as a bearer token.
pub(crate) fn bearer_token(data: &[u8]) {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    let tokens =
        TOKENS.get_or_init(|| Tokens::new(PRIVATE, PUBLIC, Arc::new(Nothing)).expect("a pair of keys"));
    let Some(text) = text(data) else { return };
    let unsigned = format!("{HEADER}.{}.AAAA", Place::wrapped(text));
    for token in [text, &unsigned] {
        assert!(tokens.authenticate(token, &[]).is_err(), "nobody has signed {token:?}");
    }
}

/// `{"alg":"ES256"}`
const HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";

/// A key of these tests alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgArj8T6+rH7AjrbdH
46wEpE7Y9MMpnLhsId4Z+I+uBLChRANCAAQjZZpDmJ04pFotvxWMe3gEpjdtSE4p
I4fQkpBIwwKBWqMvwW2oBGwI8Wd71wVNM9eJwNW4fPw7PVWGimXfIhx8
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEI2WaQ5idOKRaLb8VjHt4BKY3bUhO
KSOH0JKQSMMCgVqjL8FtqARsCPFne9cFTTPXicDVuHz8Oz1Vhopl3yIcfA==
-----END PUBLIC KEY-----
";

pub(crate) fn regexp_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$\0a-b",
        "(?i)\\bfoo\\d{2,3}|\\p{Greek}+\0Foo12",
        "(?P<name>x*?)[[:alpha:]]\\Q.*\\E\\x{41}",
        "a{1001}",
        "(((((((((a+)+)+)+)+)+)+)+)+)$\0aaaaaaaaaaaaaaaaaaaaaaaaaaaab",
        "[^\\S\\W]\\C",
        "(?=a)",
    ])
}

pub(crate) fn json_path_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        ".spec.l[*].a\0{\"spec\":{\"l\":[{\"a\":1},{\"a\":[2]}]}}",
        ".a[?(@.b.a==\"x\")].a",
        "$..a[0:2:1]..*",
        ".a[?(@.b)].b['a',\"c\"]",
        ".a[-1,0].a",
        "...[*,*][*,*]",
        ".x\\.y[?(@[?(@.a>1)].b)]",
    ])
}

pub(crate) fn continue_token_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        r#"{"v":"meta.k8s.io/v1","rv":7,"start":"ns/name\u0000"}"#,
        r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a\u0000","left":3}"#,
        r#"{"v":"meta.k8s.io/v1","rv":0,"start":""}"#,
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NywibGVmdCI6MX0",
    ])
}

pub(crate) fn bearer_token_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
        r#"{"iss":"https://kubernetes.default.svc.cluster.local","exp":99999999999,"aud":["a"],"sub":"system:serviceaccount:a:b"}"#,
        "a.b.c",
    ])
}
