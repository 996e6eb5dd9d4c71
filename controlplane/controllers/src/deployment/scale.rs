//! Changing a Deployment's size, also in the middle of a rollout. Pure.

use super::history;
use super::rollout::{Rollout, bounds, desired, recreates};
use crate::runtime::object::annotation;

impl Rollout<'_> {
    /// Gives every set its share of the Deployment's present size.
    pub(super) fn scale(&mut self) {
        let wanted = desired(self.deployment());
        if let Some(only) = self.active_or_latest() {
            return self.set_size(only, wanted);
        }
        if self.saturated() {
            for index in self.active_old() {
                self.set_size(index, 0);
            }
            return;
        }
        if !recreates(self.deployment()) {
            self.scale_in_proportion();
        }
    }

    /// The one set with pods; if there is none the latest; nothing if there are several.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets[*i].replicas() > 0).collect();
        match active.as_slice() {
            [] => self.newest_index().or(self.sets.len().checked_sub(1)),
            [only] => Some(*only),
            _ => None,
        }
    }

    /// Whether the newest set already has and serves all that the Deployment wants.
    fn saturated(&self) -> bool {
        let wanted = desired(self.deployment());
        self.newest().is_some_and(|set| {
            set.replicas() == wanted
                && set.available() == wanted
                && annotation(&set.now.metadata, history::DESIRED).and_then(|d| d.parse().ok())
                    == Some(wanted)
        })
    }

    /// Spreads the difference over all sets with pods, each in proportion to its size; the rest goes to the first.
    fn scale_in_proportion(&mut self) {
        let wanted = desired(self.deployment());
        let allowed = if wanted > 0 { wanted + bounds(self.deployment()).0 } else { 0 };
        let to_add = allowed - self.total_replicas();
        let mut order: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets[*i].replicas() > 0).collect();
        // Larger first; among equals the newer grows first and the older shrinks first.
        order.sort_by_key(|&i| {
            let age = i64::try_from(i).unwrap_or(0);
            (-self.sets[i].replicas(), if to_add > 0 { -age } else { age })
        });
        let mut added = 0;
        let mut sizes = Vec::new();
        for &index in &order {
            let share = self.share(index, to_add, added);
            added += share;
            sizes.push(self.sets[index].replicas() + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (index, size) in order.into_iter().zip(sizes) {
            self.set_size(index, size);
        }
    }

    fn share(&self, index: usize, to_add: i32, added: i32) -> i32 {
        let left = to_add - added;
        if left == 0 {
            return 0;
        }
        let fraction = self.fraction(index);
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, index: usize) -> i32 {
        let (set, deployment) = (&self.sets[index], self.deployment());
        let wanted = desired(deployment);
        if wanted == 0 {
            return -set.replicas();
        }
        let before = annotation(&set.now.metadata, history::MAXIMUM)
            .and_then(|m| m.parse::<i32>().ok())
            .filter(|m| *m != 0)
            .or(deployment.status.as_ref().and_then(|s| s.replicas))
            .unwrap_or(0);
        if before == 0 {
            return 0;
        }
        let maximum = i64::from(wanted + bounds(deployment).0);
        // Rounded to the nearest; halves go up.
        let size =
            (2 * i64::from(set.replicas()) * maximum + i64::from(before)).div_euclid(2 * i64::from(before));
        i32::try_from(size).unwrap_or(i32::MAX) - set.replicas()
    }
}
