//! The libraries, a table each.

use super::check;

#[test]
fn operators() {
    check(&[
        ("1 + 2 * 3", "7"),
        ("7 / 2", "3"),
        ("-7 % 3", "-1"),
        ("7.0 / 2.0", "3.5"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("self.n / self.n == 1", "true"),
        ("1 < 2.5", "true"),
        ("2u >= 2", "true"),
        ("'a' + 'b'", "'ab'"),
        ("[1] + [2, 3]", "[1, 2, 3]"),
        ("b'a' + b'b' == b'ab'", "true"),
        ("'b' in self.m", "false"),
        ("'k' in self.m", "true"),
        ("2 in [1, 2]", "true"),
        ("self.l[1]", "'y'"),
        ("self.l[3]", "error: index out of bounds: 3"),
        ("self.l[-1]", "error: index out of bounds: -1"),
        ("self.m['k']", "'v'"),
        ("self.m.none", "error: no such key: none"),
        ("self.m['none']", "error: no such key: none"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 || false", "error: division by zero"),
        ("self.b ? 'yes' : 'no'", "'yes'"),
        ("dyn(1) == dyn(1.0)", "true"),
        ("dyn(1) == dyn('1')", "false"),
        ("[1, 2] == [1, 2]", "true"),
        ("{'a': 1} == {'a': 1}", "true"),
        ("{'a': 1, 'a': 2}", "error: Failed with repeated key"),
        ("!self.b", "false"),
        ("any.list[1] + 1.0", "3.5"),
        ("any.s + 1", "error: no such overload"),
        ("any.none", "error: no such key: none"),
        ("has(any.o.k) && !has(any.o.z) && has(self.a)", "true"),
        ("has(self.m.k) && !has(self.m.z)", "true"),
        ("type(self.n) == int && type(self.l) == list && type(any.s) == string", "true"),
        ("type(self.t) == google.protobuf.Timestamp", "true"),
        ("null == null", "true"),
        ("any.list[3] == null", "true"),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("self.l.all(x, x != 'q')", "true"),
        ("self.l.exists(x, x == 'y')", "true"),
        ("self.l.exists_one(x, x == 'y')", "true"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("self.items.filter(i, i.port > 1).map(i, i.name)", "['q']"),
        ("self.m.all(k, self.m[k] != '')", "true"),
        ("self.m.map(k, k)", "['k', 'other']"),
        // A later element may decide although an earlier one fails.
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 2].exists(x, 1 / x == 1)", "error: division by zero"),
        ("[0, 2].all(x, 1 / x == 1)", "false"),
        ("[[1, 2], [3]].map(l, l.map(x, x + 1))", "[[2, 3], [4]]"),
        // Two variables.
        ("['a', 'b'].all(i, v, i < 2 && v != '')", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("['a', 'b'].existsOne(i, v, v == 'b')", "true"),
        ("['a', 'b'].transformList(i, v, string(i) + v)", "['0a', '1b']"),
        ("['a', 'b'].transformList(i, v, i > 0, v)", "['b']"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 10)", "{'a': 10, 'b': 20}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{'b': 20}"),
        ("['x', 'y'].transformMapEntry(i, v, {v: i})", "{'x': 0, 'y': 1}"),
        ("['x', 'x'].transformMapEntry(i, v, {v: i})", "error: insert failed: key x already exists"),
    ]);
}

#[test]
fn optionals() {
    check(&[
        ("self.m[?'k']", "some('v')"),
        ("self.m[?'z'].orValue('d')", "'d'"),
        ("self.?a.orValue('')", "'hello'"),
        ("any.?o.?k", "some(1)"),
        ("any.?o.k", "some(1)"),
        ("any.?z.?k.hasValue()", "false"),
        ("optional.of(1).value()", "1"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("optional.of(1).optMap(x, x + 1)", "some(2)"),
        ("optional.of(1).optFlatMap(x, optional.of(x + 1))", "some(2)"),
        ("optional.none().or(optional.of(3))", "some(3)"),
        ("[1, ?optional.none(), ?optional.of(2)]", "[1, 2]"),
        ("{?'a': optional.none(), 'b': 1}", "{'b': 1}"),
        ("self.l[?9].hasValue()", "false"),
        ("[1, 2].first()", "some(1)"),
        ("[1, 2].last()", "some(2)"),
        ("[].first()", "none"),
    ]);
}

#[test]
fn conversions_and_times() {
    check(&[
        ("int('42') + int(2.9) + int(3u)", "47"),
        ("int(self.a)", "error: type conversion error from 'string' to 'int'"),
        ("uint('+1' + self.a)", "error: type conversion error from 'string' to 'uint'"),
        ("double(self.a)", "error: type conversion error from 'string' to 'double'"),
        ("bool(self.a)", "error: type conversion error from 'string' to 'bool'"),
        ("duration(self.a)", "error: type conversion error from 'string' to 'google.protobuf.Duration'"),
        ("timestamp(self.a)", "error: type conversion error from 'string' to 'google.protobuf.Timestamp'"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5')", "1.5"),
        ("string(1.0) + string(true) + string(b'x')", "'1truex'"),
        ("string(1e10)", "'1e+10'"),
        ("bool('true')", "true"),
        ("bytes('é').size()", "2"),
        ("'é'.size()", "1"),
        ("size(self.l) + size(self.m) + 'abc'.size()", "8"),
        ("duration('1h30m')", "5400s"),
        ("duration('1h') + duration('1s')", "3601s"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('1h')", "2024-01-01T01:00:00Z"),
        ("self.t - timestamp('2024-02-29T12:30:45Z')", "0.678s"),
        ("self.t.getFullYear() == 2024 && self.t.getMonth() == 1 && self.t.getDate() == 29", "true"),
        ("self.t.getDayOfMonth() == 28 && self.t.getDayOfYear() == 59 && self.t.getDayOfWeek() == 4", "true"),
        (
            "self.t.getHours() == 12 && self.t.getMinutes() == 30 && self.t.getSeconds() == 45 && self.t.getMilliseconds() == 678",
            "true",
        ),
        ("self.t.getHours('+02:00') == 14 && self.t.getHours('-01:30') == 11", "true"),
        ("self.t.getHours('Nowhere/Land')", "error: unknown time zone Nowhere/Land"),
        ("duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90", "true"),
        ("timestamp(0) < self.t", "true"),
        ("timestamp('9999-12-30T20:00:00Z') + duration('9h')", "error: timestamp overflow"),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("'tacocat'.charAt(3)", "'o'"),
        ("'abc'.charAt(3)", "''"),
        ("'abc'.charAt(4)", "error: index out of range: 4"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.indexOf('jello')", "-1"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello mellow'.lastIndexOf('')", "12"),
        ("'hello'.indexOf('l', 5) == -1 && 'hello'.lastIndexOf('l', 9) == -1", "true"),
        ("'hello'.indexOf('l', -1)", "error: index out of range: -1"),
        ("'hello'.lastIndexOf('l', -1)", "error: index out of range: -1"),
        ("'TacoCÆt'.lowerAscii()", "'tacocÆt'"),
        ("'TacoCÆt'.upperAscii()", "'TACOCÆT'"),
        ("'hello hello'.replace('he', 'we')", "'wello wello'"),
        ("'hello hello'.replace('he', 'we', 1)", "'wello hello'"),
        ("'ab'.replace('', '-')", "'-a-b-'"),
        ("'a,b,c'.split(',')", "['a', 'b', 'c']"),
        ("'a,b,c'.split(',', 2)", "['a', 'b,c']"),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'abc'.split('')", "['a', 'b', 'c']"),
        ("'tacocat'.substring(4)", "'cat'"),
        ("'tacocat'.substring(0, 4)", "'taco'"),
        ("'tacocat'.substring(4, 2)", "error: invalid substring range. start: 4, end: 2"),
        ("'tacocat'.substring(9)", "error: index out of range: 9"),
        ("'  a b  '.trim()", "'a b'"),
        ("['a', 'b'].join('-') + ['c'].join()", "'a-bc'"),
        ("strings.quote('a\"b\\n')", "'\"a\\\"b\\n\"'"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')", "true"),
    ]);
}

#[test]
fn formats() {
    check(&[
        ("'%s is %d'.format(['x', 3])", "'x is 3'"),
        ("'%% %s'.format([[1, 'a', 2.5, null]])", "'% [1, \"a\", 2.500000, null]'"),
        ("'%s'.format([{'b': 1, 'a': 'x'}])", "'{\"a\":\"x\", \"b\":1}'"),
        ("'%.2f'.format([1234.567])", "'1,234.57'"),
        ("'%b %o %x %X'.format([5, 8, 255, 'hi'])", "'101 10 ff 6869'"),
        ("'%s'.format([duration('1m')])", "'60s'"),
        (
            "'%d'.format(['x'])",
            "error: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%s %s'.format(['x'])", "error: index 1 out of range"),
        ("format.dns1123Label().validate('ok-1')", "none"),
        ("format.dns1123Label().validate('No').hasValue()", "true"),
        ("format.named('uuid').value().validate('x')", "some(['does not match the UUID format'])"),
        ("format.named('other')", "none"),
        ("format.dns1123LabelPrefix().validate('a-')", "none"),
        ("!format.date().validate('2021-13-01').hasValue()", "false"),
        ("format.byte().validate('YW=j')", "some(['invalid base64'])"),
        ("format.datetime().validate('yesterday')", "some(['invalid datetime'])"),
        ("format.uuid().validate('a987fbc9-4bed-3078-cf07-9141ba07c9f3')", "none"),
    ]);
}

#[test]
fn lists_and_sets() {
    check(&[
        ("[1, 2, 3].isSorted() && !['b', 'a'].isSorted()", "true"),
        ("[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0", "true"),
        ("[1u].filter(x, x > 1u).sum()", "0u"),
        ("[1.5].filter(x, x > 2.0).sum()", "0.0"),
        ("[duration('1s')].filter(x, x > duration('1h')).sum() < duration('1s')", "true"),
        ("[3, 1, 2].min() == 1 && [3, 1, 2].max() == 3", "true"),
        ("self.items.map(i, i.port).filter(p, p > 9).min()", "error: min called on empty list"),
        ("[1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(5) == -1", "true"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2, 3]"),
        ("[1, 2].slice(1, 3)", "error: cannot slice(1, 3), list is length 2"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[[[1]], [[2, 3]]].flatten(2)", "[1, 2, 3]"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("self.items.sortBy(i, -i.port).map(i, i.name)", "['q', 'p']"),
        ("[1, 2, 3].reverse()", "[3, 2, 1]"),
        ("[1, 2, 1, 3, 2].distinct()", "[1, 2, 3]"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("sets.contains([1, 2, 3], [2, 3]) && !sets.contains([1], [2])", "true"),
        ("sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1, 2], [2, 9])", "true"),
    ]);
}

#[test]
fn addresses_urls_and_patterns() {
    check(&[
        ("'abc123'.matches('^[a-z]+[0-9]+$')", "true"),
        ("'abc 123'.find('[0-9]+') + 'abc'.find('[0-9]')", "'123'"),
        ("'1 22 333'.findAll('[0-9]+')", "['1', '22', '333']"),
        ("'1 22 333'.findAll('[0-9]+', 2)", "['1', '22']"),
        ("'1 22 333'.findAll('[0-9]+', 0) == [] && '1 22'.findAll('[0-9]+', -1).size() == 2", "true"),
        ("'x'.find('(' + self.a)", "error: Illegal regex: error parsing regexp: missing closing ): `(hello`"),
        ("'x'.matches('(' + self.a)", "error: error parsing regexp: missing closing ): `(hello`"),
        (
            "ip(self.a)",
            "error: IP Address \"hello\" parse error during conversion from string: ParseAddr(\"hello\"): unable to parse IP",
        ),
        ("ip('fe80::1%eth0')", "error: IP address \"fe80::1%eth0\" with zone value is not allowed"),
        ("ip('::ffff:1.2.3.4')", "error: IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed"),
        (
            "cidr('10.0.0.0/33')",
            "error: network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix(\"10.0.0.0/33\"): prefix length out of range",
        ),
        (
            "cidr('::ffff:1.2.3.4/100')",
            "error: network address parse error during conversion from string: IPv4-mapped IPv6 address \"::ffff:1.2.3.4/100\" is not allowed",
        ),
        ("cidr('10.0.0.0/8').containsIP(self.a)", "error: no such overload"),
        (
            "cidr('10.0.0.0/8').containsCIDR(self.a)",
            "error: network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix(\"hello\"): no '/'",
        ),
        ("url('https://x/a#b').getEscapedPath() + url('https://x/?q=1#b').getQuery()['q'][0]", "'/a1'"),
        ("url('https://user@example.com:80/a%20b?x=1&y=2&x=3').getHost()", "'example.com:80'"),
        (
            "url('https://example.com:80/').getHostname() + url('https://[::1]:80/').getHostname()",
            "'example.com::1'",
        ),
        ("url('https://[::1]:81/').getPort() + url('https://x/').getPort()", "'81'"),
        ("url('https://x/a b/%20').getEscapedPath()", "'/a%20b/%20'"),
        ("url('https://x/?k=1&k=a%20b&z').getQuery()", "{'k': ['1', 'a b'], 'z': ['']}"),
        ("url('HTTPS://x').getScheme()", "'https'"),
        (
            "isURL('/path') && !isURL('path') && !isURL('../x') && isURL('http://x') && !isURL('http://x:y') && !isURL('')",
            "true",
        ),
        (
            "url('path')",
            "error: URL parse error during conversion from string: parse \"path\": invalid URI for request",
        ),
        (
            "isIP('127.0.0.1') && isIP('::1') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && !isIP('01.2.3.4') && !isIP('fe80::1%eth0')",
            "true",
        ),
        (
            "ip('127.0.0.1').isLoopback() && ip('::').isUnspecified() && ip('169.254.1.1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast()",
            "true",
        ),
        (
            "ip('::1').family() == 6 && string(ip('2001:DB8::1')) == '2001:db8::1' && !ip.isCanonical('2001:DB8::1')",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        (
            "string(cidr('10.1.2.3/8').masked()) == '10.0.0.0/8' && cidr('10.1.2.3/8').prefixLength() == 8 && cidr('::/0').masked().ip() == ip('::')",
            "true",
        ),
        ("isCIDR('10.0.0.0/33') || isCIDR('10.0.0.0') || isCIDR('10.0.0.0/08')", "false"),
    ]);
}

#[test]
fn quantities_and_versions() {
    check(&[
        (
            "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500Mi').isLessThan(quantity('1Gi'))",
            "true",
        ),
        ("quantity('200M') == quantity('0.2G') && quantity('200M').compareTo(quantity('0.2G')) == 0", "true"),
        ("quantity('50k').add(20).sub(quantity('100k')).asInteger()", "-49980"),
        ("quantity('50.703k').asApproximateFloat()", "50703.0"),
        ("quantity('1.5').isInteger()", "false"),
        ("quantity('1.5').asInteger()", "error: cannot convert value to integer"),
        ("isQuantity('10Mo') || isQuantity('x')", "false"),
        ("sign(quantity('-1'))", "-1"),
        ("quantity('10Mm')", "error: unable to parse quantity's suffix"),
        ("quantity('50k').add(20).isLessThan(quantity('50020'))", "false"),
        ("quantity('9999999999999999999999999999999999999G').isInteger()", "false"),
        (
            "quantity('9999999999999999999999999999999999999G').asInteger()",
            "error: cannot convert value to integer",
        ),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0'))",
            "true",
        ),
        (
            "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
            "true",
        ),
        ("isSemver('v1.0') || isSemver('1.0') || isSemver('01.0.0')", "false"),
        ("isSemver('v1.0', true) && semver('v1', true) == semver('1.0.0')", "true"),
        ("semver('1.0.0-alpha.1').compareTo(semver('1.0.0-alpha.beta'))", "-1"),
        ("semver('1.0')", "error: No Major.Minor.Patch elements found"),
        ("semver('1.0-alpha.1')", "error: Invalid character(s) found in minor number \"0-alpha\""),
        ("semver('1.02.3')", "error: Minor number must not contain leading zeroes \"02\""),
        ("semver('01.02.003', true) == semver('1.2.3')", "true"),
        ("semver('v1-a', true)", "error: short version cannot contain PreRelease/Build meta data"),
        ("semver('1.2.3-01')", "error: Numeric PreRelease version must not contain leading zeroes \"01\""),
        ("isSemver('1.2.3-a.b+c.d') && !isSemver('1.2.3-') && !isSemver('1.2.3+') && !isSemver('')", "true"),
    ]);
}

#[test]
fn bindings_are_for_those_who_have_them() {
    let program = crate::Program::compile_with_bindings("cel.bind(x, 1 + 1, x * x)", &[])
        .unwrap_or_else(|errors| panic!("{errors}"));
    let run = program.run(&[], crate::CALL_LIMIT);
    assert_eq!(run.value.map(|value| super::show(&value)), Ok("4".to_owned()));
    assert!(crate::Program::compile("cel.bind(x, 1 + 1, x * x)", &[]).is_err());
}

#[test]
fn constants_must_be_what_they_are_made_into() {
    for (text, wanted) in [
        ("int('x') == 1", Some("type conversion error from 'string' to 'int'")),
        ("self.b || string(b'\\xff') == ''", Some("invalid UTF-8 in bytes, cannot convert to string")),
        ("self.a.find('(') == ''", Some("error parsing regexp: missing closing ): `(`")),
        ("self.a.findAll('[a', 1).size() == 0", Some("error parsing regexp: missing closing ]: `[a`")),
        ("int('7') == self.n && self.a.find('h') != ''", None),
        ("int(self.a) == 1", None),
    ] {
        let program =
            crate::Program::compile(text, &super::variables()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(program.fault(), wanted, "{text}");
    }
}
