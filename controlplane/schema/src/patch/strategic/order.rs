//! The order of merged lists: the patch's items in the patch's order, the others where they were. It must not merge.

use serde_json::Value;

use super::{ELEMENT_ORDER, Object, PatchError, Shape, bare_name, list, without_directives};

/// Obeys `$setElementOrder/list`: merges those lists, orders them, and takes them out of the patch.
pub(super) fn apply(original: &mut Object, patch: &mut Object, shape: Shape<'_>) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let name = bare_name(&directive[ELEMENT_ORDER.len()..], ELEMENT_ORDER)?;
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::Inconsistent("invalid patch format of setElementOrder list".to_owned()));
        };
        let rule = shape.rule(&name);
        let server_order = match original.get(&name) {
            Some(Value::Array(items)) => items.clone(),
            _ => Vec::new(),
        };
        let merged = match (original.remove(&name), patch.remove(&name)) {
            (None, None) => continue,
            // `null` removes the list, whatever its order was to be.
            (_, Some(Value::Null)) => continue,
            (Some(Value::Array(old)), None) => old,
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                consistent(&new, &order, rule.key)?;
                list::merge(old, new, &rule, false)?
            }
            (None, Some(Value::Array(new))) => {
                consistent(&new, &order, rule.key)?;
                new.into_iter().filter_map(without_directives).collect()
            }
            _ => {
                return Err(PatchError::Inconsistent(
                    "invalid patch format of setElementOrder list".to_owned(),
                ));
            }
        };
        original.insert(name, Value::Array(arrange(merged, &order, &server_order, rule.key)));
    }
    Ok(())
}

/// Every item that the patch sets must be in the order it gives, in that order.
fn consistent(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut from = 0;
    for item in patch.iter().filter(|item| item.get(super::DIRECTIVE).is_none()) {
        match order[from..].iter().position(|o| same(o, item, key)) {
            Some(at) => from += at + 1,
            None => {
                let (item, order) = (super::printed(item), super::printed(&Value::Array(order.to_vec())));
                return Err(PatchError::Inconsistent(format!(
                    "The order in patch list:\n{item}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
    }
    Ok(())
}

/// Whether two items are the same one: equal key, or equal values in lists of scalars.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn index(items: &[Value], wanted: &Value, key: Option<&str>) -> Option<usize> {
    items.iter().position(|item| same(item, wanted, key))
}

/// Orders merged items: those in `order` as there, the others as in `server`, interleaved by `server` as far as it tells.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut ordered, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(order, item, key).is_some());
    ordered.sort_by_key(|item| index(order, item, key));
    others.sort_by_key(|item| index(server, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(ordered.len() + others.len());
    let (mut left, mut right) = (others.into_iter().peekable(), ordered.into_iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let left_first = match (index(server, l, key), index(server, r, key)) {
            (Some(l), Some(r)) => l < r,
            _ => false,
        };
        out.extend(if left_first { left.next() } else { right.next() });
    }
    out.extend(right);
    out.extend(left);
    out
}
