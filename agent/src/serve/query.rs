//! Query strings.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The pairs of a query string, decoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Whether a query says yes to this name.
pub(super) fn is_set(query: &str, name: &str) -> bool {
    pairs(query).any(|(key, value)| key == name && matches!(value.as_ref(), "1" | "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_pairs() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let got: Vec<_> =
                pairs(query).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(got, expected, "{query}");
        };
        check("", &[]);
        check("a=b&a=c&d", &[("a", "b"), ("a", "c"), ("d", "")]);
        check("command=echo&command=a+b%2Bc%20d", &[("command", "echo"), ("command", "a b+c d")]);
        check("a=b=c&&", &[("a", "b=c")]);
        assert!(is_set("x=1&tty=true", "tty"));
        assert!(!is_set("tty=0", "tty"));
    }
}
