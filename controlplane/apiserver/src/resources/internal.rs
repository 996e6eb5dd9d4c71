//! Structs as kube-apiserver's messages show them when it prints its own form of an object: all fields, in their order, under
//! their names in the code, absent ones included.

pub(crate) mod pod;
pub(crate) mod volume;

use pagurus_controlplane_api::field::BadValue;
use pagurus_controlplane_api::go;
use serde_json::Value;

use super::fields::Fields;

/// What a field looks like when it is printed.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Any JSON value; `null` when absent.
    Any,
    /// Text; empty when absent.
    Text,
    /// A number; 0 when absent.
    Number,
    /// A boolean; false when absent.
    Flag,
    /// A quantity; `0` when absent.
    Quantity,
    /// A struct; printed with all its fields even when absent.
    Struct(&'static [Member]),
    /// A struct behind a pointer; `null` when absent.
    Pointer(&'static [Member]),
    /// A list of structs; `null` when absent.
    List(&'static [Member]),
    /// A label selector; printed as in JSON.
    Selector,
    /// The labels and annotations of embedded metadata; printed as in JSON, among the struct's own fields.
    Metadata,
}

/// A field: its name in JSON, its name in the message, and its shape.
pub(crate) type Member = (&'static str, &'static str, Shape);

/// A value with its fields in order.
enum Node {
    Leaf(String),
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
}

/// A struct on one line.
pub(crate) fn shown(value: &Value, members: &'static [Member]) -> BadValue {
    let mut out = String::new();
    write_compact(&mut out, &node(value, members));
    BadValue::Text(out)
}

/// A struct on many lines, each level indented by one space.
pub(crate) fn indented(value: &Value, members: &'static [Member]) -> String {
    let mut out = String::new();
    write_indented(&mut out, &node(value, members), 0);
    out
}

fn node(value: &Value, members: &'static [Member]) -> Node {
    let mut fields = Vec::with_capacity(members.len());
    for (json, name, shape) in members {
        if matches!(shape, Shape::Metadata) {
            for part in ["name", "namespace", "labels", "annotations"] {
                let value = value.at("metadata").at(part);
                if !super::fields::is_zero(value) {
                    fields.push((part.to_owned(), plain(value)));
                }
            }
            continue;
        }
        fields.push(((*name).to_owned(), field(value.at(json), *shape)));
    }
    Node::Object(fields)
}

fn field(value: &Value, shape: Shape) -> Node {
    let leaf = |text: &str| Node::Leaf(text.to_owned());
    match (shape, value) {
        (Shape::Text, Value::Null) => leaf("\"\""),
        (Shape::Number, Value::Null) => leaf("0"),
        (Shape::Flag, Value::Null) => leaf("false"),
        (Shape::Quantity, Value::Null) => leaf("\"0\""),
        (Shape::Struct(members), value) => node(value, members),
        (Shape::Pointer(members), Value::Object(_)) => node(value, members),
        (Shape::List(members), Value::Array(items)) => {
            Node::Array(items.iter().map(|item| node(item, members)).collect())
        }
        (Shape::Selector, Value::Object(_)) => selector(value),
        (_, value) => plain(value),
    }
}

fn selector(value: &Value) -> Node {
    let mut fields = Vec::new();
    if value.entries("matchLabels").next().is_some() {
        fields.push(("matchLabels".to_owned(), plain(value.at("matchLabels"))));
    }
    let expressions = value.items("matchExpressions");
    if !expressions.is_empty() {
        let items = expressions.iter().map(|entry| {
            let parts = ["key", "operator", "values"].iter();
            let there = parts.filter(|part| !super::fields::is_zero(entry.at(part)));
            Node::Object(there.map(|part| ((*part).to_owned(), plain(entry.at(part)))).collect())
        });
        fields.push(("matchExpressions".to_owned(), Node::Array(items.collect())));
    }
    Node::Object(fields)
}

fn plain(value: &Value) -> Node {
    match value {
        Value::Object(fields) => Node::Object(fields.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        Value::Array(items) => Node::Array(items.iter().map(plain).collect()),
        other => Node::Leaf(go::json(other)),
    }
}

fn write_compact(out: &mut String, node: &Node) {
    match node {
        Node::Leaf(text) => out.push_str(text),
        Node::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                out.push_str(&go::json(&Value::from(name.as_str())));
                out.push(':');
                write_compact(out, value);
            }
            out.push('}');
        }
        Node::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_compact(out, item);
            }
            out.push(']');
        }
    }
}

fn write_indented(out: &mut String, node: &Node, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&" ".repeat(depth));
    };
    match node {
        Node::Leaf(text) => out.push_str(text),
        Node::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Node::Array(items) if items.is_empty() => out.push_str("[]"),
        Node::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                out.push_str(&go::json(&Value::from(name.as_str())));
                out.push_str(": ");
                write_indented(out, value, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        Node::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                write_indented(out, item, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
    }
}

/// A toleration.
pub(crate) const TOLERATION: &[Member] = &[
    ("key", "Key", Shape::Text),
    ("operator", "Operator", Shape::Text),
    ("value", "Value", Shape::Text),
    ("effect", "Effect", Shape::Text),
    ("tolerationSeconds", "TolerationSeconds", Shape::Any),
];

/// A taint.
pub(crate) const TAINT: &[Member] = &[
    ("key", "Key", Shape::Text),
    ("value", "Value", Shape::Text),
    ("effect", "Effect", Shape::Text),
    ("timeAdded", "TimeAdded", Shape::Any),
];

/// A driver's entry in a CSINode.
pub(crate) const CSI_NODE_DRIVER: &[Member] = &[
    ("name", "Name", Shape::Text),
    ("nodeID", "NodeID", Shape::Text),
    ("topologyKeys", "TopologyKeys", Shape::Any),
    ("allocatable", "Allocatable", Shape::Pointer(&[("count", "Count", Shape::Any)])),
];

/// A port of a Service.
pub(crate) const SERVICE_PORT: &[Member] = &[
    ("name", "Name", Shape::Text),
    ("protocol", "Protocol", Shape::Text),
    ("appProtocol", "AppProtocol", Shape::Any),
    ("port", "Port", Shape::Number),
    ("targetPort", "TargetPort", Shape::Number),
    ("nodePort", "NodePort", Shape::Number),
];

/// What a binding binds to.
pub(crate) const ROLE_REF: &[Member] =
    &[("apiGroup", "APIGroup", Shape::Text), ("kind", "Kind", Shape::Text), ("name", "Name", Shape::Text)];

pub(crate) const PROFILE: &[Member] =
    &[("type", "Type", Shape::Text), ("localhostProfile", "LocalhostProfile", Shape::Any)];

/// The security context of a container.
pub(crate) const SECURITY_CONTEXT: &[Member] = &[
    (
        "capabilities",
        "Capabilities",
        Shape::Pointer(&[("add", "Add", Shape::Any), ("drop", "Drop", Shape::Any)]),
    ),
    ("privileged", "Privileged", Shape::Any),
    (
        "seLinuxOptions",
        "SELinuxOptions",
        Shape::Pointer(&[
            ("user", "User", Shape::Text),
            ("role", "Role", Shape::Text),
            ("type", "Type", Shape::Text),
            ("level", "Level", Shape::Text),
        ]),
    ),
    (
        "windowsOptions",
        "WindowsOptions",
        Shape::Pointer(&[
            ("gmsaCredentialSpecName", "GMSACredentialSpecName", Shape::Any),
            ("gmsaCredentialSpec", "GMSACredentialSpec", Shape::Any),
            ("runAsUserName", "RunAsUserName", Shape::Any),
            ("hostProcess", "HostProcess", Shape::Any),
        ]),
    ),
    ("runAsUser", "RunAsUser", Shape::Any),
    ("runAsGroup", "RunAsGroup", Shape::Any),
    ("runAsNonRoot", "RunAsNonRoot", Shape::Any),
    ("readOnlyRootFilesystem", "ReadOnlyRootFilesystem", Shape::Any),
    ("allowPrivilegeEscalation", "AllowPrivilegeEscalation", Shape::Any),
    ("procMount", "ProcMount", Shape::Any),
    ("seccompProfile", "SeccompProfile", Shape::Pointer(PROFILE)),
    ("appArmorProfile", "AppArmorProfile", Shape::Pointer(PROFILE)),
];

/// One requirement of a node selector term.
const NODE_REQUIREMENT: &[Member] =
    &[("key", "Key", Shape::Text), ("operator", "Operator", Shape::Text), ("values", "Values", Shape::Any)];

/// A term of a node selector.
pub(crate) const NODE_SELECTOR_TERM: &[Member] = &[
    ("matchExpressions", "MatchExpressions", Shape::List(NODE_REQUIREMENT)),
    ("matchFields", "MatchFields", Shape::List(NODE_REQUIREMENT)),
];

/// The strategy of a Deployment.
pub(crate) const DEPLOYMENT_STRATEGY: &[Member] = &[
    ("type", "Type", Shape::Text),
    (
        "rollingUpdate",
        "RollingUpdate",
        Shape::Pointer(&[
            ("maxUnavailable", "MaxUnavailable", Shape::Any),
            ("maxSurge", "MaxSurge", Shape::Any),
        ]),
    ),
];

/// How a StatefulSet rolls an update out.
pub(crate) const STATEFUL_SET_ROLLING_UPDATE: &[Member] =
    &[("partition", "Partition", Shape::Number), ("maxUnavailable", "MaxUnavailable", Shape::Any)];

/// The update strategy of a StatefulSet.
pub(crate) const STATEFUL_SET_STRATEGY: &[Member] = &[
    ("type", "Type", Shape::Text),
    ("rollingUpdate", "RollingUpdate", Shape::Pointer(STATEFUL_SET_ROLLING_UPDATE)),
];

/// The scopes that a quota is narrowed to.
pub(crate) const SCOPE_SELECTOR: &[Member] = &[(
    "matchExpressions",
    "MatchExpressions",
    Shape::List(&[
        ("scopeName", "ScopeName", Shape::Text),
        ("operator", "Operator", Shape::Text),
        ("values", "Values", Shape::Any),
    ]),
)];

/// A reference to an object.
pub(crate) const OBJECT_REFERENCE: &[Member] = &[
    ("kind", "Kind", Shape::Text),
    ("namespace", "Namespace", Shape::Text),
    ("name", "Name", Shape::Text),
    ("uid", "UID", Shape::Text),
    ("apiVersion", "APIVersion", Shape::Text),
    ("resourceVersion", "ResourceVersion", Shape::Text),
    ("fieldPath", "FieldPath", Shape::Text),
];

#[cfg(test)]
mod tests {
    use super::*;
    use pagurus_controlplane_api::field::FieldError;
    use serde_json::json;

    #[test]
    fn structs() {
        let error = FieldError::duplicate("t", shown(&json!({"key": "k", "operator": "Exists"}), TOLERATION));
        assert_eq!(
            error.body(),
            r#"Duplicate value: {"Key":"k","Operator":"Exists","Value":"","Effect":"","TolerationSeconds":null}"#
        );
    }
}
