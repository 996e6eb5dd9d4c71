//! The paths of the served resources. It must not know schemas beyond their names.

use super::operation::{
    ANY, Answer, CUSTOM_OBJECTS, CUSTOM_PATCHES, OBJECTS, Operation, PATCH_BODY, PATCHES, STREAMS, TEXT,
};
use super::parameters::{self, NAMESPACE, PATH, PRETTY, Parameter};
use super::{Part, Version, facts};
use crate::table::{GroupKind, Resource, Subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const CREATED: &[(&str, &str)] = &[("201", "Created")];
const CREATED_OR_LATER: &[(&str, &str)] = &[("201", "Created"), ("202", "Accepted")];
const LATER: &[(&str, &str)] = &[("202", "Accepted")];

/// A path and what can be done there.
pub(super) type Path = (String, Vec<Operation>);

/// The paths of a group's version.
pub(super) fn of_version(version: &Version<'_>) -> Vec<Path> {
    let mut room = Room { paths: Vec::new() };
    for part in &version.parts {
        room.resource(part);
    }
    room.paths.sort_by(|a, b| a.0.cmp(&b.0));
    room.paths
}

/// A group as operation ids (`RbacAuthorization`) and tags (`rbacAuthorization`) name it.
pub(super) fn group_names(group: &str) -> (String, String) {
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    let id: String =
        if short.is_empty() { "Core".to_owned() } else { short.split(['.', '-']).map(capitalized).collect() };
    let mut letters = id.chars();
    let tag = letters
        .next()
        .map_or_else(String::new, |c| format!("{}{}", c.to_ascii_lowercase(), letters.as_str()));
    (id, tag)
}

pub(super) fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
}

/// The article that stands before a kind: plurals have none.
fn article(kind: &str) -> &'static str {
    match kind.chars().next() {
        _ if kind.ends_with('s') && !kind.ends_with("ss") => "",
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an ",
        _ => "a ",
    }
}

struct Room {
    paths: Vec<Path>,
}

/// What the operations of one resource have in common.
struct Common<'a> {
    part: &'a Part<'a>,
    resource: &'a Resource,
    /// `/apis/apps/v1`
    root: String,
    /// `AppsV1`
    id: String,
    tag: String,
    kind: GroupKind,
    /// `namespaces/{namespace}/`, or nothing.
    place: &'static str,
    /// `Namespaced`, or nothing.
    scope: &'static str,
}

impl<'a> Common<'a> {
    fn of(part: &'a Part<'a>) -> Self {
        let resource = part.resource;
        let (id, tag) = group_names(&resource.group);
        Self {
            part,
            resource,
            root: super::root(&resource.group, &resource.version),
            id: format!("{id}{}", capitalized(&resource.version)),
            tag: format!("{tag}_{}", resource.version),
            kind: GroupKind {
                group: resource.group.clone(),
                version: resource.version.clone(),
                kind: resource.kind.clone(),
            },
            place: if resource.namespaced { "namespaces/{namespace}/" } else { "" },
            scope: if resource.namespaced { "Namespaced" } else { "" },
        }
    }

    fn is_custom(&self) -> bool {
        self.part.custom.is_some()
    }

    /// A GET that answers with the object.
    fn base(&self, id: String, description: String) -> Operation {
        Operation {
            id,
            method: "get",
            description,
            action: Some(("get", self.kind.clone())),
            parameters: Vec::new(),
            body: None,
            answer: Answer::Schema(self.part.name()),
            codes: &[],
            consumes: ANY,
            produces: if self.is_custom() { CUSTOM_OBJECTS } else { OBJECTS },
            tag: self.tag.clone(),
        }
    }

    /// The parameters of a path in a namespace (if that is where objects are) with a name (of something of this kind, if given).
    fn parameters(&self, sets: &[&[Parameter]], namespace: bool, name: Option<&str>) -> Vec<Parameter> {
        let mut out: Vec<Parameter> = sets.iter().flat_map(|set| set.iter().cloned()).collect();
        out.push(PRETTY);
        out.extend(name.map(parameters::name));
        out.extend((namespace && self.resource.namespaced).then_some(NAMESPACE));
        out
    }

    fn list(&self, scope: &str, suffix: &str, namespace: bool) -> Operation {
        let kind = &self.resource.kind;
        let watch = if self.resource.has_verb("watch") { "list or watch" } else { "list" };
        Operation {
            action: Some(("list", self.kind.clone())),
            parameters: self.parameters(&[parameters::SELECT, parameters::WATCH], namespace, None),
            answer: Answer::Schema(self.part.list_name()),
            produces: if self.is_custom() { CUSTOM_OBJECTS } else { STREAMS },
            ..self.base(
                format!("list{}{scope}{kind}{suffix}", self.id),
                format!("{watch} objects of kind {kind}"),
            )
        }
    }

    fn watch(&self, id: String, namespace: bool, one: bool) -> Operation {
        let kind = &self.resource.kind;
        let instead = "deprecated: use the 'watch' parameter with a list operation instead";
        let description = if one {
            format!(
                "watch changes to an object of kind {kind}. {instead}, filtered to a single item with the 'fieldSelector' parameter."
            )
        } else {
            format!("watch individual changes to a list of {kind}. {instead}.")
        };
        let name = one.then_some(&**kind);
        Operation {
            action: Some((if one { "watch" } else { "watchlist" }, self.kind.clone())),
            parameters: self.parameters(&[parameters::SELECT, parameters::WATCH], namespace, name),
            answer: Answer::Schema(format!("{META}.WatchEvent")),
            produces: STREAMS,
            ..self.base(id, description)
        }
    }

    fn create(&self) -> Operation {
        let kind = &self.resource.kind;
        Operation {
            method: "post",
            action: Some(("post", self.kind.clone())),
            parameters: self.parameters(&[parameters::WRITE], true, None),
            body: Some(self.part.name()),
            codes: CREATED_OR_LATER,
            ..self.base(
                format!("create{}{}{kind}", self.id, self.scope),
                format!("create {}{kind}", article(kind)),
            )
        }
    }

    fn delete_collection(&self) -> Operation {
        let kind = &self.resource.kind;
        Operation {
            method: "delete",
            action: Some(("deletecollection", self.kind.clone())),
            parameters: self.parameters(&[parameters::DELETE, parameters::SELECT], true, None),
            body: Some(format!("{META}.DeleteOptions")),
            answer: Answer::Schema(format!("{META}.Status")),
            ..self.base(
                format!("delete{}Collection{}{kind}", self.id, self.scope),
                format!("delete collection of {kind}"),
            )
        }
    }

    fn delete(&self) -> Operation {
        let kind = &self.resource.kind;
        let own = facts::deletion_answers_object(self.resource);
        Operation {
            method: "delete",
            action: Some(("delete", self.kind.clone())),
            parameters: self.parameters(&[parameters::DELETE], true, Some(kind)),
            body: Some(format!("{META}.DeleteOptions")),
            answer: Answer::Schema(if own { self.part.name() } else { format!("{META}.Status") }),
            codes: LATER,
            ..self.base(
                format!("delete{}{}{kind}", self.id, self.scope),
                format!("delete {}{kind}", article(kind)),
            )
        }
    }

    /// An operation on an object, or on a part of it: `of` is what comes before it in descriptions.
    fn on_object(&self, verb: &str, of: &Of<'_>) -> Option<Operation> {
        let (word, method, action, says) = match verb {
            "get" => ("read", "get", "get", "read"),
            "create" => ("create", "post", "post", "create"),
            "update" => ("replace", "put", "put", "replace"),
            "patch" => ("patch", "patch", "patch", "partially update"),
            _ => return None,
        };
        let kind = &self.resource.kind;
        let specified = if verb == "create" {
            format!("{}{kind}", article(kind))
        } else {
            format!("the specified {kind}")
        };
        let base = self.base(
            format!("{word}{}{}{kind}{}", self.id, self.scope, capitalized(of.part)),
            format!("{says} {}{specified}", of.words()),
        );
        let (sets, codes): (&[Parameter], &'static [(&str, &str)]) = match verb {
            "get" => (parameters::of_read(of.part), &[]),
            "create" => (parameters::WRITE, CREATED_OR_LATER),
            "update" => (parameters::WRITE, CREATED),
            _ => (parameters::PATCH, CREATED),
        };
        let body = match verb {
            "get" => None,
            "patch" => Some(PATCH_BODY.to_owned()),
            _ => Some(of.schema.clone()),
        };
        let text = of.part == "log";
        Some(Operation {
            method,
            action: Some((action, of.kind.clone())),
            parameters: self.parameters(&[sets], true, Some(&of.kind.kind)),
            body,
            answer: if text { Answer::Text } else { Answer::Schema(of.schema.clone()) },
            codes,
            consumes: match verb {
                "patch" if self.is_custom() => CUSTOM_PATCHES,
                "patch" => PATCHES,
                _ => ANY,
            },
            produces: if text { TEXT } else { base.produces },
            ..base
        })
    }

    /// A connection: `method` as it stands in documents.
    fn connect(&self, method: &'static str, sub: &Subresource, with_path: bool) -> Operation {
        let kind = &self.resource.kind;
        let suffix = if with_path { "WithPath" } else { "" };
        let mut parameters = parameters::of_options(&sub.kind.kind).to_vec();
        parameters.push(parameters::name(&sub.kind.kind));
        parameters.extend(self.resource.namespaced.then_some(NAMESPACE));
        parameters.extend(with_path.then_some(PATH));
        Operation {
            method,
            action: Some(("connect", sub.kind.clone())),
            parameters,
            answer: Answer::Text,
            produces: ANY,
            ..self.base(
                format!(
                    "connect{}{}{}{kind}{}{suffix}",
                    self.id,
                    capitalized(method),
                    self.scope,
                    capitalized(&sub.name)
                ),
                format!("connect {} requests to {} of {kind}", method.to_ascii_uppercase(), sub.name),
            )
        }
    }
}

/// What an operation on an object is about.
struct Of<'a> {
    /// The subresource; empty for the object itself.
    part: &'a str,
    kind: GroupKind,
    schema: String,
}

impl Of<'_> {
    fn words(&self) -> String {
        if self.part.is_empty() { String::new() } else { format!("{} of ", self.part) }
    }
}

impl Room {
    fn resource(&mut self, part: &Part<'_>) {
        let common = Common::of(part);
        let (root, resource) = (&common.root, part.resource);
        let collection = format!("{root}/{}{}", common.place, resource.plural);
        let item = format!("{collection}/{{name}}");
        let (mut on_collection, mut on_item) = (Vec::new(), Vec::new());
        let has = |verb: &str| resource.has_verb(verb);
        on_collection.extend(has("list").then(|| common.list(common.scope, "", true)));
        on_collection.extend(has("create").then(|| common.create()));
        on_collection.extend(has("deletecollection").then(|| common.delete_collection()));
        let whole = Of { part: "", kind: common.kind.clone(), schema: part.name() };
        for verb in ["get", "update", "patch"].into_iter().filter(|verb| has(verb)) {
            on_item.extend(common.on_object(verb, &whole));
        }
        on_item.extend(has("delete").then(|| common.delete()));
        if resource.namespaced && has("list") {
            let everywhere = common.list("", "ForAllNamespaces", false);
            self.put(format!("{root}/{}", resource.plural), vec![everywhere]);
        }
        self.put(collection, on_collection);
        self.put(item.clone(), on_item);
        if has("watch") && !common.is_custom() {
            self.watches(&common);
        }
        for sub in &resource.subresources {
            self.subresource(&common, sub, format!("{item}/{}", sub.name));
        }
    }

    /// The paths of watches from before the parameter of that name.
    fn watches(&mut self, common: &Common<'_>) {
        let Common { root, id, scope, place, resource, .. } = common;
        let (kind, plural) = (&resource.kind, &resource.plural);
        let list = format!("{root}/watch/{place}{plural}");
        if resource.has_verb("get") {
            let one = common.watch(format!("watch{id}{scope}{kind}"), true, true);
            self.put(format!("{list}/{{name}}"), vec![one]);
        }
        self.put(list, vec![common.watch(format!("watch{id}{scope}{kind}List"), true, false)]);
        if resource.namespaced {
            let everywhere = common.watch(format!("watch{id}{kind}ListForAllNamespaces"), false, false);
            self.put(format!("{root}/watch/{plural}"), vec![everywhere]);
        }
    }

    fn subresource(&mut self, common: &Common<'_>, sub: &Subresource, path: String) {
        if !sub.kind.kind.ends_with("Options") {
            let schema = match sub.type_id {
                Some(id) if !common.is_custom() || &*sub.name == "scale" => {
                    common.part.table.type_(id).name.to_string()
                }
                _ => common.part.name(),
            };
            let of = Of { part: &sub.name, kind: sub.kind.clone(), schema };
            let operations = sub.verbs.iter().filter_map(|verb| common.on_object(verb, &of)).collect();
            return self.put(path, operations);
        }
        let methods: &[&'static str] = if &*sub.name == "proxy" {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let connect =
            |with_path| methods.iter().map(|method| common.connect(method, sub, with_path)).collect();
        if &*sub.name == "proxy" {
            self.put(format!("{path}/{{path}}"), connect(true));
        }
        self.put(path, connect(false));
    }

    fn put(&mut self, path: String, operations: Vec<Operation>) {
        if !operations.is_empty() {
            self.paths.push((path, operations));
        }
    }
}
