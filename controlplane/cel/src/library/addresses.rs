//! Addresses as Go's `net/netip` reads them: what is wrong with one is said in its words, at the place where it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pagurus_controlplane_api::go::quote;

/// What is wrong, and the rest of the text from there on, where that is told.
type Problem<'t> = (&'static str, &'t str);

/// Reads an address, and the zone that one of IPv6 may have.
pub(super) fn parse(text: &str) -> Result<(IpAddr, &str), String> {
    let found = match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        Some(b'.') => v4(text).map(|fields| (IpAddr::V4(Ipv4Addr::from(fields)), "")),
        Some(b':') => v6(text).map(|(address, zone)| (IpAddr::V6(address), zone)),
        Some(_) => Err(("missing IPv6 address", "")),
        None => Err(("unable to parse IP", "")),
    };
    found.map_err(|(what, at)| {
        let place = if at.is_empty() { String::new() } else { format!(" (at {})", quote(at)) };
        format!("ParseAddr({}): {what}{place}", quote(text))
    })
}

/// Four decimal fields.
fn v4(text: &str) -> Result<[u8; 4], Problem<'_>> {
    let (mut fields, mut place) = ([0u8; 4], 0);
    let (mut value, mut digits) = (0u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '0'..='9' => {
                if digits == 1 && value == 0 {
                    return Err(("IPv4 field has octet with leading zero", ""));
                }
                value = value * 10 + (c as u32 - '0' as u32);
                digits += 1;
                fields[place] = u8::try_from(value).map_err(|_| ("IPv4 field has value >255", ""))?;
            }
            '.' if digits == 0 || at + 1 == text.len() => {
                return Err(("IPv4 field must have at least one digit", &text[at..]));
            }
            '.' if place == 3 => return Err(("IPv4 address too long", "")),
            '.' => {
                place += 1;
                (value, digits) = (0, 0);
            }
            _ => return Err(("unexpected character", &text[at..])),
        }
    }
    if place < 3 { Err(("IPv4 address too short", "")) } else { Ok(fields) }
}

/// Up to eight hexadecimal groups, a run of zeros left out once, the last two maybe as an IPv4 address; and the zone.
fn v6(whole: &str) -> Result<(Ipv6Addr, &str), Problem<'_>> {
    let (text, zone) = match whole.split_once('%') {
        Some((_, "")) => return Err(("zone must be a non-empty string", "")),
        Some(parts) => parts,
        None => (whole, ""),
    };
    let mut groups: Vec<u16> = Vec::with_capacity(8);
    let mut gap = None;
    let mut rest = text;
    if let Some(after) = rest.strip_prefix("::") {
        (gap, rest) = (Some(0), after);
    }
    while groups.len() < 8 && !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let after = &rest[digits..];
        match digits {
            0 => return Err(("each colon-separated field must have at least one digit", rest)),
            1..=4 => {}
            _ => return Err(("each group must have 4 or less digits", rest)),
        }
        if after.starts_with('.') {
            match (gap, groups.len()) {
                (None, length) if length != 6 => {
                    return Err((
                        "embedded IPv4 address must replace the final 2 fields of the address",
                        rest,
                    ));
                }
                (_, 7..) => {
                    let what = "too many hex fields to fit an embedded IPv4 at the end of the address";
                    return Err((what, rest));
                }
                _ => {}
            }
            let [a, b, c, d] = v4(rest)?;
            groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            rest = "";
            break;
        }
        // Four digits fit.
        groups.push(u16::from_str_radix(&rest[..digits], 16).unwrap_or_default());
        rest = after;
        if rest.is_empty() {
            break;
        }
        rest = match rest.strip_prefix(':') {
            None => return Err(("unexpected character, want colon", rest)),
            Some("") => return Err(("colon must be followed by more characters", rest)),
            Some(next) => next,
        };
        if let Some(next) = rest.strip_prefix(':') {
            if gap.is_some() {
                return Err(("multiple :: in address", rest));
            }
            (gap, rest) = (Some(groups.len()), next);
        }
    }
    if !rest.is_empty() {
        return Err(("trailing garbage after address", rest));
    }
    match gap {
        None if groups.len() < 8 => return Err(("address string too short", "")),
        Some(_) if groups.len() == 8 => {
            return Err(("the :: must expand to at least one field of zeros", ""));
        }
        Some(at) => drop(groups.splice(at..at, vec![0; 8 - groups.len()])),
        None => {}
    }
    let mut fields = [0u16; 8];
    fields.copy_from_slice(&groups);
    Ok((Ipv6Addr::from(fields), zone))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, wanted) in [
            ("", "unable to parse IP"),
            ("frob", "unable to parse IP"),
            ("%eth0", "missing IPv6 address"),
            ("1.2.3", "IPv4 address too short"),
            ("1.2.3.4.5", "IPv4 address too long"),
            ("1.2.3.256", "IPv4 field has value >255"),
            ("01.2.3.4", "IPv4 field has octet with leading zero"),
            ("1..2.3", "IPv4 field must have at least one digit (at \".2.3\")"),
            ("1.2.3.", "IPv4 field must have at least one digit (at \".\")"),
            ("1.2.3.x", "unexpected character (at \"x\")"),
            (":::1", "each colon-separated field must have at least one digit (at \":1\")"),
            ("1::2::3", "multiple :: in address (at \":3\")"),
            ("12345::", "each group must have 4 or less digits (at \"12345::\")"),
            ("1:2:3", "address string too short"),
            ("1:2:3:4:5:6:7:8:9", "trailing garbage after address (at \"9\")"),
            ("1:2:3:4:5:6:7::8", "the :: must expand to at least one field of zeros"),
            ("1:", "colon must be followed by more characters (at \":\")"),
            ("::g", "each colon-separated field must have at least one digit (at \"g\")"),
            ("1:2g::", "unexpected character, want colon (at \"g::\")"),
            ("fe80::1%", "zone must be a non-empty string"),
            (
                "1:2:1.2.3.4",
                "embedded IPv4 address must replace the final 2 fields of the address (at \"1.2.3.4\")",
            ),
        ] {
            assert_eq!(parse(text), Err(format!("ParseAddr({}): {wanted}", quote(text))), "{text}");
        }
        assert_eq!(parse("fe80::1%eth0").map(|(_, zone)| zone), Ok("eth0"));
    }

    proptest! {
        #[test]
        fn reads_what_the_standard_library_reads(text in "[0-9a-f:.]{0,24}", bits: u128) {
            prop_assert_eq!(parse(&text).ok().map(|(address, _)| address), text.parse().ok(), "{}", text);
            for address in [IpAddr::V6(bits.into()), IpAddr::V4((bits as u32).into())] {
                let text = address.to_string();
                prop_assert_eq!(parse(&text), Ok((address, "")));
            }
        }
    }
}
