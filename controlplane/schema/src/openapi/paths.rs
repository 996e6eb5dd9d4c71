//! The paths of the served resources. It must not know schemas beyond their names.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::operation::{Action, Operation, parameter_path};
use crate::table::{GroupKind, Resource, Subresource, Table, TypeId};

/// The paths of a group's version, and the types they speak of.
pub(super) fn of_version(
    table: &Table,
    dialect: Dialect,
    group: &str,
    version: &str,
) -> (Map<String, Value>, Vec<TypeId>) {
    let mut room = Room { table, dialect, paths: Map::new(), types: Vec::new() };
    for kind in ["DeleteOptions", "Status", "WatchEvent"] {
        room.types.extend(table.kind_type("", "v1", kind));
    }
    for resource in table.resources().iter().filter(|r| &*r.group == group && &*r.version == version) {
        room.resource(resource);
    }
    (room.paths, room.types)
}

/// The part of operation ids that names a group and version: `AppsV1`.
fn group_id(resource: &Resource) -> String {
    let short = resource.group.strip_suffix(".k8s.io").unwrap_or(&resource.group);
    let group = if short.is_empty() { "core" } else { short };
    format!("{}{}", group.split('.').map(capitalized).collect::<String>(), capitalized(&resource.version))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
}

struct Room<'t> {
    table: &'t Table,
    dialect: Dialect,
    paths: Map<String, Value>,
    types: Vec<TypeId>,
}

impl Room<'_> {
    fn resource(&mut self, resource: &Resource) {
        let own = GroupKind {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
        };
        let list = self.table.kind_type(&resource.group, &resource.version, &resource.list_kind);
        self.types.push(resource.type_id);
        self.types.extend(list);
        let root = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{place}/{}", resource.plural);
        let id = group_id(resource);
        let operation = |verb: &str, action: Action| Operation {
            id: format!(
                "{verb}{id}{}{scope}{}",
                if action == Action::DeleteCollection { "Collection" } else { "" },
                resource.kind
            ),
            action,
            kind: own.clone(),
            body: Some(self.name(resource.type_id)),
            answer: Some(match (action, list) {
                (Action::List, Some(list)) => self.name(list),
                (Action::DeleteCollection, _) => "io.k8s.apimachinery.pkg.apis.meta.v1.Status".to_owned(),
                _ => self.name(resource.type_id),
            }),
            tag: tag(resource),
        };
        let verbs: &[(&str, &str, &str, Action, bool)] = &[
            ("list", "list", "get", Action::List, false),
            ("create", "create", "post", Action::Create, false),
            ("deletecollection", "delete", "delete", Action::DeleteCollection, false),
            ("get", "read", "get", Action::Get, true),
            ("update", "replace", "put", Action::Update, true),
            ("patch", "patch", "patch", Action::Patch, true),
            ("delete", "delete", "delete", Action::Delete, true),
        ];
        let mut found: Vec<(String, &str, Operation)> = Vec::new();
        for (_, name, method, action, on_item) in
            verbs.iter().copied().filter(|(verb, ..)| resource.has_verb(verb))
        {
            let path = if on_item { format!("{collection}/{{name}}") } else { collection.clone() };
            found.push((path, method, operation(name, action)));
        }
        if resource.namespaced && resource.has_verb("list") {
            let mut everywhere = operation("list", Action::List);
            everywhere.id = format!("list{id}{}ForAllNamespaces", resource.kind);
            found.push((format!("{root}/{}", resource.plural), "get", everywhere));
        }
        for (path, method, operation) in found {
            self.put(&path, method, &operation);
        }
        for sub in &resource.subresources {
            self.subresource(
                resource,
                sub,
                &format!("{collection}/{{name}}/{}", sub.name),
                &format!("{id}{{}}{scope}{}", resource.kind),
            );
        }
    }

    /// `id` has a place for the method in the ids of connections.
    fn subresource(&mut self, resource: &Resource, sub: &Subresource, path: &str, id: &str) {
        let type_id = sub.type_id.unwrap_or(resource.type_id);
        self.types.push(type_id);
        let connects = sub.kind.kind.ends_with("Options");
        let name = self.name(type_id);
        for verb in &sub.verbs {
            let (word, method, action) = match &**verb {
                "get" => ("read", "get", Action::Get),
                "create" => ("create", "post", Action::Create),
                "update" => ("replace", "put", Action::Update),
                "patch" => ("patch", "patch", Action::Patch),
                "delete" => ("delete", "delete", Action::Delete),
                _ => continue,
            };
            let sub_id = capitalized(&sub.name);
            let id = if connects {
                format!("connect{}{sub_id}", id.replacen("{}", &capitalized(method), 1))
            } else {
                format!("{word}{}{sub_id}", id.replacen("{}", "", 1))
            };
            let text_only = connects || &*sub.name == "log";
            let operation = Operation {
                id,
                action: if connects { Action::Connect } else { action },
                kind: sub.kind.clone(),
                body: Some(name.clone()).filter(|_| !text_only),
                answer: Some(name.clone()).filter(|_| !text_only),
                tag: tag(resource),
            };
            self.put(path, method, &operation);
        }
    }

    fn name(&self, id: TypeId) -> String {
        self.table.type_(id).name.to_string()
    }

    fn put(&mut self, path: &str, method: &str, operation: &Operation) {
        let dialect = self.dialect;
        let item = self
            .paths
            .entry(path.to_owned())
            .or_insert_with(|| json!({"parameters": parameter_path(dialect, path)}));
        item[method] = operation.render(dialect);
    }
}

fn tag(resource: &Resource) -> String {
    let short = resource.group.strip_suffix(".k8s.io").unwrap_or(&resource.group);
    let group: String = if short.is_empty() {
        "core".to_owned()
    } else {
        let mut parts = short.split('.');
        parts.next().unwrap_or("").to_owned() + &parts.map(capitalized).collect::<String>()
    };
    format!("{group}_{}", resource.version)
}
