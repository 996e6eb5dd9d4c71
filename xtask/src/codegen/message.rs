//! Turns messages and OpenAPI definitions into the table's types and fields. It must not know the text form.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Context as _;
use serde_json::Value;

use super::presence;
use super::source::{Message, MessageField, Spec, openapi_name};

/// A type of the table.
pub(crate) struct TypeOut {
    pub(crate) package: String,
    pub(crate) name: String,
    pub(crate) atomic: bool,
    /// `group/version/Kind`, or empty.
    pub(crate) kind: String,
    pub(crate) fields: BTreeMap<String, FieldOut>,
}

/// A field of the table.
#[derive(Clone, Default)]
pub(crate) struct FieldOut {
    pub(crate) kind: String,
    pub(crate) flags: String,
    pub(crate) tags: Vec<u64>,
    pub(crate) map_keys: Vec<String>,
    pub(crate) merge_key: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) go_type: Option<String>,
    pub(crate) embedded: Vec<String>,
    pub(crate) enum_values: Vec<String>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Meta types that carry `apiVersion` and `kind` although no resource is of their kind.
const META_KINDS: &[&str] = &[
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "TableOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
];

/// All types, by package and name.
pub(crate) fn types(spec: &Spec) -> anyhow::Result<Vec<TypeOut>> {
    let shapes = Shapes::learn(spec);
    let names: BTreeSet<&String> = spec.messages.keys().chain(spec.definitions.keys()).collect();
    let mut out = Vec::new();
    for full in names {
        let (package, name) = full.rsplit_once('.').with_context(|| format!("type {full} has no package"))?;
        if leaf(full).is_some() || full.ends_with(".Unknown") {
            continue;
        }
        let kind = kind_of(spec, full);
        let fields = fields(spec, &shapes, full, !kind.is_empty()).with_context(|| format!("type {full}"))?;
        let atomic =
            spec.messages.get(full).is_some_and(|m| m.markers.iter().any(|x| x == "+structType=atomic"))
                || spec.definitions.get(full).is_some_and(|d| d["x-kubernetes-map-type"] == "atomic");
        out.push(TypeOut { package: package.to_owned(), name: name.to_owned(), atomic, kind, fields });
    }
    out.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    Ok(out)
}

/// The kind code of messages that are not objects in JSON.
fn leaf(full: &str) -> Option<String> {
    let (package, name) = full.rsplit_once('.')?;
    Some(match (package, name) {
        ("io.k8s.apimachinery.pkg.api.resource", "Quantity" | "QuantityValue") => "q".to_owned(),
        ("io.k8s.apimachinery.pkg.util.intstr", "IntOrString") => "x".to_owned(),
        (META, "Time" | "Timestamp") => "T".to_owned(),
        (META, "MicroTime") => "M".to_owned(),
        (META, "Duration") => "D".to_owned(),
        (META, "FieldsV1") | ("io.k8s.apimachinery.pkg.runtime", "RawExtension") => "R".to_owned(),
        (META, "Verbs") => "[s".to_owned(),
        (_, "ExtraValue" | "AttestationValue") => "[s".to_owned(),
        (p, "JSON") if p.contains("apiextensions") => "J".to_owned(),
        (p, "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray") => {
            format!("E{p}.JSONSchemaProps")
        }
        _ => return None,
    })
}

fn kind_of(spec: &Spec, full: &str) -> String {
    let (package, name) = full.rsplit_once('.').unwrap_or(("", full));
    let version = package.rsplit('.').next().unwrap_or("");
    let declared = spec.definitions.get(full).and_then(|d| d["x-kubernetes-group-version-kind"].as_array());
    if let Some(list) = declared {
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        if let [only] = &list[..] {
            return format!("{}/{}/{}", text(&only["group"]), text(&only["version"]), text(&only["kind"]));
        }
        return format!("/v1/{name}");
    }
    if package == META && META_KINDS.contains(&name) {
        return format!("meta.k8s.io/v1/{name}");
    }
    if !spec.kinds.contains_key(full) {
        return String::new();
    }
    let group = spec.consts.get(&format!("{package}.GroupName")).and_then(Value::as_str).unwrap_or("");
    format!("{group}/{version}/{name}")
}

/// What the served types teach about the JSON form of fields, by bare type and protobuf field name.
struct Shapes {
    inlined: HashSet<(String, String)>,
    renamed: HashMap<(String, String), String>,
}

impl Shapes {
    fn learn(spec: &Spec) -> Shapes {
        let mut shapes = Shapes { inlined: HashSet::new(), renamed: HashMap::new() };
        for (full, message) in &spec.messages {
            let Some(properties) = spec.definitions.get(full).and_then(|d| d["properties"].as_object())
            else {
                continue;
            };
            let bare = full.rsplit('.').next().unwrap_or(full);
            for name in message.fields.keys() {
                let key = (bare.to_owned(), name.clone());
                if properties.contains_key(name) {
                    // Most names that begin with a capital in protobuf do not in JSON; this one does.
                    if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                        shapes.renamed.insert(key, name.clone());
                    }
                    continue;
                }
                match properties.keys().find(|p| loose(p) == loose(name)) {
                    Some(json) => drop(shapes.renamed.insert(key, json.clone())),
                    None => drop(shapes.inlined.insert(key)),
                }
            }
        }
        shapes
    }

    fn json_name(&self, bare: &str, name: &str) -> String {
        if let Some(json) = self.renamed.get(&(bare.to_owned(), name.to_owned())) {
            return json.clone();
        }
        let mut letters = name.chars();
        match letters.next() {
            Some(first) if first.is_ascii_uppercase() => {
                format!("{}{}", first.to_ascii_lowercase(), letters.as_str())
            }
            _ => name.to_owned(),
        }
    }
}

/// Names that differ only in case or in characters that protobuf does not allow are the same field.
fn loose(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

fn fields(
    spec: &Spec,
    shapes: &Shapes,
    full: &str,
    has_kind: bool,
) -> anyhow::Result<BTreeMap<String, FieldOut>> {
    let mut out = BTreeMap::new();
    let definition = spec.definitions.get(full);
    if let Some(message) = spec.messages.get(full) {
        message_fields(spec, shapes, full, message, &mut out)?;
    }
    if let Some(properties) = definition.and_then(|d| d["properties"].as_object()) {
        for (name, property) in properties {
            let known = out.entry(name.clone()).or_default();
            if known.kind.is_empty() {
                known.kind = property_kind(property).with_context(|| format!("property {name}"))?;
            }
            openapi_markers(spec, full, property, known);
            let required = definition
                .and_then(|d| d["required"].as_array())
                .is_some_and(|r| r.iter().any(|x| x == name.as_str()));
            known.flags.retain(|c| c != 'r');
            if required {
                known.flags.insert(0, 'r');
            }
        }
        out.retain(|name, _| properties.contains_key(name));
    } else if has_kind {
        for name in ["apiVersion", "kind"] {
            out.entry(name.to_owned())
                .or_insert_with(|| FieldOut { kind: "s".to_owned(), ..FieldOut::default() });
        }
    }
    for (name, field) in &mut out {
        let required = field.flags.contains('r');
        field.flags.push_str(presence::flag(full, name, &field.kind, required));
        if field.go_type.is_none() {
            field.go_type =
                named_map(full, &field.kind).or_else(|| guessed_name(spec, full, name, &field.kind));
        }
    }
    Ok(out)
}

fn message_fields(
    spec: &Spec,
    shapes: &Shapes,
    full: &str,
    message: &Message,
    out: &mut BTreeMap<String, FieldOut>,
) -> anyhow::Result<()> {
    let (package, bare) = full.rsplit_once('.').unwrap_or(("", full));
    for (name, field) in &message.fields {
        if shapes.inlined.contains(&(bare.to_owned(), name.clone())) {
            let inner = resolve(package, &field.type_);
            let embedded = spec
                .messages
                .get(&inner)
                .with_context(|| format!("embedded message {inner} is not there"))?;
            let mut nested = BTreeMap::new();
            message_fields(spec, shapes, &inner, embedded, &mut nested)?;
            for (name, mut f) in nested {
                f.tags.insert(0, field.tag);
                f.embedded.insert(0, inner.rsplit('.').next().unwrap_or(&inner).to_owned());
                out.insert(name, f);
            }
            continue;
        }
        out.insert(shapes.json_name(bare, name), message_field(spec, package, bare, field)?);
    }
    Ok(())
}

fn message_field(spec: &Spec, package: &str, bare: &str, field: &MessageField) -> anyhow::Result<FieldOut> {
    let mut kind = proto_kind(spec, package, &field.type_)?;
    if field.label == "repeated" {
        kind.insert(0, '[');
    }
    let mut flags = String::new();
    if !field.optional {
        flags.push('r');
    }
    for value in field.marker("listType") {
        flags.push_str(list_flag(value));
    }
    if field.marker("mapType") == ["atomic"] || field.marker("structType") == ["atomic"] {
        flags.push('a');
    }
    for value in field.marker("patchStrategy") {
        patch_flags(value, &mut flags);
    }
    let default = field.marker("default").first().and_then(|value| default_value(spec, package, value));
    Ok(FieldOut {
        default: default.filter(|_| !presence::no_default(bare)),
        kind,
        flags,
        tags: vec![field.tag],
        map_keys: field.marker("listMapKey").iter().map(|s| (*s).to_owned()).collect(),
        merge_key: field.marker("patchMergeKey").first().map(|s| (*s).to_owned()),
        ..FieldOut::default()
    })
}

fn list_flag(value: &str) -> &'static str {
    match value {
        "atomic" => "A",
        "set" => "S",
        "map" => "K",
        _ => "",
    }
}

fn patch_flags(value: &str, flags: &mut String) {
    for strategy in value.split(',') {
        flags.push_str(match strategy {
            "merge" => "m",
            "replace" => "x",
            "retainKeys" => "k",
            _ => "",
        });
    }
}

/// A default that says something: JSON, or a reference to a constant of the package.
fn default_value(spec: &Spec, package: &str, value: &str) -> Option<String> {
    let value = match value.strip_prefix("ref(").and_then(|v| v.strip_suffix(')')) {
        Some(name) => spec.consts.get(&format!("{package}.{name}"))?.clone(),
        None => serde_json::from_str(value).ok()?,
    };
    (value != "" && value != false && value != 0).then(|| value.to_string())
}

fn resolve(package: &str, name: &str) -> String {
    let name = openapi_name(name);
    if name.contains('.') { name } else { format!("{package}.{name}") }
}

fn proto_kind(spec: &Spec, package: &str, type_: &str) -> anyhow::Result<String> {
    if let Some(inner) = type_.strip_prefix("map<string, ").and_then(|t| t.strip_suffix('>')) {
        return Ok(format!("{{{}", proto_kind(spec, package, inner)?));
    }
    Ok(match type_ {
        "string" => "s".to_owned(),
        "int32" | "uint32" => "i".to_owned(),
        "int64" => "l".to_owned(),
        "double" => "d".to_owned(),
        "bool" => "b".to_owned(),
        "bytes" => "B".to_owned(),
        _ => {
            let full = resolve(package, type_);
            match leaf(&full) {
                Some(code) => code,
                None if spec.messages.contains_key(&full) => format!("O{full}"),
                None => anyhow::bail!("type {type_} is not there"),
            }
        }
    })
}

/// The kind of a property that no message tells of.
fn property_kind(property: &Value) -> anyhow::Result<String> {
    if let Some(reference) = property["$ref"].as_str() {
        let full = reference.rsplit('/').next().unwrap_or(reference);
        return Ok(leaf(full).unwrap_or_else(|| format!("O{full}")));
    }
    Ok(match (property["type"].as_str().unwrap_or("object"), property["format"].as_str().unwrap_or("")) {
        ("string", "byte") => "B".to_owned(),
        ("string", "date-time") => "T".to_owned(),
        ("string", "int-or-string") => "x".to_owned(),
        ("string", _) => "s".to_owned(),
        ("boolean", _) => "b".to_owned(),
        ("integer", "int32") => "i".to_owned(),
        ("integer", _) => "l".to_owned(),
        ("number", _) => "d".to_owned(),
        ("array", _) => format!("[{}", property_kind(&property["items"])?),
        ("object", _) if property["additionalProperties"].is_object() => {
            format!("{{{}", property_kind(&property["additionalProperties"])?)
        }
        ("object", _) => "J".to_owned(),
        (other, format) => anyhow::bail!("type {other} format {format:?} is not known"),
    })
}

/// OpenAPI is the word on list types, patch strategies and enums of what is served.
fn openapi_markers(spec: &Spec, full: &str, property: &Value, field: &mut FieldOut) {
    field.flags.retain(|c| c == 'r' || c == 'a');
    if let Some(value) = property["x-kubernetes-list-type"].as_str() {
        field.flags.push_str(list_flag(value));
    }
    if property["x-kubernetes-map-type"] == "atomic" && !field.flags.contains('a') {
        field.flags.push('a');
    }
    if let Some(value) = property["x-kubernetes-patch-strategy"].as_str() {
        patch_flags(value, &mut field.flags);
    }
    field.merge_key = property["x-kubernetes-patch-merge-key"].as_str().map(str::to_owned);
    if let Some(keys) = property["x-kubernetes-list-map-keys"].as_array() {
        field.map_keys = keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect();
    }
    let item = if property["items"].is_object() { &property["items"] } else { property };
    if let Some(values) = item["enum"].as_array() {
        field.enum_values = values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        field.go_type = enum_name(spec, full, values);
    }
}

/// The Go name of the string type of the same package that has exactly these values.
fn enum_name(spec: &Spec, full: &str, values: &[Value]) -> Option<String> {
    let package = full.rsplit_once('.')?.0;
    let wanted: BTreeSet<&str> = values.iter().filter_map(Value::as_str).collect();
    let mut found = spec.enums.iter().filter(|(name, have)| {
        name.rsplit_once('.').is_some_and(|(p, _)| p == package)
            && have.iter().filter_map(Value::as_str).collect::<BTreeSet<_>>() == wanted
    });
    let (name, _) = found.next()?;
    found.next().is_none().then(|| go_name(name))
}

/// Maps of quantities are `ResourceList` in core and wherever its types are used.
fn named_map(full: &str, kind: &str) -> Option<String> {
    (kind == "{q" && !full.contains(".resource.")).then(|| "v1.ResourceList".to_owned())
}

/// Named string types that nothing else tells of (empty: a plain string, whatever its name suggests).
const NAMED: &[(&str, &str, &str)] = &[
    ("*", "uid", "types.UID"),
    ("APIResource", "verbs", "v1.Verbs"),
    ("Capabilities", "add", "v1.Capability"),
    ("Capabilities", "drop", "v1.Capability"),
    ("ContainerResizePolicy", "resourceName", "v1.ResourceName"),
    ("ContainerResizePolicy", "restartPolicy", "v1.ResourceResizeRestartPolicy"),
    ("DeviceConstraint", "matchAttribute", "v1.FullyQualifiedName"),
    ("DeviceConstraint", "distinctAttribute", "v1.FullyQualifiedName"),
    ("EmptyDirVolumeSource", "medium", "v1.StorageMedium"),
    ("EndpointPort", "protocol", "v1.Protocol"),
    ("NetworkPolicyPort", "protocol", "v1.Protocol"),
    ("HPAScalingRules", "selectPolicy", "v2.ScalingPolicySelect"),
    ("LabelSelectorRequirement", "operator", "v1.LabelSelectorOperator"),
    ("NamespaceSpec", "finalizers", "v1.FinalizerName"),
    ("PodReadinessGate", "conditionType", "v1.PodConditionType"),
    ("PriorityLevelConfigurationSpec", "type", "v1.PriorityLevelEnablement"),
    ("ResourceMetricSource", "name", "v1.ResourceName"),
    ("ContainerResourceMetricSource", "name", "v1.ResourceName"),
    (
        "StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenDeleted",
        "v1.PersistentVolumeClaimRetentionPolicyType",
    ),
    (
        "StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenScaled",
        "v1.PersistentVolumeClaimRetentionPolicyType",
    ),
    ("StorageClass", "reclaimPolicy", "v1.PersistentVolumeReclaimPolicy"),
    ("ResourceQuotaSpec", "scopes", "v1.ResourceQuotaScope"),
];

/// A string type whose name follows from the field: `NodeAddress.type` is a `NodeAddressType`.
fn guessed_name(spec: &Spec, full: &str, field: &str, kind: &str) -> Option<String> {
    if kind != "s" && kind != "[s" {
        return None;
    }
    let (package, bare) = full.rsplit_once('.')?;
    if let Some((_, _, name)) = NAMED.iter().find(|(t, f, _)| *f == field && (*t == bare || *t == "*")) {
        return (!name.is_empty()).then(|| (*name).to_owned());
    }
    let mut upper = field.to_owned();
    upper.get_mut(..1)?.make_ascii_uppercase();
    let singular = upper.trim_end_matches('s');
    let short = bare.trim_end_matches("Item").trim_end_matches("Range");
    let candidates = [
        format!("{bare}{upper}"),
        format!("{short}{upper}"),
        format!("{bare}{singular}"),
        upper.clone(),
        singular.to_owned(),
    ];
    candidates
        .iter()
        .map(|c| format!("{package}.{c}"))
        .find(|full| spec.enums.contains_key(full))
        .map(|name| go_name(&name))
}

fn go_name(full: &str) -> String {
    let mut parts = full.rsplit('.');
    let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    format!("{package}.{name}")
}
