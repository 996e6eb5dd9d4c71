//! Lists in pieces, with bad objects, cut off.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Names; what has none that is a string is told by what is wrong.
struct Names;

#[derive(Debug, PartialEq)]
struct Seen(String);

impl crate::index::feed::Named for Seen {
    fn name(&self) -> (&str, &str) {
        ("", &self.0)
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    metadata: wire::Metadata<'a>,
    #[serde(default)]
    number: i32,
}

impl Reader for Names {
    type Raw<'a> = Raw<'a>;
    type Object = Seen;

    fn read(&self, raw: Raw<'_>) -> Seen {
        Seen(format!("{}={}", raw.metadata.name.as_deref().unwrap_or_default(), raw.number))
    }

    fn unreadable(&self, head: &wire::Head<'_>, _: &serde_json::Error) -> Option<Seen> {
        Some(Seen(format!("bad {}", head.metadata.name.as_deref()?)))
    }
}

/// Reads a body in pieces of this length.
fn read(body: &str, length: usize) -> Result<(Vec<String>, ListMetadata), ListError> {
    read_within(LIMITS, Total::default(), body, length)
}

/// The same with other limits, when so much has been read before.
fn read_within(
    limits: Limits,
    before: Total,
    body: &str,
    length: usize,
) -> Result<(Vec<String>, ListMetadata), ListError> {
    let mut list = List::new(Arc::new(Names), limits, before);
    let mut names = Vec::new();
    for piece in body.as_bytes().chunks(length) {
        list.add(piece)?;
        while let Some(Seen(name)) = list.next(false)? {
            names.push(name);
        }
    }
    while let Some(Seen(name)) = list.next(true)? {
        names.push(name);
    }
    assert!(list.is_complete());
    Ok((names, list.metadata))
}

/// What is read, however the body is cut.
fn check(body: &str, names: &[&str], version: &str, next: Option<&str>) {
    for length in 1..=body.len() {
        let (found, metadata) =
            read(body, length).unwrap_or_else(|error| panic!("{length}: {error}: {body}"));
        assert_eq!(found, names, "{length}: {body}");
        assert_eq!(metadata.resource_version.as_deref(), Some(version), "{length}: {body}");
        assert_eq!(metadata.next.as_deref(), next, "{length}: {body}");
    }
}

#[test]
fn lists_come_in_pieces() {
    check(
        r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"x\"y"},"items":[{"metadata":{"name":"a"}},{"more":-1.5e-7,"number":-3,"metadata":{"name":"}]"}}]}"#,
        &["a=0", "}]=-3"],
        "7",
        Some("x\"y"),
    );
    // In any order, with white space, and fields that nobody knows.
    check(
        "\n { \"items\" : [ {\"metadata\": {\"name\": \"\u{e4}\"}} \n, {\"metadata\": {}} ] ,\"more\": -12.5e3, \"flag\":true,\"metadata\": {\"resourceVersion\": \"8\", \"remainingItemCount\": 3} } \n",
        &["\u{e4}=0", "=0"],
        "8",
        None,
    );
    check(r#"{"metadata":{"resourceVersion":"9"},"items":[]}"#, &[], "9", None);
    check(r#"{"metadata":{"resourceVersion":"9"},"items":null}"#, &[], "9", None);
    check(r#"{"metadata":{"resourceVersion":"9"}}"#, &[], "9", None);
}

#[test]
fn bad_objects_do_not_take_the_others_along() {
    check(
        r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"},"number":"many"},{"metadata":{"name":["c"]}},7,null,{"number":99999999999,"metadata":{"name":"d"}},{"metadata":{"name":"e"},"number":5}]}"#,
        &["a=0", "bad b", "bad d", "e=5"],
        "1",
        None,
    );
}

#[test]
fn what_is_no_list() {
    let check = |body: &str, expected: &str| {
        let error = read(body, 7).expect_err(body).to_string();
        assert!(error.contains(expected), "{body}: {error}");
    };
    check("", "ended before the list did");
    check(
        r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}}"#,
        "ended before the list did",
    );
    check(r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"na"#, "ended before the list did");
    check(
        r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}}]"#,
        "ended before the list did",
    );
    check("<html>", "does not begin with a brace");
    check(r#"{"metadata":{"resourceVersion":"1"},"items":[{]}"#, "damaged");
    check(r#"{"metadata" "x"}"#, "has no value");
    check(r#"{metadata:1}"#, "damaged");
}

#[test]
fn limits() {
    let long = "x".repeat(100);
    let body = format!(
        r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{{"metadata":{{"name":"{long}"}}}},{{"metadata":{{"name":"b"}}}}]}}"#
    );
    let size = body.len();
    let check = |value: usize, bytes: usize, objects: u64, before: Total, expected: Option<&str>| {
        let limits = Limits { value, bytes: bytes as u64, objects };
        for length in 1..=10 {
            let found = read_within(limits, before, &body, length).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok((names, _)), None) => assert_eq!(names.len(), 2),
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{length}: {error}"),
                (found, _) => panic!("{length}: {found:?}, expected {expected:?}"),
            }
        }
    };
    let none = Total::default();
    // An object is 124 bytes long, and is seen to be whole with the byte after it.
    check(130, size, 2, none, None);
    check(100, size, 2, none, Some("larger than the 100 bytes"));
    check(130, size - 1, 2, none, Some(&format!("after {} bytes", size - 1)));
    check(130, size, 1, none, Some("after 1 objects"));
    // Pages before it count.
    check(130, size, 2, Total { bytes: 1, objects: 0 }, Some("of all its pages"));
    check(130, size, 2, Total { bytes: 0, objects: 1 }, Some("after 2 objects"));
    // What is no object, too.
    let endless = format!(r#"{{"kind":"{long}"#);
    let limits = Limits { value: 50, ..LIMITS };
    let error = read_within(limits, none, &endless, 7).expect_err("too long").to_string();
    assert!(error.contains("larger than the 50 bytes"), "{error}");
}
