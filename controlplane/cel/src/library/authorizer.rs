//! Questions to the authorizer, by their types: what makes the first value, and answers, comes with the authorizer itself, so that
//! there is nothing here to call these on.

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::Value;

pub(super) static ROWS: &[Row] = &[
    (
        "path",
        &[
            "authorizer_path: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "group",
        &[
            "authorizer_group: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "serviceAccount",
        &[
            "authorizer_serviceaccount: kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "resource",
        &[
            "groupcheck_resource: kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "subresource",
        &[
            "resourcecheck_subresource: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "namespace",
        &[
            "resourcecheck_namespace: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "name",
        &[
            "resourcecheck_name: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Unit,
        nobody,
    ),
    (
        "fieldSelector",
        &[
            "resourcecheck_fieldselector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Selector,
        nobody,
    ),
    (
        "labelSelector",
        &[
            "resourcecheck_labelselector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
        ],
        Costing::Selector,
        nobody,
    ),
    (
        "check",
        &[
            "pathcheck_check: kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision",
            "resourcecheck_check: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
        ],
        Costing::Authorization,
        nobody,
    ),
    ("errored", &["decision_errored: kubernetes.authorization.Decision.() -> bool"], Costing::Unit, nobody),
    ("error", &["decision_error: kubernetes.authorization.Decision.() -> string"], Costing::Unit, nobody),
    ("allowed", &["decision_allowed: kubernetes.authorization.Decision.() -> bool"], Costing::Unit, nobody),
    ("reason", &["decision_reason: kubernetes.authorization.Decision.() -> string"], Costing::Unit, nobody),
];

fn nobody<'a>(_: &mut Machine<'a>, _: &[Value<'a>]) -> Outcome<'a> {
    failed("no authorizer to ask")
}
