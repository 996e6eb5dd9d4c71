//! Lists in a strategic merge patch. It must not know of maps beyond asking for their merge.

use serde_json::Value;

use super::{
    DIRECTIVE, Object, PatchError, Rule, merge_map, no_merge_key, order, unknown_directive,
    without_directives,
};

/// Merges a patch list into a list, or replaces it where the table says so.
pub(super) fn merge(
    original: Vec<Value>,
    patch: Vec<Value>,
    rule: &Rule<'_>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if !rule.merges && !deletes {
        let kept = without_markers(patch);
        return Ok(kept.into_iter().filter_map(without_directives).collect());
    }
    let maps = original.iter().chain(&patch).next().is_some_and(Value::is_object);
    if original.iter().chain(&patch).any(|item| item.is_object() != maps || item.is_array()) {
        return Err(PatchError::Inconsistent("list element types are not identical".to_owned()));
    }
    match (maps, rule.key) {
        (false, _) if deletes => Ok(original.into_iter().filter(|item| !patch.contains(item)).collect()),
        (false, _) => {
            let mut all: Vec<Value> = Vec::new();
            for item in original.iter().chain(&patch) {
                if !all.contains(item) {
                    all.push(item.clone());
                }
            }
            Ok(order::arrange(all, &patch, &original, None))
        }
        (true, None) => Err(PatchError::Inconsistent("cannot merge lists without merge key".to_owned())),
        (true, Some(key)) => merge_objects(original, patch, rule, key),
    }
}

/// Items that only say how the list is to be taken.
fn without_markers(patch: Vec<Value>) -> Vec<Value> {
    patch
        .into_iter()
        .filter(|item| !item.as_object().is_some_and(|o| o.contains_key(DIRECTIVE) && o.len() == 1))
        .collect()
}

fn merge_objects(
    original: Vec<Value>,
    patch: Vec<Value>,
    rule: &Rule<'_>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let (mut merged, patch) = obey_directives(original, patch, key)?;
    let server_order = merged.clone();
    for change in &patch {
        let change = as_object(change)?;
        let wanted = change.get(key).ok_or_else(|| no_merge_key(change, key))?;
        match position(&merged, key, wanted)? {
            Some(at) => {
                let old = if let Value::Object(old) = merged[at].take() { old } else { Object::new() };
                merged[at] = Value::Object(merge_map(old, change.clone(), rule.inner)?);
            }
            None => merged.extend(without_directives(Value::Object(change.clone()))),
        }
    }
    Ok(order::arrange(merged, &patch, &server_order, Some(key)))
}

/// Obeys items with a `$patch` directive. Answers what is left of the list and of the patch.
fn obey_directives(
    original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut original, mut rest, mut replaces) = (original, Vec::new(), false);
    for item in patch {
        let object = as_object(&item)?;
        match object.get(DIRECTIVE).map(|d| (d.as_str(), d)) {
            None => rest.push(item),
            Some((Some("delete"), _)) => {
                let wanted = object.get(key).ok_or_else(|| no_merge_key(object, key))?;
                original.retain(|old| old.get(key) != Some(wanted));
            }
            Some((Some("replace"), _)) => replaces = true,
            Some((Some("merge"), _)) => {
                return Err(PatchError::Inconsistent(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some((_, directive)) => return Err(unknown_directive(directive, object)),
        }
    }
    if replaces {
        return Ok((rest.into_iter().filter_map(without_directives).collect(), Vec::new()));
    }
    Ok((original, rest))
}

fn as_object(item: &Value) -> Result<&Object, PatchError> {
    item.as_object()
        .ok_or_else(|| PatchError::Inconsistent("list element types are not identical".to_owned()))
}

fn position(items: &[Value], key: &str, wanted: &Value) -> Result<Option<usize>, PatchError> {
    for (at, item) in items.iter().enumerate() {
        let object = as_object(item)?;
        if object.get(key).ok_or_else(|| no_merge_key(object, key))? == wanted {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
