//! JSON patch (RFC 6902). It must not know types.

use ::json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::{PatchError, describe};
use crate::check::{MOST_DEPTH, levels_of};

/// Operations in one patch, at most.
const MOST_OPERATIONS: usize = 10_000;

/// Bytes of JSON that the copies of one patch may add together (`--json-patch-max-copy-bytes` of kube-apiserver).
const MOST_COPIED: usize = 3 << 20;

/// Applies all operations or, on an error, none; `null` is a list without any.
pub fn apply(value: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        return Ok(());
    }
    let Value::Array(operations) = patch else {
        let what = describe(patch);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if operations.len() > MOST_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut patched = value.clone();
    let (mut copied, mut room) = (0, 0);
    for entry in operations {
        let operation = operation(entry, &patched)?;
        copied += copied_by(&operation, &patched);
        if copied > MOST_COPIED {
            let message = format!(
                "unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED}"
            );
            return Err(PatchError::Unprocessable(message));
        }
        room = shallow(&operation, &patched, room)?;
        if !is_test_for_absence(&operation, &patched) {
            ::json_patch::patch(&mut patched, &Patch(vec![operation]))
                .map_err(|e| PatchError::Unprocessable(e.to_string()))?;
        }
    }
    *value = patched;
    Ok(())
}

/// How many bytes an operation adds by copying.
fn copied_by(operation: &PatchOperation, target: &Value) -> usize {
    let PatchOperation::Copy(copy) = operation else { return 0 };
    target.pointer(&copy.from.to_string()).map_or(0, |value| crate::codec::json::encode(value).len())
}

/// Refuses an operation that might nest values too deep. `room` is how many levels could be added since the target was last looked at;
/// returned is what is left of it. (Moving values into each other adds a level with every few operations.)
fn shallow(operation: &PatchOperation, target: &Value, room: usize) -> Result<usize, PatchError> {
    let levels = match operation {
        PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        PatchOperation::Add(add) => add.path.count() + levels_of(&add.value),
        PatchOperation::Replace(replace) => replace.path.count() + levels_of(&replace.value),
        PatchOperation::Move(moved) => moved.path.count(),
        PatchOperation::Copy(copy) => copy.path.count(),
    };
    if let Some(room) = room.checked_sub(levels) {
        return Ok(room);
    }
    let left = MOST_DEPTH.checked_sub(levels_of(target)).and_then(|room| room.checked_sub(levels));
    left.ok_or_else(|| {
        PatchError::Unprocessable(format!("the patched object nests deeper than {MOST_DEPTH} levels"))
    })
}

/// A member that is not there equals null: clients that add the first finalizer or label test so that nobody was faster.
/// The object it would be in must be there.
fn is_test_for_absence(operation: &PatchOperation, target: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.to_string();
    let Some((parent, last)) = path.rsplit_once('/') else { return false };
    let member = last.replace("~1", "/").replace("~0", "~");
    let parent = target.pointer(parent).and_then(Value::as_object);
    test.value.is_null() && parent.is_some_and(|parent| !parent.contains_key(&member))
}

fn operation(operation: &Value, target: &Value) -> Result<PatchOperation, PatchError> {
    let Value::Object(entries) = operation else {
        let what = describe(operation);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type handlers.jsonPatchOp"
        )));
    };
    for key in ["op", "path", "from"] {
        if let Some(value) = entries.get(key)
            && !value.is_string()
            && !value.is_null()
        {
            let what = describe(value);
            return Err(PatchError::BadRequest(format!(
                "error decoding patch: json: cannot unmarshal {what} into Go struct field jsonPatchOp.{key} of type string"
            )));
        }
    }
    let mut entries = entries.clone();
    // A `test` without a value tests for null, and an index may count from the end.
    if entries.get("op").is_some_and(|op| op == "test") {
        entries.entry("value").or_insert(Value::Null);
    }
    for key in ["path", "from"] {
        if let Some(Value::String(pointer)) = entries.get_mut(key) {
            *pointer = from_the_end(pointer, target);
        }
    }
    serde_json::from_value(Value::Object(entries)).map_err(|e| PatchError::Unprocessable(e.to_string()))
}

/// `-1` as the last element of a pointer means the last item of a list.
fn from_the_end(pointer: &str, target: &Value) -> String {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return pointer.to_owned() };
    let back: Option<usize> = last.strip_prefix('-').and_then(|n| n.parse().ok());
    match (back, target.pointer(parent)) {
        (Some(back), Some(Value::Array(items))) if back <= items.len() => {
            format!("{parent}/{}", items.len() - back)
        }
        _ => pointer.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::apply;
    use crate::patch::PatchError;

    fn check(value: Value, patch: Value, expected: Result<Value, PatchError>) {
        let mut out = value.clone();
        match (apply(&mut out, &patch), expected) {
            (Ok(()), Ok(expected)) => assert_eq!(out, expected, "{patch}"),
            (Err(PatchError::Unprocessable(_)), Err(PatchError::Unprocessable(_))) => {
                assert_eq!(out, value, "{patch} undone")
            }
            (got, expected) => assert_eq!(got, expected.map(|_| ()), "{patch}"),
        }
    }

    #[test]
    fn operations_apply_together_or_not_at_all() {
        let unprocessable = || Err(PatchError::Unprocessable(String::new()));
        check(
            json!({"a": [1, 2]}),
            json!([{"op": "add", "path": "/a/-", "value": 3}]),
            Ok(json!({"a": [1, 2, 3]})),
        );
        check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), Ok(json!({"a": [1]})));
        check(
            json!({"a": {"x/y~z": 1}}),
            json!([{"op": "replace", "path": "/a/x~1y~0z", "value": 2}]),
            Ok(json!({"a": {"x/y~z": 2}})),
        );
        check(
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 1}]),
            unprocessable(),
        );
        check(json!({"a": 1}), json!([{"op": "remove", "path": "/b"}]), unprocessable());
        check(
            json!({"m": {}}),
            json!([{"op": "test", "path": "/m/a~1b", "value": null}, {"op": "add", "path": "/m/a~1b", "value": 1}]),
            Ok(json!({"m": {"a/b": 1}})),
        );
        let test_null = |path: &str| json!([{"op": "test", "path": path, "value": null}]);
        check(json!({"m": {"a": 1}}), test_null("/m/a"), unprocessable());
        check(json!({"m": {}}), test_null("/n/a"), unprocessable());
        check(json!({"m": []}), test_null("/m/0"), unprocessable());
        check(
            json!({"a": []}),
            json!([{"op": "add", "path": "/a/-", "value": 1}, {"op": "replace", "path": "/a/-1", "value": 2}]),
            Ok(json!({"a": [2]})),
        );
        check(json!({"a": 1}), json!([{"op": "add", "path": "/b/c", "value": 1}]), unprocessable());
        check(json!({"a": 1}), json!([{"op": "nonsense", "path": "/a"}]), unprocessable());
        check(json!({"a": 1}), json!([]), Ok(json!({"a": 1})));
    }

    #[test]
    fn patches_do_not_grow_without_bound() {
        let copy = |from: &str, path: &str| json!({"op": "copy", "from": from, "path": path});
        let doubling = |times: usize| Value::Array((0..times).map(|_| copy("/a", "/a/-")).collect());
        let big = json!({"a": ["x".repeat(1000)]});
        assert!(apply(&mut big.clone(), &doubling(10)).is_ok());
        let refused = apply(&mut big.clone(), &doubling(20));
        assert!(
            matches!(&refused, Err(PatchError::Unprocessable(m)) if m.contains("exceeding the limit 3145728")),
            "{refused:?}"
        );

        // Each three operations put what was in `a` one level deeper.
        let round = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let nesting = |rounds: usize| Value::Array(round.iter().cycle().take(3 * rounds).cloned().collect());
        let mut deep = json!({"a": 1});
        apply(&mut deep, &nesting(90)).unwrap();
        assert_eq!(crate::check::levels_of(&deep), 91);
        let refused = apply(&mut json!({"a": 1}), &nesting(3000));
        assert!(
            matches!(&refused, Err(PatchError::Unprocessable(m)) if m.contains("deeper than 110")),
            "{refused:?}"
        );
    }

    #[test]
    fn malformed_patches_are_bad_requests() {
        let bad = |m: &str| Err(PatchError::BadRequest(m.to_owned()));
        check(
            json!({}),
            json!({"op": "add"}),
            bad(
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
        );
        check(
            json!({}),
            json!([1]),
            bad(
                "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
        );
        check(
            json!({}),
            json!([{"op": 1}]),
            bad(
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
        );
    }
}
