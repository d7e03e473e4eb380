//! [`Differ`]: what a new version of a file names and the old one does not, without reading what they share.
//!
//! Goes down both manifests level by level, which line up because levels count from the chunks. A subtree whose hash
//! stands in both is not entered, so the cost follows the change, not the file.

use super::walk::{ChunkRef, Fetch, Item, NODES_PER_STEP_MAX, fetched, read_node};
use super::{ManifestError, ManifestNode};
use crate::model::{BlockHash, FileContent};
use std::collections::{HashMap, HashSet};

/// How many nodes more of the old file than of the new one are read at one level. A file that shrank from 10 GB to
/// one line has nothing to learn from 2,500 old nodes; what gets listed in vain is settled by asking who has it.
const OLD_NODES_SLACK: usize = 256;

/// What `new` names and `old` does not.
///
/// Nothing is missing. Exact unless `new` names a block twice, once in a part it shares with `old`, or the old file
/// lost far more nodes than the new one changed: then a block that `old` has may be listed as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Manifest nodes, each once, upper levels first.
    pub new_nodes: Vec<BlockHash>,
    /// Chunks in file order, each once, at its first place.
    pub new_chunks: Vec<ChunkRef>,
}

/// What a differ needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffStep {
    /// [`Differ::feed`] these nodes of the old or the new file, in any order; at least 1, each once.
    NeedNodes(Vec<BlockHash>),
    /// The result.
    Done(Diff),
}

/// One of the two manifests, at the level that is being compared.
#[derive(Debug)]
struct Side {
    content: FileContent,
    /// Taken when its level comes.
    root: Option<Item>,
    items: Vec<Item>,
}

impl Side {
    fn new(content: &FileContent) -> Result<Self, ManifestError> {
        Ok(Self { content: content.clone(), root: Item::root(content)?, items: Vec::new() })
    }

    fn promises(&self) -> HashSet<(BlockHash, u64)> {
        self.items.iter().map(Item::promise).collect()
    }

    /// Keeps the first of equal items, and none that the other side has. The same hash with another length is another
    /// item: one of the two is a lie, and reading the node tells which.
    fn keep_without(&mut self, other: &HashSet<(BlockHash, u64)>) {
        let mut seen = HashSet::new();
        self.items.retain(|item| !other.contains(&item.promise()) && seen.insert(item.promise()));
    }

    /// Keeps the two ends: what is left over in the middle is what was cut out.
    fn keep_ends(&mut self, each_max: usize) {
        let end = self.items.len().saturating_sub(each_max);
        if each_max < end {
            self.items.drain(each_max..end);
        }
    }

    fn descend(&mut self, nodes: &HashMap<BlockHash, ManifestNode>) -> Result<(), ManifestError> {
        let mut below = Vec::new();
        for item in &self.items {
            // Every node was fed: the caller waits for all of them.
            let node = nodes.get(&item.hash).ok_or(ManifestError::Unasked(item.hash))?;
            below.extend(item.children(node, &self.content)?);
        }
        self.items = below;
        Ok(())
    }
}

/// Compares two manifests. Checks what it reads, which is not all there is: only a [`super::Walker`] sees that a
/// manifest adds up. Memory grows with the change: for a large file without an old version, walk it.
#[derive(Debug)]
pub struct Differ {
    old: Side,
    new: Side,
    /// The level of `items` on both sides.
    level: u8,
    /// Nodes of this level that have not come.
    need: Vec<BlockHash>,
    nodes: HashMap<BlockHash, ManifestNode>,
    diff: Diff,
    done: bool,
}

impl Differ {
    /// Starts at the roots.
    ///
    /// # Errors
    /// A size and a root that cannot belong together.
    pub fn new(old: &FileContent, new: &FileContent) -> Result<Self, ManifestError> {
        let level = old.root.level.max(new.root.level);
        let (old, new) = (Side::new(old)?, Side::new(new)?);
        let (need, nodes) = (Vec::new(), HashMap::new());
        let mut differ = Self { old, new, level, need, nodes, diff: Diff::default(), done: false };
        differ.compare();
        Ok(differ)
    }

    /// What is next. `NeedNodes` names at most 64 nodes and is repeated until they are fed.
    ///
    /// # Errors
    /// A node that does not keep what its parent promised.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it has to be fed between steps")]
    pub fn next(&mut self) -> Result<DiffStep, ManifestError> {
        while !self.done {
            if !self.need.is_empty() {
                let step = self.need.iter().rev().take(NODES_PER_STEP_MAX).copied().collect();
                return Ok(DiffStep::NeedNodes(step));
            }
            self.old.descend(&self.nodes)?;
            self.new.descend(&self.nodes)?;
            self.nodes.clear();
            self.level = self.level.saturating_sub(1);
            self.compare();
        }
        Ok(DiffStep::Done(std::mem::take(&mut self.diff)))
    }

    /// Takes a node that was asked for.
    ///
    /// # Errors
    /// Bytes that are not that node, or a node nobody asked for.
    pub fn feed(&mut self, hash: BlockHash, bytes: &[u8]) -> Result<(), ManifestError> {
        // Steps are taken from the end, so what is fed stands near it.
        let at = self.need.iter().rposition(|need| *need == hash).ok_or(ManifestError::Unasked(hash))?;
        self.need.swap_remove(at);
        self.nodes.insert(hash, read_node(hash, bytes)?);
        Ok(())
    }

    /// Drops what both sides name at this level, notes what is new, and says which nodes the next level needs.
    fn compare(&mut self) {
        for side in [&mut self.old, &mut self.new] {
            side.items.extend(side.root.take_if(|root| root.level == self.level));
        }
        let (old, new) = (self.old.promises(), self.new.promises());
        self.old.keep_without(&new);
        self.new.keep_without(&old);
        let new_hashes = self.new.items.iter().map(|item| item.hash);
        if self.level == 0 {
            self.diff.new_chunks = self.new.items.iter().map(Item::chunk).collect();
        } else {
            self.diff.new_nodes.extend(new_hashes.clone());
        }
        // Nothing new here, and nothing below what is here; unless the new root is still to come.
        self.done = self.level == 0 || (self.new.items.is_empty() && self.new.root.is_none());
        if !self.done {
            self.old.keep_ends(self.new.items.len() + OLD_NODES_SLACK / 2);
            let mut asked = HashSet::new();
            let hashes = self.old.items.iter().map(|item| item.hash).chain(new_hashes);
            self.need = hashes.filter(|hash| asked.insert(*hash)).collect();
        }
    }
}

/// What `new` names and `old` does not. Give [`super::empty_file`] when there is no old version.
///
/// # Errors
/// Those of `fetch`, and a manifest that is not sound.
pub fn diff<E: From<ManifestError>>(
    old: &FileContent,
    new: &FileContent,
    fetch: &mut Fetch<'_, E>,
) -> Result<Diff, E> {
    let mut differ = Differ::new(old, new)?;
    loop {
        match differ.next()? {
            DiffStep::Done(diff) => return Ok(diff),
            DiffStep::NeedNodes(need) => {
                for (hash, bytes) in fetched(need, fetch)? {
                    differ.feed(hash, &bytes)?;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
