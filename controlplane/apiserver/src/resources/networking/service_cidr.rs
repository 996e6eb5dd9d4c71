//! The rules for ServiceCIDRs: ranges of addresses for Services.

use std::net::IpAddr;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, IMMUTABLE, names, shown};

const MANY: &str = "may only hold up to 2 values";
const ONE_FAMILY: &str =
    "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";

/// What is wrong with a ServiceCIDR.
pub(super) fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    ranges(&mut errors, object);
    errors
}

fn ranges(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec.cidrs");
    let list = object.at("spec.cidrs");
    let ranges: Vec<&str> = object.texts("spec.cidrs").collect();
    match ranges[..] {
        [] => errors.push(FieldError::required(&path, "at least one CIDR required")),
        [one, other] => {
            let family = |text| labels::parse_cidr(text).map(|(address, _)| IpAddr::is_ipv4(&address));
            if let (Some(a), Some(b)) = (family(one), family(other))
                && a == b
            {
                errors.push(FieldError::invalid(&path, shown(list), ONE_FAMILY));
            }
        }
        [_] => {}
        _ => errors.push(FieldError::invalid(&path, shown(list), MANY)),
    }
    for (i, range) in ranges.iter().enumerate() {
        names(errors, &path.index(i), range, labels::canonical_cidr(range));
    }
}

/// What is wrong with a change: only a second family may be added.
pub(super) fn change(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec.cidrs");
    let (now, was): (Vec<&str>, Vec<&str>) =
        (object.texts("spec.cidrs").collect(), old.texts("spec.cidrs").collect());
    match (&was[..], &now[..]) {
        ([first], [kept, _]) => {
            if first != kept {
                errors.push(FieldError::invalid(path.index(0), *kept, IMMUTABLE));
            }
            ranges(&mut errors, object);
        }
        _ if was.len() == now.len() => {
            let changed = now.iter().zip(&was).enumerate().filter(|(_, (now, was))| now != was);
            errors.extend(changed.map(|(i, (now, _))| FieldError::invalid(path.index(i), *now, IMMUTABLE)));
        }
        _ => errors.push(FieldError::invalid(&path, shown(object.at("spec.cidrs")), IMMUTABLE)),
    }
    errors
}
