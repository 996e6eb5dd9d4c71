//! The parameters of operations: their names, places and types, and which of them documents of version 2 keep in one place. It must not
//! know operations.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schema::{self, reference};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    place: &'static str,
    type_: &'static str,
    /// Under which name all share it in documents of version 2; none share it if empty.
    shared: &'static str,
    description: Cow<'static, str>,
}

const fn query(
    name: &'static str,
    type_: &'static str,
    shared: &'static str,
    description: &'static str,
) -> Parameter {
    Parameter { name, place: "query", type_, shared, description: Cow::Borrowed(description) }
}

const DRY_RUN: Parameter = query("dryRun", "string", "", "All: everything but the storing happens");
const VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "",
    "What happens to unknown and doubled fields: Ignore, Warn or Strict",
);
const MANAGER: Parameter =
    query("fieldManager", "string", "fieldManager-Qy4HdaTW", "Name of the actor that makes the change");
const PATCH_MANAGER: Parameter = query(
    "fieldManager",
    "string",
    "fieldManager-7c6nTn1T",
    "Name of the actor that makes the change; apply cannot do without",
);
const FORCE: Parameter =
    query("force", "boolean", "force-tOGGb0Yi", "Apply takes over fields that others own");
/// What every operation on objects has.
pub(super) const PRETTY: Parameter = query("pretty", "string", "pretty-tJGM1-ng", "Indent the answer");
/// In paths of what lives in a namespace.
pub(super) const NAMESPACE: Parameter = Parameter {
    name: "namespace",
    place: "path",
    type_: "string",
    shared: "namespace-vgWSWtn3",
    description: Cow::Borrowed("Namespace of the object"),
};
/// In paths of proxies.
pub(super) const PATH: Parameter = Parameter {
    name: "path",
    place: "path",
    type_: "string",
    shared: "path-z6Ciiujn",
    description: Cow::Borrowed("Path at what is proxied to"),
};

/// Of creations and replacements.
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
/// Of patches.
pub(super) const PATCH: &[Parameter] = &[DRY_RUN, PATCH_MANAGER, VALIDATION, FORCE];
/// Of deletions.
pub(super) const DELETE: &[Parameter] = &[
    DRY_RUN,
    query(
        "gracePeriodSeconds",
        "integer",
        "gracePeriodSeconds--K5HaBOS",
        "Seconds before the object goes; zero means at once",
    ),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "ignoreStoreReadErrorWithClusterBreakingPotential-QbNkfIqj",
        "Delete even what cannot be read",
    ),
    query("orphanDependents", "boolean", "orphanDependents-uRB25kX5", "Deprecated: see propagationPolicy"),
    query(
        "propagationPolicy",
        "string",
        "propagationPolicy-6jk3prlO",
        "What happens to dependents: Orphan, Background or Foreground",
    ),
];
/// Of lists, watches and deletions of many.
pub(super) const SELECT: &[Parameter] = &[
    query("continue", "string", "continue-QfD61s0i", "Token of the previous page"),
    query("fieldSelector", "string", "fieldSelector-xIcQKXFG", "Restricts by fields"),
    query("labelSelector", "string", "labelSelector-5Zw57w4C", "Restricts by labels"),
    query("limit", "integer", "limit-1NfNmdNH", "Items in one page"),
    query("resourceVersion", "string", "resourceVersion-5WAnf1kx", "How fresh the answer must be"),
    query(
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch-t8XhRHeC",
        "How resourceVersion is meant: Exact or NotOlderThan",
    ),
    query("sendInitialEvents", "boolean", "sendInitialEvents-rLXlEK_k", "A watch begins with what is there"),
    query(
        "shardSelector",
        "string",
        "shardSelector-Kgyki_3_",
        "Restricts to a part of all objects; without effect unless a feature is on",
    ),
    query("timeoutSeconds", "integer", "timeoutSeconds-yvYezaOC", "Seconds after which the call ends"),
];
/// Of lists and watches.
pub(super) const WATCH: &[Parameter] = &[
    query("allowWatchBookmarks", "boolean", "allowWatchBookmarks-HC2hJt-J", "A watch may send bookmarks"),
    query("watch", "boolean", "watch-XNNPZGbK", "Send changes as they happen"),
];
const LOG: &[Parameter] = &[
    query(
        "container",
        "string",
        "container-1GeXxFDC",
        "Container whose log it is; may be left out if there is one",
    ),
    query("follow", "boolean", "follow-9OIXh_2R", "Go on while the container writes"),
    query(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "insecureSkipTLSVerifyBackend-gM00jVbe",
        "Do not check the certificate of the node's agent",
    ),
    query("limitBytes", "integer", "limitBytes-zwd1RXuc", "End after so many bytes"),
    query("previous", "boolean", "previous-1jxDPu3y", "The log of the container before the present one"),
    query("sinceSeconds", "integer", "sinceSeconds-vE2NLdnP", "Begin so many seconds ago"),
    query("stream", "string", "stream-l-48cgXv", "Which stream: All, Stdout or Stderr"),
    query("tailLines", "integer", "tailLines-9xQLWHMV", "Begin so many lines before the end"),
    query("timestamps", "boolean", "timestamps-c17fW1w_", "Begin each line with its time"),
];
const EXEC: &[Parameter] = &[
    query("command", "string", "command-Py3eQybp", "Command and its arguments, one each; no shell"),
    query(
        "container",
        "string",
        "container-i5dOmRiM",
        "Container to run it in; may be left out if there is one",
    ),
    query("stderr", "boolean", "stderr-W_1TNlWc", "Connect standard error"),
    query("stdin", "boolean", "stdin-PSzNhyUC", "Connect standard input"),
    query("stdout", "boolean", "stdout--EZLRwV1", "Connect standard output"),
    query("tty", "boolean", "tty-s0flW37O", "Give it a terminal"),
];
const ATTACH: &[Parameter] = &[
    query(
        "container",
        "string",
        "container-_Q-EJ3nR",
        "Container to attach to; may be left out if there is one",
    ),
    query("stderr", "boolean", "stderr-26jJhFUR", "Connect its standard error"),
    query("stdin", "boolean", "stdin-sEFnN3IS", "Connect its standard input"),
    query("stdout", "boolean", "stdout-005YMKE6", "Connect its standard output"),
    query("tty", "boolean", "tty-g7MlET_l", "It has a terminal"),
];
const PORTS: &[Parameter] =
    &[query("ports", "integer", "ports-91KROJmm", "Ports to forward; WebSockets cannot do without")];
const POD_PATH: &[Parameter] = &[query("path", "string", "path-oPbzgLUj", "Path at the pod")];
const NODE_PATH: &[Parameter] = &[query("path", "string", "path-rFDtV0x9", "Path at the node")];
const SERVICE_PATH: &[Parameter] = &[query("path", "string", "path-QCf0eosM", "Path at the service")];

/// Those of a connection with options of this kind.
pub(super) fn of_options(kind: &str) -> &'static [Parameter] {
    match kind {
        "PodExecOptions" => EXEC,
        "PodAttachOptions" => ATTACH,
        "PodPortForwardOptions" => PORTS,
        "PodProxyOptions" => POD_PATH,
        "NodeProxyOptions" => NODE_PATH,
        "ServiceProxyOptions" => SERVICE_PATH,
        _ => &[],
    }
}

/// Those of a subresource's reads.
pub(super) fn of_read(subresource: &str) -> &'static [Parameter] {
    if subresource == "log" { LOG } else { &[] }
}

/// The name in a path.
pub(super) fn name(kind: &str) -> Parameter {
    let description = Cow::Owned(format!("name of the {kind}"));
    Parameter { name: "name", place: "path", type_: "string", shared: "", description }
}

impl Parameter {
    /// Sorts as documents do: by name, those of paths before those of queries.
    pub(super) fn rank(&self) -> (&'static str, &'static str) {
        (self.name, self.place)
    }

    /// As it stands at an operation or a path.
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        if dialect == Dialect::V2 && !self.shared.is_empty() {
            return json!({"$ref": format!("#/parameters/{}", self.shared)});
        }
        self.whole(dialect)
    }

    fn whole(&self, dialect: Dialect) -> Value {
        let mut out = json!({"in": self.place, "name": self.name, "description": self.description});
        match dialect {
            Dialect::V2 => {
                out["type"] = json!(self.type_);
                out["uniqueItems"] = json!(true);
            }
            Dialect::V3 => out["schema"] = json!({"type": self.type_, "uniqueItems": true}),
        }
        if self.place == "path" {
            out["required"] = json!(true);
        }
        out
    }
}

/// Under which name bodies of this schema are shared in documents of version 2.
pub(super) fn shared_body(schema: &str) -> Option<&'static str> {
    match schema {
        DELETE_OPTIONS => Some("body-2Y1dVQaQ"),
        schema::PATCH => Some("body-78PwaGsr"),
        _ => None,
    }
}

/// The parameters that documents of version 2 keep in one place, by their names.
pub(super) fn shared() -> Map<String, Value> {
    let single = [PRETTY, NAMESPACE, PATH];
    let sets = [
        WRITE,
        PATCH,
        DELETE,
        SELECT,
        WATCH,
        LOG,
        EXEC,
        ATTACH,
        PORTS,
        POD_PATH,
        NODE_PATH,
        SERVICE_PATH,
        &single,
    ];
    let all = sets.into_iter().flatten();
    let mut out: Map<String, Value> = all
        .filter(|parameter| !parameter.shared.is_empty())
        .map(|parameter| (parameter.shared.to_owned(), parameter.whole(Dialect::V2)))
        .collect();
    for (schema, required) in [(DELETE_OPTIONS, false), (schema::PATCH, true)] {
        let mut body = json!({"in": "body", "name": "body", "schema": reference(Dialect::V2, schema)});
        if required {
            body["required"] = json!(true);
        }
        out.extend(shared_body(schema).map(|name| (name.to_owned(), body)));
    }
    out
}
