//! Reads the `Accept` header: the best format and shape that the client asks for and the server has. It must not know objects.

use http::header::{ACCEPT, USER_AGENT};
use pagurus_controlplane_api::status::{ApiError, Reason, StatusDetails};

use crate::request::Call;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_STREAM: &str = "application/json;stream=watch";
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const CBOR: &str = "application/cbor";
const CBOR_STREAM: &str = "application/cbor-seq";
/// What messages name. CBOR is answered too, but kube-apiserver does not name it unless a feature is on.
const ACCEPTED: [&str; 3] = [JSON, YAML, PROTOBUF];

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

/// One element of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
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
}

impl Output {
    /// JSON as it is.
    pub const PLAIN: Output = Output { format: Format::Json, shape: Shape::Object, pretty: false };

    /// What the client wants to see of objects that can be shown so.
    pub fn negotiate(call: &Call, offer: Offer) -> Result<Self, ApiError> {
        let header = accept(call);
        let clauses = clauses(&header);
        if !clauses.iter().any(|clause| format(clause.media).is_some()) {
            return Err(nothing_fits());
        }
        for clause in &clauses {
            let Some(format) = format(clause.media) else { continue };
            match shape(clause) {
                // Tables have no message.
                Some(Shape::Table(..)) if format == Format::Protobuf => {}
                Some(Shape::Object) if format == Format::Protobuf && !offer.messages => {}
                Some(shape) if shape != Shape::Object && !offer.views => {}
                Some(shape) => {
                    return Self { format, shape, pretty: pretty(call, clause) }.with_include(call);
                }
                None => {}
            }
        }
        Err(ApiError::not_acceptable(if offer.messages { &ACCEPTED } else { &ACCEPTED[..2] }))
    }

    /// What an error is written in; never fails.
    pub fn for_errors(call: &Call) -> Self {
        let header = accept(call);
        let clauses = clauses(&header);
        let asked = clauses.iter().find_map(|c| format(c.media).map(|format| (format, pretty(call, c))));
        let (format, pretty) = asked.unwrap_or((Format::Json, false));
        Self { format, shape: Shape::Object, pretty }
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

/// 406 when not even the media type is known.
pub fn nothing_fits() -> ApiError {
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", ACCEPTED.join(", "));
    let mut error = ApiError::new(406, Reason::NotAcceptable, message);
    error.details = Some(Box::new(StatusDetails::default()));
    error
}

fn accept(call: &Call) -> String {
    let values = call.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let joined = values.collect::<Vec<_>>().join(",");
    if joined.trim().is_empty() { "*/*".to_owned() } else { joined }
}

/// The clauses, the best first; equal ones in their order.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = header
        .split(',')
        .filter(|text| !text.trim().is_empty())
        .map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut parameters = Vec::new();
            for (name, value) in parts.filter_map(|p| p.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    name => parameters.push((name, value.trim())),
                }
            }
            Clause { media, parameters, quality }
        })
        .collect();
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

fn matches(asked: &str, have: &str) -> bool {
    match asked {
        "*/*" | "*" | "application/*" => have == JSON,
        _ => asked.eq_ignore_ascii_case(have),
    }
}

/// The format that a media type means.
pub fn format(media: &str) -> Option<Format> {
    let formats =
        [(JSON, Format::Json), (YAML, Format::Yaml), (PROTOBUF, Format::Protobuf), (CBOR, Format::Cbor)];
    formats.into_iter().find(|(have, _)| matches(media, have)).map(|(_, format)| format)
}

/// The shape that a clause asks for; `None` if there is no such one.
fn shape(clause: &Clause<'_>) -> Option<Shape> {
    let parameter = |name: &str| clause.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let Some(kind) = parameter("as").filter(|k| !k.is_empty()) else { return Some(Shape::Object) };
    let version = match (parameter("g"), parameter("v")) {
        (Some("meta.k8s.io"), Some("v1")) => "v1",
        (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
        _ => return None,
    };
    match kind {
        "Table" => Some(Shape::Table(version, Include::Metadata)),
        "PartialObjectMetadata" => Some(Shape::Metadata(version)),
        "PartialObjectMetadataList" => Some(Shape::MetadataList(version)),
        _ => None,
    }
}

/// Pretty when asked for, and for clients that are people's.
fn pretty(call: &Call, clause: &Clause<'_>) -> bool {
    if let Some(asked) = call.query.get("pretty") {
        return !matches!(asked, "0" | "false" | "");
    }
    if clause.parameters.iter().any(|(n, v)| *n == "pretty" && *v == "1") {
        return true;
    }
    let agent = call.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
}
