//! Expressions in schemas (`x-kubernetes-validations`): what a definition may say, and what they say of objects.
//!
//! Rules are those of Kubernetes' documentation ("Validation rules") and its cost limits. It must not know how a definition is stored
//! nor how objects are served.

mod declare;
mod define;
mod evaluate;

pub(crate) use define::definition;
pub(crate) use evaluate::Rules;

use std::sync::Arc;

use pagurus_controlplane_cel::{DeclKind, DeclType, Errors, Program, Type, Variable};

/// The variables of a rule on a value that is declared so: the value, and the one it replaces.
fn variables(declared: &Arc<DeclType>, optional_old: bool) -> Vec<Variable> {
    let old = match optional_old {
        true => Arc::new(DeclType {
            kind: DeclKind::Optional(declared.clone()),
            max_elements: declared.max_elements,
        }),
        false => declared.clone(),
    };
    [("self", declared.clone()), ("oldSelf", old)]
        .into_iter()
        .map(|(name, declared)| Variable { name: name.to_owned(), declared })
        .collect()
}

/// Why an expression is no rule or no message.
fn compile(
    text: &str,
    variables: &[Variable],
    wanted: &Type,
    failed: &str,
    wrong: &str,
    instantiation: &str,
) -> Result<Program, String> {
    let program =
        Program::compile(text, variables).map_err(|errors: Errors| format!("{failed}: {errors}"))?;
    if program.result() != wanted {
        return Err(wrong.to_owned());
    }
    match program.fault() {
        Some(fault) => Err(format!("{instantiation} failed: {fault}")),
        None => Ok(program),
    }
}

/// Compiles the expression of a rule.
fn compile_rule(text: &str, variables: &[Variable]) -> Result<Program, String> {
    let (failed, wrong) = ("compilation failed", "cel expression must evaluate to a bool");
    compile(text, variables, &Type::Bool, failed, wrong, "program instantiation")
}

/// Compiles the expression of a rule's message.
fn compile_message(text: &str, variables: &[Variable]) -> Result<Program, String> {
    let (failed, wrong) =
        ("messageExpression compilation failed", "messageExpression must evaluate to a string");
    compile(text, variables, &Type::String, failed, wrong, "messageExpression instantiation")
}
