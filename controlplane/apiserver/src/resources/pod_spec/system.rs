//! The rules that follow from the system that a pod is made for: Linux or Windows. Fields that only the other one has must be absent.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::containers;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, one_of};

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
/// What the specification and the context of a pod cannot have on Windows.
const SPEC: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const POD_CONTEXT: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// What the context of a container cannot have there.
const CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
/// Bytes of a credential specification, at most.
const LONGEST_CREDENTIALS: usize = 64 * 1024;
const LONGEST_DOMAIN: usize = 255;
const LONGEST_USER: usize = 104;

/// The system, and what it makes of the rest.
pub(super) fn check(errors: &mut Errors, path: &Path, spec: &Value) {
    let context = path.child("securityContext");
    options(errors, &context.child("windowsOptions"), spec.at("securityContext.windowsOptions"));
    for (path, container) in each(path, spec) {
        let path = path.child("securityContext.windowsOptions");
        options(errors, &path, container.at("securityContext.windowsOptions"));
    }
    host_process(errors, path, spec);
    if !spec.has("os") {
        return;
    }
    match spec.text("os.name") {
        "" => errors.push(FieldError::required(path.child("os.name"), "")),
        "linux" => linux(errors, path, spec),
        "windows" => windows(errors, path, spec),
        other => one_of(errors, &path.child("os"), other, &["linux", "windows"]),
    }
}

/// All containers with their paths.
fn each<'a>(path: &'a Path, spec: &'a Value) -> impl Iterator<Item = (Path, &'a Value)> {
    containers::all(spec).into_iter().flat_map(move |(list, containers)| {
        containers.iter().enumerate().map(move |(i, container)| (path.child(list).index(i), container))
    })
}

fn linux(errors: &mut Errors, path: &Path, spec: &Value) {
    let field = "securityContext.windowsOptions";
    if spec.has(field) {
        errors.push(FieldError::forbidden(path.child(field), NOT_ON_LINUX));
    }
    for (path, container) in each(path, spec).filter(|(_, container)| container.has(field)) {
        let _ = container;
        errors.push(FieldError::forbidden(path.child(field), NOT_ON_LINUX));
    }
}

fn windows(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut refuse = |path: &Path, of: &Value, fields: &[&str]| {
        for field in fields {
            let there = match of.at(field) {
                Value::Null | Value::Bool(false) if matches!(*field, "hostPID" | "hostIPC") => false,
                Value::Array(items) => !items.is_empty(),
                other => !other.is_null(),
            };
            if there {
                errors.push(FieldError::forbidden(path.child(field), NOT_ON_WINDOWS));
            }
        }
    };
    refuse(path, spec, &SPEC);
    refuse(&path.child("securityContext"), spec.at("securityContext"), &POD_CONTEXT);
    for (path, container) in each(path, spec) {
        refuse(&path.child("securityContext"), container.at("securityContext"), &CONTEXT);
    }
}

/// The options that only Windows has.
fn options(errors: &mut Errors, path: &Path, options: &Value) {
    if let Some(name) = options.some_text("gmsaCredentialSpecName") {
        names(errors, &path.child("gmsaCredentialSpecName"), name, labels::dns_subdomain(name));
    }
    if let Some(text) = options.some_text("gmsaCredentialSpec") {
        let complaint = match text.len() {
            0 => "gmsaCredentialSpec cannot be an empty string",
            length if length > LONGEST_CREDENTIALS => "gmsaCredentialSpec size must be under 64 KiB",
            _ => "",
        };
        if !complaint.is_empty() {
            errors.push(FieldError::invalid(path.child("gmsaCredentialSpec"), text, complaint));
        }
    }
    if let Some(user) = options.some_text("runAsUserName") {
        for complaint in user_name(user) {
            errors.push(FieldError::invalid(path.child("runAsUserName"), user, complaint));
        }
    }
}

/// A user, with or without a domain before it.
fn user_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut tell = |when: bool, text: &str| {
        if when {
            out.push(format!("runAsUserName{text}"));
        }
    };
    let parts: Vec<&str> = text.split('\\').collect();
    let (domain, user) = if parts.len() > 1 { (Some(parts[0]), parts[1]) } else { (None, text) };
    tell(text.is_empty(), " cannot be an empty string");
    tell(text.chars().any(char::is_control), " cannot contain control characters");
    tell(parts.len() > 2, " cannot contain more than one backslash");
    if let Some(domain) = domain {
        tell(domain.is_empty(), "'s Domain doesn't match the NetBios nor the DNS format");
        tell(
            domain.len() > LONGEST_DOMAIN,
            &format!("'s Domain length must be under {LONGEST_DOMAIN} characters"),
        );
    }
    tell(!text.is_empty() && user.is_empty(), "'s User cannot be empty");
    tell(
        user.chars().count() > LONGEST_USER,
        &format!("'s User length must not be longer than {LONGEST_USER} characters"),
    );
    let spaces = !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ');
    tell(spaces, "'s User cannot contain only periods or spaces");
    tell(
        user.chars().any(|c| "\"/\\:;|=,+*?<>@[]".contains(c)),
        "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
    );
    out
}

/// Processes of the host: all containers are such, or none, and they use the host's network.
fn host_process(errors: &mut Errors, path: &Path, spec: &Value) {
    let of_pod = spec.some_flag("securityContext.windowsOptions.hostProcess");
    let (mut host, mut total, mut differs) = (0, 0, false);
    for (path, container) in each(path, spec) {
        total += 1;
        let own = container.some_flag("securityContext.windowsOptions.hostProcess");
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            differs = true;
            let text = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let path = path.child("securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(path, own, text));
        }
        host += i32::from(own.or(of_pod).unwrap_or_default());
    }
    if host == 0 {
        return;
    }
    if host != total && !differs {
        let text =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", text));
    }
    if !spec.flag("hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(path.child("hostNetwork"), false, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn systems() {
        let texts = |spec: Value| {
            let mut errors = Errors::new();
            check(&mut errors, &Path::new("s"), &spec);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        for (spec, expected) in [
            (json!({}), ""),
            (json!({"os": {"name": "linux"}}), ""),
            (json!({"os": {}}), "s.os.name: Required value"),
            (
                json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}}),
                "s.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ),
            (
                json!({"os": {"name": "windows"}, "hostPID": false, "securityContext": {"fsGroup": 1},
                    "containers": [{"securityContext": {"privileged": false}}]}),
                "s.securityContext.fsGroup: Forbidden: cannot be set for a windows pod; \
                 s.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ),
            (
                json!({"containers": [{"securityContext": {"windowsOptions": {"hostProcess": true}}}]}),
                "s.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ),
        ] {
            assert_eq!(texts(spec.clone()), expected, "{spec}");
        }
        assert_eq!(user_name("a\\b"), Vec::<String>::new());
        assert_eq!(user_name("a\\"), ["runAsUserName's User cannot be empty"]);
    }
}
