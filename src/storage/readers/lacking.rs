//! Which contents of the past lack something: a restore of them would bring back a file that nobody can read.
//!
//! Looked at only while something is known to be damaged or missing, and at most [`LOOKS_MAX`] blocks for one answer: what
//! is not looked at counts as whole.

use super::super::shared::Shared;
use super::super::sled::Index;
use super::super::{Result, follow, writer};
use crate::model::{BlockHash, FileContent};
use std::collections::HashSet;
use std::sync::PoisonError;

/// About a quarter of a second.
const LOOKS_MAX: usize = 1 << 16;

/// Walks chunk lists for one answer.
pub struct Lacking<'a> {
    shared: &'a Shared,
    index: &'a Index,
    /// Nodes below which everything is there.
    whole: HashSet<BlockHash>,
    looks: usize,
}

impl<'a> Lacking<'a> {
    /// `None` when nothing is known to be damaged or missing.
    pub fn new(shared: &'a Shared, index: &'a Index) -> Option<Self> {
        let damaged = !shared.damaged.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let absent = !shared.absent.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        (damaged || absent).then(|| Self { shared, index, whole: HashSet::new(), looks: 0 })
    }

    /// True when a block of the content is not here, or known to be damaged.
    pub fn is_lacking(&mut self, content: &FileContent) -> Result<bool> {
        if content.size == 0 {
            return Ok(false);
        }
        let mut walked = Vec::new();
        let mut waiting = vec![(content.root.hash, content.root.level)];
        while let Some((hash, level)) = waiting.pop() {
            if self.whole.contains(&hash) {
                continue;
            }
            if self.looks >= LOOKS_MAX {
                return Ok(false);
            }
            self.looks += 1;
            let Some(location) = writer::locate(self.shared, self.index, &hash)? else { return Ok(true) };
            if level == 0 {
                continue;
            }
            let Some(node) = follow::node(self.shared, hash, location)? else {
                if writer::locate(self.shared, self.index, &hash)? == Some(location) {
                    self.shared.want(hash);
                    self.shared.bend(location.place.pack);
                    return Ok(true);
                }
                // Its pack was rewritten between the look and the read.
                waiting.push((hash, level));
                continue;
            };
            walked.push(hash);
            waiting.extend(node.entries().iter().map(|entry| (entry.hash, level - 1)));
        }
        self.whole.extend(walked);
        Ok(false)
    }
}
