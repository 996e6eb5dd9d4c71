//! Whether the indexes that have succeeded are enough, by the Job's successPolicy. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;

use super::indexes;

/// The first rule that is met.
pub(super) fn met(job: &Job, completed: &BTreeSet<i32>) -> Option<usize> {
    let spec = job.spec.as_ref()?;
    let completions = spec.completions.unwrap_or(0);
    spec.success_policy.as_ref()?.rules.iter().position(|rule| {
        let among = rule.succeeded_indexes.as_deref().map(|text| indexes::parse(text, completions));
        let count = match &among {
            Some(among) => completed.intersection(among).count(),
            None => completed.len(),
        };
        let wanted = match (rule.succeeded_count, &among) {
            (Some(wanted), _) => usize::try_from(wanted).unwrap_or(0),
            (None, Some(among)) => among.len(),
            (None, None) => return false,
        };
        count > 0 && count >= wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn rules() {
        for (rules, completed, expected) in [
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2", None),
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2,3", Some(0)),
            (json!([{"succeededIndexes": "0,2-3", "succeededCount": 2}]), "1,3", None),
            (json!([{"succeededIndexes": "0,2-3", "succeededCount": 2}]), "0,3", Some(0)),
            (json!([{"succeededCount": 2}]), "4", None),
            (json!([{"succeededCount": 2}]), "4,7", Some(0)),
            (json!([{"succeededIndexes": "0"}, {"succeededCount": 3}]), "1-3", Some(1)),
            (json!([{"succeededIndexes": "0"}]), "", None),
            (Value::Null, "0-9", None),
        ] {
            let policy = if rules.is_null() { Value::Null } else { json!({"rules": rules}) };
            let job =
                json!({"metadata": {}, "spec": {"template": {}, "completions": 10, "successPolicy": policy}});
            let job: Job = serde_json::from_value(job).unwrap();
            assert_eq!(met(&job, &indexes::parse(completed, 10)), expected, "{rules} with {completed}");
        }
    }
}
