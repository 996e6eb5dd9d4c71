//! Text: cel-go's string extension in version 2. Places and lengths are in characters.

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::Value;

pub(super) static ROWS: &[Row] = &[
    ("charAt", &["string_char_at_int: string.(int) -> string"], Costing::Unit, char_at),
    (
        "indexOf",
        &[
            "string_index_of_string: string.(string) -> int",
            "string_index_of_string_int: string.(string, int) -> int",
        ],
        Costing::Scan,
        index_of,
    ),
    (
        "lastIndexOf",
        &[
            "string_last_index_of_string: string.(string) -> int",
            "string_last_index_of_string_int: string.(string, int) -> int",
        ],
        Costing::Scan,
        last_index_of,
    ),
    ("lowerAscii", &["string_lower_ascii: string.() -> string"], Costing::Traverse, |machine, args| {
        mapped(machine, args, str::to_ascii_lowercase)
    }),
    ("upperAscii", &["string_upper_ascii: string.() -> string"], Costing::Traverse, |machine, args| {
        mapped(machine, args, str::to_ascii_uppercase)
    }),
    ("trim", &["string_trim: string.() -> string"], Costing::Traverse, |machine, args| {
        mapped(machine, args, |text| text.trim().to_owned())
    }),
    (
        "replace",
        &[
            "string_replace_string_string: string.(string, string) -> string",
            "string_replace_string_string_int: string.(string, string, int) -> string",
        ],
        Costing::Replace,
        replace,
    ),
    (
        "split",
        &[
            "string_split_string: string.(string) -> list(string)",
            "string_split_string_int: string.(string, int) -> list(string)",
        ],
        Costing::Split,
        split,
    ),
    (
        "substring",
        &[
            "string_substring_int: string.(int) -> string",
            "string_substring_int_int: string.(int, int) -> string",
        ],
        Costing::Traverse,
        substring,
    ),
    (
        "join",
        &["list_join: list(string).() -> string", "list_join_string: list(string).(string) -> string"],
        Costing::Join,
        join,
    ),
    ("strings.quote", &["strings_quote: (string) -> string"], Costing::Quote, |machine, args| {
        mapped(machine, args, quote)
    }),
];

fn mapped<'a>(machine: &mut Machine<'a>, args: &[Value<'a>], map: impl Fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            machine.make(text.len() as u64)?;
            Ok(Value::text(map(text)))
        }
        _ => failed("no such overload"),
    }
}

fn char_at<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(at)] = args else { return failed("no such overload") };
    let length = text.chars().count() as i64;
    if *at < 0 || *at > length {
        return failed(format!("index out of range: {at}"));
    }
    Ok(Value::text(text.chars().nth(*at as usize).map(String::from).unwrap_or_default()))
}

/// The byte a character begins with; the end for the one after the last.
fn byte(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

fn character(text: &str, byte: usize) -> i64 {
    text[..byte].chars().count() as i64
}

fn index_of<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return failed("no such overload"),
    };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return failed(format!("index out of range: {from}"));
    }
    if from >= text.chars().count() as i64 {
        return Ok(Value::Int(-1));
    }
    let start = byte(text, from as usize);
    Ok(Value::Int(text[start..].find(&**part).map_or(-1, |at| character(text, start + at))))
}

fn last_index_of<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, Some(*from)),
        _ => return failed("no such overload"),
    };
    let length = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(length)));
    }
    if let Some(from) = from.filter(|from| *from < 0) {
        return failed(format!("index out of range: {from}"));
    }
    // Nothing is found behind the end, not even what ends there.
    if from.is_some_and(|from| from >= length) {
        return Ok(Value::Int(-1));
    }
    // The last place a match may begin.
    let end = from.map_or(text.len(), |from| (byte(text, from as usize) + part.len()).min(text.len()));
    let found =
        (0..=end).rev().find(|end| text.is_char_boundary(*end)).and_then(|end| text[..end].rfind(&**part));
    Ok(Value::Int(found.map_or(-1, |at| character(text, at))))
}

fn replace<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, old, new, most) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, usize::MAX),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(most)] => {
            (text, old, new, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        _ => return failed("no such overload"),
    };
    let count =
        if old.is_empty() { text.chars().count() + 1 } else { text.matches(&**old).count() }.min(most);
    machine.make((count as u64).saturating_mul(new.len() as u64).saturating_add(text.len() as u64))?;
    Ok(Value::text(if most == usize::MAX {
        text.replace(&**old, new)
    } else {
        text.replacen(&**old, new, most)
    }))
}

fn split<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, most) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, usize::MAX),
        [Value::String(_), Value::String(_), Value::Int(0)] => return Ok(Value::list(Vec::new())),
        [Value::String(text), Value::String(separator), Value::Int(most)] => {
            (text, separator, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        _ => return failed("no such overload"),
    };
    let parts_at_most =
        if separator.is_empty() { text.len() } else { text.matches(&**separator).count() + 1 };
    machine.make_items(parts_at_most.min(most) as u64)?;
    machine.make(text.len() as u64)?;
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        let mut parts = Vec::new();
        let mut rest: &str = text;
        while parts.len() + 1 < most
            && let Some(first) = rest.chars().next()
        {
            let (head, tail) = rest.split_at(first.len_utf8());
            parts.push(Value::text(head));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Value::text(rest));
        }
        parts
    } else {
        text.splitn(most, &**separator).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return failed("no such overload"),
    };
    let length = text.chars().count() as i64;
    if let Some(end) = end.filter(|end| start > *end) {
        return failed(format!("invalid substring range. start: {start}, end: {end}"));
    }
    for at in [Some(start), end].into_iter().flatten() {
        if at < 0 || at > length {
            return failed(format!("index out of range: {at}"));
        }
    }
    machine.make(text.len() as u64)?;
    Ok(Value::text(&text[byte(text, start as usize)..end.map_or(text.len(), |end| byte(text, end as usize))]))
}

fn join<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return failed("no such overload"),
    };
    let mut joined = String::new();
    for (at, item) in list.iter().enumerate() {
        let Value::String(item) = item else {
            return failed(format!("join: invalid input: {}", super::format::plain(&item)));
        };
        machine.make((item.len() + separator.len()) as u64)?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&item);
    }
    Ok(Value::text(joined))
}

/// The text in double quotes with what is not printed escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
