//! What a definition's resource may be called: its names, its group, and the groups that are Kubernetes' own.

use http::Uri;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, required};

/// The annotation by which a definition in a group of the Kubernetes community says who approved of it.
const APPROVED: &str = "api-approved.kubernetes.io";

/// The group of a specification.
pub(super) fn group(errors: &mut Errors, path: &Path, group: &str) {
    if !required(errors, path, group) {
        return;
    }
    let complaints = labels::dns_subdomain(group);
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, group, complaints.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
    }
}

/// The names that a specification must have.
pub(super) fn all_there(errors: &mut Errors, path: &Path, names: &Value) {
    for name in ["plural", "singular", "kind", "listKind"] {
        required(errors, &path.child(name), names.text(name));
    }
}

/// Names, wanted or accepted; those that are not there are not looked at.
pub(super) fn names(errors: &mut Errors, path: &Path, names: &Value) {
    for name in ["plural", "singular"] {
        let text = names.text(name);
        let complaints = labels::dns1035_label(text);
        if !text.is_empty() && !complaints.is_empty() {
            errors.push(FieldError::invalid(path.child(name), text, complaints.join(",")));
        }
    }
    for name in ["kind", "listKind"] {
        let text = names.text(name);
        let complaints = labels::dns1035_label(&text.to_lowercase());
        if !text.is_empty() && !complaints.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
            errors.push(FieldError::invalid(path.child(name), text, detail));
        }
    }
    let (kind, list_kind) = (names.text("kind"), names.text("listKind"));
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(path.child("listKind"), list_kind, detail));
    }
    for list in ["shortNames", "categories"] {
        for (at, text) in names.texts(list).enumerate() {
            let complaints = labels::dns1035_label(text);
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(path.child(list).index(at), text, complaints.join(",")));
            }
        }
    }
}

/// Whether a group is one of the Kubernetes community, whose definitions must be approved of.
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// What an annotation says of a definition's approval.
#[derive(Debug, PartialEq)]
pub(super) enum Approval {
    /// Nothing.
    Missing(String),
    /// It says that there is none.
    Bypassed(String),
    /// It says where.
    Approved(String),
    /// Something else.
    Invalid(String),
}

/// The approval of a definition, and what to tell about it.
pub(super) fn approval(definition: &Value) -> Approval {
    let text = labels::annotation(definition, APPROVED).unwrap_or_default();
    let quoted = format!("protected groups must have approval annotation \"{APPROVED}\"");
    let source = "see https://github.com/kubernetes/enhancements/pull/1111";
    if text.is_empty() {
        return Approval::Missing(format!("{quoted}, {source}"));
    }
    if text.starts_with("unapproved") {
        return Approval::Bypassed(format!("not approved: {}", pagurus_controlplane_api::go::quote(text)));
    }
    let is_url = text.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
    if is_url {
        return Approval::Approved(format!("approved in {text}"));
    }
    Approval::Invalid(format!(
        "{quoted} with either a URL or a reason starting with \"unapproved\", {source}"
    ))
}

/// The approval that a definition in a protected group needs. One that has not changed is not looked at.
pub(super) fn approved(errors: &mut Errors, definition: &Value, old: Option<&Value>) {
    if !is_protected(definition.text("spec.group")) {
        return;
    }
    let new = approval(definition);
    if old.is_some_and(|old| std::mem::discriminant(&approval(old)) == std::mem::discriminant(&new)) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    match new {
        Approval::Missing(why) => errors.push(FieldError::required(path, why)),
        Approval::Invalid(why) => {
            let text = labels::annotation(definition, APPROVED).unwrap_or_default();
            errors.push(FieldError::invalid(path, text, why));
        }
        Approval::Approved(_) | Approval::Bypassed(_) => {}
    }
}

/// What the condition `KubernetesAPIApprovalPolicyConformant` of a definition says: whether it holds, the reason and the message. None
/// outside of protected groups.
pub(crate) fn approval_condition(definition: &Value) -> Option<(bool, &'static str, String)> {
    if !is_protected(definition.text("spec.group")) {
        return None;
    }
    Some(match approval(definition) {
        Approval::Missing(why) => (false, "MissingAnnotation", why),
        Approval::Invalid(why) => (false, "InvalidAnnotation", why),
        Approval::Bypassed(why) => (false, "UnapprovedAnnotation", why),
        Approval::Approved(why) => (true, "ApprovedAnnotation", why),
    })
}
