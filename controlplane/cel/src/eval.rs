//! Evaluation: walks a checked expression over values, counts what it costs as cel-go does, and stops where the budget ends.
//! Knows no JSON and no Kubernetes.

use std::rc::Rc;
use std::sync::Arc;

use crate::cost;
use crate::library::Overload;
use crate::macros::ACCUMULATOR;
use crate::program::Program;
use crate::syntax::{Call, Entry, Fold, Kind, Literal, Node, Select};
use crate::value::{List, Map, Text, Value};
use pagurus_controlplane_api::regexp;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalError {
    /// What went wrong, in cel-go's words.
    Failed(String),
    /// It cost more than it may.
    OverBudget,
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EvalError::Failed(message) => f.write_str(message),
            EvalError::OverBudget => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl std::error::Error for EvalError {}

/// A value or why there is none.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The error with that text.
pub(crate) fn failed<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(message.into()))
}

/// Bytes an expression may make beside what it costs: what is copied without cost must have an end too.
const MAX_MADE: u64 = 64 << 20;
/// Bytes an item of a list takes.
const ITEM: u64 = 64;

/// The state of one evaluation.
pub(crate) struct Machine<'a> {
    program: &'a Program,
    scope: Vec<(&'a str, Value<'a>)>,
    cost: u64,
    limit: u64,
    made: u64,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(program: &'a Program, variables: &[(&'a str, Value<'a>)], limit: u64) -> Self {
        Self { program, scope: variables.to_vec(), cost: 0, limit, made: 0 }
    }

    /// What was spent.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::OverBudget) } else { Ok(()) }
    }

    /// Notes that so many items of lists are about to be made.
    pub(crate) fn make_items(&mut self, count: u64) -> Result<(), EvalError> {
        self.make(count.saturating_mul(ITEM))
    }

    /// Notes that so many bytes of text are about to be made.
    pub(crate) fn make(&mut self, size: u64) -> Result<(), EvalError> {
        self.made = self.made.saturating_add(size);
        if self.made > MAX_MADE { Err(EvalError::OverBudget) } else { Ok(()) }
    }

    /// The regular expression, compiled before if it is a literal.
    pub(crate) fn regex(&self, pattern: &str) -> Result<Arc<regex::Regex>, EvalError> {
        if let Some(regex) = self.program.regex(pattern) {
            return Ok(regex);
        }
        regexp::compile(pattern).map(Arc::new).map_err(EvalError::Failed)
    }

    pub(crate) fn node(&mut self, node: &'a Node) -> Outcome<'a> {
        match &node.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(node.id, call),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, .. } => failed(format!("unknown type: {name}")),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &'a str) -> Outcome<'a> {
        if let Some(at) = self.scope.iter().rposition(|(bound, _)| *bound == name) {
            self.spend(cost::SELECT_AND_IDENT)?;
            return match &self.scope[at].1 {
                Value::Failed(message) => failed(message.as_ref()),
                value => Ok(value.clone()),
            };
        }
        match crate::library::type_named(name) {
            Some(of) => Ok(Value::Type(of)),
            None => failed(format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, select: &'a Select) -> Outcome<'a> {
        let operand = self.node(&select.operand)?;
        if select.test {
            // has() itself costs nothing in Kubernetes.
            return match &operand {
                Value::Map(map) => Ok(Value::Bool(map.field(&select.field).is_some())),
                Value::Optional(inner) => Ok(Value::Bool(
                    matches!(inner.as_deref(), Some(Value::Map(map)) if map.field(&select.field).is_some()),
                )),
                _ => failed("no such overload"),
            };
        }
        self.spend(cost::SELECT_AND_IDENT)?;
        select_field(&operand, &select.field)
    }

    #[inline(never)]
    fn call(&mut self, id: u32, call: &'a Call) -> Outcome<'a> {
        match (call.function.as_str(), call.args.as_slice()) {
            ("_&&_", [left, right]) => self.logic(left, right, false),
            ("_||_", [left, right]) => self.logic(left, right, true),
            ("_?_:_", [condition, yes, no]) => match self.node(condition)? {
                Value::Bool(true) => self.looked_up(yes),
                Value::Bool(false) => self.looked_up(no),
                _ => failed("no such overload"),
            },
            ("_[_]", [of, key]) if is_path(key) => {
                let of = self.node(of)?;
                let key = self.looked_up(key)?;
                self.choose(id, call, &[of, key])
            }
            // What is constant is reckoned with before the expression runs.
            ("@in", [item, list]) if matches!(list.kind, Kind::List { .. }) && constant(list) => {
                let item = self.node(item)?;
                let Value::List(list) = self.node(list)? else { return failed("no such overload") };
                Ok(Value::Bool(list.contains(&item)))
            }
            (_, [_]) if is_conversion(call) && call.args.iter().all(constant) => {
                self.free(|machine| machine.function(id, call))
            }
            ("@not_strictly_false", [value]) => {
                let value = self.node(value);
                self.spend(1)?;
                match value {
                    Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
                    Err(EvalError::OverBudget) => Err(EvalError::OverBudget),
                    _ => Ok(Value::Bool(true)),
                }
            }
            ("_?._", [operand, Node { kind: Kind::Literal(Literal::String(field)), .. }]) => {
                let operand = self.node(operand)?;
                self.spend(1)?;
                optional_field(&operand, field)
            }
            ("or" | "orValue", [other]) if call.target.is_some() => self.otherwise(id, call, other),
            (
                "_+_",
                [Node { kind: Kind::Ident(name), .. }, Node { kind: Kind::List { elements, optional }, .. }],
            ) if name == ACCUMULATOR && optional.is_empty() => self.append(elements),
            ("cel.@mapInsert", [Node { kind: Kind::Ident(name), .. }, inserted @ ..])
                if name == ACCUMULATOR =>
            {
                self.insert(inserted)
            }
            _ => self.function(id, call),
        }
    }

    /// `&&` and `||`: what one side decides holds, even if the other has an error.
    fn logic(&mut self, left: &'a Node, right: &'a Node, decides: bool) -> Outcome<'a> {
        let first = match self.node(left) {
            Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
            Err(EvalError::OverBudget) => return Err(EvalError::OverBudget),
            first => first,
        };
        match self.node(right) {
            Ok(Value::Bool(value)) if value == decides => Ok(Value::Bool(decides)),
            Err(EvalError::OverBudget) => Err(EvalError::OverBudget),
            second => match (first?, second?) {
                (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!decides)),
                _ => failed("no such overload"),
            },
        }
    }

    /// `x.or(y)` and `x.orValue(y)`: the second is asked only if the first has no value.
    fn otherwise(&mut self, id: u32, call: &'a Call, other: &'a Node) -> Outcome<'a> {
        let Some(target) = &call.target else { return self.function(id, call) };
        match self.node(target)? {
            Value::Optional(Some(value)) if call.function == "orValue" => Ok(value.as_ref().clone()),
            Value::Optional(Some(value)) => Ok(Value::Optional(Some(value))),
            Value::Optional(None) => self.node(other),
            _ => failed("no such overload"),
        }
    }

    /// Evaluates without cost.
    fn free(&mut self, run: impl FnOnce(&mut Self) -> Outcome<'a>) -> Outcome<'a> {
        let spent = self.cost;
        let outcome = run(self);
        self.cost = spent;
        outcome
    }

    /// The value of a key or of a branch: a variable or field there is found on the way, at no cost of its own.
    fn looked_up(&mut self, node: &'a Node) -> Outcome<'a> {
        if is_path(node) { self.free(|machine| machine.node(node)) } else { self.node(node) }
    }

    #[inline(never)]
    fn function(&mut self, id: u32, call: &'a Call) -> Outcome<'a> {
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.iter().chain(&call.args) {
            match self.node(arg) {
                Ok(value) => args.push(value),
                // A call with an argument that failed is counted all the same.
                Err(error) => {
                    self.spend(1)?;
                    return Err(error);
                }
            }
        }
        self.choose(id, call, &args)
    }

    /// Calls the overload that takes the arguments.
    fn choose(&mut self, id: u32, call: &'a Call, args: &[Value<'a>]) -> Outcome<'a> {
        let program = self.program;
        let fitting = program
            .overloads(id)
            .iter()
            .find(|overload| overload.args.iter().zip(args).all(|(of, arg)| arg.fits(of)));
        match fitting {
            Some(overload) => self.apply(overload, args),
            None => no_overload(call, args),
        }
    }

    fn apply(&mut self, overload: &'static Overload, args: &[Value<'a>]) -> Outcome<'a> {
        let result = (overload.body)(self, args)?;
        self.spend(overload.costing.actual(args, &result))?;
        Ok(result)
    }

    #[inline(never)]
    fn list(&mut self, elements: &'a [Node], optional: &[usize]) -> Outcome<'a> {
        let constant = elements.iter().all(constant);
        let mut items = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            let value = self.node(element)?;
            match value {
                Value::Optional(None) if optional.contains(&at) => {}
                Value::Optional(Some(value)) if optional.contains(&at) => items.push(value.as_ref().clone()),
                value => items.push(value),
            }
        }
        self.make_items(items.len() as u64)?;
        // A list of constants is made once, before anything is counted.
        self.spend(if constant { 0 } else { cost::LIST })?;
        Ok(Value::list(items))
    }

    #[inline(never)]
    fn map(&mut self, entries: &'a [Entry]) -> Outcome<'a> {
        let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = self.node(&entry.key)?;
            let mut value = self.node(&entry.value)?;
            if entry.optional {
                match value {
                    Value::Optional(None) => continue,
                    Value::Optional(Some(inner)) => value = inner.as_ref().clone(),
                    _ => return failed("no such overload"),
                }
            }
            if made.iter().any(|(other, _)| other.equals(&key)) {
                return failed("Failed with repeated key");
            }
            made.push((key, value));
        }
        self.make_items(made.len() as u64)?;
        let constant = entries.iter().all(|entry| constant(&entry.key) && constant(&entry.value));
        self.spend(if constant { 0 } else { cost::MAP })?;
        Ok(Value::Map(Map::Made(Rc::new(made))))
    }

    /// `@result + [...]`, in place.
    fn append(&mut self, elements: &'a [Node]) -> Outcome<'a> {
        self.spend(cost::SELECT_AND_IDENT)?;
        let mut added = Vec::with_capacity(elements.len());
        for element in elements {
            added.push(self.node(element)?);
        }
        self.spend(cost::LIST + 1)?;
        self.make_items(added.len() as u64)?;
        match self.take_accumulator() {
            Value::List(List::Made(mut items)) => {
                Rc::make_mut(&mut items).extend(added);
                Ok(Value::List(List::Made(items)))
            }
            _ => failed("no such overload"),
        }
    }

    /// `cel.@mapInsert(@result, ...)`, in place.
    fn insert(&mut self, inserted: &'a [Node]) -> Outcome<'a> {
        self.spend(cost::SELECT_AND_IDENT)?;
        let mut args = Vec::with_capacity(inserted.len());
        for arg in inserted {
            args.push(self.node(arg)?);
        }
        self.spend(1)?;
        let added: Vec<(Value<'a>, Value<'a>)> = match args.as_slice() {
            [key, value] => vec![(key.clone(), value.clone())],
            [Value::Map(map)] => {
                map.keys().into_iter().filter_map(|key| map.get(&key).map(|value| (key, value))).collect()
            }
            _ => return failed("no such overload"),
        };
        self.make_items(added.len() as u64)?;
        let Value::Map(Map::Made(mut entries)) = self.take_accumulator() else {
            return failed("no such overload");
        };
        let made = Rc::make_mut(&mut entries);
        for (key, value) in added {
            if made.iter().any(|(other, _)| other.equals(&key)) {
                return failed(format!(
                    "insert failed: key {} already exists",
                    crate::library::format::plain(&key)
                ));
            }
            made.push((key, value));
        }
        // Each look for a key passes over all entries.
        let passed = entries.len() as u64 / 16;
        self.make(passed)?;
        Ok(Value::Map(Map::Made(entries)))
    }

    fn take_accumulator(&mut self) -> Value<'a> {
        let bound = self.scope.iter_mut().rev().find(|(bound, _)| *bound == ACCUMULATOR);
        bound.map_or(Value::Null, |(_, value)| std::mem::replace(value, Value::Null))
    }

    #[inline(never)]
    fn fold(&mut self, fold: &'a Fold) -> Outcome<'a> {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init)?;
        let scope = self.scope.len();
        self.scope.push((&fold.accu, init));
        let outcome = self.run(fold, range, scope);
        let outcome = outcome.and_then(|()| {
            self.scope.truncate(scope + 1);
            self.node(&fold.result)
        });
        self.scope.truncate(scope);
        outcome
    }

    fn run(&mut self, fold: &'a Fold, range: Value<'a>, scope: usize) -> Result<(), EvalError> {
        match (range, &fold.var2) {
            (Value::List(list), None) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at) else { break };
                    if !self.step(fold, scope, item, None)? {
                        break;
                    }
                }
                Ok(())
            }
            (Value::List(list), Some(_)) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at) else { break };
                    if !self.step(fold, scope, Value::Int(at as i64), Some(item))? {
                        break;
                    }
                }
                Ok(())
            }
            (Value::Map(map), var2) => {
                for key in map.keys() {
                    let value = if var2.is_some() { map.get(&key) } else { None };
                    if !self.step(fold, scope, key, value)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => failed("no such overload"),
        }
    }

    /// One round of a loop; false where it ends.
    fn step(
        &mut self,
        fold: &'a Fold,
        scope: usize,
        first: Value<'a>,
        second: Option<Value<'a>>,
    ) -> Result<bool, EvalError> {
        self.scope.truncate(scope + 1);
        self.scope.push((&fold.var, first));
        if let (Some(var2), Some(value)) = (&fold.var2, second) {
            self.scope.push((var2, value));
        }
        match self.node(&fold.condition)? {
            Value::Bool(true) => {}
            _ => return Ok(false),
        }
        // An error of a quantifier's step may yet be overruled by a later element; others end the loop.
        let next = match self.node(&fold.step) {
            Ok(next) => next,
            Err(EvalError::Failed(message)) if quantifier(fold) => Value::Failed(message.into()),
            Err(error) => return Err(error),
        };
        if let Some(bound) = self.scope.get_mut(scope) {
            bound.1 = next;
        }
        Ok(true)
    }
}

/// Whether the loop is that of `all` or `exists`, whose accumulators may be errors for a while.
fn quantifier(fold: &Fold) -> bool {
    matches!(&fold.step.kind, Kind::Call(call) if call.function == "_&&_" || call.function == "_||_")
}

/// Whether the part is a variable with fields and elements looked up in it.
fn is_path(node: &Node) -> bool {
    match &node.kind {
        Kind::Ident(_) => true,
        Kind::Select(select) => !select.test && is_path(&select.operand),
        Kind::Call(call) => match (call.function.as_str(), call.args.as_slice()) {
            ("_[_]", [of, key]) => is_path(of) && (is_path(key) || matches!(key.kind, Kind::Literal(_))),
            _ => false,
        },
        _ => false,
    }
}

/// Whether the part is the same whatever the variables are, as far as that is reckoned with beforehand.
pub(crate) fn constant(node: &Node) -> bool {
    match &node.kind {
        Kind::Literal(_) => true,
        Kind::List { elements, optional } => optional.is_empty() && elements.iter().all(constant),
        Kind::Map(entries) => {
            entries.iter().all(|entry| !entry.optional && constant(&entry.key) && constant(&entry.value))
        }
        Kind::Call(call) => {
            is_conversion(call) && call.args.iter().all(|arg| matches!(arg.kind, Kind::Literal(_)))
        }
        _ => false,
    }
}

pub(crate) fn is_conversion(call: &Call) -> bool {
    const CONVERSIONS: [&str; 8] =
        ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];
    call.target.is_none() && call.args.len() == 1 && CONVERSIONS.contains(&call.function.as_str())
}

fn literal_value(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(value) => Value::String(Text::Borrowed(value)),
        Literal::Bytes(value) => Value::Bytes(value.as_slice().into()),
    }
}

/// The field of a map or object, or of an optional one.
fn select_field<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Map(map) => map.field(field).map_or_else(|| failed(format!("no such key: {field}")), Ok),
        Value::Optional(_) => optional_field(operand, field),
        _ => failed("no such overload"),
    }
}

/// `operand.?field`
fn optional_field<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_field(inner, field),
        Value::Map(map) => Ok(Value::Optional(map.field(field).map(Rc::new))),
        _ => failed("no such overload"),
    }
}

fn no_overload<'a>(call: &Call, args: &[Value<'a>]) -> Outcome<'a> {
    if !call.function.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return failed("no such overload");
    }
    let types: Vec<String> =
        args.iter().map(|arg| crate::library::format::type_name(&arg.type_of())).collect();
    match (&call.target, types.split_first()) {
        (Some(_), Some((target, args))) => {
            failed(format!("no such overload: {target}.{}({})", call.function, args.join(", ")))
        }
        _ => failed(format!("no such overload: {}({})", call.function, types.join(", "))),
    }
}
