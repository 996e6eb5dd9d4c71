//! Who made a write that nothing in the object tells of, a deletion or the mark of one: as the note that the store keeps with it.
//!
//! It must not know how histories are told.

use bytes::Bytes;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::request::UserInfo;
use crate::verbs::Request;

/// So many characters of a name are kept; field managers have no more.
const LONGEST: usize = 128;

/// The author of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verbs) struct Author {
    /// The field manager, from the query or the client's `User-Agent`.
    pub manager: String,
    /// The user's name.
    pub user: String,
    /// What the request did: `Delete`, `Update`, `Expire`.
    pub operation: String,
    /// When, in RFC 3339.
    pub time: String,
}

impl Author {
    /// Whoever makes this request, now.
    pub(in crate::verbs) fn of(request: &Request<'_>, operation: &str) -> Self {
        Self::now(&request.options.manager, request.user, operation)
    }

    fn now(manager: &str, user: &UserInfo, operation: &str) -> Self {
        let cut = |text: &str| text.chars().take(LONGEST).collect();
        let (manager, user) = (cut(manager), cut(&user.name));
        Self { manager, user, operation: operation.to_owned(), time: time::now_text() }
    }

    /// As the store keeps it.
    pub(in crate::verbs) fn to_note(&self) -> Bytes {
        let Self { manager, user, operation, time } = self;
        json!({"manager": manager, "user": user, "operation": operation, "time": time}).to_string().into()
    }

    /// From a note; none if there is none that can be read.
    pub(super) fn read(note: &[u8]) -> Option<Self> {
        let note: Value = serde_json::from_slice(note).ok()?;
        let text = |name: &str| note.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            manager: text("manager")?,
            user: text("user")?,
            operation: text("operation")?,
            time: text("time")?,
        })
    }
}

/// The note of what the server does by itself.
pub(crate) fn note_of_server(operation: &str) -> Bytes {
    Author::now("kube-apiserver", &UserInfo::server(), operation).to_note()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip() {
        let long = UserInfo::authenticated("\u{e4}".repeat(1000), []);
        let author = Author::now("kubectl", &long, "Delete");
        assert_eq!(Author::read(&author.to_note()), Some(author.clone()));
        assert_eq!(author.user.chars().count(), LONGEST);
        for note in ["", "{}", "nothing", "{\"manager\": 1}"] {
            assert_eq!(Author::read(note.as_bytes()), None, "{note}");
        }
    }
}
