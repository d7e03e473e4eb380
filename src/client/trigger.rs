//! When to look at the disk: hints of the watcher, gathered until a burst pauses.
//!
//! Hints are merged where they arrive, so that their number is bounded by the folders they name, however long a cycle
//! takes. A single save waits a few milliseconds; a burst is looked at in slices, so that it makes nobody wait long.

use crate::folder::scan::Scope;
use crate::folder::watch::Hint;
use crate::model::RelPath;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A burst has paused when nothing came for this long.
const PAUSE: Duration = Duration::from_millis(4);
/// A burst that does not pause is looked at after this long all the same.
const PATIENCE: Duration = Duration::from_millis(60);
/// More dirty folders than this are looked at as a whole.
const DIRS_MAX: usize = 5_000;

/// What must be looked at.
#[derive(Debug, Default)]
struct Dirty {
    all: bool,
    dirs: BTreeSet<RelPath>,
    /// Counts hints, to see whether a burst goes on.
    hints: u64,
}

/// Files whose last change was too short ago to trust what was read of them.
#[derive(Debug)]
pub struct Unrested {
    /// When all of them have rested.
    pub until: Instant,
    /// The folders that hold them.
    pub folders: BTreeSet<RelPath>,
}

impl Unrested {
    /// None yet.
    pub fn new() -> Self {
        Self { until: Instant::now(), folders: BTreeSet::new() }
    }

    /// One more, which has rested after this long.
    pub fn add(&mut self, path: &RelPath, rests_in: Duration) {
        self.until = self.until.max(Instant::now() + rests_in);
        self.folders.extend(path.split_last().map(|(parent, _)| parent));
    }
}

/// Takes hints from any thread, gives scopes to the session.
#[derive(Debug, Clone, Default)]
pub struct Trigger {
    dirty: Arc<Mutex<Dirty>>,
    news: Arc<Notify>,
}

impl Trigger {
    /// Takes a hint. Never blocks for long.
    pub fn hint(&self, hint: Hint) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.hints += 1;
        match hint {
            Hint::Dirty(dir) if !dirty.all => {
                dirty.dirs.insert(dir);
                dirty.all = dirty.dirs.len() > DIRS_MAX;
            }
            Hint::Dirty(_) => {}
            Hint::Rescan => dirty.all = true,
        }
        if dirty.all {
            dirty.dirs.clear();
        }
        drop(dirty);
        self.news.notify_one();
    }

    /// Waits until something is dirty and its burst has paused.
    ///
    /// # Cancel safety
    /// Safe: what is dirty stays so until [`Trigger::take`].
    pub async fn settled(&self) {
        while self.peek().is_none() {
            self.news.notified().await;
        }
        let start = Instant::now();
        let mut seen = self.peek();
        loop {
            tokio::time::sleep(PAUSE).await;
            let now = self.peek();
            if now == seen || start.elapsed() >= PATIENCE {
                return;
            }
            seen = now;
        }
    }

    /// Waits until nothing was hinted for `pause`, but not longer than `patience`.
    pub async fn quiet(&self, pause: Duration, patience: Duration) {
        let start = Instant::now();
        loop {
            let seen = self.count();
            tokio::time::sleep(pause).await;
            if self.count() == seen || start.elapsed() >= patience {
                return;
            }
        }
    }

    /// What is dirty; clean afterwards.
    pub fn take(&self) -> Option<Scope> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        let dirs = std::mem::take(&mut dirty.dirs);
        match std::mem::take(&mut dirty.all) {
            true => Some(Scope::Full),
            false if dirs.is_empty() => None,
            false => Some(Scope::Dirs(dirs)),
        }
    }

    /// The number of hints so far, if anything is dirty.
    fn peek(&self) -> Option<u64> {
        let dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        (dirty.all || !dirty.dirs.is_empty()).then_some(dirty.hints)
    }

    fn count(&self) -> u64 {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn dir(name: &str) -> RelPath {
        RelPath::from_names(vec![Name::new(name.as_bytes()).unwrap()])
    }

    #[tokio::test]
    async fn hints_merge_into_one_scope_and_a_rescan_covers_all() {
        let trigger = Trigger::default();
        assert!(trigger.take().is_none());
        for name in ["a", "b", "a"] {
            trigger.hint(Hint::Dirty(dir(name)));
        }
        trigger.settled().await;
        assert!(matches!(trigger.take(), Some(Scope::Dirs(dirs)) if dirs.len() == 2));
        trigger.hint(Hint::Dirty(dir("a")));
        trigger.hint(Hint::Rescan);
        trigger.hint(Hint::Dirty(dir("b")));
        assert!(matches!(trigger.take(), Some(Scope::Full)));
        assert!(trigger.take().is_none());
    }

    #[test]
    fn too_many_dirty_folders_are_one_rescan() {
        let trigger = Trigger::default();
        for n in 0..=DIRS_MAX {
            trigger.hint(Hint::Dirty(dir(&n.to_string())));
        }
        assert!(matches!(trigger.take(), Some(Scope::Full)));
    }
}
