//! LIST: all objects a selection means, at one revision, in pages if asked for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::go;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use super::options::bad_integer;
use super::selection::Select;
use crate::cache::{CacheError, Snapshot};
use crate::engine::Target;
use crate::request::{Body, Call};
use crate::response::{self, ListMeta, Output, Selection, Shape};

pub(super) async fn answer(
    call: &Call,
    target: &Target,
    output: &Output,
) -> Result<Response<Body>, ApiError> {
    let select = Select::read(call, target)?;
    let page = Page::read(call)?;
    let snapshot = match (snapshot(target, &page).await, &page.after) {
        (Err(CacheError::Gone { .. }), Some(after)) => {
            return Ok(response::value(call, &Output::for_errors(call.into()), 410, &too_old(after)));
        }
        (found, _) => select.narrow(found?, target),
    };
    select.convert_ahead(&snapshot).await?;
    let cut = cut(&snapshot, &select, &page);
    if cut.meta.next.is_some() {
        target.kind.cache.keep(&snapshot);
    }
    if let Some(piece) = response::Piece::of(output, target) {
        let selection = Selection {
            snapshot,
            namespace: select.namespace.clone(),
            after: page.after,
            last: cut.last,
            selects: Box::new(move |object| select.matches(object)),
        };
        return response::list(call, target, output, piece, &cut.meta, selection).await;
    }
    if let Shape::Metadata(_) = output.shape {
        // Says what is wrong before anything is made.
        response::list_value(output, target, &cut.meta, std::iter::empty())?;
    }
    let shown = snapshot
        .below(select.namespace.as_deref(), page.after.as_deref())
        .take_while(|(key, _)| cut.last.as_ref().is_none_or(|last| *key <= last))
        .map(|(_, object)| object)
        .filter(|object| select.matches(object));
    let shown: Vec<_> = shown.collect();
    if target.is_mixed() {
        target.convert_ahead(shown.iter().copied().cloned().collect()).await?;
    }
    let list = response::list_value(output, target, &cut.meta, shown.into_iter())?;
    Ok(response::value(call, output, 200, &list))
}

/// What the query says of revision and pages.
#[derive(Debug, Default)]
pub(super) struct Page {
    limit: usize,
    /// The key after which to go on.
    after: Option<String>,
    /// How many there are after that key, where the page before this one knew.
    left: Option<usize>,
    revision: Wanted,
}

/// The revision a list is to be at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// With everything acknowledged so far.
    #[default]
    Newest,
    /// Whatever is at hand.
    Any,
    /// That or a later one.
    NotBefore(u64),
    Exactly(u64),
}

impl Page {
    pub(super) fn read(call: &Call) -> Result<Self, ApiError> {
        let query = |name: &str| call.query.get(name).filter(|v| !v.is_empty());
        let limit: i64 = query("limit").map_or(Ok(0), |l| l.parse().map_err(|_| bad_integer(l)))?;
        // It bounds watches only, but must be a number for all.
        query("timeoutSeconds").map_or(Ok(0), |s| s.parse::<i64>().map_err(|_| bad_integer(s)))?;
        check_options(call)?;
        let asked = query("resourceVersion");
        let number = asked.map(revision).transpose()?;
        let limit = usize::try_from(limit).unwrap_or(0);
        if let Some(token) = query("continue") {
            if asked.is_some_and(|a| a != "0") {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let Place { revision, after, left } = decode(token)?;
            let revision = revision.map_or(Wanted::Newest, Wanted::Exactly);
            return Ok(Self { limit, after: Some(after), left, revision });
        }
        let exact = query("resourceVersionMatch") == Some("Exact");
        let revision = match number {
            None => Wanted::Newest,
            Some(0) => Wanted::Any,
            Some(n) if exact => Wanted::Exactly(n),
            Some(n) => Wanted::NotBefore(n),
        };
        Ok(Self { limit, after: None, left: None, revision })
    }
}

/// A resourceVersion as a number.
pub(super) fn revision(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        let text = go::quote(text);
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text}: strconv.ParseUint: parsing {text}: invalid syntax"
        ))
    })
}

/// Which options of a list may go together.
fn check_options(call: &Call) -> Result<(), ApiError> {
    let query = |name: &str| call.query.get(name).filter(|v| !v.is_empty());
    let (rule, asked) = (query("resourceVersionMatch"), query("resourceVersion"));
    let mut errors = Vec::new();
    if let Some(rule) = rule {
        let path = "resourceVersionMatch";
        if asked.is_none() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(path, detail));
        }
        if query("continue").is_some() {
            errors.push(FieldError::forbidden(
                path,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(rule, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(path, rule, &["Exact", "NotOlderThan", ""]));
        }
        if rule == "Exact" && asked == Some("0") {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(path, detail));
        }
    }
    if query("sendInitialEvents").is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}

/// What there is at the revision that is asked for.
pub(super) async fn snapshot(target: &Target, page: &Page) -> Result<Snapshot, CacheError> {
    let cache = &target.kind.cache;
    match page.revision {
        Wanted::Newest => cache.current().await,
        Wanted::Any => Ok(cache.snapshot()),
        Wanted::NotBefore(revision) => cache.not_before(revision).await,
        Wanted::Exactly(revision) => cache.at(revision).await,
    }
}

/// 410 for a page of a revision that is gone; the token in it goes on with what is there now.
fn too_old(after: &str) -> Value {
    let mut status = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
    .to_status();
    let place = Place { revision: None, after: after.to_owned(), left: None };
    status["metadata"]["continue"] = place.to_token().into();
    status
}

/// Where a page ends.
struct Cut {
    meta: ListMeta,
    last: Option<std::sync::Arc<str>>,
}

/// Finds the end of the page.
fn cut(snapshot: &Snapshot, select: &Select, page: &Page) -> Cut {
    let mut meta = ListMeta { revision: snapshot.revision, ..ListMeta::default() };
    if page.limit == 0 {
        return Cut { meta, last: None };
    }
    let all = || snapshot.below(select.namespace.as_deref(), page.after.as_deref());
    let mut chosen = all().filter(|(_, object)| select.matches(object));
    let last = chosen.nth(page.limit - 1).map(|(key, _)| key.clone());
    if let Some(last) = &last
        && chosen.next().is_some()
    {
        // With selectors nobody has counted them all, and the first page counts for those that follow.
        let count = || match (page.left, &select.namespace) {
            (Some(left), _) => left,
            (None, None) if page.after.is_none() => snapshot.objects.len(),
            _ => all().count(),
        };
        meta.remaining = select.is_everything().then(|| count().saturating_sub(page.limit));
        let place =
            Place { revision: Some(snapshot.revision), after: last.to_string(), left: meta.remaining };
        meta.next = Some(place.to_token());
        return Cut { meta, last: Some(last.clone()) };
    }
    Cut { meta, last: None }
}

/// Where a list goes on: what a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The revision of the list; none: whatever is there then.
    revision: Option<u64>,
    /// The key after which it goes on.
    after: String,
    /// How many there are after it, if anybody has counted.
    left: Option<usize>,
}

impl Place {
    /// What a client's token stands for.
    ///
    /// # Errors
    /// 400, it is not one of ours.
    pub fn read(token: &str) -> Result<Self, ApiError> {
        decode(token)
    }

    /// As a client gets it.
    pub fn to_token(&self) -> String {
        let revision = self.revision.map_or(-1, |r| i64::try_from(r).unwrap_or(i64::MAX));
        let mut token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}\0", self.after)});
        if let Some(left) = self.left {
            token["left"] = left.into();
        }
        Self::wrapped(&token.to_string())
    }

    /// A text in the letters of a token.
    pub fn wrapped(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }
}

fn decode(token: &str) -> Result<Place, ApiError> {
    let bad = |what: &str| ApiError::bad_request(format!("continue key is not valid: {what}"));
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .or_else(|_| URL_SAFE.decode(token))
        .or_else(|_| STANDARD_NO_PAD.decode(token))
        .map_err(|e| bad(&e.to_string()))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
    if token["v"] != "meta.k8s.io/v1" {
        let version = go::quote(token["v"].as_str().unwrap_or_default());
        return Err(bad(&format!("server does not recognize this encoded version {version}")));
    }
    let start = token["start"].as_str().unwrap_or_default();
    let revision = token["rv"].as_i64().unwrap_or(0);
    match (start.strip_suffix('\0'), revision) {
        (None | Some(""), _) => Err(bad("encoded start key empty (version meta.k8s.io/v1)")),
        (_, 0) => Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        (Some(after), revision) => {
            let revision = u64::try_from(revision).ok();
            // At another revision there may be others.
            let left = token["left"].as_u64().filter(|_| revision.is_some());
            let left = left.and_then(|left| usize::try_from(left).ok());
            Ok(Place { revision, after: after.to_owned(), left })
        }
    }
}

/// Every object a selection means with its key, for deletions of many.
pub(super) async fn chosen(
    target: &Target,
    select: &Select,
    page: &Page,
) -> Result<(ListMeta, Vec<std::sync::Arc<crate::cache::Cached>>), ApiError> {
    let snapshot = select.narrow(snapshot(target, page).await?, target);
    select.convert_ahead(&snapshot).await?;
    let cut = cut(&snapshot, select, page);
    let objects = snapshot
        .below(select.namespace.as_deref(), page.after.as_deref())
        .take_while(|(key, _)| cut.last.as_ref().is_none_or(|last| *key <= last))
        .map(|(_, object)| object)
        .filter(|object| select.matches(object));
    Ok((cut.meta, objects.cloned().collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for (revision, left) in [(Some(7), Some(3)), (Some(7), None), (None, None)] {
            let place = Place { revision, after: "ns/n\u{e4}me".to_owned(), left };
            let token = place.to_token();
            assert!(token.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
            assert_eq!(decode(&token).unwrap(), place);
        }
        for bad in ["", "%", "e30", "bm8"] {
            assert!(decode(bad).unwrap_err().message.starts_with("continue key is not valid: "));
        }
    }
}
