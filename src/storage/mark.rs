//! Marking: which blocks the versions of all shares name. Manifests are read through a function, so this file does no IO.
//!
//! Memory: 32 bytes per manifest node, 8 per chunk. A chunk is remembered by the front of its hash: two that are alike
//! there keep each other, which is the safe side. Nodes are remembered whole, because a node that was seen is not walked
//! again.

use crate::manifest::ManifestNode;
use crate::model::{BlockHash, FileContent, limits};
use bytes::Bytes;
use std::collections::HashSet;

/// Blocks that are named.
#[derive(Debug, Default)]
pub struct Marked {
    nodes: HashSet<BlockHash>,
    chunks: HashSet<u64>,
}

/// A block that a content names and that cannot be read as what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable(pub BlockHash);

impl Marked {
    /// True for a named block, and for one in 2^64 that is not.
    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.chunks.contains(&front(hash)) || self.nodes.contains(hash)
    }

    /// Marks everything that a content names.
    ///
    /// # Errors
    /// `read` fails, or says that a manifest node is not there. Then not everything is marked.
    pub fn add<E: From<Unreadable>>(
        &mut self,
        content: &FileContent,
        read: &mut dyn FnMut(&BlockHash) -> Result<Option<Bytes>, E>,
    ) -> Result<(), E> {
        if content.size == 0 {
            return Ok(());
        }
        if content.root.level == 0 {
            self.chunks.insert(front(&content.root.hash));
            return Ok(());
        }
        let mut waiting = vec![(content.root.hash, content.root.level)];
        while let Some((hash, level)) = waiting.pop() {
            if level == 0 {
                self.chunks.insert(front(&hash));
                continue;
            }
            if !self.nodes.insert(hash) {
                continue;
            }
            let node = read(&hash)?.and_then(|bytes| ManifestNode::decode(&bytes).ok());
            let node = node.filter(|node| node.level() == level && level <= limits::MANIFEST_LEVEL_MAX);
            let Some(node) = node else {
                self.nodes.remove(&hash);
                return Err(Unreadable(hash).into());
            };
            waiting.extend(node.entries().iter().map(|entry| (entry.hash, level - 1)));
        }
        Ok(())
    }
}

fn front(hash: &BlockHash) -> u64 {
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}
