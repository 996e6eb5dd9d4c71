//! Structs as kube-apiserver's messages show them when it prints its own form of an object: all fields, in their order, under
//! their names in the code, absent ones included.

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
    /// A struct; printed with all its fields even when absent.
    Struct(&'static [Member]),
    /// A struct behind a pointer; `null` when absent.
    Pointer(&'static [Member]),
    /// A list of structs; `null` when absent.
    List(&'static [Member]),
}

/// A field: its name in JSON, its name in the message, and its shape.
pub(crate) type Member = (&'static str, &'static str, Shape);

/// A struct.
pub(crate) fn shown(value: &Value, members: &'static [Member]) -> BadValue {
    let mut out = String::new();
    write_struct(&mut out, value, members);
    BadValue::Text(out)
}

fn write_struct(out: &mut String, value: &Value, members: &'static [Member]) {
    out.push('{');
    for (i, (json, name, shape)) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(name);
        out.push_str("\":");
        write_field(out, value.at(json), *shape);
    }
    out.push('}');
}

fn write_field(out: &mut String, value: &Value, shape: Shape) {
    match (shape, value) {
        (Shape::Text, Value::Null) => out.push_str("\"\""),
        (Shape::Number, Value::Null) => out.push('0'),
        (Shape::Flag, Value::Null) => out.push_str("false"),
        (Shape::Struct(members), value) => write_struct(out, value, members),
        (Shape::Pointer(members), Value::Object(_)) => write_struct(out, value, members),
        (Shape::List(members), Value::Array(items)) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_struct(out, item, members);
            }
            out.push(']');
        }
        (_, value) => out.push_str(&go::json(value)),
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

const PROFILE: &[Member] =
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
