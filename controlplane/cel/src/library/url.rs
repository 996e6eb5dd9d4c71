//! URLs, read as Go's `url.ParseRequestURI` reads them: absolute, or a path from the root.

use std::rc::Rc;

use super::{Opaque, Row};
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::{Map, Value};

/// A URL in its parts, as written but for the host, which is unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
    text: String,
}

pub(super) static ROWS: &[Row] = &[
    ("url", &["string_to_url: (string) -> kubernetes.URL"], Costing::Url, |_, args| match args {
        [Value::String(text)] => parse(text).map_or_else(
            |error| failed(format!("URL parse error during conversion from string: {error}")),
            |url| Ok(Value::opaque(Opaque::Url(url))),
        ),
        _ => failed("no such overload"),
    }),
    ("isURL", &["is_url_string: (string) -> bool"], Costing::Unit, |_, args| match args {
        [Value::String(text)] => Ok(Value::Bool(parse(text).is_ok())),
        _ => failed("no such overload"),
    }),
    ("getScheme", &["url_get_scheme: kubernetes.URL.() -> string"], Costing::Unit, |_, args| {
        part(args, |url| url.scheme.clone())
    }),
    ("getHost", &["url_get_host: kubernetes.URL.() -> string"], Costing::Unit, |_, args| {
        part(args, |url| url.host.clone())
    }),
    ("getHostname", &["url_get_hostname: kubernetes.URL.() -> string"], Costing::Unit, |_, args| {
        part(args, |url| hostname(&url.host).to_owned())
    }),
    ("getPort", &["url_get_port: kubernetes.URL.() -> string"], Costing::Unit, |_, args| {
        part(args, |url| port(&url.host).to_owned())
    }),
    ("getEscapedPath", &["url_get_escaped_path: kubernetes.URL.() -> string"], Costing::Unit, |_, args| {
        part(args, |url| url.path.clone())
    }),
    ("getQuery", &["url_get_query: kubernetes.URL.() -> map(string, list(string))"], Costing::Unit, query),
];

fn part<'a>(args: &[Value<'a>], part: fn(&Url) -> String) -> Outcome<'a> {
    match args {
        [Value::Opaque(opaque)] if let Opaque::Url(url) = opaque.as_ref() => Ok(Value::text(part(url))),
        _ => failed("no such overload"),
    }
}

/// Reads a URL; the error is Go's.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    let problem = |what: &str| Err(format!("parse {}: {what}", pagurus_controlplane_api::go::quote(text)));
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return problem("net/url: invalid control character in URL");
    }
    if text.is_empty() {
        return problem("empty url");
    }
    let (scheme, rest) = match scheme(text) {
        Ok((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        Err(what) => return problem(what),
    };
    // Whether it is a URL is judged as if a fragment were part of what is before it.
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    if !rest.starts_with('/') {
        // Something like `mailto:x` has no path to speak of, and is a URL if it has a scheme.
        if scheme.is_empty() {
            return problem("invalid URI for request");
        }
        return Ok(Url {
            scheme,
            host: String::new(),
            path: String::new(),
            query: query.to_owned(),
            text: text.to_owned(),
        });
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
            let end = after.find('/').unwrap_or(after.len());
            after.split_at(end)
        }
        _ => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(what) = wrong_host(host) {
        return problem(&what);
    }
    if let Some(bad) = bad_escape(path) {
        return problem(&format!("invalid URL escape {}", pagurus_controlplane_api::go::quote(bad)));
    }
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    let path: String = path.chars().map(escaped).collect();
    Ok(Url { scheme, host: host.to_owned(), path, query: query.to_owned(), text: text.to_owned() })
}

/// The scheme before the first colon, if it is one.
fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            '0'..='9' | '+' | '-' | '.' => return Ok(("", text)),
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn wrong_host(host: &str) -> Option<String> {
    let quote = pagurus_controlplane_api::go::quote;
    let ports = if let Some(rest) = host.strip_prefix('[') {
        let Some((_, after)) = rest.split_once(']') else { return Some("missing ']' in host".to_owned()) };
        after
    } else {
        host.find(':').map_or("", |at| &host[at..])
    };
    let numeric = ports.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !ports.is_empty() && !numeric {
        return Some(format!("invalid port {} after host", quote(ports)));
    }
    if let Some(bad) = bad_escape(host) {
        return Some(format!("invalid URL escape {}", quote(bad)));
    }
    let bad = host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'));
    bad.map(|c| format!("invalid character {} in host name", quote(&c.to_string())))
}

fn bad_escape(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    (0..bytes.len())
        .find(|at| {
            bytes[*at] == b'%'
                && !(bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
                    && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit))
        })
        .map(|at| {
            let end =
                (at..=(at + 3).min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(at);
            &text[at..end]
        })
}

/// A character of a path as it is written in one.
fn escaped(c: char) -> String {
    match c {
        'a'..='z'
        | 'A'..='Z'
        | '0'..='9'
        | '-'
        | '_'
        | '.'
        | '~'
        | '$'
        | '&'
        | '+'
        | ','
        | '/'
        | ':'
        | ';'
        | '='
        | '@'
        | '!'
        | '\''
        | '('
        | ')'
        | '*'
        | '%'
        | '['
        | ']' => c.to_string(),
        c => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
    }
}

fn hostname(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) => inner,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn port(host: &str) -> &str {
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.split_once(':').map_or("", |(_, port)| port)
}

fn query<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Opaque(opaque)] = args else { return failed("no such overload") };
    let Opaque::Url(url) = opaque.as_ref() else { return failed("no such overload") };
    machine.make(url.query.len() as u64)?;
    let mut entries: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) else { continue };
        match entries.iter_mut().find(|(other, _)| *other == key) {
            Some((_, values)) => values.push(Value::text(value)),
            None => entries.push((key, vec![Value::text(value)])),
        }
    }
    Ok(Value::Map(Map::Made(Rc::new(
        entries.into_iter().map(|(key, values)| (Value::text(key), Value::list(values))).collect(),
    ))))
}

/// A part of a query with its escapes undone.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
