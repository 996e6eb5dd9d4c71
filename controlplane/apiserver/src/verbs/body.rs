//! From the bytes of a request to an object of a resource in its storage form, defaulted. It must not know what the object is for.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::BodyExt;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::codec::{self, DecodeError, Typed};
use pagurus_controlplane_schema::defaults;
use pagurus_controlplane_schema::normalize::{self, Emptied};
use pagurus_controlplane_schema::table::{Table, TypeId};
use serde_json::Value;

use super::options::FieldValidation;
use crate::crd::Custom;
use crate::engine::Target;
use crate::request::{Body, Warnings};

/// What messages name. CBOR is read too, but kube-apiserver does not name it unless a feature is on.
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Custom objects have no messages in protobuf.
const CUSTOM: [&str; 2] = ["application/json", "application/yaml"];

/// How much of a body a message shows.
const SHOWN: usize = 30;

/// How much of a body that is too large is read after all.
const PASSED_OVER: usize = 16 << 20;
const PASSED_OVER_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// The whole body, unless it is too large.
pub(super) async fn read(mut body: Body, most: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("the request's body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            drop(whole);
            pass_over(body).await;
            return Err(ApiError::request_entity_too_large(&format!("limit is {most}")));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Reads on for a while without keeping anything: a client that is cut off while it sends never sees the answer.
async fn pass_over(mut body: Body) {
    let reading = async {
        let mut left = PASSED_OVER;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    // Whoever sends longer than this is cut off: the answer does not depend on it.
    let _ = tokio::time::timeout(PASSED_OVER_TIME, reading).await;
}

/// The media type of the body without its parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// A format that objects are read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
    /// `application/cbor`
    Cbor,
}

impl Format {
    fn decode_as(self, table: &Table, id: TypeId, bytes: &[u8]) -> Result<Typed, DecodeError> {
        match self {
            Format::Json => codec::json::decode_as(table, id, bytes),
            Format::Yaml => codec::yaml::decode_as(table, id, bytes),
            Format::Protobuf => codec::protobuf::decode_as(table, id, bytes),
            Format::Cbor => codec::cbor::decode_as(table, id, bytes),
        }
    }

    /// The document whatever it is of; none where bytes say nothing without a type.
    fn decode(self, bytes: &[u8]) -> Option<Value> {
        let decoded = match self {
            Format::Json => codec::json::decode(bytes),
            Format::Yaml => codec::yaml::decode(bytes),
            Format::Cbor => codec::cbor::decode(bytes),
            Format::Protobuf => return None,
        };
        decoded.ok().map(|decoded| decoded.value)
    }
}

/// The format of an object in a body.
pub(super) fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let whole = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media_type(headers).to_ascii_lowercase();
    match &*media {
        _ if !has_sound_parameters(whole) => Err(ApiError::unsupported_media_type(&ACCEPTED)),
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        "application/cbor" => Ok(Format::Cbor),
        _ => Err(ApiError::unsupported_media_type(&ACCEPTED)),
    }
}

/// Whether each parameter of a media type has a name and a value (RFC 9110, 8.3.1).
fn has_sound_parameters(media_type: &str) -> bool {
    let mut parameters = media_type.split(';').skip(1).map(str::trim).filter(|p| !p.is_empty());
    parameters
        .all(|p| p.split_once('=').is_some_and(|(name, value)| !name.trim().is_empty() && !value.is_empty()))
}

/// The type that an object in a body must be of.
pub(super) struct Expected<'a> {
    pub(super) table: &'a Table,
    pub(super) id: TypeId,
    pub(super) gvk: GroupVersionKind,
}

impl<'a> Expected<'a> {
    /// That of a resource's objects.
    pub(super) fn of(target: &'a Target) -> Self {
        let resource = &target.resource;
        let gvk = GroupVersionKind::new(&*resource.group, &*resource.version, &*resource.kind);
        Self { table: target.table(), id: resource.type_id, gvk }
    }
}

/// Decodes an object of a type, with its `apiVersion` and `kind` filled in.
pub(super) fn decode(
    expected: &Expected<'_>,
    format: Format,
    bytes: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let Expected { table, id, gvk } = expected;
    if let Some(kind) = not_an_object(format, bytes) {
        let error = format!(
            "json: cannot unmarshal {kind} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        );
        return Err(unrecognized(gvk, format, &error, bytes));
    }
    let typed = format.decode_as(table, *id, bytes);
    let Typed { mut value, strict } = match typed {
        Ok(typed) => typed,
        Err(DecodeError::Syntax(error)) => return Err(unrecognized(gvk, format, &error, bytes)),
        Err(DecodeError::Type(error)) => {
            // Another kind's fields may be of other types: say that first.
            if let Some(plain) = format.decode(bytes) {
                check_kind(expected, &plain)?;
            }
            return Err(cannot_be_handled(gvk, gvk, &error));
        }
    };
    check_kind(expected, &value)?;
    if !strict.is_empty() && validation == FieldValidation::Strict {
        let error = format!("strict decoding error: {}", strict.join(", "));
        return Err(cannot_be_handled(gvk, gvk, &error));
    }
    if validation == FieldValidation::Warn {
        strict.into_iter().for_each(|text| warnings.add(text));
    }
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), gvk.api_version().into());
        fields.insert("kind".to_owned(), gvk.kind.as_str().into());
    }
    Ok(value)
}

/// Decodes the object of a resource and brings it into the stored form, defaulted.
pub(super) fn object(
    target: &Target,
    format: Format,
    bytes: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Given, ApiError> {
    let expected = Expected::of(target);
    let value = match target.kind.strategy.custom() {
        Some(custom) => decode_custom(&expected, custom, format, bytes, validation, warnings)?,
        None => decode(&expected, format, bytes, validation, warnings)?,
    };
    defaulted(target, value)
}

/// Decodes a custom object, which has no type: its schema says what is unknown.
fn decode_custom(
    expected: &Expected<'_>,
    custom: &Custom,
    format: Format,
    bytes: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let gvk = &expected.gvk;
    let decoded = match format {
        Format::Json => codec::json::decode(bytes),
        Format::Yaml => codec::yaml::decode(bytes),
        Format::Cbor => codec::cbor::decode(bytes),
        Format::Protobuf => return Err(ApiError::unsupported_media_type(&CUSTOM)),
    };
    let decoded = decoded.map_err(|error| unrecognized(gvk, format, &error.to_string(), bytes))?;
    let mut value = decoded.value;
    if !value.is_object() {
        let error = "json: cannot unmarshal value into Go value of type map[string]interface {}";
        return Err(unrecognized(gvk, format, error, bytes));
    }
    check_custom_kind(gvk, &value)?;
    let cannot = |error: &str| cannot_be_handled(gvk, gvk, error);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), gvk.api_version().into());
        fields.insert("kind".to_owned(), gvk.kind.as_str().into());
    }
    let unknown = custom.receive(&gvk.version, &mut value).map_err(|error| cannot(&error))?;
    let duplicates = decoded.duplicate_fields.iter().map(|field| format!("duplicate field \"{field}\""));
    let unknown = unknown.iter().map(|field| format!("unknown field \"{field}\""));
    let strict: Vec<String> = duplicates.chain(unknown).collect();
    match validation {
        FieldValidation::Strict if !strict.is_empty() => {
            return Err(cannot(&format!("strict decoding error: {}", strict.join(", "))));
        }
        FieldValidation::Warn => strict.into_iter().for_each(|text| warnings.add(text)),
        _ => {}
    }
    Ok(value)
}

/// Whether a custom object says that it is what is expected; one that says nothing is.
fn check_custom_kind(wanted: &GroupVersionKind, value: &Value) -> Result<(), ApiError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let api_version = wanted.api_version();
    if let Some(given) = text("apiVersion").filter(|given| *given != api_version) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    if let Some(given) = text("kind").filter(|given| *given != wanted.kind) {
        let error = FieldError::invalid("kind", given, format!("must be {}", wanted.kind));
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        return Err(ApiError::invalid(&wanted.group, &wanted.kind, name, vec![error]));
    }
    Ok(())
}

/// Decodes the options of a deletion, which may call themselves by any group's version.
pub(super) fn delete_options(
    expected: &Expected<'_>,
    format: Format,
    bytes: &[u8],
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    match format.decode_as(expected.table, expected.id, bytes) {
        Ok(typed) => {
            let text = |name: &str| typed.value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
            if let Some(kind) = text("kind").filter(|kind| *kind != "DeleteOptions") {
                return Err(ApiError::bad_request(unregistered(
                    kind,
                    text("apiVersion").unwrap_or("meta.k8s.io/v1"),
                )));
            }
            typed.strict.into_iter().for_each(|text| warnings.add(text));
            Ok(typed.value)
        }
        Err(DecodeError::Syntax(error)) => {
            Err(ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
        }
        Err(DecodeError::Type(error)) => Err(ApiError::bad_request(error)),
    }
}

/// Fills in defaults of an object in the request's version and brings it into the stored form.
pub(super) fn defaulted(target: &Target, mut value: Value) -> Result<Given, ApiError> {
    let table = target.table();
    match target.kind.strategy.custom() {
        Some(custom) => custom.fill(&target.resource.version, &mut value),
        None => defaults::apply(table, target.resource.type_id, &mut value),
    }
    let mut value = target.to_storage_version(value)?;
    target.kind.strategy.default(&mut value);
    let emptied = normalize::decoded(table, target.kind.resource.type_id, &mut value);
    Ok(Given { object: value, emptied })
}

/// What a request wants an object to be.
#[derive(Clone)]
pub(super) struct Given {
    /// The object in the stored form, defaulted.
    pub(super) object: Value,
    /// What it was given that the stored form does not have.
    pub(super) emptied: Vec<Emptied>,
}

/// Reads an object of any type the table has from a request: reviews, tokens, bindings, evictions.
pub async fn read_object(
    table: &Table,
    id: TypeId,
    gvk: GroupVersionKind,
    call: &crate::request::Call,
    body: Body,
    most: usize,
) -> Result<Value, ApiError> {
    let format = format(&call.headers)?;
    let bytes = read(body, most).await?;
    let validation = match call.query.get("fieldValidation") {
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        _ => FieldValidation::Warn,
    };
    let mut value = decode(&Expected { table, id, gvk }, format, &bytes, validation, &call.warnings)?;
    defaults::apply(table, id, &mut value);
    normalize::normalize(table, id, &mut value);
    Ok(value)
}

/// What a document in JSON or YAML is, if it is no object.
fn not_an_object(format: Format, bytes: &[u8]) -> Option<&'static str> {
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace())?;
    if !matches!(format, Format::Json | Format::Yaml) || *first == b'{' {
        return None;
    }
    match format.decode(bytes)? {
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::Null | Value::Object(_) => None,
    }
}

fn unrecognized(expected: &GroupVersionKind, format: Format, error: &str, bytes: &[u8]) -> ApiError {
    let dots = if bytes.len() > SHOWN { " ..." } else { "" };
    let head = &bytes[..bytes.len().min(SHOWN)];
    let shown = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(head)),
        Some(_) => {
            let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{dots}")
        }
    };
    let kind = &expected.kind;
    let why = match format {
        Format::Json | Format::Yaml => "couldn't get version/kind; json parse error: ",
        Format::Cbor => "unable to determine group/version/kind: ",
        // What has an envelope says of which kind it is.
        Format::Protobuf if codec::protobuf::envelope(bytes).is_ok() => {
            return cannot_be_handled(expected, expected, error);
        }
        Format::Protobuf => "",
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why}{error} ({shown})"
    ))
}

fn cannot_be_handled(given: &GroupVersionKind, expected: &GroupVersionKind, error: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {error}",
        given.kind, given.version, expected.kind
    ))
}

/// Whether an object says that it is what is expected; one that says nothing is.
fn check_kind(expected: &Expected<'_>, value: &Value) -> Result<(), ApiError> {
    match kind_of(expected, value)? {
        Said::Expected => Ok(()),
        Said::OtherVersion(given) => {
            // The one body that is taken in an older form, of the same fields: clients before 1.22 evict with it.
            if (&*given.kind, &*given.group, &*given.version) == ("Eviction", "policy", "v1beta1") {
                return Ok(());
            }
            Err(ApiError::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({})",
                given.api_version(),
                expected.gvk.api_version()
            )))
        }
        Said::Other(given, error) => Err(cannot_be_handled(&given, &expected.gvk, &error)),
    }
}

/// Why an object that says what it is cannot become what is expected; one of another version of the same kind can.
pub(super) fn other_kind(expected: &Expected<'_>, value: &Value) -> Option<String> {
    match kind_of(expected, value) {
        Ok(Said::Expected | Said::OtherVersion(_)) => None,
        Ok(Said::Other(_, error)) => Some(error),
        Err(error) => Some(error.message),
    }
}

/// What an object says that it is.
enum Said {
    Expected,
    OtherVersion(GroupVersionKind),
    /// Something else, and why it cannot become what is expected.
    Other(GroupVersionKind, String),
}

fn unregistered(kind: &str, version: &str) -> String {
    format!(
        "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""
    )
}

fn kind_of(expected: &Expected<'_>, value: &Value) -> Result<Said, ApiError> {
    let wanted = &expected.gvk;
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let (version, kind) = (text("apiVersion"), text("kind").unwrap_or(&wanted.kind));
    let api_version = wanted.api_version();
    let version = version.unwrap_or(&api_version);
    if version == api_version && kind == wanted.kind {
        return Ok(Said::Expected);
    }
    let gv = version.parse::<pagurus_controlplane_api::key::GroupVersion>();
    let gv = gv.map_err(|e| ApiError::bad_request(e.to_string()))?;
    let given = GroupVersionKind::new(gv.group, gv.version, kind);
    if expected.table.kind_type(&given.group, &given.version, &given.kind).is_none() {
        return Ok(Said::Other(given, unregistered(kind, version)));
    }
    if given.kind == wanted.kind && given.group == wanted.group {
        return Ok(Said::OtherVersion(given));
    }
    let package = wanted.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let error =
        format!("converting ({}.{kind}) to ({package}.{}): unknown conversion", given.version, wanted.kind);
    Ok(Said::Other(given, error))
}
