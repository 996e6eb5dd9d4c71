//! Expressions that select devices: they see the device's driver, attributes and capacity.

use std::sync::Arc;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_cel::{DeclKind, DeclType, Program, QUANTITY, Type, Variable};

use crate::resources::rules::Errors;

// Limits of the API (`resource.k8s.io/v1`).
const LONGEST: i64 = 10 * 1024;
const MOST_COST: u64 = 1_000_000;
/// Attributes and capacities of a device together.
const MOST_ATTRIBUTES: u64 = 32;
const LONGEST_DOMAIN: u64 = 63;
const LONGEST_IDENTIFIER: u64 = 32;
const LONGEST_VALUE: u64 = 64;

/// What is wrong with the expression of a selector.
pub(super) fn expression(errors: &mut Errors, path: &Path, text: &str) {
    if text.len() as i64 > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
        return;
    }
    let variables = [Variable { name: "device".to_owned(), declared: device() }];
    match Program::compile_with_bindings(text, &variables) {
        Err(wrong) => errors.push(FieldError::invalid(path, text, format!("compilation failed: {wrong}"))),
        Ok(program) if !matches!(program.result(), Type::Bool | Type::Dyn) => {
            let detail = format!("must evaluate to bool or the unknown type, not {}", program.result());
            errors.push(FieldError::invalid(path, text, detail));
        }
        Ok(program) if program.cost().max > MOST_COST => {
            errors.push(FieldError::forbidden(path, "too complex, exceeds cost limit"));
        }
        Ok(program) => {
            errors.extend(program.fault().map(|fault| {
                FieldError::invalid(path, text, format!("program instantiation failed: {fault}"))
            }))
        }
    }
}

fn sized(of: Type, most: u64) -> Arc<DeclType> {
    Arc::new(DeclType { kind: DeclKind::Simple(of), max_elements: most })
}

/// A map by the domain of names, to a map by the rest of the name.
fn by_name(value: Arc<DeclType>) -> Arc<DeclType> {
    let map = |longest, value| {
        let kind = DeclKind::Map(sized(Type::String, longest), value);
        Arc::new(DeclType { kind, max_elements: MOST_ATTRIBUTES })
    };
    map(LONGEST_DOMAIN, map(LONGEST_IDENTIFIER, value))
}

fn device() -> Arc<DeclType> {
    let fields = [
        ("driver", sized(Type::String, LONGEST_DOMAIN)),
        ("attributes", by_name(sized(Type::Dyn, LONGEST_VALUE))),
        ("capacity", by_name(sized(Type::Opaque(QUANTITY), 0))),
        ("allowMultipleAllocations", DeclType::simple(Type::Bool)),
    ];
    DeclType::object("kubernetes.DRADevice", &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let mut errors = Errors::new();
        expression(&mut errors, &Path::new("e"), text);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectors_look_at_devices() {
        for right in [
            "device.driver == 'gpu.example.org'",
            "device.attributes['gpu.example.org'].model == 'a' && device.attributes['gpu.example.org'].size > 3",
            "device.capacity['gpu.example.org'].memory.compareTo(quantity('1Gi')) >= 0",
            "cel.bind(a, device.attributes['gpu.example.org'], a.one && a.two)",
            "device.attributes['gpu.example.org'].version.isGreaterThan(semver('1.0.0'))",
            "device.attributes['gpu.example.org'].flag",
            "'x' in device.attributes",
        ] {
            assert_eq!(check(right), "", "{right}");
        }
        let nested = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(V, ";
        let costly: String = (0..7).map(|at| nested.replace('V', &format!("v{at}"))).collect();
        for (wrong, wanted) in [
            (
                "device.driver",
                "e: Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string",
            ),
            (
                "nope",
                "e: Invalid value: \"nope\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^",
            ),
            (
                &format!("{costly}int('1'.find('[0-9]*')) < 100{}", ")".repeat(7)),
                "e: Forbidden: too complex, exceeds cost limit",
            ),
        ] {
            assert_eq!(check(wrong), wanted);
        }
        assert_eq!(check(&"x".repeat(10 * 1024 + 1)), "e: Too long: may not be more than 10240 bytes");
    }
}
