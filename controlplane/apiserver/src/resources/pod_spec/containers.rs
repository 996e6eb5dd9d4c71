//! The rules for containers: ordinary ones, init containers and ephemeral ones.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::{env, probes, requirements, security, volume_mounts};
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, one_of, required, required_one_of};

/// The policies by which the kubelet fetches images.
pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// All lists of containers with their names.
pub(super) fn all(spec: &Value) -> [(&'static str, &[Value]); 3] {
    ["initContainers", "containers", "ephemeralContainers"].map(|list| (list, spec.items(list)))
}

/// What a container may refer to.
pub(super) struct Scope<'a> {
    volumes: &'a HashSet<String>,
    spec: &'a Value,
    claims: &'a HashSet<String>,
    /// Whether the specification stands in a Pod of its own, not in a template.
    in_pod: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(
        spec: &'a Value,
        volumes: &'a HashSet<String>,
        claims: &'a HashSet<String>,
        in_pod: bool,
    ) -> Self {
        Self { volumes, spec, claims, in_pod }
    }
}

/// All containers of a pod specification.
pub(super) fn check(errors: &mut Errors, path: &Path, spec: &Value, scope: &Scope<'_>) {
    if spec.items("containers").is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    let mut taken: HashSet<&str> = HashSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let list_path = path.child(list);
        for (i, container) in spec.items(list).iter().enumerate() {
            let path = list_path.index(i);
            common(errors, &path, container, scope);
            let name = container.text("name");
            if !name.is_empty() && !taken.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            match list {
                "containers" => regular(errors, &path, container, spec),
                "initContainers" => {
                    init(errors, &path, container, spec);
                    // They run one by one; the path has the place of the first of them, whichever it is.
                    host_port_conflicts(errors, &list_path, std::slice::from_ref(container));
                }
                _ => ephemeral(errors, &path, container, spec),
            }
        }
        if list == "containers" {
            host_port_conflicts(errors, &list_path, spec.items(list));
        }
    }
}

fn common(errors: &mut Errors, path: &Path, container: &Value, scope: &Scope<'_>) {
    let name = container.text("name");
    if required(errors, &path.child("name"), name) {
        names(errors, &path.child("name"), name, labels::dns_label(name));
    }
    required(errors, &path.child("image"), container.text("image"));
    let policy = path.child("terminationMessagePolicy");
    let known = ["FallbackToLogsOnError", "File"];
    required_one_of(errors, &policy, container.text("terminationMessagePolicy"), &known);
    ports(errors, &path.child("ports"), container, scope);
    env::check(errors, path, container);
    volume_mounts::check(errors, path, container, scope.volumes, scope.spec);
    required_one_of(
        errors,
        &path.child("imagePullPolicy"),
        container.text("imagePullPolicy"),
        &PULL_POLICIES,
    );
    requirements::container(errors, &path.child("resources"), container.at("resources"), scope.claims);
    resize_policy(errors, &path.child("resizePolicy"), container, scope.spec);
    security::container(errors, &path.child("securityContext"), container.at("securityContext"), scope.spec);
}

fn regular(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    probes::all(errors, path, container, spec);
    restart_policy(errors, path, container);
}

fn restart_policy(errors: &mut Errors, path: &Path, container: &Value) {
    if let Some(policy) = container.some_text("restartPolicy") {
        one_of(errors, &path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
    for (i, rule) in container.items("restartPolicyRules").iter().enumerate() {
        let path = path.child("restartPolicyRules").index(i);
        one_of(errors, &path.child("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        if !container.has("restartPolicy") {
            let text = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(path.child("restartPolicy"), text));
        }
        if rule.has("exitCodes") {
            let operator = rule.text("exitCodes.operator");
            one_of(errors, &path.child("exitCodes.operator"), operator, &["In", "NotIn"]);
            let count = rule.items("exitCodes.values").len();
            if !(1..=255).contains(&count) {
                errors.push(FieldError::invalid(
                    path.child("exitCodes.values"),
                    rule.at("exitCodes.values").clone(),
                    "must have at least 1 value",
                ));
            }
        } else {
            errors.push(FieldError::required(path.child("exitCodes"), "must be specified"));
        }
    }
}

fn init(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    restart_policy(errors, path, container);
    if container.text("restartPolicy") == "Always" {
        probes::all(errors, path, container, spec);
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(field) {
            let text = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(path.child(field), text));
        }
    }
}

fn ephemeral(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    let target = container.text("targetContainerName");
    let found = ["containers", "initContainers"]
        .iter()
        .any(|list| spec.items(list).iter().any(|c| c.text("name") == target));
    if !target.is_empty() && !found {
        errors.push(FieldError::not_found(path.child("targetContainerName"), target));
    }
    let fields = [
        "ports",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
    ];
    for field in fields {
        if !crate::resources::fields::is_zero(container.at(field)) {
            errors.push(FieldError::forbidden(path.child(field), "cannot be set for an Ephemeral Container"));
        }
    }
    if container.entries("resources").next().is_some() {
        errors
            .push(FieldError::forbidden(path.child("resources"), "cannot be set for an Ephemeral Container"));
    }
    for (i, mount) in container.items("volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.text(field).is_empty() {
                let path = path.child("volumeMounts").index(i).child(field);
                errors.push(FieldError::forbidden(path, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn ports(errors: &mut Errors, path: &Path, container: &Value, scope: &Scope<'_>) {
    let host_network = scope.spec.flag("hostNetwork");
    let mut taken = HashSet::new();
    for (i, port) in container.items("ports").iter().enumerate() {
        let path = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let complaints = labels::port_name(name);
            if complaints.is_empty() && !taken.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            names(errors, &path.child("name"), name, complaints);
        }
        let number = port.int("containerPort");
        if number == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            port_number(errors, &path.child("containerPort"), number);
        }
        let host = port.int("hostPort");
        if host != 0 {
            port_number(errors, &path.child("hostPort"), host);
        }
        if host_network && host != number && (scope.in_pod || host != 0) {
            let text = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(path.child("hostPort"), host, text));
        }
        required_one_of(errors, &path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn port_number(errors: &mut Errors, path: &Path, number: i64) {
    errors.extend(labels::port_number(number).into_iter().map(|c| FieldError::invalid(path, number, c)));
}

fn host_port_conflicts(errors: &mut Errors, path: &Path, containers: &[Value]) {
    let mut taken = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.items("ports").iter().enumerate() {
            let host = port.int("hostPort");
            let key = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if host != 0 && !taken.insert(key.clone()) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(FieldError::duplicate(path, key));
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    let mut taken = HashSet::new();
    for (i, policy) in container.items("resizePolicy").iter().enumerate() {
        let name = policy.text("resourceName");
        if !taken.insert(name) {
            errors.push(FieldError::duplicate(path.index(i), name));
        }
        let restart = policy.text("restartPolicy");
        if name.is_empty() || restart.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        for (text, known) in [(name, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if !text.is_empty() {
                one_of(errors, path, text, &known);
            }
        }
        if spec.text("restartPolicy") == "Never"
            && restart == "RestartContainer"
            && !container.has("restartPolicy")
        {
            let text = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, text));
        }
    }
}
