//! The functions expressions may call, library by library: each a table of overloads with types, cost rule and body. New libraries
//! (authorizer, JSON patch) are a further module with a further table.

mod addresses;
mod authorizer;
pub(crate) mod format;
pub(crate) mod formats;
mod lists;
pub(crate) mod net;
mod operators;
mod optional;
mod quantity;
pub(crate) mod regex;
mod semver;
mod sets;
mod standard;
mod strings;
mod times;
mod url;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::cost::Costing;
use crate::eval::{Machine, Outcome};
use crate::types::{Type, parse};
use crate::value::Value;

/// What a function does with its arguments, the target first.
pub(crate) type Body = for<'a> fn(&mut Machine<'a>, &[Value<'a>]) -> Outcome<'a>;

/// One of the types a function can be called with.
#[derive(Debug)]
pub(crate) struct Overload {
    /// Its name, as cel-go calls it.
    pub id: &'static str,
    /// Called on a target, which is the first argument here.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub costing: Costing,
    pub body: Body,
}

/// A function by its name.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub overloads: Vec<Overload>,
}

/// Rows of a library's table: a function's name, overloads as text (`id: target.(args) -> result` or `id: (args) -> result`),
/// cost and body.
pub(crate) type Row = (&'static str, &'static [&'static str], Costing, Body);

/// The function with that name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    static FUNCTIONS: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    FUNCTIONS.get_or_init(build).get(name)
}

fn build() -> HashMap<&'static str, Function> {
    let tables = [
        operators::ROWS,
        standard::ROWS,
        times::ROWS,
        strings::ROWS,
        format::ROWS,
        lists::ROWS,
        regex::ROWS,
        url::ROWS,
        net::ROWS,
        quantity::ROWS,
        semver::ROWS,
        formats::ROWS,
        sets::ROWS,
        optional::ROWS,
        authorizer::ROWS,
    ];
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for (name, overloads, costing, body) in tables.into_iter().flatten() {
        let function = functions.entry(name).or_default();
        function.overloads.extend(overloads.iter().map(|text| overload(text, *costing, *body)));
    }
    functions
}

/// An overload from its row's text.
fn overload(text: &'static str, costing: Costing, body: Body) -> Overload {
    let (id, signature) = text.split_once(": ").unwrap_or((text, ""));
    let (left, result) = signature.rsplit_once(" -> ").unwrap_or((signature, "dyn"));
    let (target, args) = match left.split_once(".(") {
        Some((target, args)) => (Some(target), args),
        None => (None, left.trim_start_matches('(')),
    };
    let args = args.strip_suffix(')').unwrap_or(args);
    let mut all: Vec<Type> = target.map(parse).into_iter().collect();
    all.extend(split(args).into_iter().map(parse));
    Overload { id, member: target.is_some(), args: all, result: parse(result), costing, body }
}

/// Arguments by the commas that are in no brackets.
fn split(args: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in args.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&args[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&args[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// The type an expression may name as a value (`type(x) == string`).
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        other => Type::Opaque(OPAQUE.into_iter().find(|name| *name == other)?),
    })
}

/// The names of the libraries' types.
const OPAQUE: [&str; 11] = [
    URL,
    IP,
    CIDR,
    QUANTITY,
    SEMVER,
    FORMAT,
    AUTHORIZER,
    RESOURCE_CHECK,
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.Decision",
];
/// The type of `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// The type of quantities.
pub const QUANTITY: &str = "kubernetes.Quantity";
pub(crate) const URL: &str = "kubernetes.URL";
pub(crate) const IP: &str = "net.IP";
pub(crate) const CIDR: &str = "net.CIDR";
pub(crate) const SEMVER: &str = "kubernetes.Semver";
pub(crate) const FORMAT: &str = "kubernetes.NamedFormat";

/// A value of a library's type.
#[derive(Clone, Debug, PartialEq)]
pub enum Opaque {
    /// `kubernetes.URL`
    Url(url::Url),
    /// `net.IP`
    Ip(std::net::IpAddr),
    /// `net.CIDR`
    Cidr(net::Cidr),
    /// `kubernetes.Quantity`
    Quantity(quantity::Amount),
    /// `kubernetes.Semver`
    Semver(semver::Version),
    /// `kubernetes.NamedFormat`
    Format(&'static formats::Format),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Url(_) => URL,
            Opaque::Ip(_) => IP,
            Opaque::Cidr(_) => CIDR,
            Opaque::Quantity(_) => QUANTITY,
            Opaque::Semver(_) => SEMVER,
            Opaque::Format(_) => FORMAT,
        }
    }

    /// What costs reckon with: bytes of an address, 1 for what is of one size.
    pub(crate) fn size(&self) -> usize {
        match self {
            Opaque::Ip(ip) => net::bytes(*ip),
            Opaque::Cidr(cidr) => net::bytes(cidr.address),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overloads_are_read_from_their_rows() {
        let overload =
            overload("x: map(string, list(int)).(A, optional(B)) -> list(A)", Costing::Unit, |_, _| {
                Ok(Value::Null)
            });
        assert!(overload.member);
        assert_eq!(
            overload.args.iter().map(Type::to_string).collect::<Vec<_>>(),
            ["map(string, list(int))", "_var0", "optional_type(_var1)"]
        );
        assert_eq!(overload.result.to_string(), "list(_var0)");
    }

    #[test]
    fn overloads_have_names_of_their_own() {
        let mut ids: Vec<&str> = build()
            .values()
            .flat_map(|function| function.overloads.iter().map(|overload| overload.id))
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(all > 200, "{all}");
    }
}
