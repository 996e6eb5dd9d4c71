//! The rules for PriorityLevelConfigurations.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, required_one_of};

/// The name of the one level that nothing limits.
const EXEMPT: &str = "exempt";
const MOST_QUEUES: i64 = 10_000_000;
/// How many bits the choice of a hand of queues may take.
const MOST_ENTROPY: i64 = 60;

/// What is wrong with a PriorityLevelConfiguration.
pub(super) fn check(level: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), level.at("spec"));
    let (kind, name) = (spec.text("type"), level.text("metadata.name"));
    required_one_of(&mut errors, &path.child("type"), kind, &["Exempt", "Limited"]);
    if matches!(kind, "Exempt" | "Limited") && (name == EXEMPT) != (kind == "Exempt") {
        let text = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(path.child("type"), kind, text));
    }
    union(&mut errors, &path, spec, kind, &[("Exempt", "exempt", false), ("Limited", "limited", true)]);
    let limited = spec.at("limited");
    if kind == "Limited" && !limited.is_null() {
        self::limited(&mut errors, &path.child("limited"), limited);
    }
    if kind == "Exempt" {
        shares(&mut errors, &path.child("exempt"), spec.at("exempt"));
    }
    errors
}

/// The member that the type names may (or must) be there, the others must not.
fn union(errors: &mut Errors, path: &Path, object: &Value, kind: &str, members: &[(&str, &str, bool)]) {
    for (of, member, needed) in members {
        match (object.has(member), kind == *of) {
            (true, false) => errors.push(FieldError::forbidden(path.child(member), "")),
            (false, true) if *needed => errors.push(FieldError::required(path.child(member), "")),
            _ => {}
        }
    }
}

fn shares(errors: &mut Errors, path: &Path, of: &Value) {
    if let Some(shares) = of.some_int("nominalConcurrencyShares").filter(|n| *n < 0) {
        let path = path.child("nominalConcurrencyShares");
        errors.push(FieldError::invalid(path, shares, "must be a non-negative integer"));
    }
    if let Some(percent) = of.some_int("lendablePercent").filter(|n| !(0..=100).contains(n)) {
        let path = path.child("lendablePercent");
        errors.push(FieldError::invalid(path, percent, "must be between 0 and 100, inclusive"));
    }
}

fn limited(errors: &mut Errors, path: &Path, limited: &Value) {
    shares(errors, path, limited);
    if let Some(percent) = limited.some_int("borrowingLimitPercent").filter(|n| *n < 0) {
        let path = path.child("borrowingLimitPercent");
        errors.push(FieldError::invalid(path, percent, "if specified, must be a non-negative integer"));
    }
    let (path, response) = (path.child("limitResponse"), limited.at("limitResponse"));
    let kind = response.text("type");
    required_one_of(errors, &path.child("type"), kind, &["Queue", "Reject"]);
    union(errors, &path, response, kind, &[("Queue", "queuing", true)]);
    if kind == "Queue" && response.has("queuing") {
        queuing(errors, &path.child("queuing"), response.at("queuing"));
    }
}

fn queuing(errors: &mut Errors, path: &Path, queuing: &Value) {
    let number = |name: &str| (path.child(name), queuing.int(name));
    let must = "must be positive";
    for (path, number) in [number("queueLengthLimit"), number("queues"), number("handSize")] {
        if number <= 0 {
            errors.push(FieldError::invalid(path, number, must));
        }
    }
    let ((path, hand), (of, queues)) = (number("handSize"), number("queues"));
    if queues > MOST_QUEUES {
        errors.push(FieldError::invalid(of, queues, format!("must not be greater than {MOST_QUEUES}")));
    }
    if hand > queues {
        errors.push(FieldError::invalid(path, hand, format!("should not be greater than queues ({queues})")));
    } else if entropy(queues, hand) > MOST_ENTROPY {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MOST_ENTROPY}"
        );
        errors.push(FieldError::invalid(path, hand, text));
    }
}

/// How many bits tell apart all ordered hands out of a deck.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate by logarithms")]
fn entropy(deck: i64, hand: i64) -> i64 {
    let bits: f64 = (0..hand).map(|i| ((deck - i) as f64).log2()).sum();
    bits.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn causes(level: &Value) -> Vec<String> {
        check(level).iter().map(ToString::to_string).collect()
    }

    fn level(queues: i64, hand: i64) -> Value {
        json!({"metadata": {"name": "gold"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5,
            "limitResponse": {"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 9}}}}})
    }

    #[test]
    fn hands_fit_into_sixty_bits() {
        assert_eq!(entropy(64, 8), 48);
        for (queues, hand, bad) in [(64, 8, false), (1024, 6, false), (1024, 7, true), (4, 5, true)] {
            assert_eq!(!causes(&level(queues, hand)).is_empty(), bad, "{queues} {hand}");
        }
    }

    #[test]
    fn members_follow_the_type() {
        let mut level = level(8, 2);
        level["spec"]["limited"]["limitResponse"]["type"] = json!("Reject");
        assert_eq!(causes(&level), ["spec.limited.limitResponse.queuing: Forbidden"]);
        level["spec"]["type"] = json!("Exempt");
        assert_eq!(
            causes(&level),
            [
                "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
                "spec.limited: Forbidden",
            ]
        );
    }
}
