//! Lists made piece by piece from what is kept of each object: its stored bytes, its metadata, its row, its message. What is kept is
//! not made again, and memory does not grow with the list.
//!
//! Must not know verbs, nor which objects a list is to show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use jiff::Timestamp;
use pagurus_controlplane_api::ages::{Aged, LATER};
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::codec::protobuf;
use pagurus_controlplane_schema::table::{Table, TypeId};
use serde_json::Value;

use super::accept::{Format, Include, Output, Shape};
use super::shape::ListMeta;
use super::stream::{Zipped, framed};
use super::{GZIP_ABOVE, accepts_gzip, columns, headers};
use crate::cache::{Cached, Snapshot};
use crate::engine::Target;
use crate::registry::Rules;
use crate::request::{Body, Call, full_body};

/// How many bytes are handed on at a time.
const CHUNK: usize = 64 << 10;
/// For how long forms are made before others may run, and after how many objects that is looked at.
const TURN: Duration = Duration::from_millis(1);
const LOOKED: u64 = 16;

/// Which objects of a snapshot a list shows.
pub(crate) struct Selection {
    pub(crate) snapshot: Snapshot,
    pub(crate) namespace: Option<String>,
    /// The key after which to begin.
    pub(crate) after: Option<String>,
    /// The key with which to end.
    pub(crate) last: Option<Arc<str>>,
    pub(crate) selects: Box<dyn Fn(&Cached) -> bool + Send + Sync>,
}

impl Selection {
    /// The objects after that key.
    fn objects(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Arc<Cached>)> {
        self.snapshot
            .below(self.namespace.as_deref(), after)
            .take_while(|(key, _)| self.last.as_ref().is_none_or(|last| *key <= last))
            .filter(|(_, object)| (self.selects)(object))
    }
}

/// What a list has of each object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    /// Its stored bytes.
    Stored,
    /// Its metadata, as `PartialObjectMetadata` of this version.
    Metadata(&'static str),
    /// A row of a `Table` of this version, with the object's metadata or nothing of it.
    Row(&'static str, Include),
    /// A message of this type.
    Message(TypeId),
}

impl Piece {
    /// What lists of this output are made of; none for those that cannot be made in pieces.
    pub(crate) fn of(output: &Output, target: &Target) -> Option<Self> {
        let rules = &target.kind.strategy;
        // The rows and messages of a custom kind change with its definition.
        let builtin = matches!(rules, Rules::Builtin(_));
        let whole_metadata = rules.field_annotations().is_empty();
        match (output.format, output.shape) {
            _ if output.pretty => None,
            (Format::Json, Shape::Object) if target.is_storage_version() => Some(Self::Stored),
            (Format::Json, Shape::MetadataList(version)) if whole_metadata => Some(Self::Metadata(version)),
            (Format::Json, Shape::Table(version, include))
                if builtin && whole_metadata && include != Include::Object && rules.row_order().is_none() =>
            {
                Some(Self::Row(version, include))
            }
            (Format::Protobuf, Shape::Object) if builtin => Some(Self::Message(target.resource.type_id)),
            _ => None,
        }
    }

    /// What comes before the pieces, which have so many bytes; between them; and after them.
    fn frame(
        self,
        target: &Target,
        meta: &ListMeta,
        length: usize,
    ) -> (Vec<u8>, &'static str, &'static [u8]) {
        let (resource, meta) = (&target.resource, meta.to_value());
        let (head, tail): (String, &[u8]) = match self {
            Self::Stored => (
                format!(
                    "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                    resource.list_kind,
                    resource.api_version()
                ),
                b"]}\n",
            ),
            Self::Metadata(version) => (
                format!(
                    "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\"items\":["
                ),
                b"]}\n",
            ),
            Self::Row(version, _) => (
                format!(
                    "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\"columnDefinitions\":{},\"rows\":[",
                    columns::definitions(target)
                ),
                b"]}\n",
            ),
            Self::Message(_) => {
                let (api_version, kind) = (resource.api_version(), &resource.list_kind);
                let head = protobuf::list_head(Table::builtin(), &api_version, kind, &meta, length);
                return (head, "", protobuf::TAIL);
            }
        };
        (head.into_bytes(), ",", tail)
    }

    /// The form of an object that this piece is made of: an empty one where it is made of the stored bytes.
    fn form(self, target: &Target, object: &Cached) -> Result<Arc<Aged>, ApiError> {
        match self {
            Self::Stored | Self::Metadata(_) => Ok(Arc::default()),
            Self::Row(..) => object.form(ROW, || {
                let (rules, object) = (&target.kind.strategy, object.value());
                let mut text = Value::Array(rules.cells(&object, LATER)).to_string();
                if let Some(conditions) = rules.row_conditions(&object) {
                    text = format!("{text},\"conditions\":{conditions}");
                }
                Ok(Aged::of_json(&text))
            }),
            Self::Message(id) => object.form(message_form(id), || {
                let value = target.to_request_version(object.value())?;
                Ok(Aged::ageless(protobuf::message(Table::builtin(), id, &value)))
            }),
        }
    }

    /// Appends the piece of an object.
    fn put(
        self,
        target: &Target,
        object: &Cached,
        now: Timestamp,
        out: &mut BytesMut,
    ) -> Result<(), ApiError> {
        match self {
            Self::Stored => {
                out.put_slice(b"{");
                out.put_slice(object.body());
            }
            Self::Metadata(version) => put_metadata(version, object, out),
            Self::Row(version, include) => {
                out.put_slice(b"{\"cells\":");
                self.form(target, object)?.write(now, |bytes| out.put_slice(bytes));
                out.put_slice(b",\"object\":");
                match include {
                    Include::Metadata => put_metadata(version, object, out),
                    Include::None | Include::Object => out.put_slice(b"null"),
                }
                out.put_slice(b"}");
            }
            Self::Message(_) => {
                let form = self.form(target, object)?;
                out.put_slice(&protobuf::item_head(form.len()));
                out.put_slice(form.text());
            }
        }
        Ok(())
    }
}

/// The number of the form that is a row's cells, and its conditions if it has any. Messages have those of their types, which are 32 bits.
const ROW: u64 = 1 << 32;

fn message_form(id: TypeId) -> u64 {
    u64::from(id.number())
}

fn put_metadata(version: &str, object: &Cached, out: &mut BytesMut) {
    out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/");
    out.put_slice(version.as_bytes());
    out.put_slice(b"\",\"metadata\":");
    out.put_slice(object.metadata());
    out.put_slice(b"}");
}

/// A list made of pieces.
///
/// # Errors
/// An object has no form in the version that is asked for.
pub(crate) async fn list(
    call: &Call,
    target: &Target,
    output: &Output,
    piece: Piece,
    meta: &ListMeta,
    selection: Selection,
) -> Result<Response<Body>, ApiError> {
    let length = prepare(target, piece, &selection).await?;
    let (head, between, tail) = piece.frame(target, meta, length);
    let mut items = Items {
        target: target.clone(),
        piece,
        selection,
        now: time::now(),
        head: Some(head),
        between,
        tail,
        any: false,
        done: false,
    };
    // Most lists are short: those go out whole, with their length.
    let (mut start, mut length) = (Vec::new(), 0);
    while length <= GZIP_ABOVE {
        let Some(bytes) = items.chunk() else { break };
        length += bytes.len();
        start.push(bytes);
    }
    let zip = length > GZIP_ABOVE && accepts_gzip(&call.headers);
    let body = if items.done && !zip {
        full_body(start.concat())
    } else {
        let chunks = start.into_iter().chain(std::iter::from_fn(move || items.chunk()));
        if zip { framed(Zipped::new(chunks)) } else { framed(chunks) }
    };
    let mut response = Response::new(body);
    headers(response.headers_mut(), output.content_type(), zip);
    Ok(response)
}

/// Makes what is not there yet, and tells how many bytes of messages there are.
async fn prepare(target: &Target, piece: Piece, selection: &Selection) -> Result<usize, ApiError> {
    if matches!(piece, Piece::Stored | Piece::Metadata(_)) {
        return Ok(0);
    }
    target.kind.cache.forms_wanted();
    let (mut length, mut seen, mut turn) = (0, 0u64, Instant::now());
    for (_, object) in selection.objects(selection.after.as_deref()) {
        let form = piece.form(target, object)?;
        if let Piece::Message(_) = piece {
            length += protobuf::item_head(form.len()).len() + form.len();
        }
        seen += 1;
        if seen % LOOKED == 0 && turn.elapsed() >= TURN {
            tokio::task::yield_now().await;
            turn = Instant::now();
        }
    }
    Ok(length)
}

/// Walks a selection and joins the pieces.
struct Items {
    target: Target,
    piece: Piece,
    selection: Selection,
    now: Timestamp,
    head: Option<Vec<u8>>,
    between: &'static str,
    tail: &'static [u8],
    any: bool,
    done: bool,
}

impl Items {
    /// The next part of the list.
    fn chunk(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        out.put_slice(&self.head.take().unwrap_or_default());
        let at = self.selection.after.take();
        let mut next = None;
        for (key, object) in self.selection.objects(at.as_deref()) {
            if std::mem::replace(&mut self.any, true) {
                out.put_slice(self.between.as_bytes());
            }
            if let Err(error) = self.piece.put(&self.target, object, self.now, &mut out) {
                // It was made once before; a list that is cut off is seen to be by whoever reads it.
                tracing::error!(%error, key = &**key, "a list ends early");
                self.done = true;
                return None;
            }
            if out.len() >= CHUNK {
                next = Some(key.to_string());
                break;
            }
        }
        if next.is_none() {
            out.put_slice(self.tail);
            self.done = true;
        }
        self.selection.after = next;
        Some(out.freeze())
    }
}
