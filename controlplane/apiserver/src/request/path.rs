//! From method and path to verb, resource, namespace and name, by the rules of Kubernetes paths.

use std::fmt;

use http::Method;
use percent_encoding::percent_decode_str;

use super::query::Query;

/// What is to be done, in RBAC's words; for paths that are no resource, the method's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Post,
    Put,
    Head,
    Options,
    Proxy,
    /// A method that means nothing here.
    Other,
}

impl Verb {
    /// The verb as RBAC rules and messages write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Post => "post",
            Self::Put => "put",
            Self::Head => "head",
            Self::Options => "options",
            Self::Proxy => "proxy",
            Self::Other => "",
        }
    }

    /// Whether the verb leaves everything as it is.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }

    fn of_resource(method: &Method) -> Self {
        match *method {
            Method::POST => Self::Create,
            Method::GET | Method::HEAD => Self::Get,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    fn of_path(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::HEAD => Self::Head,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path is below `/api/VERSION/` or `/apis/GROUP/VERSION/`.
    pub is_resource: bool,
    /// What is to be done.
    pub verb: Verb,
    /// The API group, empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The plural of the resource.
    pub resource: String,
    /// The part after the name.
    pub subresource: Option<String>,
    /// The namespace; for `namespaces` objects their own name, as upstream has it.
    pub namespace: Option<String>,
    /// Whether the path itself names an object.
    pub is_named: bool,
    /// The object's name; a list or watch of exactly one name (by field selector) has it too.
    pub name: Option<String>,
    /// What follows the subresource (proxies), decoded parts.
    pub rest: Vec<String>,
    /// The decoded path.
    pub path: String,
}

/// A path that begins like a resource but names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {path}")]
pub struct InvalidPath {
    path: String,
}

/// Subresources of a namespace; anything else after `namespaces/NAME/` is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method and address.
    pub fn parse(method: &Method, uri: &http::Uri) -> Result<Self, InvalidPath> {
        let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        let trimmed = path.trim_matches('/');
        let all: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let mut info = Self {
            is_resource: false,
            verb: Verb::of_path(method),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: None,
            namespace: None,
            is_named: false,
            name: None,
            rest: Vec::new(),
            path: path.clone(),
        };
        let mut parts = match all.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return Ok(info),
        };
        info.is_resource = true;
        info.verb = Verb::of_resource(method);
        if let ["watch" | "proxy", rest @ ..] = parts {
            if rest.is_empty() {
                return Err(InvalidPath { path });
            }
            info.verb = if parts[0] == "watch" { Verb::Watch } else { Verb::Proxy };
            parts = rest;
        }
        if let ["namespaces", namespace, rest @ ..] = parts {
            info.namespace = Some((*namespace).to_owned());
            if rest.first().is_some_and(|sub| !NAMESPACE_SUBRESOURCES.contains(sub)) {
                parts = rest;
            }
        }
        info.resource = parts.first().map(|p| (*p).to_owned()).unwrap_or_default();
        info.name = parts.get(1).filter(|p| !p.is_empty()).map(|p| (*p).to_owned());
        info.is_named = info.name.is_some();
        if info.verb != Verb::Proxy {
            info.subresource = parts.get(2).filter(|p| !p.is_empty()).map(|p| (*p).to_owned());
        }
        info.rest = parts.iter().skip(3).map(|p| (*p).to_owned()).collect();
        info.settle_verb(&Query::parse(uri.query().unwrap_or_default()));
        Ok(info)
    }

    /// A get without a name is a list or a watch, a delete without a name that of a collection; one exact name in
    /// the field selector counts as the name.
    fn settle_verb(&mut self, query: &Query) {
        if self.name.is_some() {
            return;
        }
        match self.verb {
            Verb::Get if query.flag("watch") => self.verb = Verb::Watch,
            Verb::Get => self.verb = Verb::List,
            Verb::Delete => self.verb = Verb::DeleteCollection,
            Verb::Watch => {}
            _ => return,
        }
        if matches!(self.verb, Verb::List | Verb::Watch) {
            self.name = query.get("fieldSelector").and_then(exact_name);
        }
    }

    /// `resource` or `resource/subresource`, as RBAC writes it.
    pub fn resource_path(&self) -> String {
        match &self.subresource {
            Some(sub) => format!("{}/{sub}", self.resource),
            None => self.resource.clone(),
        }
    }
}

/// The name a field selector demands, if it demands one that can be part of a path.
fn exact_name(selector: &str) -> Option<String> {
    let name = selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value))
    })?;
    let fits = !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '%', '\\']);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
