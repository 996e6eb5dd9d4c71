//! Which types a value of another may stand for, and what is found out of type parameters on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::library::Overload;
use crate::types::Type;

/// What is known of type parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    known: BTreeMap<u32, Type>,
    next: u32,
}

/// An overload whose parameters have numbers that nothing else has.
pub(super) struct Fresh {
    pub args: Vec<Type>,
    pub result: Type,
}

impl Mapping {
    /// A type parameter nothing is known of.
    pub(super) fn new_variable(&mut self) -> Type {
        self.next += 1;
        Type::Param(self.next - 1)
    }

    pub(super) fn fresh(&mut self, overload: &Overload) -> Fresh {
        let base = self.next;
        let mut used = 0;
        let args = overload.args.iter().map(|arg| shift(arg, base, &mut used)).collect();
        let result = shift(&overload.result, base, &mut used);
        self.next += used;
        Fresh { args, result }
    }

    /// The type with what is known of its parameters put in.
    pub(super) fn substitute(&self, of: &Type) -> Type {
        replace(of, &|number| self.known.get(&number).map(|known| self.substitute(known)))
    }

    /// As [`Mapping::substitute`], and anything for what is not known.
    pub(super) fn resolve(&self, of: &Type) -> Type {
        replace(of, &|number| Some(self.known.get(&number).map_or(Type::Dyn, |known| self.resolve(known))))
    }

    /// What is known then if a value of the second type may stand for the first.
    pub(super) fn assignable(&self, first: &Type, second: &Type) -> Option<Mapping> {
        let mut mapping = self.clone();
        mapping.test(first, second).then_some(mapping)
    }

    pub(super) fn assignable_all(&self, first: &[Type], second: &[Type]) -> Option<Mapping> {
        let mut mapping = self.clone();
        first.iter().zip(second).all(|(first, second)| mapping.test(first, second)).then_some(mapping)
    }

    fn test(&mut self, first: &Type, second: &Type) -> bool {
        if let Type::Param(number) = second {
            let (fits, known) = self.stands_for(first, *number);
            if fits || known {
                return fits;
            }
        }
        if let Type::Param(number) = first {
            return self.stands_for(second, *number).0;
        }
        match (first, second) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, Type::Null) => true,
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Object(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp)
            }
            (Type::List(first), Type::List(second)) | (Type::Optional(first), Type::Optional(second)) => {
                self.test(first, second)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.test(key, other_key) && self.test(value, other_value)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (first, second) => first == second,
        }
    }

    /// Whether the type may stand for the parameter, and whether something was known of that.
    fn stands_for(&mut self, of: &Type, number: u32) -> (bool, bool) {
        if *of == Type::Param(number) {
            return (true, true);
        }
        if let Some(known) = self.known.get(&number).cloned() {
            if known == *of {
                return (true, true);
            }
            if !self.test(of, &known) {
                return (false, true);
            }
            let general = most_general(of, &known);
            if !self.refers(number, &general) {
                self.known.insert(number, general);
            }
            return (true, true);
        }
        if self.refers(number, of) {
            return (false, false);
        }
        self.known.insert(number, of.clone());
        (true, false)
    }

    /// Whether the parameter occurs in the type.
    fn refers(&self, number: u32, of: &Type) -> bool {
        match of {
            Type::Param(other) => {
                *other == number || self.known.get(other).is_some_and(|known| self.refers(number, known))
            }
            Type::List(of) | Type::Optional(of) | Type::Type(of) => self.refers(number, of),
            Type::Map(key, value) => self.refers(number, key) || self.refers(number, value),
            _ => false,
        }
    }
}

/// The more general of two types of which one may stand for the other.
pub(super) fn most_general(first: &Type, second: &Type) -> Type {
    if less_specific(first, second) { first.clone() } else { second.clone() }
}

fn less_specific(first: &Type, second: &Type) -> bool {
    match (first, second) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::Null, other) => *other == Type::Null,
        (other, Type::Null) => *other != Type::Null,
        (Type::List(first), Type::List(second))
        | (Type::Optional(first), Type::Optional(second))
        | (Type::Type(first), Type::Type(second)) => less_specific(first, second),
        (Type::Map(key, value), Type::Map(other_key, other_value)) => {
            less_specific(key, other_key) && less_specific(value, other_value)
        }
        (first, second) => first == second,
    }
}

/// The type with its parameters replaced where `known` tells by what.
fn replace(of: &Type, known: &dyn Fn(u32) -> Option<Type>) -> Type {
    match of {
        Type::Param(number) => known(*number).unwrap_or_else(|| of.clone()),
        Type::List(of) => Type::list(replace(of, known)),
        Type::Optional(of) => Type::optional(replace(of, known)),
        Type::Type(of) => Type::Type(Arc::new(replace(of, known))),
        Type::Map(key, value) => Type::map(replace(key, known), replace(value, known)),
        other => other.clone(),
    }
}

fn shift(of: &Type, base: u32, used: &mut u32) -> Type {
    let highest = std::cell::Cell::new(*used);
    let shifted = replace(of, &|number| {
        highest.set(highest.get().max(number + 1));
        Some(Type::Param(base + number))
    });
    *used = highest.get();
    shifted
}
