//! The type check: what each part of an expression is, which overloads each call may mean, and what is wrong, in cel-go's words.
//! Rewrites qualified names (`sets.contains`, `google.protobuf.Duration`) into single ones.

mod assign;

use std::sync::Arc;

use crate::library::{self, Overload};
use crate::source::{Errors, Source, SourceError};
use crate::syntax::{Call, Entry, Fold, Kind, Literal, Node, Parsed, Places, Select};
use crate::types::{DeclType, Type};
use assign::Mapping;
use pagurus_controlplane_api::regexp;

/// A variable an expression may use.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub declared: Arc<DeclType>,
}

/// An expression whose types are right.
#[derive(Debug)]
pub(crate) struct Checked {
    pub root: Node,
    /// The type of each part by its number.
    pub types: Vec<Type>,
    /// The overloads each call may mean, by its number.
    pub overloads: Vec<Vec<&'static Overload>>,
    /// Variables used, by name.
    pub used: Vec<String>,
}

/// Checks an expression against the variables there are.
pub(crate) fn check(source: &Source, parsed: Parsed, variables: &[Variable]) -> Result<Checked, Errors> {
    let Parsed { mut root, places } = parsed;
    let scope =
        variables.iter().map(|variable| (variable.name.clone(), variable.declared.of())).collect::<Vec<_>>();
    let globals = scope.len();
    let size = places.len();
    let mut checker = Checker {
        source,
        places,
        scope,
        globals,
        mapping: Mapping::default(),
        types: vec![Type::Error; size],
        overloads: vec![Vec::new(); size],
        errors: Vec::new(),
        used: Vec::new(),
    };
    checker.node(&mut root);
    for at in 0..size {
        let found = checker.mapping.resolve(&checker.types[at]);
        checker.types[at] = found;
    }
    if checker.errors.is_empty() {
        checker.literals(&root);
        checker.mixed(&root, false);
    }
    match checker.errors.is_empty() {
        true => Ok(Checked { root, types: checker.types, overloads: checker.overloads, used: checker.used }),
        false => Err(source.errors(checker.errors)),
    }
}

struct Checker<'s> {
    source: &'s Source,
    places: Places,
    scope: Vec<(String, Type)>,
    globals: usize,
    mapping: Mapping,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static Overload>>,
    errors: Vec<SourceError>,
    used: Vec<String>,
}

/// The dotted name a part spells.
fn qualified(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select(select) if !select.test => {
            qualified(&select.operand).map(|operand| format!("{operand}.{}", select.field))
        }
        _ => None,
    }
}

impl Checker<'_> {
    fn error(&mut self, id: u32, message: String) {
        self.errors.push(SourceError { location: self.source.location(self.places.of(id)), message });
    }

    fn set(&mut self, id: u32, of: Type) -> Type {
        self.types[id as usize] = of.clone();
        of
    }

    fn node(&mut self, node: &mut Node) -> Type {
        let id = node.id;
        let found = match &mut node.kind {
            Kind::Literal(literal) => type_of(literal),
            Kind::Ident(name) => self.ident(id, name),
            Kind::Select(_) => self.select(node),
            Kind::Call(_) => self.call(node),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => {
                // No expression of Kubernetes makes typed objects but those that mutate, which bring their types along.
                self.error(id, format!("undeclared reference to '{name}' (in container '')"));
                for field in fields {
                    self.node(field);
                }
                Type::Error
            }
            Kind::Fold(fold) => self.fold(fold),
        };
        self.set(id, found)
    }

    /// The variable or type with that name, noted as used.
    fn lookup(&mut self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(at) = self.scope.iter().rposition(|(declared, _)| declared == name) {
            if at < self.globals && !self.used.iter().any(|used| used == name) {
                self.used.push(name.to_owned());
            }
            return Some(self.scope[at].1.clone());
        }
        library::type_named(name).map(|of| Type::Type(Arc::new(of)))
    }

    fn ident(&mut self, id: u32, name: &mut String) -> Type {
        match self.lookup(name) {
            Some(found) => {
                if let Some(bare) = name.strip_prefix('.') {
                    *name = bare.to_owned();
                }
                found
            }
            None => {
                self.error(id, format!("undeclared reference to '{name}' (in container '')"));
                Type::Error
            }
        }
    }

    fn select(&mut self, node: &mut Node) -> Type {
        if let Some(name) = qualified(node)
            && let Some(found) = self.lookup(&name)
        {
            node.kind = Kind::Ident(name);
            return found;
        }
        let id = node.id;
        let Kind::Select(select) = &mut node.kind else { return Type::Error };
        let Select { operand, field, test } = select.as_mut();
        let operand = self.node(operand);
        let operand = self.mapping.resolve(&operand);
        let found = self.field(id, &operand, field, false);
        if *test { Type::Bool } else { found }
    }

    /// What selecting a field of a value of that type gives; of an optional one, an optional one.
    fn field(&mut self, id: u32, operand: &Type, field: &str, optional: bool) -> Type {
        let (operand, optional) = match operand {
            Type::Optional(value) => (value.as_ref(), true),
            other => (other, optional),
        };
        let found = match operand {
            Type::Error => Type::Error,
            Type::Dyn | Type::Param(_) => Type::Dyn,
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.declared.of(),
                None => {
                    self.error(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            other => {
                self.error(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if optional && found != Type::Error { Type::optional(found) } else { found }
    }

    fn call(&mut self, node: &mut Node) -> Type {
        let id = node.id;
        let Kind::Call(call) = &mut node.kind else { return Type::Error };
        if call.function == "_?._" {
            return self.optional_select(id, call);
        }
        let args: Vec<Type> = call.args.iter_mut().map(|arg| self.node(arg)).collect();
        let Some(target) = &mut call.target else {
            let name = call.function.strip_prefix('.').unwrap_or(&call.function).to_owned();
            let found = self.resolve(id, &name, &name, &args, false);
            call.function = name;
            return found;
        };
        if let Some(prefix) = qualified(target) {
            let name = format!("{prefix}.{}", call.function);
            let name = name.strip_prefix('.').unwrap_or(&name).to_owned();
            if library::function(&name).is_some() {
                call.target = None;
                call.function = name.clone();
                return self.resolve(id, &name, &name, &args, false);
            }
        }
        let target = self.node(target);
        let mut all = vec![target];
        all.extend(args);
        let name = call.function.clone();
        self.resolve(id, &name, &name, &all, true)
    }

    /// `operand.?field`
    fn optional_select(&mut self, id: u32, call: &mut Call) -> Type {
        let [operand, field] = call.args.as_mut_slice() else { return Type::Error };
        let operand = self.node(operand);
        let operand = self.mapping.resolve(&operand);
        self.node(field);
        let Kind::Literal(Literal::String(name)) = &field.kind else {
            self.error(id, "unsupported optional field selection".to_owned());
            return Type::Error;
        };
        let name = name.clone();
        self.overloads[id as usize] =
            library::function("_?._").map(|function| function.overloads.iter().collect()).unwrap_or_default();
        self.field(id, &operand, &name, true)
    }

    /// The type of a call: that of the one overload that fits, or any if several do.
    fn resolve(&mut self, id: u32, name: &str, shown: &str, args: &[Type], member: bool) -> Type {
        let Some(function) = library::function(name) else {
            self.error(id, format!("undeclared reference to '{shown}' (in container '')"));
            return Type::Error;
        };
        let mut result: Option<Type> = None;
        let mut fitting = Vec::new();
        for overload in function
            .overloads
            .iter()
            .filter(|overload| overload.member == member && overload.args.len() == args.len())
        {
            let fresh = self.mapping.fresh(overload);
            let Some(mapping) = self.mapping.assignable_all(args, &fresh.args) else { continue };
            self.mapping = mapping;
            fitting.push(overload);
            let found = self.mapping.substitute(&fresh.result);
            result = Some(match result {
                None => found,
                Some(other) if other == found => other,
                Some(_) => Type::Dyn,
            });
        }
        self.overloads[id as usize] = fitting;
        result.unwrap_or_else(|| {
            let shown: Vec<String> =
                args.iter().map(|arg| self.mapping.substitute(arg).to_string()).collect();
            let signature = match (member, shown.split_first()) {
                (true, Some((target, args))) => format!("{target}.({})", args.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.error(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            Type::Error
        })
    }

    /// The type that holds both; any if there is none, which is an error later on in most places.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        match self.mapping.assignable(&previous, &current) {
            Some(mapping) => {
                self.mapping = mapping;
                assign::most_general(&previous, &current)
            }
            None => Type::Dyn,
        }
    }

    fn mismatch(&mut self, id: u32, expected: &Type, found: &Type) {
        let (expected, found) = (self.mapping.substitute(expected), self.mapping.substitute(found));
        self.error(id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// The type of an element that may be left out, which must be an optional one.
    fn unwrapped(&mut self, id: u32, found: Type) -> Type {
        match self.mapping.substitute(&found) {
            Type::Optional(value) => value.as_ref().clone(),
            Type::Dyn => Type::Dyn,
            Type::Error => Type::Error,
            other => {
                self.mismatch(id, &Type::optional(other.clone()), &other);
                other
            }
        }
    }

    fn list(&mut self, elements: &mut [Node], optional: &[usize]) -> Type {
        let mut joined = None;
        for (at, element) in elements.iter_mut().enumerate() {
            let mut found = self.node(element);
            if optional.contains(&at) {
                found = self.unwrapped(element.id, found);
            }
            joined = Some(self.join(joined, found));
        }
        Type::list(joined.unwrap_or_else(|| self.mapping.new_variable()))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries.iter_mut() {
            let key = self.node(&mut entry.key);
            keys = Some(self.join(keys, key));
            let mut value = self.node(&mut entry.value);
            if entry.optional {
                value = self.unwrapped(entry.value.id, value);
            }
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.mapping.new_variable());
        let value = values.unwrap_or_else(|| self.mapping.new_variable());
        Type::map(key, value)
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        let range = self.node(&mut fold.range);
        let range = self.mapping.substitute(&range);
        let accumulator = self.node(&mut fold.init);
        let (first, second) = match &range {
            Type::List(element) => (Type::Int, element.as_ref().clone()),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Dyn | Type::Error | Type::Param(_) => (Type::Dyn, Type::Dyn),
            other => {
                self.error(fold.range.id, format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"));
                (Type::Error, Type::Error)
            }
        };
        self.scope.push((fold.accu.clone(), accumulator.clone()));
        let scope = self.scope.len();
        match &fold.var2 {
            Some(var2) => {
                self.scope.push((fold.var.clone(), first));
                self.scope.push((var2.clone(), second));
            }
            None => {
                let single = if matches!(range, Type::List(_)) { second } else { first };
                self.scope.push((fold.var.clone(), single));
            }
        }
        self.expect(&mut fold.condition, &Type::Bool);
        self.expect(&mut fold.step, &accumulator);
        self.scope.truncate(scope);
        let result = self.node(&mut fold.result);
        self.scope.truncate(scope - 1);
        self.mapping.substitute(&result)
    }

    fn expect(&mut self, node: &mut Node, expected: &Type) {
        let found = self.node(node);
        match self.mapping.assignable(expected, &found) {
            Some(mapping) => self.mapping = mapping,
            None => self.mismatch(node.id, expected, &found),
        }
    }

    /// Literals that a function cannot take: patterns, durations and times that do not parse.
    fn literals(&mut self, node: &Node) {
        each(node, &mut |node| {
            let Kind::Call(call) = &node.kind else { return };
            let [.., Node { id, kind: Kind::Literal(Literal::String(text)) }] = call.args.as_slice() else {
                return;
            };
            let wrong = match call.function.as_str() {
                "matches" => regexp::compile(text).is_err(),
                "duration" => crate::time::parse_duration(text).is_none(),
                "timestamp" => crate::time::parse_timestamp(text).is_none(),
                _ => false,
            };
            if wrong {
                self.error(*id, format!("invalid {} argument", call.function));
            }
        });
    }

    /// Lists and maps of several types, which only `format` takes.
    fn mixed(&mut self, node: &Node, exempt: bool) {
        let exempt = exempt || matches!(&node.kind, Kind::Call(call) if call.function == "format");
        if !exempt {
            match &node.kind {
                Kind::List { elements, optional } => {
                    let parts = elements
                        .iter()
                        .enumerate()
                        .map(|(at, element)| (element, optional.contains(&at)))
                        .collect::<Vec<_>>();
                    self.same_types(&parts);
                }
                Kind::Map(entries) => {
                    self.same_types(&entries.iter().map(|entry| (&entry.key, false)).collect::<Vec<_>>());
                    self.same_types(
                        &entries.iter().map(|entry| (&entry.value, entry.optional)).collect::<Vec<_>>(),
                    );
                }
                _ => {}
            }
        }
        parts(node).into_iter().for_each(|part| self.mixed(part, exempt));
    }

    /// An error at the first part that is of another type than the first; of those that may be left out, what they may hold counts.
    fn same_types(&mut self, parts: &[(&Node, bool)]) {
        let of = |checker: &Self, (part, optional): &(&Node, bool)| match (
            &checker.types[part.id as usize],
            optional,
        ) {
            (Type::Optional(value), true) => value.as_ref().clone(),
            (other, _) => other.clone(),
        };
        let Some(first) = parts.first().map(|part| of(self, part)) else { return };
        if let Some(other) = parts.iter().find(|part| of(self, part) != first) {
            let found = of(self, other);
            self.mismatch(other.0.id, &first, &found);
        }
    }
}

/// Calls `look` with every part, outer ones first.
pub(crate) fn each<'n>(node: &'n Node, look: &mut dyn FnMut(&'n Node)) {
    look(node);
    parts(node).into_iter().for_each(|part| each(part, look));
}

/// The parts directly below one.
pub(crate) fn parts(node: &Node) -> Vec<&Node> {
    match &node.kind {
        Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
        Kind::Select(select) => vec![&select.operand],
        Kind::Call(call) => call.target.iter().chain(&call.args).collect(),
        Kind::List { elements, .. } => elements.iter().collect(),
        Kind::Map(entries) => entries.iter().flat_map(|entry| [&entry.key, &entry.value]).collect(),
        Kind::Struct { fields, .. } => fields.iter().collect(),
        Kind::Fold(fold) => vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result],
    }
}

fn type_of(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
