//! Good and bad names.

use super::*;

type Check = fn(&str) -> Vec<String>;

#[test]
fn good_and_bad() {
    let long = "a".repeat(64);
    let long = long.as_str();
    let cases: &[(Check, &[&str], &[&str])] = &[
        (dns_label, &["a", "a-b", "0", "1-a"], &["", "A", "-a", "a-", "a.b", "a_b", long]),
        (dns_subdomain, &["a", "a.b", "a-b.c", long], &["", "a..b", ".a", "A.b", "a.-b"]),
        (dns1035_label, &["a", "a-1"], &["", "1a", "a-", "a.b"]),
        (wildcard_dns_subdomain, &["*.a", "*.a.b"], &["*", "a.b", "*a.b", "*.*"]),
        (qualified_name, &["a", "A_b.c", "x.io/a"], &["", "/a", "a/", "a/b/c", "-a", "X/a", long]),
        (label_value, &["", "a", "A_b"], &["-", "a b", long]),
        (c_identifier, &["a", "_A1"], &["", "1a", "a-b"]),
        (environment_name, &["a", "A B", "-"], &["", "a=b", "ä"]),
        (config_key, &["a", ".a", "a..b"], &["", ".", "..", "..a", "a/b"]),
        (port_name, &["http", "a-1"], &["", "1", "-a", "a--b", "A", "abcdefghijklmnop"]),
        (
            ip,
            &["1.2.3.4", "::1", "1::0:1"],
            &["", "1.2.3", "1.2.3.256", "1.2.3.04", "::ffff:1.2.3.4", "a", "1.2.3.4/8"],
        ),
        (
            cidr,
            &["1.2.3.0/24", "::/0"],
            &["", "1.2.3.4", "1.2.3.4/8", "1.2.3.4/33", "::/129", "1.2.3.4/-1", "1.2.3.4/032"],
        ),
        (http_header_name, &["X-A"], &["", "a b"]),
    ];
    for (check, good, bad) in cases {
        for text in *good {
            assert_eq!(check(text), Vec::<String>::new(), "{text:?} is good");
        }
        for text in *bad {
            assert!(!check(text).is_empty(), "{text:?} is bad");
        }
    }
}

#[test]
fn messages() {
    assert_eq!(dns_label("a.b"), ["must not contain dots"]);
    assert_eq!(
        c_identifier("1"),
        [
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"
        ]
    );
    assert_eq!(qualified_name("/")[0], "prefix part must be non-empty");
    assert_eq!(path_segment_name("..", false), ["may not be '..'"]);
    assert_eq!(path_segment_name("a/%", false), ["may not contain '/'", "may not contain '%'"]);
}

#[test]
fn canonical_addresses() {
    for (text, expected) in
        [("1.2.3.4", true), ("::1", true), ("0:0::1", false), ("::ffff:1.2.3.4", false), ("x", false)]
    {
        assert_eq!(canonical_ip(text).is_empty(), expected, "{text}");
    }
}
