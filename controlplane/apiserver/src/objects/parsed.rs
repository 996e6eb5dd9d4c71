//! The objects that admission reads for every request, parsed: a fixed number of places, in which the last ones that were asked for
//! stay. It must not know what the objects are.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

/// How many objects are kept. Each has the one place that its bytes lead to.
const PLACES: usize = 256;
/// Larger objects are parsed each time: a parsed one takes several times its bytes.
const MOST_BYTES: usize = 16 << 10;

/// The bytes are kept with the value, so that no others can be at their address meanwhile.
type Place = Mutex<Option<(Bytes, Arc<Value>)>>;

static KEPT: LazyLock<Box<[Place]>> = LazyLock::new(|| (0..PLACES).map(|_| Place::default()).collect());

/// The object with these bytes. Unreadable ones count as null.
pub(super) fn parsed(bytes: &Bytes) -> Arc<Value> {
    let parse = || Arc::new(serde_json::from_slice(bytes).unwrap_or_default());
    if bytes.len() > MOST_BYTES {
        return parse();
    }
    let place = &KEPT[place(bytes)];
    let mut kept = place.lock();
    match &*kept {
        Some((known, value)) if is_same(known, bytes) => value.clone(),
        _ => {
            let value = parse();
            *kept = Some((bytes.clone(), value.clone()));
            value
        }
    }
}

/// Spreads addresses, which are multiples of some power of two, over the places (multiplicative hashing, Knuth 6.4).
fn place(bytes: &Bytes) -> usize {
    let spread = (bytes.as_ptr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    spread as usize % PLACES
}

fn is_same(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr(), a.len()) == (b.as_ptr(), b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_what_its_bytes_say() {
        let all: Vec<Bytes> = (0..3 * PLACES).map(|number| number.to_string().into()).collect();
        for _ in 0..2 {
            for (number, bytes) in all.iter().enumerate() {
                assert_eq!(*parsed(bytes), Value::from(number));
            }
        }
        let again = parsed(&all[0]);
        assert!(Arc::ptr_eq(&again, &parsed(&all[0].clone())));
        let large = Bytes::from(format!("\"{}\"", "x".repeat(MOST_BYTES)));
        assert!(!Arc::ptr_eq(&parsed(&large), &parsed(&large)));
        assert_eq!(*parsed(&Bytes::from_static(b"{")), Value::Null);
    }
}
