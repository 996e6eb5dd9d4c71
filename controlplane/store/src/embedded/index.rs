//! Which keys there are, in which versions, and in which file each value lies. In memory, rebuilt at every start.
//!
//! Versions are kept back to the compacted revision. It must not read or write files; it only knows their numbers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::ops::Bound;
use std::sync::Arc;

use crate::{Error, Result, Revision};

/// Names an open file.
pub(super) type FileId = u32;

/// Where a value lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: FileId,
    pub(super) length: u32,
    pub(super) offset: u64,
}

/// One version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    /// 0 for a deletion.
    pub(super) version: u64,
    pub(super) place: Place,
}

/// One change, in the order of revisions.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: Arc<str>,
    pub(super) version: Version,
}

/// A version, and the file it is written in.
pub(super) type FoundVersion = (Version, Arc<File>);

/// A change, and the file its value is in, if it has one.
pub(super) type FoundChange = (Change, Option<Arc<File>>);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    /// The changes after the compacted revision.
    changes: VecDeque<Change>,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    files: HashMap<FileId, Arc<File>>,
}

/// Some keys of a range.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) items: Vec<(Arc<str>, Version, Arc<File>)>,
    pub(super) more: bool,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            changes: VecDeque::new(),
            revision: 1,
            compacted: 1,
            files: HashMap::new(),
        }
    }

    pub(super) fn add_file(&mut self, id: FileId, file: Arc<File>) {
        self.files.insert(id, file);
    }

    pub(super) fn remove_file(&mut self, id: FileId) {
        self.files.remove(&id);
    }

    /// The newest version of a key that is there.
    pub(super) fn newest(&self, key: &str) -> Option<Version> {
        self.keys.get(key)?.last().copied().filter(|v| v.version > 0)
    }

    /// The version of a key at a revision.
    pub(super) fn get(&self, key: &str, at: Revision) -> Result<Option<(Version, Arc<File>)>> {
        self.check(at)?;
        let Some(version) = self.keys.get(key).and_then(|versions| at_revision(versions, at)) else {
            return Ok(None);
        };
        Ok(self.files.get(&version.place.file).map(|file| (version, file.clone())))
    }

    /// At most `limit` keys below `prefix` from `start` on.
    pub(super) fn range(&self, prefix: &str, start: &str, limit: usize, at: Revision) -> Result<Found> {
        self.check(at)?;
        let mut found = Found::default();
        for (key, versions) in self.keys.range::<str, _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let Some(version) = at_revision(versions, at) else { continue };
            if found.items.len() == limit {
                found.more = true;
                break;
            }
            if let Some(file) = self.files.get(&version.place.file) {
                found.items.push((key.clone(), version, file.clone()));
            }
        }
        Ok(found)
    }

    /// How many keys there are below `prefix` from `start` on.
    pub(super) fn count(&self, prefix: &str, start: &str, at: Revision) -> usize {
        self.keys
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, versions)| at_revision(versions, at).is_some())
            .count()
    }

    /// Whether there is a key below `prefix`, or was at a revision that is kept.
    fn has_keys(&self, prefix: &str) -> bool {
        let mut from = self.keys.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next().is_some_and(|(key, _)| key.starts_with(prefix))
    }

    /// The changes below `prefix` from a revision on, at most `limit`, and the revision up to which they are complete.
    pub(super) fn changes(
        &self,
        prefix: &str,
        from: Revision,
        limit: usize,
    ) -> Result<(Vec<FoundChange>, Revision)> {
        if from <= self.compacted {
            return Err(Error::Compacted { requested: from, oldest: self.compacted + 1 });
        }
        // Most who ask begin with nothing below their prefix: to know that, not all changes need be looked at.
        if !self.has_keys(prefix) {
            return Ok((Vec::new(), self.revision));
        }
        let first = self.changes.partition_point(|c| c.version.mod_revision < from);
        let mut out: Vec<FoundChange> = Vec::new();
        for change in self.changes.iter().skip(first).filter(|c| c.key.starts_with(prefix)) {
            let complete =
                out.last().is_some_and(|(c, _)| c.version.mod_revision != change.version.mod_revision);
            if out.len() >= limit && complete {
                return Ok((out, change.version.mod_revision - 1));
            }
            let file = self.files.get(&change.version.place.file).filter(|_| change.version.version > 0);
            out.push((change.clone(), file.cloned()));
        }
        Ok((out, self.revision))
    }

    /// The kept versions of a key before a revision, deletions too, the newest first, at most `limit`, with their files, and whether
    /// there are more.
    pub(super) fn history_of(&self, key: &str, before: Revision, limit: usize) -> (Vec<FoundVersion>, bool) {
        let kept = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let older = &kept[..kept.partition_point(|v| v.mod_revision < before)];
        let file = |version: &Version| Some((*version, self.files.get(&version.place.file)?.clone()));
        (older.iter().rev().take(limit).filter_map(file).collect(), older.len() > limit)
    }

    /// Adds a key from a snapshot.
    pub(super) fn load(&mut self, key: Arc<str>, version: Version) {
        self.keys.insert(key, vec![version]);
    }

    /// Adds the next change.
    pub(super) fn apply(&mut self, key: Arc<str>, version: Version) {
        self.revision = version.mod_revision;
        let place = (Bound::Included(&*key), Bound::Included(&*key));
        let key = match self.keys.range_mut::<str, _>(place).next() {
            Some((known, versions)) => {
                versions.push(version);
                known.clone()
            }
            None => {
                // Most keys are written once: they need not have room for more.
                self.keys.insert(key.clone(), vec![version]);
                key
            }
        };
        self.changes.push_back(Change { key, version });
    }

    /// Forgets what was overwritten or deleted up to a revision. Costs what there is to forget.
    pub(super) fn compact(&mut self, revision: Revision) {
        while let Some(change) = self.changes.front()
            && change.version.mod_revision <= revision
        {
            let Some(Change { key, .. }) = self.changes.pop_front() else { break };
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            let keep = versions.partition_point(|v| v.mod_revision <= revision).saturating_sub(1);
            versions.drain(..keep);
            // A deletion that nothing comes before need not be known.
            if versions.first().is_some_and(|v| v.version == 0 && v.mod_revision <= revision) {
                versions.remove(0);
            }
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        self.compacted = self.compacted.max(revision);
    }

    /// The values of a key's version lie in another place now.
    pub(super) fn move_to(&mut self, key: &str, mod_revision: Revision, place: Place) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        for version in versions.iter_mut().filter(|v| v.mod_revision == mod_revision) {
            version.place = place;
        }
    }

    /// How many changes are kept.
    pub(super) fn history(&self) -> usize {
        self.changes.len()
    }

    /// The revision that leaves so many changes when everything up to it is compacted.
    pub(super) fn revision_leaving(&self, changes: usize) -> Option<Revision> {
        let over = self.changes.len().checked_sub(changes + 1)?;
        self.changes.get(over).map(|c| c.version.mod_revision)
    }

    fn check(&self, at: Revision) -> Result<()> {
        if at < self.compacted {
            return Err(Error::Compacted { requested: at, oldest: self.compacted });
        }
        if at > self.revision {
            return Err(Error::Future { requested: at, current: self.revision });
        }
        Ok(())
    }
}

/// The version of a key that a reader at a revision sees.
fn at_revision(versions: &[Version], at: Revision) -> Option<Version> {
    let before = versions.partition_point(|v| v.mod_revision <= at);
    versions[..before].last().copied().filter(|v| v.version > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn put(index: &mut Index, key: &str, revision: Revision, version: u64) {
        let version =
            Version { create_revision: 2, mod_revision: revision, version, place: Place::default() };
        index.apply(key.into(), version);
    }

    #[test]
    fn compaction_keeps_what_later_readers_see() {
        let mut index = Index::new();
        index.add_file(0, Arc::new(File::open("/dev/null").unwrap()));
        put(&mut index, "a", 2, 1);
        put(&mut index, "b", 3, 1);
        put(&mut index, "a", 4, 2);
        put(&mut index, "b", 5, 0);
        put(&mut index, "a", 6, 3);
        let seen =
            |index: &Index, key: &str, at| index.get(key, at).map(|v| v.map(|v| v.0.mod_revision)).ok();
        assert_eq!(seen(&index, "a", 3), Some(Some(2)));
        index.compact(4);
        assert_eq!(seen(&index, "a", 3), None);
        assert_eq!((seen(&index, "a", 4), seen(&index, "a", 5)), (Some(Some(4)), Some(Some(4))));
        assert_eq!((seen(&index, "b", 4), seen(&index, "b", 5)), (Some(Some(3)), Some(None)));
        let history = |key: &str, before, limit| {
            let (found, more) = index.history_of(key, before, limit);
            (found.iter().map(|(v, _)| (v.mod_revision, v.version > 0)).collect::<Vec<_>>(), more)
        };
        assert_eq!(history("a", Revision::MAX, 9), (vec![(6, true), (4, true)], false));
        assert_eq!(history("a", Revision::MAX, 1), (vec![(6, true)], true));
        assert_eq!(history("b", Revision::MAX, 9), (vec![(5, false), (3, true)], false));
        assert_eq!((history("b", 5, 9), history("c", 5, 9)), ((vec![(3, true)], false), (vec![], false)));
        index.compact(5);
        assert_eq!((seen(&index, "a", 5), seen(&index, "b", 5)), (Some(Some(4)), Some(None)));
        assert_eq!(index.keys.len(), 1);
        assert_eq!(index.history(), 1);
    }

    #[test]
    fn changes_are_cut_between_revisions() {
        let mut index = Index::new();
        for (key, revision) in [("x/a", 2), ("x/b", 2), ("x/c", 2), ("y", 3), ("x/d", 4)] {
            put(&mut index, key, revision, 1);
        }
        let got = |from, limit| {
            let (changes, complete) = index.changes("x/", from, limit).unwrap();
            (changes.iter().map(|(c, _)| c.key.to_string()).collect::<Vec<_>>().join(" "), complete)
        };
        assert_eq!(got(2, 1), ("x/a x/b x/c".to_owned(), 3));
        assert_eq!(got(3, 9), ("x/d".to_owned(), 4));
        assert_eq!(got(5, 9), (String::new(), 4));
        assert_eq!(index.revision_leaving(2), Some(2));
        assert_eq!(index.revision_leaving(5), None);
        let (none, complete) = index.changes("w/", 2, 9).unwrap();
        assert_eq!((none.len(), complete), (0, 4));
        // Of what is gone there were changes.
        put(&mut index, "y", 5, 0);
        assert_eq!(index.changes("y", 2, 9).unwrap().0.len(), 2);
    }
}
