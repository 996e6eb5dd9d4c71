//! Texts that show ages, kept without them: made once, and filled in with the ages of the moment when they are shown.
//!
//! Whoever makes such a text asks [`time::age`](crate::time::age) with [`LATER`] for the present moment and gets marks; [`Aged`]
//! takes them out. Must not know what the texts are.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::LazyLock;

use jiff::Timestamp;

use crate::time::human_duration;

/// In place of the present moment: ages are filled in later.
pub const LATER: Timestamp = Timestamp::MIN;

/// What a mark begins with, in JSON: nobody outside of this process can know it, so that no text of theirs is taken for one.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    let secret = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("\\u0001{secret:016x}")
});
/// Hexadecimal digits of a time in a mark, and what ends one.
const DIGITS: usize = 32;
const END: &str = "\\u0001";

/// What stands for the time since `since`.
pub(crate) fn mark(since: Timestamp) -> String {
    let secret = BEGIN.strip_prefix(END).unwrap_or_default();
    format!("\u{1}{secret}{:032x}\u{1}", since.as_nanosecond())
}

/// A JSON text without its ages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aged {
    text: Box<[u8]>,
    /// Where in `text` an age belongs, and since when it counts.
    ages: Box<[(u32, Timestamp)]>,
}

impl Aged {
    /// Takes the marks out of a JSON text.
    pub fn of_json(json: &str) -> Self {
        let (mut text, mut ages, mut rest) = (Vec::with_capacity(json.len()), Vec::new(), json);
        while let Some(at) = rest.find(BEGIN.as_str()) {
            let (before, mark) = rest.split_at(at);
            let found = mark.get(BEGIN.len()..BEGIN.len() + DIGITS).and_then(since);
            let end = BEGIN.len() + DIGITS + END.len();
            let (Some(since), Some(after)) = (found, mark.get(end..)) else { break };
            text.extend_from_slice(before.as_bytes());
            ages.push((u32::try_from(text.len()).unwrap_or(u32::MAX), since));
            rest = after;
        }
        text.extend_from_slice(rest.as_bytes());
        Self { text: text.into(), ages: ages.into() }
    }

    /// A text that shows no ages.
    pub fn ageless(text: Vec<u8>) -> Self {
        Self { text: text.into(), ages: Box::default() }
    }

    /// Writes the text with the ages at `now`.
    pub fn write(&self, now: Timestamp, mut put: impl FnMut(&[u8])) {
        let mut from = 0;
        for (at, since) in &self.ages {
            let at = *at as usize;
            put(&self.text[from..at]);
            let millis = i64::try_from(now.duration_since(*since).as_millis()).unwrap_or(i64::MAX);
            put(human_duration(millis).as_bytes());
            from = at;
        }
        put(&self.text[from..]);
    }

    /// Bytes of the text, ages left out.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.ages.is_empty()
    }

    /// The text, where there are no ages in it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

fn since(digits: &str) -> Option<Timestamp> {
    let nanoseconds = u128::from_str_radix(digits, 16).ok()?;
    Timestamp::from_nanosecond(nanoseconds as i128).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;
    use proptest::prelude::*;

    fn filled(aged: &Aged, now: Timestamp) -> String {
        let mut out = Vec::new();
        aged.write(now, |bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).expect("JSON")
    }

    proptest! {
        #[test]
        fn filled_in_later_is_as_if_made_now(
            texts in proptest::collection::vec((".{0,8}", -3_000_000_000i64..3_000_000_000, 0..1_000_000_000i32), 0..5),
            second in -1_000_000_000i64..3_000_000_000,
        ) {
            let now = Timestamp::new(second, 5).expect("a time");
            let json = |now| {
                let cells: Vec<String> = texts
                    .iter()
                    .map(|(text, second, nanosecond)| {
                        let since = Timestamp::new(*second, 0).expect("a time");
                        let since = since + jiff::SignedDuration::from_nanos(i64::from(*nanosecond));
                        format!("{text} ({} ago)", time::age(Some(&since.to_string()), now))
                    })
                    .collect();
                serde_json::to_string(&cells).expect("strings")
            };
            let aged = Aged::of_json(&json(LATER));
            prop_assert_eq!(aged.ages.len(), texts.len());
            prop_assert_eq!(filled(&aged, now), json(now));
        }
    }

    #[test]
    fn texts_without_ages() {
        let text = r#"["a","\u0001b",5,"<unknown>"]"#;
        let aged = Aged::of_json(text);
        assert_eq!((filled(&aged, time::now()).as_str(), aged.ages.len()), (text, 0));
        assert_eq!(time::age(None, LATER), "<unknown>");
    }
}
