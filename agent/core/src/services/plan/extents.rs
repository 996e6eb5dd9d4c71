//! Room in the flat table of backends' ids: what is free, and what is held by how many.
//!
//! Must not know: what the ids name. Free room is kept by place and by size; the smallest that is large enough is taken, and what
//! is given back is joined with its neighbours. The room behind the last extent has no end.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::HashMap;
use crate::services::plan::Extent;

/// What is known of an extent that is not free.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    count: u32,
    /// How many values lead to it.
    users: u32,
    /// When it may be given back, if it waits for that.
    until: Option<u64>,
    /// Its ids; none of a Maglev table, which follows from another extent.
    pub(super) ids: Option<Box<[u32]>>,
}

/// The flat table.
#[derive(Debug)]
pub(super) struct Extents {
    /// Free room by its first place.
    free: BTreeMap<u32, u32>,
    /// The same by size: (count, first).
    by_size: BTreeSet<(u32, u32)>,
    kept: HashMap<u32, Kept>,
    /// How many places may be given out.
    limit: u32,
    used: u32,
}

impl Extents {
    pub(super) fn new(limit: u32) -> Self {
        let mut this = Self {
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
            kept: HashMap::default(),
            limit,
            used: 0,
        };
        this.insert_free(0, limit);
        this
    }

    /// Places that are not free.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    fn insert_free(&mut self, first: u32, count: u32) {
        if count > 0 {
            self.free.insert(first, count);
            self.by_size.insert((count, first));
        }
    }

    fn remove_free(&mut self, first: u32, count: u32) {
        self.free.remove(&first);
        self.by_size.remove(&(count, first));
    }

    /// Takes the smallest free room that is large enough.
    pub(super) fn allocate(&mut self, count: u32, ids: Option<Box<[u32]>>) -> Option<Extent> {
        let (room, first) = *self.by_size.range((count, 0)..).next()?;
        self.remove_free(first, room);
        self.insert_free(first + count, room - count);
        self.kept.insert(first, Kept { count, users: 0, until: None, ids });
        self.used += count;
        Some(Extent { first, count })
    }

    /// Takes exactly this room, which was in use before a restart; false if any of it is taken already or out of reach.
    pub(super) fn reserve(&mut self, extent: Extent, ids: Option<Box<[u32]>>) -> bool {
        if let Some(kept) = self.kept.get_mut(&extent.first) {
            let same = kept.count == extent.count;
            if same && kept.ids.is_none() {
                kept.ids = ids;
            }
            return same;
        }
        if extent.count == 0 || extent.end() > u64::from(self.limit) {
            return false;
        }
        let Some((first, count)) = self.free.range(..=extent.first).next_back().map(|(f, c)| (*f, *c)) else {
            return false;
        };
        if u64::from(first) + u64::from(count) < extent.end() {
            return false;
        }
        self.remove_free(first, count);
        self.insert_free(first, extent.first - first);
        let behind = extent.first + extent.count;
        self.insert_free(behind, first + count - behind);
        self.kept.insert(extent.first, Kept { count: extent.count, users: 0, until: None, ids });
        self.used += extent.count;
        true
    }

    /// Takes all free room before this place, piece by piece.
    pub(super) fn reserve_free_before(&mut self, end: u32) -> Vec<Extent> {
        let pieces: Vec<Extent> = self
            .free
            .range(..end)
            .map(|(first, count)| Extent { first: *first, count: (*count).min(end - first) })
            .collect();
        for piece in &pieces {
            self.reserve(*piece, None);
        }
        pieces
    }

    pub(super) fn get(&self, extent: Extent) -> Option<&Kept> {
        self.kept.get(&extent.first).filter(|kept| kept.count == extent.count)
    }

    /// One more value leads to it.
    pub(super) fn enter(&mut self, extent: Extent) {
        if let Some(kept) = self.kept.get_mut(&extent.first) {
            kept.users += 1;
        }
    }

    /// One value less leads to it; whether that was the last one.
    pub(super) fn leave(&mut self, extent: Extent) -> bool {
        let Some(kept) = self.kept.get_mut(&extent.first) else { return false };
        kept.users = kept.users.saturating_sub(1);
        kept.users == 0
    }

    /// If nothing leads to it, nothing shall be led to it any more, and at this time it may be given back; whether it waits from now.
    pub(super) fn retire(&mut self, extent: Extent, until: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&extent.first).filter(|kept| kept.count == extent.count) else {
            return false;
        };
        if kept.users > 0 || kept.until.is_some_and(|known| known >= until) {
            return false;
        }
        kept.until = Some(until);
        kept.ids = None;
        true
    }

    /// Whether it has waited until this time, and nothing leads to it.
    pub(super) fn may_go(&self, extent: Extent, at: u64) -> bool {
        self.get(extent).is_some_and(|kept| kept.users == 0 && kept.until == Some(at))
    }

    /// Gives it back.
    pub(super) fn free(&mut self, extent: Extent) {
        let Some(kept) = self.kept.remove(&extent.first) else { return };
        self.used -= kept.count;
        let (mut first, mut count) = (extent.first, kept.count);
        if let Some((before, size)) = self.free.range(..first).next_back().map(|(f, c)| (*f, *c))
            && before + size == first
        {
            self.remove_free(before, size);
            first = before;
            count += size;
        }
        if let Some(behind) = self.free.get(&(first + count)).copied() {
            self.remove_free(first + count, behind);
            count += behind;
        }
        self.insert_free(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_where_it_fits_best_and_joined_when_given_back() {
        let mut extents = Extents::new(1000);
        let all: Vec<Extent> =
            [10, 3, 20, 5].map(|count| extents.allocate(count, None).expect("room")).into();
        assert_eq!(all.iter().map(|e| e.first).collect::<Vec<_>>(), [0, 10, 13, 33]);
        extents.free(all[1]);
        extents.free(all[0]);
        assert_eq!(extents.free.iter().next(), Some((&0, &13)));
        // The hole is smaller than the room at the end.
        assert_eq!(extents.allocate(13, None), Some(Extent { first: 0, count: 13 }));
        assert_eq!(extents.allocate(962, None), Some(Extent { first: 38, count: 962 }));
        assert_eq!(extents.allocate(1, None), None);
        assert_eq!(extents.used(), 1000);
    }

    #[test]
    fn reserving() {
        let mut extents = Extents::new(100);
        assert!(extents.reserve(Extent { first: 10, count: 10 }, None));
        assert!(extents.reserve(Extent { first: 10, count: 10 }, None), "the same again");
        assert!(!extents.reserve(Extent { first: 15, count: 10 }, None), "overlaps");
        assert!(!extents.reserve(Extent { first: 5, count: 10 }, None), "overlaps");
        assert!(!extents.reserve(Extent { first: 95, count: 10 }, None), "out of reach");
        assert_eq!(extents.reserve_free_before(30).len(), 2);
        assert_eq!(extents.allocate(1, None), Some(Extent { first: 30, count: 1 }));
    }
}
