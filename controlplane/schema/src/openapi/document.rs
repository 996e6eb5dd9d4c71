//! Documents written piece by piece: nothing of them stays but the bytes. It must not know what the pieces say.

use serde_json::Value;

use super::protobuf::Message;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// The protobuf of gnostic's definitions.
    Protobuf,
}

/// A map of a document, entry by entry.
pub(super) enum Pieces {
    Json(Vec<u8>),
    /// Under which tag the entries stand, and how a value is written.
    Protobuf(Message, u64, fn(&mut Message, &Value)),
}

impl Pieces {
    /// None so far. `tag` and `write` say what an entry is in protobuf.
    pub(super) fn new(format: Format, tag: u64, write: fn(&mut Message, &Value)) -> Self {
        match format {
            Format::Json => Self::Json(vec![b'{']),
            Format::Protobuf => Self::Protobuf(Message::default(), tag, write),
        }
    }

    pub(super) fn put(&mut self, name: &str, value: &Value) {
        match self {
            Self::Json(out) => {
                if out.len() > 1 {
                    out.push(b',');
                }
                // Writing to memory cannot fail.
                let _ = serde_json::to_writer(&mut *out, name);
                out.push(b':');
                let _ = serde_json::to_writer(&mut *out, value);
            }
            Self::Protobuf(out, tag, write) => out.pair(*tag, name, |inner| write(inner, value)),
        }
    }
}

/// Joins a document: `frame` has the rest of it, an object. In JSON paths stand under `paths` and schemas under the name they come with;
/// in protobuf both stand where `write` puts them.
pub(super) fn join(
    frame: &Value,
    paths: Pieces,
    (schemas_name, schemas): (&str, Pieces),
    write: fn(&Value, &Message, &Message) -> Vec<u8>,
) -> Vec<u8> {
    match (paths, schemas) {
        (Pieces::Protobuf(paths, ..), Pieces::Protobuf(schemas, ..)) => write(frame, &paths, &schemas),
        (Pieces::Json(mut paths), Pieces::Json(mut schemas)) => {
            let mut out = frame.to_string().into_bytes();
            out.pop();
            out.extend_from_slice(b",\"paths\":");
            out.append(&mut paths);
            out.extend_from_slice(b"},\"");
            out.extend_from_slice(schemas_name.as_bytes());
            out.extend_from_slice(b"\":");
            out.append(&mut schemas);
            out.extend_from_slice(b"}}");
            out
        }
        // Both were made for the same format.
        _ => Vec::new(),
    }
}
