//! The macros: calls that stand for loops and tests, rewritten before types are checked as cel-go rewrites them.

use crate::syntax::{Call, Converter, Fold, Kind, Literal, Node, Select};

/// The name of the accumulator; no expression can spell it.
pub(crate) const ACCUMULATOR: &str = "@result";
/// The variable of a loop that runs never, which binds a name only.
const UNUSED: &str = "#unused";
/// What a list to be sorted is bound to.
const SORTED: &str = "@__sortBy_input__";

/// The call as it is, or what it stands for if it is a macro's.
pub(crate) fn expand(c: &mut Converter<'_>, id: u32, call: Call) -> Node {
    let shape = (call.function.as_str(), call.target.is_some(), call.args.len());
    let expand: fn(&mut Converter<'_>, u32, Node, Vec<Node>) -> Result<Node, ()> = match shape {
        ("has", false, 1) => return has(c, id, call),
        ("all", true, 2 | 3) => all,
        ("exists", true, 2 | 3) => exists,
        ("exists_one" | "existsOne", true, 2 | 3) => exists_one,
        ("map", true, 2 | 3) => map,
        ("filter", true, 2) => filter,
        ("transformList", true, 3 | 4) => transform_list,
        ("transformMap", true, 3 | 4) => transform_map,
        ("transformMapEntry", true, 3 | 4) => transform_entry,
        ("optMap", true, 2) => opt_map,
        ("optFlatMap", true, 2) => opt_flat_map,
        ("sortBy", true, 2) => sort_by,
        ("bind", true, 3) if c.bindings && is_cel(&call) => bind,
        _ => return Node { id, kind: Kind::Call(Box::new(call)) },
    };
    let Call { target: Some(target), args, .. } = call else {
        return Node { id, kind: Kind::Literal(Literal::Null) };
    };
    // The error is noted already; what stands here is never looked at.
    expand(c, id, target, args).unwrap_or(Node { id, kind: Kind::Literal(Literal::Null) })
}

fn has(c: &mut Converter<'_>, id: u32, mut call: Call) -> Node {
    match call.args.pop().map(|arg| (arg.id, arg.kind)) {
        Some((_, Kind::Select(select))) if !select.test => {
            Node { id, kind: Kind::Select(Box::new(Select { test: true, ..*select })) }
        }
        Some((arg, _)) => {
            c.error(arg, "invalid argument to has() macro");
            Node { id, kind: Kind::Literal(Literal::Null) }
        }
        None => Node { id, kind: Kind::Literal(Literal::Null) },
    }
}

/// The name that an argument must be.
fn name(c: &mut Converter<'_>, arg: Option<Node>, otherwise: &str) -> Result<String, ()> {
    match arg.map(|arg| (arg.id, arg.kind)) {
        Some((id, Kind::Ident(name))) if name != ACCUMULATOR && !name.starts_with('.') => {
            let _ = id;
            Ok(name)
        }
        Some((id, _)) => {
            c.error(id, otherwise);
            Err(())
        }
        None => Err(()),
    }
}

const SIMPLE: &str = "argument must be a simple name";
const IDENTIFIER: &str = "argument is not an identifier";

/// The variables of a loop.
type Variables = (String, Option<String>);

/// The variables of a loop: one, or two if there is an argument more than the rest.
fn variables(c: &mut Converter<'_>, args: &mut Vec<Node>, rest: usize) -> Result<Variables, ()> {
    let two = args.len() > rest + 1;
    let first = name(c, Some(args.remove(0)), SIMPLE)?;
    let second = if two { Some(name(c, Some(args.remove(0)), SIMPLE)?) } else { None };
    Ok((first, second))
}

/// Builds nodes at the place of the macro.
struct Maker<'c, 's> {
    c: &'c mut Converter<'s>,
    id: u32,
}

impl Maker<'_, '_> {
    fn node(&mut self, kind: Kind) -> Node {
        self.c.new_node(self.id, kind)
    }

    fn ident(&mut self, name: &str) -> Node {
        self.node(Kind::Ident(name.to_owned()))
    }

    fn accumulator(&mut self) -> Node {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, literal: Literal) -> Node {
        self.node(Kind::Literal(literal))
    }

    fn call(&mut self, function: &str, args: Vec<Node>) -> Node {
        self.node(Kind::Call(Box::new(Call { function: function.to_owned(), target: None, args })))
    }

    fn method(&mut self, target: Node, function: &str, args: Vec<Node>) -> Node {
        self.node(Kind::Call(Box::new(Call { function: function.to_owned(), target: Some(target), args })))
    }

    fn list(&mut self, elements: Vec<Node>) -> Node {
        self.node(Kind::List { elements, optional: Vec::new() })
    }

    /// `name` stands for `value` within `result`.
    fn bind(&mut self, name: &str, value: Node, result: Node) -> Node {
        let (range, condition, step) =
            (self.list(Vec::new()), self.literal(Literal::Bool(false)), self.ident(name));
        let (var, accu) = (UNUSED.to_owned(), name.to_owned());
        self.node(Kind::Fold(Box::new(Fold {
            range,
            var,
            var2: None,
            accu,
            init: value,
            condition,
            step,
            result,
        })))
    }

    /// The loop over `range` with the usual accumulator.
    fn fold(self, range: Node, (var, var2): Variables, [init, condition, step, result]: [Node; 4]) -> Node {
        let fold = Fold { range, var, var2, accu: ACCUMULATOR.to_owned(), init, condition, step, result };
        Node { id: self.id, kind: Kind::Fold(Box::new(fold)) }
    }
}

fn all(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let variables = variables(c, &mut args, 1)?;
    let mut m = Maker { c, id };
    let init = m.literal(Literal::Bool(true));
    let accu = m.accumulator();
    let condition = m.call("@not_strictly_false", vec![accu]);
    args.insert(0, m.accumulator());
    let step = m.call("_&&_", args);
    let result = m.accumulator();
    Ok(m.fold(target, variables, [init, condition, step, result]))
}

fn exists(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let variables = variables(c, &mut args, 1)?;
    let mut m = Maker { c, id };
    let init = m.literal(Literal::Bool(false));
    let accu = m.accumulator();
    let not = m.call("!_", vec![accu]);
    let condition = m.call("@not_strictly_false", vec![not]);
    args.insert(0, m.accumulator());
    let step = m.call("_||_", args);
    let result = m.accumulator();
    Ok(m.fold(target, variables, [init, condition, step, result]))
}

fn exists_one(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let variables = variables(c, &mut args, 1)?;
    let mut m = Maker { c, id };
    let init = m.literal(Literal::Int(0));
    let condition = m.literal(Literal::Bool(true));
    let (accu, one) = (m.accumulator(), m.literal(Literal::Int(1)));
    let more = m.call("_+_", vec![accu, one]);
    let same = m.accumulator();
    args.extend([more, same]);
    let step = m.call("_?_:_", args);
    let (accu, one) = (m.accumulator(), m.literal(Literal::Int(1)));
    let result = m.call("_==_", vec![accu, one]);
    Ok(m.fold(target, variables, [init, condition, step, result]))
}

/// The loop that adds `[value]` to a list for each element, if `filter` holds.
fn collect(
    mut m: Maker<'_, '_>,
    target: Node,
    variables: Variables,
    value: Node,
    filter: Option<Node>,
) -> Node {
    let init = m.list(Vec::new());
    let condition = m.literal(Literal::Bool(true));
    let (accu, added) = (m.accumulator(), m.list(vec![value]));
    let mut step = m.call("_+_", vec![accu, added]);
    if let Some(filter) = filter {
        let same = m.accumulator();
        step = m.call("_?_:_", vec![filter, step, same]);
    }
    let result = m.accumulator();
    m.fold(target, variables, [init, condition, step, result])
}

fn map(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let Some(value) = args.pop() else { return Err(()) };
    let filter = (args.len() > 1).then(|| args.pop()).flatten();
    let var = name(c, args.pop(), IDENTIFIER)?;
    Ok(collect(Maker { c, id }, target, (var, None), value, filter))
}

fn filter(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let filter = args.pop();
    let var = name(c, args.pop(), IDENTIFIER)?;
    let mut m = Maker { c, id };
    let value = m.ident(&var);
    Ok(collect(m, target, (var, None), value, filter))
}

/// The two variables, the filter if there is one, and the last argument.
fn transform(c: &mut Converter<'_>, mut args: Vec<Node>) -> Result<(Variables, Option<Node>, Node), ()> {
    let Some(value) = args.pop() else { return Err(()) };
    let filter = (args.len() > 2).then(|| args.pop()).flatten();
    let second = name(c, args.pop(), SIMPLE)?;
    let first = name(c, args.pop(), SIMPLE)?;
    Ok(((first, Some(second)), filter, value))
}

fn transform_list(c: &mut Converter<'_>, id: u32, target: Node, args: Vec<Node>) -> Result<Node, ()> {
    let (variables, filter, value) = transform(c, args)?;
    Ok(collect(Maker { c, id }, target, variables, value, filter))
}

/// The loop that makes a map, putting `inserted` into it for each element.
fn collect_map(
    mut m: Maker<'_, '_>,
    target: Node,
    variables: Variables,
    inserted: Vec<Node>,
    filter: Option<Node>,
) -> Node {
    let init = m.node(Kind::Map(Vec::new()));
    let condition = m.literal(Literal::Bool(true));
    let mut args = vec![m.accumulator()];
    args.extend(inserted);
    let mut step = m.call("cel.@mapInsert", args);
    if let Some(filter) = filter {
        let same = m.accumulator();
        step = m.call("_?_:_", vec![filter, step, same]);
    }
    let result = m.accumulator();
    m.fold(target, variables, [init, condition, step, result])
}

fn transform_map(c: &mut Converter<'_>, id: u32, target: Node, args: Vec<Node>) -> Result<Node, ()> {
    let (variables, filter, value) = transform(c, args)?;
    let mut m = Maker { c, id };
    let key = m.ident(&variables.0);
    Ok(collect_map(m, target, variables, vec![key, value], filter))
}

fn transform_entry(c: &mut Converter<'_>, id: u32, target: Node, args: Vec<Node>) -> Result<Node, ()> {
    let (variables, filter, entry) = transform(c, args)?;
    Ok(collect_map(Maker { c, id }, target, variables, vec![entry], filter))
}

/// `target` has a value: `result` of it, bound to the name; else nothing.
fn optional(
    c: &mut Converter<'_>,
    id: u32,
    target: Node,
    mut args: Vec<Node>,
    wrap: bool,
) -> Result<Node, ()> {
    let Some(result) = args.pop() else { return Err(()) };
    let var = name(c, args.pop(), SIMPLE)?;
    let again = copy(c, &target);
    let mut m = Maker { c, id };
    let tested = m.method(target, "hasValue", Vec::new());
    let value = m.method(again, "value", Vec::new());
    let bound = m.bind(&var, value, result);
    let some = if wrap { m.call("optional.of", vec![bound]) } else { bound };
    let none = m.call("optional.none", Vec::new());
    Ok(m.call("_?_:_", vec![tested, some, none]))
}

fn opt_map(c: &mut Converter<'_>, id: u32, target: Node, args: Vec<Node>) -> Result<Node, ()> {
    optional(c, id, target, args, true)
}

fn opt_flat_map(c: &mut Converter<'_>, id: u32, target: Node, args: Vec<Node>) -> Result<Node, ()> {
    optional(c, id, target, args, false)
}

fn sort_by(c: &mut Converter<'_>, id: u32, target: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
        c.error(
            target.id,
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression",
        );
        return Err(());
    }
    let Some(key) = args.pop() else { return Err(()) };
    let var = name(c, args.pop(), SIMPLE)?;
    let mut m = Maker { c, id };
    let input = m.ident(SORTED);
    let inner = m.node(Kind::Literal(Literal::Null)).id;
    let keys = collect(Maker { c: m.c, id: inner }, input, (var, None), key, None);
    let input = m.ident(SORTED);
    let sorted = m.method(input, "@sortByAssociatedKeys", vec![keys]);
    Ok(m.bind(SORTED, target, sorted))
}

/// Parts an expression may have after macros were expanded: a macro that copies its target could double them without end.
const MAX_PARTS: usize = 200_000;

fn is_cel(call: &Call) -> bool {
    matches!(&call.target, Some(Node { kind: Kind::Ident(name), .. }) if name == "cel")
}

/// `cel.bind(name, value, result)`
fn bind(c: &mut Converter<'_>, id: u32, _: Node, mut args: Vec<Node>) -> Result<Node, ()> {
    let (Some(result), Some(value)) = (args.pop(), args.pop()) else { return Err(()) };
    let name = name(c, args.pop(), "cel.bind() variable names must be simple identifiers")?;
    Ok(Maker { c, id }.bind(&name, value, result))
}

/// The same part with numbers of its own.
fn copy(c: &mut Converter<'_>, node: &Node) -> Node {
    if c.places.len() > MAX_PARTS {
        c.too_large(node.id);
        return Node { id: node.id, kind: Kind::Literal(Literal::Null) };
    }
    let kind = match &node.kind {
        Kind::Select(select) => Kind::Select(Box::new(Select {
            operand: copy(c, &select.operand),
            field: select.field.clone(),
            test: select.test,
        })),
        Kind::Call(call) => {
            let target = call.target.as_ref().map(|target| copy(c, target));
            let args = call.args.iter().map(|arg| copy(c, arg)).collect();
            Kind::Call(Box::new(Call { function: call.function.clone(), target, args }))
        }
        Kind::List { elements, optional } => Kind::List {
            elements: elements.iter().map(|element| copy(c, element)).collect(),
            optional: optional.clone(),
        },
        Kind::Map(entries) => {
            let entries = entries.iter().map(|entry| crate::syntax::Entry {
                key: copy(c, &entry.key),
                value: copy(c, &entry.value),
                optional: entry.optional,
            });
            Kind::Map(entries.collect())
        }
        Kind::Struct { name, fields } => {
            Kind::Struct { name: name.clone(), fields: fields.iter().map(|field| copy(c, field)).collect() }
        }
        Kind::Fold(fold) => {
            let Fold { range, var, var2, accu, init, condition, step, result } = fold.as_ref();
            let [range, init, condition, step, result] =
                [range, init, condition, step, result].map(|part| copy(c, part));
            Kind::Fold(Box::new(Fold {
                range,
                var: var.clone(),
                var2: var2.clone(),
                accu: accu.clone(),
                init,
                condition,
                step,
                result,
            }))
        }
        Kind::Literal(_) | Kind::Ident(_) => node.kind.clone(),
    };
    c.new_node(node.id, kind)
}
