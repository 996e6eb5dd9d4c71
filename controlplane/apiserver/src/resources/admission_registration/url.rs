//! URLs taken apart as kube-apiserver does it, which calls few texts no URL. Must not know what they are for.

use pagurus_controlplane_api::go::quote;

/// The parts of a URL; those that are not there are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    /// In lower case.
    pub(super) scheme: String,
    pub(super) user: String,
    /// With the port.
    pub(super) host: String,
    pub(super) query: String,
    pub(super) fragment: String,
}

impl Url {
    /// Reads a URL (RFC 3986, section 4.1: also one without a scheme, or without a host).
    ///
    /// # Errors
    ///
    /// Why it is none, with the text itself.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|why| format!("parse {}: {why}", quote(text)))
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut url = Self::default();
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        fragment.clone_into(&mut url.fragment);
        let (scheme, rest) = scheme(rest)?;
        url.scheme = scheme.to_lowercase();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        query.clone_into(&mut url.query);
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                return Ok(url);
            }
            if rest.split('/').next().is_some_and(|first| first.contains(':')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let path = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
                let end = rest.find('/').unwrap_or(rest.len());
                url.authority(&rest[..end])?;
                &rest[end..]
            }
            _ => rest,
        };
        escapes(path)?;
        escapes(fragment)?;
        Ok(url)
    }

    fn authority(&mut self, text: &str) -> Result<(), String> {
        let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
        if !user.chars().all(plain) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        escapes(user)?;
        user.clone_into(&mut self.user);
        let name_end = host.rfind(']').map_or(0, |at| at + 1);
        if host.starts_with('[') && name_end == 0 {
            return Err("missing ']' in host".to_owned());
        }
        if let Some(colon) = host[name_end..].rfind(':').map(|at| name_end + at)
            && !host[colon + 1..].bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(format!("invalid port {} after host", quote(&host[colon..])));
        }
        let known =
            |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
        if let Some(bad) = host.chars().find(|c| !known(*c)) {
            return Err(format!("invalid character {} in host name", quote(&bad.to_string())));
        }
        escapes(host)?;
        host.clone_into(&mut self.host);
        Ok(())
    }
}

/// The scheme, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// Each per cent sign begins an escape of two hexadecimal digits.
fn escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits: String = text[at + 1..].chars().take(2).collect();
        if digits.len() != 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {}", quote(&format!("%{digits}"))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_url() {
        for (text, scheme, host) in [
            ("", "", ""),
            ("Not Valid!", "", ""),
            ("HTTPS://h.example.org:8443/x", "https", "h.example.org:8443"),
            ("https://[::1]:1/", "https", "[::1]:1"),
            ("//h/x", "", "h"),
            ("a:b", "a", ""),
        ] {
            let url = Url::parse(text).map(|url| (url.scheme, url.host));
            assert_eq!(url, Ok((scheme.to_owned(), host.to_owned())), "{text}");
        }
        for (text, why) in [
            (":x", "missing protocol scheme"),
            ("1a:b", "first path segment in URL cannot contain colon"),
            ("https://h/%zz", "invalid URL escape \"%zz\""),
            ("https://a b/", "invalid character \" \" in host name"),
            ("https://h:1x", "invalid port \":1x\" after host"),
            ("a\tb", "net/url: invalid control character in URL"),
        ] {
            let expected = Err(format!("parse {}: {why}", quote(text)));
            assert_eq!(Url::parse(text), expected, "{text}");
        }
    }
}
