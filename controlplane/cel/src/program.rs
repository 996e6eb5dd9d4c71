//! Expressions ready to run: read, checked, their cost estimated, their literal patterns compiled.

use std::collections::HashMap;
use std::sync::Arc;

use crate::check::{self, Checked, Variable};
use crate::cost::{self, Range};
use crate::eval::{self, EvalError, Machine};
use crate::library::Overload;
use crate::source::{Errors, Source};
use crate::syntax::{self, Kind, Literal, Node};
use crate::types::Type;
use crate::value::Value;
use pagurus_controlplane_api::regexp;

/// Most an expression may cost when it runs (`k8s.io/apiserver/pkg/apis/cel`, `PerCallLimit`).
pub const CALL_LIMIT: u64 = 1_000_000;

/// A compiled expression. Costs little to keep and nothing to share.
#[derive(Debug)]
pub struct Program {
    checked: Checked,
    result: Type,
    cost: Range,
    regexes: HashMap<String, Arc<regex::Regex>>,
    fault: Option<String>,
}

/// What an expression came to.
#[derive(Debug)]
pub struct Run<'a> {
    /// Its value, or why it has none.
    pub value: Result<Value<'a>, EvalError>,
    /// What it cost.
    pub cost: u64,
}

impl Program {
    /// Compiles an expression over these variables. Errors read as cel-go's.
    pub fn compile(text: &str, variables: &[Variable]) -> Result<Program, Errors> {
        Self::build(text, variables, false)
    }

    /// As [`Program::compile`], with the macro `cel.bind` that only device selectors have.
    pub fn compile_with_bindings(text: &str, variables: &[Variable]) -> Result<Program, Errors> {
        Self::build(text, variables, true)
    }

    fn build(text: &str, variables: &[Variable], bindings: bool) -> Result<Program, Errors> {
        let source = Source::new(text);
        let parsed = syntax::parse(&source, bindings)?;
        let mut checked = check::check(&source, parsed, variables)?;
        let cost = cost::estimate(&checked, variables).cost;
        let result = checked.types[checked.root.id as usize].clone();
        let regexes = regexes(&checked);
        // Types have done their part.
        checked.types = Vec::new();
        let mut program = Program { checked, result, cost, regexes, fault: None };
        program.fault = fault(&program, &program.checked.root);
        Ok(program)
    }

    /// Why it can never run, though its types are right: a pattern that is none, a constant that cannot be converted.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The type of its value.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// What it may cost, reckoned from the declared sizes.
    pub fn cost(&self) -> Range {
        self.cost
    }

    /// Whether it uses the variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.checked.used.iter().any(|used| used == variable)
    }

    /// Evaluates the expression. What costs more than `limit` is given up.
    pub fn run<'a>(&'a self, variables: &[(&'a str, Value<'a>)], limit: u64) -> Run<'a> {
        let mut machine = Machine::new(self, variables, limit);
        let value = machine.node(&self.checked.root);
        Run { value, cost: machine.cost() }
    }

    pub(crate) fn overloads(&self, id: u32) -> &[&'static Overload] {
        self.checked.overloads.get(id as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn regex(&self, pattern: &str) -> Option<Arc<regex::Regex>> {
        self.regexes.get(pattern).cloned()
    }
}

/// The patterns that stand in the expression as text. One that is wrong is an error only where it is used.
fn regexes(checked: &Checked) -> HashMap<String, Arc<regex::Regex>> {
    let mut regexes = HashMap::new();
    check::each(&checked.root, &mut |node| {
        let Kind::Call(call) = &node.kind else { return };
        if !matches!(call.function.as_str(), "matches" | "find" | "findAll") {
            return;
        }
        for arg in &call.args {
            if let Kind::Literal(Literal::String(pattern)) = &arg.kind
                && let Ok(regex) = regexp::compile(pattern)
            {
                regexes.insert(pattern.clone(), Arc::new(regex));
            }
        }
    });
    regexes
}

/// What cel-go finds wrong when it makes constants of what is constant, inner parts first.
fn fault(program: &Program, node: &Node) -> Option<String> {
    if let Some(fault) = check::parts(node).into_iter().find_map(|part| fault(program, part)) {
        return Some(fault);
    }
    let Kind::Call(call) = &node.kind else { return None };
    if let ("find" | "findAll", Some(Kind::Literal(Literal::String(pattern)))) =
        (call.function.as_str(), call.args.first().map(|arg| &arg.kind))
    {
        return regexp::compile(pattern).err();
    }
    if !(eval::is_conversion(call) && call.args.iter().all(eval::constant)) {
        return None;
    }
    match Machine::new(program, &[], u64::MAX).node(node) {
        Err(EvalError::Failed(why)) => Some(why),
        _ => None,
    }
}
