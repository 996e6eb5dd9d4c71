//! Simple JSON paths into a schema (`.spec.color`): whether they lead to a field. It must not know what the field is for.

use super::Schema;

/// Why a path leads to no field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It does not begin with a dot.
    #[error("expected [ or . but got: {0}")]
    Start(String),
    /// A name is missing.
    #[error("unexpected end of JSON path")]
    End,
    /// It goes into a list or a map by an index.
    #[error("array notation is not allowed")]
    Index,
    /// There is no such field.
    #[error("does not refer to a valid field")]
    Unknown,
}

/// The schema of the field that a path leads to.
pub fn field_at<'s>(schema: &'s Schema, path: &str) -> Result<&'s Schema, PathProblem> {
    let Some(rest) = path.strip_prefix('.') else {
        return Err(PathProblem::Start(path.chars().next().map(String::from).unwrap_or_default()));
    };
    let mut here = schema;
    for name in rest.split('.') {
        if name.is_empty() {
            return Err(PathProblem::End);
        }
        if name.contains(['[', ']']) {
            return Err(PathProblem::Index);
        }
        here = here.property(name).or_else(|| here.additional_schema()).ok_or(PathProblem::Unknown)?;
    }
    Ok(here)
}
