//! The estimate of the most an expression may cost, from the sizes its variables are declared with. Follows cel-go's checker rule by
//! rule, odd ones included: what may be stored depends on it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Costing, LIST, MAP, OBJECT, SELECT_AND_IDENT};
use crate::check::{Checked, Variable};
use crate::library::Overload;
use crate::macros::ACCUMULATOR;
use crate::syntax::{Call, Entry, Fold, Kind, Literal, Node, Select};
use crate::types::{DeclType, Type};

/// The least and the most something may cost or measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Range {
    pub(crate) const ZERO: Range = Range { min: 0, max: 0 };
    pub(crate) const ONE: Range = Range { min: 1, max: 1 };
    pub(crate) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    pub(crate) fn fixed(size: u64) -> Self {
        Range { min: size, max: size }
    }

    pub(crate) fn add(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn multiply(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scale(self, factor: f64) -> Range {
        Range { min: super::scaled(self.min, factor), max: super::scaled(self.max, factor) }
    }

    fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What the rule of a function is told of an argument.
pub(crate) struct Argument {
    pub of: Type,
    pub size: Range,
    /// The size follows from the expression or a declaration.
    pub computed: bool,
    /// The value, if it is a whole number in the expression.
    pub literal: Option<i64>,
    /// Type and size of a list's items.
    pub item: Option<(Type, Range)>,
}

/// The estimate of an expression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimated {
    pub cost: Range,
}

/// Where in the declared variables a value comes from.
#[derive(Clone, Default)]
enum Path {
    /// Nowhere.
    #[default]
    None,
    /// Somewhere that nothing is declared of.
    Lost,
    /// There.
    At(Arc<DeclType>),
}

/// Sizes of what is in a list or map.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

#[derive(Clone, Default)]
struct Local {
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Estimator<'c> {
    checked: &'c Checked,
    variables: &'c [Variable],
    locals: Vec<(&'c str, Local)>,
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entries>,
    paths: HashMap<u32, Path>,
}

/// The most and the least the expression may cost.
pub(crate) fn estimate(checked: &Checked, variables: &[Variable]) -> Estimated {
    let mut estimator = Estimator {
        checked,
        variables,
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        paths: HashMap::new(),
    };
    Estimated { cost: estimator.node(&checked.root) }
}

impl<'c> Estimator<'c> {
    fn node(&mut self, node: &'c Node) -> Range {
        match &node.kind {
            Kind::Literal(_) => Range::ZERO,
            Kind::Ident(name) => {
                let path = self.ident_path(name);
                self.paths.insert(node.id, path);
                Range::fixed(SELECT_AND_IDENT)
            }
            Kind::Select(select) => self.select(node.id, select),
            Kind::Call(call) => self.call(node, call),
            Kind::List { elements, .. } => self.list(node.id, elements),
            Kind::Map(entries) => self.map(node.id, entries),
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(OBJECT), |sum, field| sum.add(self.node(field)))
            }
            Kind::Fold(fold) if bound(fold) => self.bind(node.id, fold),
            Kind::Fold(fold) => self.fold(node.id, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|(bound, _)| *bound == name).map(|(_, local)| local)
    }

    fn ident_path(&self, name: &str) -> Path {
        if let Some(local) = self.local(name) {
            return local.path.clone();
        }
        let named = |name: &str| self.variables.iter().find(|variable| variable.name == name);
        // Rules of schemas take any name, that of a type too, for the value that they are about.
        let found = named(name).or_else(|| named("self"));
        found.map_or(Path::Lost, |variable| Path::At(variable.declared.clone()))
    }

    fn path(&self, node: &Node) -> Path {
        if let Kind::Ident(name) = &node.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&node.id).cloned().unwrap_or_default()
    }

    /// The path a step further. From nowhere it leads to the first variable itself: a step is taken for the variable's name there.
    fn further(&self, path: Path, step: impl Fn(&DeclType) -> Option<Arc<DeclType>>) -> Path {
        match path {
            Path::None => {
                self.variables.first().map_or(Path::Lost, |variable| Path::At(variable.declared.clone()))
            }
            Path::Lost => Path::Lost,
            Path::At(declared) => step(&declared).map_or(Path::Lost, Path::At),
        }
    }

    fn element(&self, path: Path) -> Path {
        self.further(path, |declared| declared.element().cloned())
    }

    fn type_of(&self, node: &Node) -> &'c Type {
        &self.checked.types[node.id as usize]
    }

    fn select(&mut self, id: u32, select: &'c Select) -> Range {
        let cost = self.node(&select.operand);
        // has() itself costs nothing in Kubernetes.
        if select.test {
            return cost;
        }
        let own = matches!(self.type_of(&select.operand), Type::Map(..) | Type::Object(_));
        let path = self.further(self.path(&select.operand), |declared| {
            declared.field(&select.field).map(|field| field.declared.clone())
        });
        self.paths.insert(id, path);
        if own { cost.add(Range::fixed(SELECT_AND_IDENT)) } else { cost }
    }

    fn call(&mut self, node: &'c Node, call: &'c Call) -> Range {
        if call.function == "dyn"
            && let [arg] = call.args.as_slice()
        {
            let cost = self.node(arg);
            self.copy(node.id, arg);
            return cost.add(Range::ONE);
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.node(arg)).collect();
        let target = call.target.as_ref().map_or(Range::ZERO, |target| self.node(target));
        let overloads = &self.checked.overloads[node.id as usize];
        if overloads.is_empty() {
            return Range::ZERO;
        }
        let sum = costs.iter().fold(Range::ZERO, |sum, cost| sum.add(*cost));
        let mut most: Option<Range> = None;
        let mut size: Option<Range> = None;
        for overload in overloads {
            let (own, result) = self.overload(node, call, overload, &costs);
            let cost = own.unwrap_or(sum.add(result.0));
            most = Some(most.map_or(cost, |most| most.union(cost)));
            size = match (size, result.1) {
                (Some(size), Some(other)) => Some(size.union(other)),
                (size, other) => size.or(other),
            };
            if overload.costing == Costing::Index
                && overload.id.starts_with("index_")
                && let Some(of) = call.args.first()
            {
                size = self.entries_of(of).map(|entries| entries.value);
                let path = self.element(self.path(of));
                self.paths.insert(node.id, path);
            }
            if size.is_none() {
                size = self.size(node);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(node.id, size);
        }
        target.add(most.unwrap_or(Range::ZERO))
    }

    /// The whole cost where it is no sum, and else the own cost with the size of the result.
    fn overload(
        &mut self,
        node: &Node,
        call: &'c Call,
        overload: &'static Overload,
        costs: &[Range],
    ) -> (Option<Range>, (Range, Option<Range>)) {
        match (overload.costing, costs, call.args.as_slice()) {
            // What decides on the left saves the right.
            (Costing::Logic, [left, right], _) => {
                (Some(Range { min: left.min, max: left.add(*right).max }), (Range::ZERO, None))
            }
            (Costing::Ternary, [condition, yes, no], [_, if_true, if_false]) => {
                let size = self.known(if_true).union(self.known(if_false));
                if let (Some(yes), Some(no)) = (self.entries_of(if_true), self.entries_of(if_false)) {
                    self.entries.insert(
                        node.id,
                        Entries {
                            list: yes.list,
                            key: yes.key.union(no.key),
                            value: yes.value.union(no.value),
                        },
                    );
                }
                (Some(condition.add(yes.union(*no))), (Range::ZERO, Some(size)))
            }
            (Costing::AddList | Costing::AddText, _, [left, right]) => {
                if let (Some(left), Some(right)) = (self.entries_of(left), self.entries_of(right)) {
                    self.entries.insert(
                        node.id,
                        Entries {
                            list: left.list,
                            key: left.key.union(right.key),
                            value: left.value.union(right.value),
                        },
                    );
                }
                (None, self.by_rule(call, overload))
            }
            _ => (None, self.by_rule(call, overload)),
        }
    }

    fn by_rule(&mut self, call: &'c Call, overload: &'static Overload) -> (Range, Option<Range>) {
        let args: Vec<Argument> =
            call.target.iter().chain(&call.args).map(|arg| self.argument(arg)).collect();
        overload.costing.estimated(overload, &args)
    }

    fn argument(&mut self, node: &'c Node) -> Argument {
        let size = self.size(node);
        let of = self.type_of(node).clone();
        let item = match &of {
            Type::List(item) => {
                let path = match self.path(node) {
                    Path::None => Path::None,
                    path => self.element(path),
                };
                let size = if let Path::At(declared) = path {
                    Range { min: 0, max: declared.max_elements }
                } else {
                    Range::UNKNOWN
                };
                Some((item.as_ref().clone(), size))
            }
            _ => None,
        };
        let literal = if let Kind::Literal(Literal::Int(value)) = node.kind { Some(value) } else { None };
        Argument { of, size: size.unwrap_or(Range::UNKNOWN), computed: size.is_some(), literal, item }
    }

    fn list(&mut self, id: u32, elements: &'c [Node]) -> Range {
        let mut cost = Range::fixed(LIST);
        let mut item = if elements.is_empty() { Range::ZERO } else { Range { min: u64::MAX, max: 0 } };
        for element in elements {
            cost = cost.add(self.node(element));
            item = item.union(self.known(element));
        }
        self.entries.insert(id, Entries { list: true, key: Range::ONE, value: item });
        cost
    }

    fn map(&mut self, id: u32, entries: &'c [Entry]) -> Range {
        let mut cost = Range::fixed(MAP);
        let empty = if entries.is_empty() { Range::ZERO } else { Range { min: u64::MAX, max: 0 } };
        let (mut key, mut value) = (empty, empty);
        for entry in entries {
            cost = cost.add(self.node(&entry.key)).add(self.node(&entry.value));
            key = key.union(self.known(&entry.key));
            value = value.union(self.known(&entry.value));
        }
        self.entries.insert(id, Entries { list: false, key, value });
        cost
    }

    fn bind(&mut self, id: u32, fold: &'c Fold) -> Range {
        let cost = self.node(&fold.range).add(self.node(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        let cost = cost.add(self.node(&fold.result));
        self.locals.pop();
        self.copy(id, &fold.result);
        cost
    }

    fn push_value(&mut self, name: &'c str, value: &'c Node) {
        let local = Local { path: self.path(value), entries: self.entries_of(value), size: self.size(value) };
        self.locals.push((name, local));
    }

    fn fold(&mut self, id: u32, fold: &'c Fold) -> Range {
        let before = self.node(&fold.range).add(self.node(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        let depth = self.locals.len();
        let entries = self.entries_of(&fold.range);
        let list = entries.map_or(matches!(self.type_of(&fold.range), Type::List(_)), |entries| entries.list);
        let key_path = self
            .further(self.path(&fold.range), |declared| if list { None } else { declared.key().cloned() });
        let value_path = self.element(self.path(&fold.range));
        let key = Local { path: key_path, size: entries.map(|entries| entries.key), entries: None };
        let value = Local { path: value_path, size: entries.map(|entries| entries.value), entries: None };
        match &fold.var2 {
            Some(var2) => {
                self.locals.push((&fold.var, key));
                self.locals.push((var2, value));
            }
            None => self.locals.push((&fold.var, if list { value } else { key })),
        }
        let round = self.node(&fold.condition).add(self.node(&fold.step));
        let step_entries = self.entries_of(&fold.step);
        self.locals.truncate(depth);
        let after = self.node(&fold.result);
        self.locals.pop();
        let count = self.known(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(id, count);
                if let Some(entries) = step_entries {
                    self.entries.insert(id, entries);
                }
            }
            _ => {}
        }
        before.add(after).add(count.multiply(round))
    }

    fn copy(&mut self, id: u32, from: &'c Node) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(id, entries);
        }
    }

    fn entries_of(&self, node: &Node) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&node.id) {
            return Some(*entries);
        }
        match &node.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    fn known(&self, node: &Node) -> Range {
        self.size(node).unwrap_or(Range::UNKNOWN)
    }

    fn size(&self, node: &Node) -> Option<Range> {
        if let Some(size) = self.sizes.get(&node.id) {
            return Some(*size);
        }
        let fixed = match &node.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = fixed {
            return Some(Range::fixed(size as u64));
        }
        let accumulator = matches!(&node.kind, Kind::Ident(name) if name == ACCUMULATOR);
        if let (Path::At(declared), false) = (self.path(node), accumulator) {
            return Some(Range { min: 0, max: declared.max_elements });
        }
        if scalar(self.type_of(node)) {
            return Some(Range::ONE);
        }
        match &node.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }
}

/// Whether the loop only binds a name.
fn bound(fold: &Fold) -> bool {
    let never = matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)));
    never
        && fold.accu != ACCUMULATOR
        && matches!(&fold.range.kind, Kind::List { elements, .. } if elements.is_empty())
}

fn scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => scalar(of),
        _ => false,
    }
}
