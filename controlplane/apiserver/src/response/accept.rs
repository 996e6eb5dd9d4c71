//! Reads the `Accept` header: the best format and shape that the client asks for and the server has. It must not know objects.

use http::header::{ACCEPT, CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, Method};
use pagurus_controlplane_api::status::{ApiError, Reason, StatusDetails};

use crate::request::{Call, Query, Verb};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_STREAM: &str = "application/json;stream=watch";
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const CBOR: &str = "application/cbor";
const CBOR_STREAM: &str = "application/cbor-seq";
/// What messages and the router's paths name. CBOR is answered too, but kube-apiserver does not name it unless a feature is on.
pub const ACCEPTED: [&str; 3] = [JSON, YAML, PROTOBUF];
/// What the paths of collections name, which are watched too.
const ACCEPTED_OF_MANY: [&str; 5] = [JSON, YAML, PROTOBUF, JSON_STREAM, PROTOBUF_STREAM];
/// More clauses than that are sorted by their quality alone.
const MOST_CLAUSES: usize = 12;

/// A format of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
    /// CBOR.
    Cbor,
}

/// How much of the object a table's rows carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    Metadata,
    /// All.
    Object,
}

/// What is made of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The objects themselves.
    Object,
    /// A `Table` of that version of `meta.k8s.io`.
    Table(&'static str, Include),
    /// `PartialObjectMetadata` of that version.
    Metadata(&'static str),
    /// `PartialObjectMetadataList` of that version.
    MetadataList(&'static str),
}

/// A format and a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// The shape.
    pub shape: Shape,
    /// For people's eyes.
    pub pretty: bool,
}

/// What a request says of the answer that it wants.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query.
    pub query: &'a Query,
}

impl<'a> From<&'a Call> for Asked<'a> {
    fn from(call: &'a Call) -> Self {
        Self { headers: &call.headers, query: &call.query }
    }
}

/// One element of an `Accept` header.
pub struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

/// How objects can be shown beside as themselves in JSON, YAML and CBOR.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// In protobuf.
    pub messages: bool,
    /// As tables and as their metadata alone.
    pub views: bool,
    /// Whether a route of the path's own looks at the header first (as those of all kinds that ship with kube-apiserver).
    pub routed: bool,
}

impl Output {
    /// JSON as it is.
    pub const PLAIN: Output = Output { format: Format::Json, shape: Shape::Object, pretty: false };

    /// What the client wants to see of objects that can be shown so.
    pub fn negotiate(call: &Call, offer: Offer) -> Result<Self, ApiError> {
        let header = accept(&call.headers);
        let many = matches!(call.info.verb, Verb::List | Verb::Watch);
        if offer.routed {
            check_route(call, if many { &ACCEPTED_OF_MANY } else { &ACCEPTED })?;
        }
        for clause in &clauses(&header) {
            for format in clause.formats() {
                match clause.shape(format) {
                    // Tables have no message.
                    Some(Shape::Table(..)) if format == Format::Protobuf => {}
                    Some(Shape::Object) if format == Format::Protobuf && !offer.messages => {}
                    Some(shape) if shape != Shape::Object && !offer.views => {}
                    Some(shape) => {
                        return Self { format, shape, pretty: pretty(call.into(), clause) }
                            .with_include(call);
                    }
                    None => {}
                }
            }
        }
        Err(ApiError::not_acceptable(if offer.messages { &ACCEPTED } else { &ACCEPTED[..2] }))
    }

    /// The first format that is asked for without another shape.
    pub fn unshaped(asked: Asked<'_>) -> Option<Self> {
        let header = accept(asked.headers);
        clauses(&header).iter().find_map(|clause| {
            let format = clause.formats().find(|format| clause.shape(*format) == Some(Shape::Object))?;
            Some(Self { format, shape: Shape::Object, pretty: pretty(asked, clause) })
        })
    }

    /// What an error is written in, which must be said in any case.
    pub fn for_errors(asked: Asked<'_>) -> Self {
        Self::unshaped(asked).unwrap_or(Self { pretty: true, ..Self::PLAIN })
    }

    /// Whether stored bytes can be sent as they are.
    pub fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }

    /// The `Content-Type`.
    pub fn content_type(&self) -> &'static str {
        match self.format {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
            Format::Cbor => CBOR,
        }
    }

    /// The `Content-Type` of a watch.
    ///
    /// # Errors
    /// 406: the format has no streams.
    pub fn stream_type(&self) -> Result<&'static str, ApiError> {
        match self.format {
            Format::Json => Ok(JSON),
            Format::Protobuf => Ok(PROTOBUF_STREAM),
            Format::Cbor => Ok(CBOR_STREAM),
            Format::Yaml => Err(ApiError::not_acceptable(&[JSON_STREAM, PROTOBUF_STREAM])),
        }
    }

    fn with_include(mut self, call: &Call) -> Result<Self, ApiError> {
        if let Shape::Table(version, _) = self.shape {
            let include = match call.query.get("includeObject") {
                None | Some("" | "Metadata") => Include::Metadata,
                Some("None") => Include::None,
                Some("Object") => Include::Object,
                Some(other) => {
                    let other = pagurus_controlplane_api::go::quote(other);
                    return Err(ApiError::bad_request(format!(
                        "Unable to convert to Table as requested: includeObject: Invalid value: {other}: must be 'Metadata', 'Object', 'None', or empty"
                    )));
                }
            };
            self.shape = Shape::Table(version, include);
        }
        Ok(self)
    }
}

/// What the router looks at: whether the header takes anything, or has a media type that the path names, letter by letter.
///
/// # Errors
/// 406, or 415 where there should be a body and is none.
pub fn check_route(call: &Call, named: &[&str]) -> Result<(), ApiError> {
    if is_routed(&accept(&call.headers), named) {
        return Ok(());
    }
    let length = call.headers.get(CONTENT_LENGTH).map_or(&b""[..], http::HeaderValue::as_bytes);
    let writes = [Method::POST, Method::PUT, Method::PATCH].contains(&call.method);
    let (code, reason, title) = if writes && matches!(length, b"" | b"0") {
        (415, Reason::UnsupportedMediaType, "415: Unsupported Media Type")
    } else {
        (406, Reason::NotAcceptable, "406: Not Acceptable")
    };
    let message = format!("{title}\n\nAvailable representations: {}", named.join(", "));
    let mut error = ApiError::new(code, reason, message);
    error.details = Some(Box::new(StatusDetails::default()));
    Err(error)
}

/// CBOR is not named, but there.
fn is_routed(header: &str, named: &[&str]) -> bool {
    let mut media = header.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    media
        .any(|media| media == "*/*" || named.contains(&media) || (media == CBOR && named.contains(&PROTOBUF)))
}

/// The `Accept` header; a missing one takes anything.
pub fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let joined = values.collect::<Vec<_>>().join(",");
    if joined.is_empty() { "*/*".to_owned() } else { joined }
}

/// The clauses, the best first. What is no media type is passed over.
pub fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = header.split(',').filter_map(clause).collect();
    if out.len() > MOST_CLAUSES {
        out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
        return out;
    }
    // "Before" is no order (a wildcard of a high quality and a name of a low one are each before the other), so the result hangs on
    // how it is sorted: as kube-apiserver does, by putting each in its place among those to its left.
    for end in 1..out.len() {
        let mut at = end;
        while at > 0 && out[at].is_before(&out[at - 1]) {
            out.swap(at, at - 1);
            at -= 1;
        }
    }
    out
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';');
    let (kind, subtype) = match parts.next()?.trim().split_once('/') {
        Some((kind, subtype)) => (kind.trim(), subtype.trim()),
        None => ("*", "*"),
    };
    let media = text.split(';').next()?.trim();
    if subtype.is_empty() || subtype.contains('/') || (kind == "*" && !media.starts_with('*')) {
        return None;
    }
    let mut clause = Clause { kind, subtype, parameters: Vec::new(), quality: 1.0 };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim() {
            _ if value.is_empty() || value.contains('=') => {}
            "q" => clause.quality = value.parse().unwrap_or(0.0),
            name => clause.parameters.push((name, value.trim())),
        }
    }
    Some(clause)
}

impl<'a> Clause<'a> {
    fn is_before(&self, other: &Self) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }

    /// The last value of a parameter.
    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().rfind(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    /// Whether a media type of that name is meant: each part is the same or anything.
    pub fn means(&self, kind: &str, subtype: &str) -> bool {
        (self.kind == "*" || self.kind == kind) && (self.subtype == "*" || self.subtype == subtype)
    }

    /// The kind, group and version that objects are to be turned into.
    pub fn transform(&self) -> Option<(&'a str, &'a str, &'a str)> {
        let parts = [self.parameter("as"), self.parameter("g"), self.parameter("v")];
        let [kind, group, version] = parts.map(Option::unwrap_or_default);
        parts.iter().any(Option::is_some).then_some((kind, group, version))
    }

    /// The formats that the clause's media type means, the most usual first.
    pub fn formats(&self) -> impl Iterator<Item = Format> + use<> {
        let formats = [
            ("json", Format::Json),
            ("yaml", Format::Yaml),
            ("vnd.kubernetes.protobuf", Format::Protobuf),
            ("cbor", Format::Cbor),
        ];
        let anything = self.subtype == "*" && matches!(self.kind, "*" | "application");
        let meant = formats.map(|(name, format)| {
            (anything || (self.kind == "application" && self.subtype == name)).then_some(format)
        });
        meant.into_iter().flatten()
    }

    /// The shape that the clause asks for in a format; `None` if there is no such one.
    fn shape(&self, format: Format) -> Option<Shape> {
        match self.parameter("stream").unwrap_or_default() {
            "" => {}
            "watch" if format != Format::Yaml => {}
            _ => return None,
        }
        let Some((kind, group, version)) = self.transform() else { return Some(Shape::Object) };
        let version = match (group, version) {
            ("meta.k8s.io", "v1") => "v1",
            ("meta.k8s.io", "v1beta1") => "v1beta1",
            _ => return None,
        };
        match kind {
            "Table" => Some(Shape::Table(version, Include::Metadata)),
            "PartialObjectMetadata" => Some(Shape::Metadata(version)),
            "PartialObjectMetadataList" => Some(Shape::MetadataList(version)),
            _ => None,
        }
    }
}

/// Pretty when asked for, and for clients that are people's.
fn pretty(asked: Asked<'_>, clause: &Clause<'_>) -> bool {
    if clause.parameter("pretty") == Some("1") {
        return true;
    }
    if let Some(wanted) = asked.query.get("pretty").filter(|wanted| !wanted.is_empty()) {
        return matches!(wanted, "1" | "t" | "T" | "true" | "True" | "TRUE");
    }
    let agent = asked.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The formats of a header in their order, with the parameter that tells clauses apart.
    fn order(header: &str) -> String {
        let clauses = clauses(header);
        let shown = clauses.iter().map(|c| format!("{}/{}{}", c.kind, c.subtype, c.quality));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn clauses_are_sorted() {
        let rows = [
            ("a/b,c/d", "a/b1 c/d1"),
            ("a/b;q=0.1,c/d;q=0.2", "c/d0.2 a/b0.1"),
            ("*/*,a/b", "a/b1 */*1"),
            ("*,a/*,a/b", "a/b1 a/*1 */*1"),
            ("a/b;q=0.1,*/*;q=0.9", "*/*0.9 a/b0.1"),
            ("a,b/c/d,a/,/x;q=x,a/b;q=1;q=0.5", "a/b0.5 /x0"),
        ];
        for (header, want) in rows {
            assert_eq!(order(header), want, "{header}");
        }
        let many = ["a/b;q=0.1"; 20].join(",") + ",c/d";
        assert!(order(&many).starts_with("c/d1 a/b0.1"));
    }

    #[test]
    fn errors() {
        let rows = [
            ("", "", "", Format::Json, false),
            ("application/yaml", "", "", Format::Yaml, false),
            ("application/vnd.kubernetes.protobuf,*/*", "", "", Format::Protobuf, false),
            ("*/*, application/yaml", "", "", Format::Yaml, false),
            ("application/xml", "", "", Format::Json, true),
            ("application/yaml;as=Table;g=meta.k8s.io;v=v1", "", "", Format::Json, true),
            ("application/json;as=Table;g=meta.k8s.io;v=v1,application/cbor", "", "", Format::Cbor, false),
            ("application/yaml;stream=watch,application/*", "", "", Format::Json, false),
            ("application/json;pretty=1", "pretty=false", "", Format::Json, true),
            ("", "pretty=no", "curl/8", Format::Json, false),
            ("", "pretty", "curl/8", Format::Json, true),
            ("", "pretty=T", "", Format::Json, true),
        ];
        for (accept, query, agent, format, pretty) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ACCEPT, accept), (USER_AGENT, agent)] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let query = Query::parse(query);
            let got = Output::for_errors(Asked { headers: &headers, query: &query });
            assert_eq!((got.format, got.pretty), (format, pretty), "{accept} {query:?} {agent}");
        }
    }

    #[test]
    fn routes() {
        let rows = [
            ("*/*;q=0.1", true),
            ("application/xml, application/yaml;q=0", true),
            ("application/*", false),
            ("Application/JSON", false),
            ("application/json;stream=watch", true),
            ("*", false),
        ];
        for (header, want) in rows {
            assert_eq!(is_routed(header, &ACCEPTED), want, "{header}");
        }
    }
}
