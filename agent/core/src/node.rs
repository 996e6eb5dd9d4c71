//! The node: from what was seen of the machine and the runtime to the status of the Node object, and the smallest patch
//! that brings it there. Pure; it must not know where the figures come from.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

mod pressure;

pub use pressure::{Pressure, PressureClock, Signal, Threshold, Thresholds, Usage};

/// The Kubernetes version this agent speaks; clients read it from `nodeInfo.kubeletVersion`.
pub const KUBELET_VERSION: &str = "v1.37.1";

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Name of the node.
    pub name: String,
    /// Its addresses, the primary one first.
    pub addresses: Vec<String>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's id.
    pub system_uuid: String,
    /// The id of this boot.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Pretty name of the distribution.
    pub os_image: String,
    /// Architecture, in Go's words (`amd64`).
    pub architecture: String,
    /// Port of the node API.
    pub port: u16,
}

/// What there is to share out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Online CPUs.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system below the root directory.
    pub storage: u64,
    /// Bytes set aside as huge pages, by the bytes of a page.
    pub huge_pages: BTreeMap<u64, u64>,
    /// Most pods.
    pub pods: u32,
    /// Bytes of swap.
    pub swap: u64,
}

/// The runtime, as it answered last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeState {
    /// `containerd://1.6.20`.
    pub version: String,
    /// Why it is not ready; empty when it is.
    pub problems: Vec<String>,
    /// Handlers with their features, in the API's shape.
    pub handlers: Vec<Value>,
}

/// An image on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Tags and digests.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
}

/// All that the status follows from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// What does not change.
    pub identity: Identity,
    /// What there is.
    pub resources: Resources,
    /// From when on something is scarce.
    pub thresholds: Thresholds,
    /// The runtime.
    pub runtime: RuntimeState,
    /// Parts of the agent that are not up, and why.
    pub missing: Vec<String>,
    /// What is scarce.
    pub pressure: Pressure,
    /// The images.
    pub images: Vec<Image>,
}

/// Images reported at most, the largest first.
const MAX_IMAGES: usize = 50;
const MAX_IMAGE_NAMES: usize = 5;

/// The labels that the Node is to have.
pub fn labels(identity: &Identity) -> BTreeMap<&'static str, String> {
    let (os, arch) = ("linux".to_owned(), identity.architecture.clone());
    BTreeMap::from([
        ("kubernetes.io/hostname", identity.name.clone()),
        ("kubernetes.io/os", os.clone()),
        ("kubernetes.io/arch", arch.clone()),
        ("beta.kubernetes.io/os", os),
        ("beta.kubernetes.io/arch", arch),
    ])
}

/// The status that the Node is to have. `before` is the status it has: conditions keep the time of their last change,
/// and those of others are left alone.
pub fn status(facts: &Facts, before: &Value, now: Timestamp) -> Value {
    let Facts { identity, resources, thresholds, runtime, missing: _, pressure: _, images } = facts;
    let mut status = json!({
        "addresses": addresses(identity),
        "capacity": capacity(resources),
        "allocatable": allocatable(resources, thresholds),
        "conditions": conditions(facts, before, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": identity.port}},
        "nodeInfo": {
            "machineID": identity.machine_id,
            "systemUUID": identity.system_uuid,
            "bootID": identity.boot_id,
            "kernelVersion": identity.kernel,
            "osImage": identity.os_image,
            "containerRuntimeVersion": runtime.version,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": identity.architecture,
            "swap": {"capacity": resources.swap},
        },
        "images": image_list(images),
    });
    if !runtime.handlers.is_empty() {
        status["runtimeHandlers"] = Value::Array(runtime.handlers.clone());
    }
    status
}

/// The patch (strategic merge) that makes `before` into `wanted`. Times of heartbeats alone are no reason to write,
/// unless the last write is `report_interval` ago. `None`: nothing to write.
pub fn patch(
    before: &Value,
    wanted: &Value,
    now: Timestamp,
    report_interval: SignedDuration,
) -> Option<Value> {
    let mut changed = Map::new();
    let fields = wanted.as_object().into_iter().flatten();
    for (field, value) in fields.filter(|(field, _)| *field != "conditions") {
        if before.get(field) == Some(value) || (before.get(field).is_none() && is_empty(value)) {
            continue;
        }
        let mut value = value.clone();
        if field == "addresses" {
            // Merging by type would fold the addresses of two families into one.
            value.as_array_mut().expect("made by status()").push(json!({"$patch": "replace"}));
        }
        changed.insert(field.clone(), value);
    }
    let same = |condition: &&Value| {
        condition_of(before, condition["type"].as_str().unwrap_or_default()).is_some_and(|old| {
            ["status", "reason", "message", "lastTransitionTime"]
                .iter()
                .all(|field| old[*field] == condition[*field])
        })
    };
    let conditions = wanted["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let overdue = conditions.iter().any(|condition| {
        let old = condition_of(before, condition["type"].as_str().unwrap_or_default());
        let beat = old.and_then(|old| old["lastHeartbeatTime"].as_str()?.parse::<Timestamp>().ok());
        beat.is_none_or(|beat| now.duration_since(beat) >= report_interval)
    });
    if changed.is_empty() && !overdue && conditions.iter().all(|condition| same(&condition)) {
        return None;
    }
    changed.insert("conditions".to_owned(), Value::Array(conditions.to_vec()));
    Some(json!({"status": changed}))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn condition_of<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn addresses(identity: &Identity) -> Vec<Value> {
    let internal = identity.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    internal.chain([json!({"type": "Hostname", "address": identity.name})]).collect()
}

fn capacity(resources: &Resources) -> Map<String, Value> {
    let mut capacity = Map::new();
    capacity.insert("cpu".to_owned(), resources.cpus.to_string().into());
    capacity.insert("memory".to_owned(), format!("{}Ki", resources.memory / 1024).into());
    capacity.insert("ephemeral-storage".to_owned(), format!("{}Ki", resources.storage / 1024).into());
    capacity.insert("pods".to_owned(), resources.pods.to_string().into());
    capacity.extend(huge_pages(resources));
    capacity
}

/// What pods may ask for: all but what must stay free, and but the memory that is set aside as huge pages.
fn allocatable(resources: &Resources, thresholds: &Thresholds) -> Map<String, Value> {
    let mut allocatable = capacity(resources);
    let set_aside = thresholds.amount(Signal::MemoryAvailable, resources.memory);
    let memory = resources.memory.saturating_sub(set_aside + resources.huge_pages.values().sum::<u64>());
    let storage =
        resources.storage.saturating_sub(thresholds.amount(Signal::NodeFsAvailable, resources.storage));
    allocatable.insert("memory".to_owned(), format!("{}Ki", memory / 1024).into());
    allocatable.insert("ephemeral-storage".to_owned(), storage.to_string().into());
    allocatable
}

fn huge_pages(resources: &Resources) -> impl Iterator<Item = (String, Value)> + '_ {
    resources
        .huge_pages
        .iter()
        .map(|(page, bytes)| (format!("hugepages-{}", binary(*page)), binary(*bytes).into()))
}

/// Bytes in the largest binary unit that divides them: `2Mi`, `0`, `1Gi`.
fn binary(bytes: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    let mut value = bytes;
    let mut unit = 0;
    while value > 0 && value.is_multiple_of(1024) && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", units[unit])
}

fn image_list(images: &[Image]) -> Vec<Value> {
    let mut images: Vec<&Image> = images.iter().filter(|image| !image.names.is_empty()).collect();
    images.sort_by(|a, b| (b.size, &a.names).cmp(&(a.size, &b.names)));
    let entry = |image: &&Image| {
        let names = &image.names[..image.names.len().min(MAX_IMAGE_NAMES)];
        json!({"names": names, "sizeBytes": image.size})
    };
    images.iter().take(MAX_IMAGES).map(entry).collect()
}

fn conditions(facts: &Facts, before: &Value, now: Timestamp) -> Vec<Value> {
    let pressure = &facts.pressure;
    let scarce = |kind, scarce, (bad_reason, bad), (good_reason, good)| {
        if scarce { (kind, true, bad_reason, bad) } else { (kind, false, good_reason, good) }
    };
    let not_ready: Vec<&str> =
        facts.runtime.problems.iter().chain(&facts.missing).map(String::as_str).collect();
    let not_ready = not_ready.join(", ");
    let ready = if not_ready.is_empty() {
        ("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Ready", false, "KubeletNotReady", not_ready.as_str())
    };
    let all = [
        scarce(
            "MemoryPressure",
            pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        scarce(
            "DiskPressure",
            pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        scarce(
            "PIDPressure",
            pressure.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ];
    all.into_iter().map(|state| condition(state, before, now)).collect()
}

fn condition(
    (kind, holds, reason, message): (&str, bool, &str, &str),
    before: &Value,
    now: Timestamp,
) -> Value {
    let status = if holds { "True" } else { "False" };
    // The API keeps whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let since = condition_of(before, kind)
        .filter(|old| old["status"] == status)
        .and_then(|old| old["lastTransitionTime"].as_str())
        .map_or_else(|| now.clone(), str::to_owned);
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
    })
}

#[cfg(test)]
mod tests;
