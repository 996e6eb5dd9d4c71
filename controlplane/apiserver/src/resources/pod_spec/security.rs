//! The rules for security contexts.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::internal::{SECURITY_CONTEXT, shown};
use crate::resources::rules::{Errors, in_range, one_of, optional_one_of, required, unreserved_path};

const MAX_ID: i64 = i32::MAX as i64;

fn id(errors: &mut Errors, path: &Path, id: Option<i64>) {
    if let Some(id) = id {
        in_range(errors, path, id, 0, MAX_ID);
    }
}

/// The security context of a pod, and what depends on the host's namespaces.
pub(super) fn pod(errors: &mut Errors, path: &Path, spec: &Value) {
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("securityContext.shareProcessNamespace"), true, text));
    }
    if spec.some_flag("hostUsers") == Some(false) {
        // Two of the paths begin in upper case, which clients see.
        for (field, told) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if spec.flag(field) {
                let text = "when `hostUsers` is false";
                errors.push(FieldError::forbidden(path.child(told), text));
            }
        }
    }
    let context = spec.at("securityContext");
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, &path.child(field), context.some_int(field));
    }
    for (i, group) in context.items("supplementalGroups").iter().enumerate() {
        id(errors, &path.child("supplementalGroups").index(i), group.as_i64());
    }
    sysctls(errors, &path.child("sysctls"), context.items("sysctls"), spec);
    let policy = context.some_text("fsGroupChangePolicy");
    optional_one_of(errors, &path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    let policy = context.some_text("supplementalGroupsPolicy");
    optional_one_of(errors, &path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    let policy = context.some_text("seLinuxChangePolicy");
    optional_one_of(errors, &path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    profiles(errors, &path, context);
}

fn sysctls(errors: &mut Errors, path: &Path, sysctls: &[Value], spec: &Value) {
    let mut taken = HashSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let (path, name) = (path.index(i).child("name"), sysctl.text("name"));
        if !required(errors, &path, name) {
            continue;
        }
        if !is_sysctl(name) {
            let text = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(&path, name, text));
        } else if !taken.insert(name.replace('/', ".")) {
            errors.push(FieldError::duplicate(&path, name));
        }
        let shared = ["hostNetwork", "hostIPC"].into_iter().find(|host| {
            let prefixes: &[&str] = if *host == "hostNetwork" { &["net."] } else { &IPC };
            spec.flag(host) && prefixes.iter().any(|prefix| name.replace('/', ".").starts_with(prefix))
        });
        if let Some(host) = shared {
            let text = format!("may not be specified when '{host}' is true");
            errors.push(FieldError::invalid(&path, name, text));
        }
    }
}

/// What the settings of the IPC namespace begin with.
const IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

fn is_sysctl(name: &str) -> bool {
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let outer = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|&c| outer(c))
                && bytes.last().is_some_and(|&c| outer(c))
                && bytes.iter().all(|&c| outer(c) || matches!(c, b'-' | b'_'))
        })
}

/// The seccomp and AppArmor profiles of a context.
fn profiles(errors: &mut Errors, path: &Path, context: &Value) {
    profile(errors, &path.child("seccompProfile"), context.at("seccompProfile"), "seccomp");
    profile(errors, &path.child("appArmorProfile"), context.at("appArmorProfile"), "AppArmor");
}

fn profile(errors: &mut Errors, path: &Path, profile: &Value, noun: &str) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    let local = path.child("localhostProfile");
    match (kind, profile.some_text("localhostProfile")) {
        ("Localhost", None) => {
            errors.push(FieldError::required(&local, format!("must be set when {noun} type is Localhost")));
        }
        ("Localhost", Some(place)) if noun == "seccomp" => unreserved_path(errors, &local, place),
        ("Localhost", Some(place)) => {
            if place.trim() != place {
                errors.push(FieldError::invalid(&local, place, "must not be padded with whitespace"));
            } else if place.is_empty() {
                let text = "must be set when AppArmor type is Localhost";
                errors.push(FieldError::required(&local, text));
            }
        }
        (_, Some(place)) => {
            let text = format!("can only be set when {noun} type is Localhost");
            errors.push(FieldError::invalid(&local, place, text));
        }
        (_, None) => {}
    }
    if kind.is_empty() {
        let field = if noun == "seccomp" { "seccompProfile" } else { "appArmorProfile" };
        let text = format!("type is required when {field} is set");
        errors.push(FieldError::required(path.child("type"), text));
    } else {
        one_of(errors, &path.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
}

/// The security context of a container.
pub(super) fn container(errors: &mut Errors, path: &Path, context: &Value, spec: &Value) {
    if context.is_null() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(errors, &path.child(field), context.some_int(field));
    }
    if let Some(mount) = context.some_text("procMount") {
        let path = path.child("procMount");
        one_of(errors, &path, mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && spec.some_flag("hostUsers") != Some(false) {
            let text = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(&path, mount, text));
        }
    }
    profiles(errors, path, context);
    if context.some_flag("allowPrivilegeEscalation") == Some(false) {
        let privileged = context.flag("privileged");
        let admin = context.texts("capabilities.add").any(|c| c == "CAP_SYS_ADMIN");
        for (bad, text) in [
            (privileged, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
            (admin, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
        ] {
            if bad {
                errors.push(FieldError::invalid(path, shown(context, SECURITY_CONTEXT), text));
            }
        }
    }
}
