//! Ids that name places of a table: the lowest that is free is given out, so that the table stays dense.
//!
//! Must not know: what an id names.

use std::collections::BTreeSet;

/// Ids from 1 on.
#[derive(Debug)]
pub(super) struct Ids {
    /// Given back, below `next`.
    free: BTreeSet<u32>,
    next: u32,
}

impl Ids {
    /// With these taken.
    pub(super) fn new(taken: impl Iterator<Item = u32>) -> Self {
        let mut taken: Vec<u32> = taken.filter(|id| *id != 0).collect();
        taken.sort_unstable();
        let next = taken.last().map_or(1, |last| last.saturating_add(1));
        let mut free = BTreeSet::new();
        let mut expected = 1;
        for id in taken {
            free.extend(expected..id);
            expected = id.saturating_add(1);
        }
        Self { free, next }
    }

    pub(super) fn allocate(&mut self, limit: u32) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        let id = self.next;
        self.next = id.checked_add(1).filter(|next| *next <= limit)?;
        Some(id)
    }

    pub(super) fn free(&mut self, id: u32) {
        self.free.insert(id);
        while self.next > 1 && self.free.remove(&(self.next - 1)) {
            self.next -= 1;
        }
    }

    /// How many are taken.
    pub(super) fn used(&self) -> u32 {
        self.next - 1 - u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_given_out() {
        let mut ids = Ids::new([2, 5, 0].into_iter());
        let mut give = |limit| ids.allocate(limit);
        assert_eq!(
            [give(8), give(8), give(8), give(8), give(8), give(8)],
            [1, 3, 4, 6, 7, 0].map(|id| (id > 0).then_some(id))
        );
        ids.free(6);
        ids.free(7);
        assert_eq!((ids.next, ids.used()), (6, 5));
    }
}
