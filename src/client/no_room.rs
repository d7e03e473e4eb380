//! Files whose new blocks the server has no room for: they wait here, and everything else goes on. Pure.

use crate::folder::{Identity, Stamp};
use crate::model::RelPath;
use std::collections::{HashMap, HashSet};

/// What waits for room on the server.
#[derive(Debug, Default)]
pub struct NoRoom {
    /// The server refused blocks in this cycle.
    pub met: bool,
    /// What it said last when it did.
    pub why: String,
    /// Not even changes without content had room in this cycle: where the first of them is, and how many there are.
    pub changes: Option<(RelPath, usize)>,
    /// How each file looked, and where it was.
    waiting: HashMap<Identity, (Stamp, RelPath)>,
}

impl NoRoom {
    /// The server took everything (`None`), or refused something and said why.
    pub fn meet(&mut self, refusal: Option<String>) {
        if let Some(why) = refusal {
            (self.met, self.why) = (true, why);
        }
    }

    /// A cycle begins.
    pub fn begin(&mut self) {
        (self.met, self.changes) = (false, None);
    }

    /// True when no file waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True when these very bytes were refused before.
    pub fn holds(&self, stamp: &Stamp) -> bool {
        self.waiting.get(&stamp.identity()).is_some_and(|(refused, _)| refused == stamp)
    }

    /// One more file waits.
    pub fn add(&mut self, stamp: Stamp, path: RelPath) {
        self.waiting.insert(stamp.identity(), (stamp, path));
    }

    /// Everything was looked at: only these files differ still.
    pub fn keep_only(&mut self, differing: &HashSet<Identity>) {
        self.waiting.retain(|identity, _| differing.contains(identity));
    }

    /// What waits: the first path and how many there are, if any.
    pub fn summary(&self) -> Option<(RelPath, usize)> {
        let changes = self.changes.as_ref();
        let files = self.waiting.values().map(|(_, path)| path);
        let first = files.chain(changes.map(|(path, _)| path)).min()?;
        Some((first.clone(), self.waiting.len() + changes.map_or(0, |(_, count)| *count)))
    }
}
