//! The expressions of policies and webhook configurations: which variables they may use, and what they must come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_cel::{
    AUTHORIZER, DeclKind, DeclType, Field, ObjectType, Program, RESOURCE_CHECK, Type, Variable,
};

use crate::resources::rules::Errors;

/// What expressions of one object may use.
pub(super) struct Expressions {
    variables: Vec<Variable>,
    /// Fields of `variables`, if the policy has any.
    composed: Option<BTreeMap<String, Field>>,
}

/// What an expression must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A condition.
    Bool,
    /// A message.
    String,
    /// An annotation, or nothing.
    StringOrNull,
    /// Whatever it is.
    Anything,
}

impl Expressions {
    /// Those of a webhook's conditions.
    pub(super) fn of_webhook() -> Self {
        Self::new(false)
    }

    /// Those of a policy, with `params` if it says what they are, and with `variables` if it has any.
    pub(super) fn of_policy(params: bool, composed: bool) -> Self {
        let mut expressions = Self::new(params);
        expressions.composed = composed.then(BTreeMap::new);
        expressions
    }

    fn new(params: bool) -> Self {
        let mut variables = vec![
            variable("object", DeclType::dynamic()),
            variable("oldObject", DeclType::dynamic()),
            variable("namespaceObject", namespace()),
            variable("request", request()),
            variable("authorizer", DeclType::simple(Type::Opaque(AUTHORIZER))),
            variable("authorizer.requestResource", DeclType::simple(Type::Opaque(RESOURCE_CHECK))),
        ];
        if params {
            variables.push(variable("params", DeclType::dynamic()));
        }
        Self { variables, composed: None }
    }

    /// Compiles an expression, with an error at its path if it is none. Messages must not ask the authorizer.
    pub(super) fn check(&self, errors: &mut Errors, path: &Path, text: &str, wanted: Wanted) {
        if let Err(detail) = self.compile(text, wanted) {
            errors.push(FieldError::invalid(path, text, detail));
        }
    }

    /// Compiles a variable of a policy, which later expressions may use then.
    pub(super) fn define(&mut self, errors: &mut Errors, path: &Path, name: &str, text: &str) {
        let found = self.compile(text, Wanted::Anything);
        // What a variable that is wrong was to be is not known; it is there all the same.
        let declared =
            found.as_ref().map_or_else(|_| DeclType::dynamic(), |program| declared_of(program.result()));
        if let Err(detail) = found {
            errors.push(FieldError::invalid(path, text, detail));
        }
        if let Some(composed) = &mut self.composed {
            composed.insert(name.to_owned(), Field { json: name.to_owned(), declared });
        }
    }

    fn compile(&self, text: &str, wanted: Wanted) -> Result<Program, String> {
        let message = wanted == Wanted::String;
        let mut variables: Vec<Variable> = self
            .variables
            .iter()
            .filter(|v| !(message && v.name.starts_with("authorizer")))
            .cloned()
            .collect();
        if let Some(fields) = &self.composed {
            let object = ObjectType { name: "kubernetes.variables".to_owned(), fields: fields.clone() };
            let declared = DeclType { kind: DeclKind::Object(Arc::new(object)), max_elements: 0 };
            variables.push(variable("variables", Arc::new(declared)));
        }
        let program =
            Program::compile(text, &variables).map_err(|errors| format!("compilation failed: {errors}"))?;
        let fits = match (wanted, program.result()) {
            (Wanted::Anything, _) | (Wanted::Bool, Type::Bool) => true,
            (Wanted::String | Wanted::StringOrNull, Type::String) | (Wanted::StringOrNull, Type::Null) => {
                true
            }
            (Wanted::Bool | Wanted::String | Wanted::StringOrNull, _) => false,
        };
        match (fits, wanted) {
            (true, _) => match program.fault() {
                Some(fault) => Err(format!("program instantiation failed: {fault}")),
                None => Ok(program),
            },
            (false, Wanted::Bool) => Err("must evaluate to bool".to_owned()),
            (false, Wanted::StringOrNull) => Err("must evaluate to one of [string null_type]".to_owned()),
            (false, _) => Err("must evaluate to string".to_owned()),
        }
    }
}

fn variable(name: &str, declared: Arc<DeclType>) -> Variable {
    Variable { name: name.to_owned(), declared }
}

/// A declaration of that type, for a value that an expression made.
fn declared_of(of: &Type) -> Arc<DeclType> {
    match of {
        Type::Error => DeclType::dynamic(),
        other => Arc::new(DeclType { kind: DeclKind::Simple(other.clone()), max_elements: 0 }),
    }
}

fn text() -> Arc<DeclType> {
    DeclType::simple(Type::String)
}

/// `request`: the attributes of the request (`AdmissionRequest` without the objects).
fn request() -> Arc<DeclType> {
    let kind = || {
        DeclType::object(
            "kubernetes.GroupVersionKind",
            &[("group", text()), ("version", text()), ("kind", text())],
        )
    };
    let resource = || {
        let fields = [("group", text()), ("version", text()), ("resource", text())];
        DeclType::object("kubernetes.GroupVersionResource", &fields)
    };
    let extra = DeclType::map(DeclType::list(text()));
    let user = [("username", text()), ("uid", text()), ("groups", DeclType::list(text())), ("extra", extra)];
    let fields = [
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", text()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", text()),
        ("name", text()),
        ("namespace", text()),
        ("operation", text()),
        ("userInfo", DeclType::object("kubernetes.UserInfo", &user)),
        ("dryRun", DeclType::simple(Type::Bool)),
        ("options", DeclType::dynamic()),
    ];
    DeclType::object("kubernetes.AdmissionRequest", &fields)
}

/// `namespaceObject`: the namespace the object is in.
fn namespace() -> Arc<DeclType> {
    let metadata = [
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", DeclType::map(text())),
        ("annotations", DeclType::map(text())),
        ("UID", text()),
        ("creationTimestamp", DeclType::simple(Type::Timestamp)),
        ("deletionGracePeriodSeconds", DeclType::simple(Type::Int)),
        ("deletionTimestamp", DeclType::simple(Type::Timestamp)),
        ("generation", DeclType::simple(Type::Int)),
        ("resourceVersion", text()),
        ("finalizers", DeclType::list(text())),
    ];
    let fields = [
        ("metadata", DeclType::object("kubernetes.NamespaceMetadata", &metadata)),
        ("spec", DeclType::object("kubernetes.NamespaceSpec", &[("finalizers", DeclType::list(text()))])),
        ("status", DeclType::object("kubernetes.NamespaceStatus", &[("phase", text())])),
    ];
    DeclType::object("kubernetes.Namespace", &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_use_what_there_is() {
        let compile = |expressions: &Expressions, text: &str, wanted| {
            expressions.compile(text, wanted).err().unwrap_or_default()
        };
        let webhook = Expressions::of_webhook();
        for right in [
            "request.userInfo.username == 'a' && request.kind.group == ''",
            "object.metadata.name.startsWith('a')",
            "namespaceObject.metadata.labels['a'] == 'b'",
            "authorizer.group('').resource('pods').namespace('n').check('get').allowed()",
            "authorizer.requestResource.check('custom').allowed()",
            "authorizer.serviceAccount('a', 'b').path('/x').check('get').reason() == ''",
        ] {
            assert_eq!(compile(&webhook, right, Wanted::Bool), "", "{right}");
        }
        for (wrong, wanted, detail) in [
            ("object.x", Wanted::Bool, "must evaluate to bool"),
            ("1", Wanted::String, "must evaluate to string"),
            ("1", Wanted::StringOrNull, "must evaluate to one of [string null_type]"),
            ("params.x == 1", Wanted::Bool, "undeclared reference to 'params'"),
            ("variables.x == 1", Wanted::Bool, "undeclared reference to 'variables'"),
            ("request.other == 1", Wanted::Bool, "undefined field 'other'"),
            (
                "authorizer.path('/').check('get').reason()",
                Wanted::String,
                "undeclared reference to 'authorizer'",
            ),
        ] {
            assert!(
                compile(&webhook, wrong, wanted).contains(detail),
                "{wrong}: {}",
                compile(&webhook, wrong, wanted)
            );
        }
    }

    #[test]
    fn variables_build_on_those_before_them() {
        let mut errors = Errors::new();
        let mut policy = Expressions::of_policy(true, true);
        let path = Path::new("v");
        policy.define(&mut errors, &path, "a", "size(object.metadata.name)");
        policy.define(&mut errors, &path, "b", "variables.a + 1");
        policy.check(&mut errors, &path, "variables.b > params.most", Wanted::Bool);
        assert_eq!(errors, []);
        policy.check(&mut errors, &path, "variables.a == 'x' && variables.c", Wanted::Bool);
        let text = errors.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains("found no matching overload for '_==_' applied to '(int, string)'"), "{text}");
        assert!(text.contains("undefined field 'c'"), "{text}");
    }
}
