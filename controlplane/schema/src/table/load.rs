//! Reads the table's text form: one record a line, fields separated by tabs. `xtask`'s codegen writes it.
//!
//! | record | columns |
//! |---|---|
//! | `V` | format version, API version |
//! | `P` | package of the types that follow |
//! | `T` | name, flags (`a`: atomic), kind as `group/version/Kind` or empty |
//! | `F` | JSON name, kind code, flags, then `key=value` attributes |
//! | `R` | group, version, plural, singular, kind, list kind, scope, verbs, short names, categories, storage, hash |
//! | `S` | name, group, version, kind, verbs: a subresource of the last `R` |
//! | `C` | name, type, format, priority: a column of the last `R` |
//!
//! It must not know what the facts are used for.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::field::{Field, FieldKind, ListType, PatchStrategy, Presence, Type};
use super::resource::{Column, GroupKind, Resource, Storage, Subresource};
use super::{Index, Table, TypeId};

/// The text is not a table.
#[derive(Debug, thiserror::Error)]
#[error("type table, line {line}: {problem}")]
pub struct LoadError {
    line: usize,
    problem: String,
}

/// The format this reader knows.
const FORMAT: &str = "1";

pub(super) fn parse(text: &str) -> Result<Table, LoadError> {
    let mut loader = Loader::default();
    loader.index_types(text);
    for (at, line) in text.lines().enumerate() {
        loader.line(line).map_err(|problem| LoadError { line: at + 1, problem })?;
    }
    let mut digest = DefaultHasher::new();
    text.hash(&mut digest);
    loader.finish(digest.finish()).map_err(|problem| LoadError { line: text.lines().count(), problem })
}

#[derive(Default)]
struct Loader<'a> {
    names: HashSet<Arc<str>>,
    ids: HashMap<(&'a str, &'a str), TypeId>,
    package: &'a str,
    seen_header: bool,
    types: Vec<Type>,
    resources: Vec<Resource>,
}

impl<'a> Loader<'a> {
    /// First pass: every type gets its number, so that fields can refer to types further down.
    fn index_types(&mut self, text: &'a str) {
        let mut package = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("P\t") {
                package = name;
            } else if let Some(rest) = line.strip_prefix("T\t") {
                let name = rest.split('\t').next().unwrap_or(rest);
                let id = TypeId(self.ids.len() as u32);
                self.ids.insert((package, name), id);
            }
        }
    }

    fn intern(&mut self, s: &str) -> Arc<str> {
        if let Some(known) = self.names.get(s) {
            return known.clone();
        }
        let new: Arc<str> = Arc::from(s);
        self.names.insert(new.clone());
        new
    }

    fn intern_list(&mut self, s: &str) -> Vec<Arc<str>> {
        if s.is_empty() { Vec::new() } else { s.split(',').map(|part| self.intern(part)).collect() }
    }

    fn line(&mut self, line: &'a str) -> Result<(), String> {
        let columns: Vec<&'a str> = line.split('\t').collect();
        match columns[..] {
            ["V", FORMAT, _] => self.seen_header = true,
            ["V", ..] => return Err(format!("format {line:?} is not known, want {FORMAT}")),
            _ if !self.seen_header => return Err("the header is missing".to_owned()),
            ["P", package] => self.package = package,
            ["T", name, flags, kind] => self.type_line(name, flags, kind)?,
            ["F", name, kind, flags, ref attributes @ ..] => {
                self.field_line(name, kind, flags, attributes)?
            }
            ["R", ref rest @ ..] => self.resource_line(rest)?,
            ["S", name, group, version, kind, verbs] => {
                let kind = GroupKind {
                    group: self.intern(group),
                    version: self.intern(version),
                    kind: self.intern(kind),
                };
                let sub = Subresource {
                    name: self.intern(name),
                    kind,
                    verbs: self.intern_list(verbs),
                    type_id: None,
                };
                self.resources.last_mut().ok_or("a subresource before any resource")?.subresources.push(sub);
            }
            ["C", name, type_, format, priority] => {
                let priority = priority.parse().map_err(|e| format!("column priority {priority:?}: {e}"))?;
                let column = Column {
                    name: self.intern(name),
                    type_: self.intern(type_),
                    format: self.intern(format),
                    priority,
                };
                self.resources.last_mut().ok_or("a column before any resource")?.columns.push(column);
            }
            _ => return Err(format!("record {line:?} is not known")),
        }
        Ok(())
    }

    fn type_line(&mut self, name: &str, flags: &str, kind: &str) -> Result<(), String> {
        let full = self.intern(&format!("{}.{name}", self.package));
        let kind = match kind.splitn(3, '/').collect::<Vec<_>>()[..] {
            [group, version, kind] => Some([self.intern(group), self.intern(version), self.intern(kind)]),
            [""] => None,
            _ => return Err(format!("kind {kind:?} of type {name} is not group/version/Kind")),
        };
        self.types.push(Type {
            name: full,
            fields: Vec::new(),
            atomic: flags.contains('a'),
            open: false,
            kind,
        });
        Ok(())
    }

    fn field_line(&mut self, name: &str, code: &str, flags: &str, attributes: &[&str]) -> Result<(), String> {
        let mut field = Field {
            json_name: self.intern(name),
            kind: self.kind(code)?,
            required: false,
            presence: Presence::OmitEmpty,
            list_type: ListType::Unset,
            map_keys: Vec::new(),
            atomic: false,
            patch_strategy: PatchStrategy::default(),
            merge_key: None,
            default: None,
            enum_values: Vec::new(),
            go_type: None,
            embedded: Vec::new(),
            proto_path: Vec::new(),
        };
        for flag in flags.chars() {
            match flag {
                'r' => field.required = true,
                'p' => field.presence = Presence::Pointer,
                'w' => field.presence = Presence::Always,
                'n' => field.presence = Presence::Nullable,
                'a' => field.atomic = true,
                'A' => field.list_type = ListType::Atomic,
                'S' => field.list_type = ListType::Set,
                'K' => field.list_type = ListType::Map,
                'm' => field.patch_strategy.merge = true,
                'x' => field.patch_strategy.replace = true,
                'k' => field.patch_strategy.retain_keys = true,
                other => return Err(format!("flag {other:?} of field {name} is not known")),
            }
        }
        for attribute in attributes {
            self.attribute(&mut field, attribute)?;
        }
        let holder = self.types.last_mut().ok_or("a field before any type")?;
        if holder.fields.last().is_some_and(|last| last.json_name >= field.json_name) {
            return Err(format!("field {name} is not in order"));
        }
        holder.fields.push(field);
        Ok(())
    }

    fn attribute(&mut self, field: &mut Field, attribute: &str) -> Result<(), String> {
        let (key, value) =
            attribute.split_once('=').ok_or_else(|| format!("attribute {attribute:?} has no value"))?;
        match key {
            "t" => {
                let tags: Result<Vec<u32>, _> = value.split('.').map(str::parse).collect();
                field.proto_path = tags.map_err(|e| format!("tags {value:?}: {e}"))?;
            }
            "k" => field.map_keys = self.intern_list(value),
            "M" => field.merge_key = Some(self.intern(value)),
            "d" => {
                field.default =
                    Some(serde_json::from_str(value).map_err(|e| format!("default {value:?}: {e}"))?)
            }
            "n" => field.go_type = Some(self.intern(value)),
            "i" => field.embedded = self.intern_list(value),
            "v" => field.enum_values = value.split(',').map(|part| self.intern(part)).collect(),
            _ => return Err(format!("attribute {attribute:?} is not known")),
        }
        Ok(())
    }

    fn kind(&self, code: &str) -> Result<FieldKind, String> {
        let mut rest = code.chars();
        Ok(match (rest.next(), rest.as_str()) {
            (Some('s'), "") => FieldKind::String,
            (Some('i'), "") => FieldKind::Int32,
            (Some('l'), "") => FieldKind::Int64,
            (Some('d'), "") => FieldKind::Double,
            (Some('b'), "") => FieldKind::Bool,
            (Some('q'), "") => FieldKind::Quantity,
            (Some('x'), "") => FieldKind::IntOrString,
            (Some('T'), "") => FieldKind::Time,
            (Some('M'), "") => FieldKind::MicroTime,
            (Some('D'), "") => FieldKind::Duration,
            (Some('B'), "") => FieldKind::Bytes,
            (Some('R'), "") => FieldKind::Raw,
            (Some('J'), "") => FieldKind::Json,
            (Some('E'), name) => FieldKind::Either(self.reference(name)?),
            (Some('O'), name) => FieldKind::Object(self.reference(name)?),
            (Some('['), item) => FieldKind::List(Box::new(self.kind(item)?)),
            (Some('{'), value) => FieldKind::Map(Box::new(self.kind(value)?)),
            _ => return Err(format!("kind code {code:?} is not known")),
        })
    }

    fn reference(&self, name: &str) -> Result<TypeId, String> {
        let (package, short) = name.rsplit_once('.').unwrap_or((self.package, name));
        self.ids.get(&(package, short)).copied().ok_or_else(|| format!("type {name:?} is not there"))
    }

    fn resource_line(&mut self, columns: &[&str]) -> Result<(), String> {
        let [
            group,
            version,
            plural,
            singular,
            kind,
            list_kind,
            scope,
            verbs,
            short,
            categories,
            storage,
            hash,
        ] = columns
        else {
            return Err(format!("a resource has 12 columns, not {}", columns.len()));
        };
        let [storage_group, storage_version, storage_plural] = storage.split('/').collect::<Vec<_>>()[..]
        else {
            return Err(format!("storage {storage:?} is not group/version/plural"));
        };
        let storage = Storage {
            group: self.intern(storage_group),
            version: self.intern(storage_version),
            plural: self.intern(storage_plural),
        };
        let resource = Resource {
            group: self.intern(group),
            version: self.intern(version),
            plural: self.intern(plural),
            singular: self.intern(singular),
            kind: self.intern(kind),
            list_kind: self.intern(list_kind),
            namespaced: *scope == "N",
            verbs: self.intern_list(verbs),
            short_names: self.intern_list(short),
            categories: self.intern_list(categories),
            subresources: Vec::new(),
            storage_version: storage.version.clone(),
            storage,
            storage_version_hash: self.intern(hash),
            type_id: TypeId(u32::MAX),
            columns: Vec::new(),
        };
        self.resources.push(resource);
        Ok(())
    }

    fn finish(mut self, digest: u64) -> Result<Table, String> {
        if !self.seen_header {
            return Err("the header is missing".to_owned());
        }
        let mut by_name = HashMap::with_capacity(self.types.len());
        let mut kinds = Vec::new();
        for (at, t) in self.types.iter().enumerate() {
            by_name.insert(t.name.clone(), TypeId(at as u32));
            if let Some(kind) = &t.kind {
                kinds.push((kind.clone(), TypeId(at as u32)));
            }
        }
        let by_kind = Index::new(kinds);
        let mut by_resource = Vec::new();
        let mut groups: Vec<(Arc<str>, Vec<Arc<str>>)> = Vec::new();
        for (at, r) in self.resources.iter_mut().enumerate() {
            r.type_id = by_kind
                .get(&r.group, &r.version, &r.kind)
                .ok_or_else(|| format!("kind {} of resource {} has no type", r.kind, r.plural))?;
            for s in &mut r.subresources {
                s.type_id = by_kind.get(&s.kind.group, &s.kind.version, &s.kind.kind);
            }
            by_resource.push(([r.group.clone(), r.version.clone(), r.plural.clone()], at));
            if groups.last().is_none_or(|(group, _)| *group != r.group) {
                groups.push((r.group.clone(), Vec::new()));
            }
            if let Some((_, versions)) = groups.last_mut()
                && versions.last() != Some(&r.version)
            {
                versions.push(r.version.clone());
            }
        }
        Ok(Table {
            base: None,
            types: self.types,
            by_name,
            by_kind,
            resources: self.resources.into_iter().map(Arc::new).collect(),
            by_resource: Index::new(by_resource),
            groups,
            digest,
        })
    }
}
