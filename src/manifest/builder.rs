//! [`Builder`]: from the chunks of a file, in order, to its manifest.
//!
//! Keeps the unfinished node of every level and nothing else, so a file of any size needs a few 10 KiB. A node ends
//! behind an entry whose hash says so (once in 64), but has at least 16 entries and at most 256: after an edit the
//! cuts fall back into step at the next such entry, as with chunks. The cut needs the entry only, so the nodes depend
//! on the list alone and not on how the file came to be.

use super::{Entry, ManifestError, ManifestNode};
use crate::block::Block;
use crate::model::{BlockHash, FileContent, Root, limits};

/// 16^11, so that at most 11 levels of at least 16 entries stand above the chunks: below `MANIFEST_LEVEL_MAX`.
const CHUNKS_MAX: u64 = 1 << 44;

/// The content of a file without bytes. No block is stored for it.
pub fn empty_file(params: u8) -> FileContent {
    FileContent { size: 0, root: Root { params, level: 0, hash: BlockHash::of(&[]) } }
}

/// Builds one manifest.
#[derive(Debug, Clone)]
pub struct Builder {
    params: u8,
    size: u64,
    chunks: u64,
    /// The unfinished node at level index + 1. The last one is never empty once a chunk has been pushed.
    open: Vec<Vec<Entry>>,
}

impl Builder {
    /// A manifest for a file that is cut with the chunk parameters of this id.
    pub const fn new(params: u8) -> Self {
        Self { params, size: 0, chunks: 0, open: Vec::new() }
    }

    /// Adds the next chunk. Returns the nodes that became final, lower ones first; mostly none.
    ///
    /// # Errors
    /// A chunk without bytes or above `BLOCK_BYTES_MAX`, or a file beyond the format (2^44 chunks).
    pub fn push(&mut self, hash: BlockHash, len: u64) -> Result<Vec<Block>, ManifestError> {
        if len == 0 || len > limits::BLOCK_BYTES_MAX as u64 {
            return Err(ManifestError::EntryLength(len));
        }
        if self.chunks == CHUNKS_MAX {
            return Err(ManifestError::Overflow);
        }
        self.size = self.size.checked_add(len).ok_or(ManifestError::Overflow)?;
        self.chunks += 1;
        let mut closed = Vec::new();
        self.add(0, Entry { hash, len }, &mut closed)?;
        Ok(closed)
    }

    /// Ends the file. Returns what names it and the last nodes, lower ones first; the root, if it is a node, is the
    /// last one of all that were returned.
    ///
    /// # Errors
    /// None for the chunks that [`Self::push`] took.
    pub fn finish(mut self) -> Result<(FileContent, Vec<Block>), ManifestError> {
        let mut closed = Vec::new();
        let mut index = 0;
        while let Some(open) = self.open.get_mut(index).map(std::mem::take) {
            let is_top = index + 1 == self.open.len();
            match open.as_slice() {
                [only] if is_top => {
                    let level = u8::try_from(index).map_err(|_| ManifestError::Overflow)?;
                    let root = Root { params: self.params, level, hash: only.hash };
                    return Ok((FileContent { size: self.size, root }, closed));
                }
                [] => {}
                _ => {
                    let entry = self.close(index, open, &mut closed)?;
                    self.add(index + 1, entry, &mut closed)?;
                }
            }
            index += 1;
        }
        Ok((empty_file(self.params), closed))
    }

    /// Puts an entry into the open node of a level; a node that it ends goes to the level above, and so on.
    fn add(
        &mut self,
        mut index: usize,
        mut entry: Entry,
        closed: &mut Vec<Block>,
    ) -> Result<(), ManifestError> {
        loop {
            if index == self.open.len() {
                self.open.push(Vec::new());
            }
            let Some(open) = self.open.get_mut(index) else { return Ok(()) };
            open.push(entry);
            let full = open.len() >= limits::MANIFEST_ENTRIES_MAX;
            if !full && (open.len() < limits::MANIFEST_ENTRIES_MIN || !entry.ends_node()) {
                return Ok(());
            }
            let entries = std::mem::take(open);
            entry = self.close(index, entries, closed)?;
            index += 1;
        }
    }

    /// Makes a node of `entries`, and the entry that names it one level up.
    fn close(
        &self,
        index: usize,
        entries: Vec<Entry>,
        closed: &mut Vec<Block>,
    ) -> Result<Entry, ManifestError> {
        let level = u8::try_from(index + 1).map_err(|_| ManifestError::Overflow)?;
        let node = ManifestNode::new(level, self.params, entries)?;
        let block = Block::new(node.encode());
        let entry = Entry { hash: block.hash(), len: node.file_bytes() };
        closed.push(block);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(i: u64) -> BlockHash {
        BlockHash::of(&i.to_le_bytes())
    }

    fn build(chunks: u64) -> (FileContent, Vec<Block>) {
        let mut builder = Builder::new(1);
        let mut nodes = Vec::new();
        for i in 0..chunks {
            nodes.extend(builder.push(hash(i), 65_536).unwrap());
        }
        let (content, rest) = builder.finish().unwrap();
        nodes.extend(rest);
        (content, nodes)
    }

    #[test]
    fn an_empty_file_and_one_chunk_need_no_node() {
        assert_eq!(build(0), (empty_file(1), vec![]));
        let (content, nodes) = build(1);
        assert_eq!((content.root.level, content.root.hash, content.size), (0, hash(0), 65_536));
        assert!(nodes.is_empty());
    }

    #[test]
    fn the_last_node_is_the_root_and_has_at_least_two_entries() {
        for chunks in [2, 15, 16, 17, 63, 64, 65, 300, 1000, 5000] {
            let (content, nodes) = build(chunks);
            let root = nodes.last().unwrap();
            assert_eq!(root.hash(), content.root.hash);
            let root = ManifestNode::decode(root.bytes()).unwrap();
            assert_eq!((root.level(), root.file_bytes()), (content.root.level, chunks * 65_536));
            assert!(root.entries().len() >= 2);
        }
    }

    #[test]
    fn only_the_last_node_of_a_level_is_shorter_than_the_minimum() {
        let (_, nodes) = build(20_000);
        let nodes: Vec<_> = nodes.iter().map(|node| ManifestNode::decode(node.bytes()).unwrap()).collect();
        for level in 1..=nodes.last().unwrap().level() {
            let counts: Vec<_> =
                nodes.iter().filter(|n| n.level() == level).map(|n| n.entries().len()).collect();
            let (_, body) = counts.split_last().unwrap();
            assert!(body.iter().all(|n| (limits::MANIFEST_ENTRIES_MIN..=256).contains(n)), "level {level}");
        }
    }

    #[test]
    fn a_file_of_one_repeated_chunk_has_few_distinct_nodes() {
        let mut builder = Builder::new(1);
        let mut nodes = std::collections::HashSet::new();
        for _ in 0..100_000 {
            nodes.extend(builder.push(hash(7), 262_144).unwrap().iter().map(Block::hash));
        }
        let (content, rest) = builder.finish().unwrap();
        nodes.extend(rest.iter().map(Block::hash));
        assert_eq!(content.size, 100_000 * 262_144);
        assert!(nodes.len() <= 8, "{} nodes", nodes.len());
    }

    #[test]
    fn chunks_that_no_chunker_makes_are_refused() {
        let mut builder = Builder::new(1);
        assert_eq!(builder.push(hash(0), 0), Err(ManifestError::EntryLength(0)));
        assert_eq!(builder.push(hash(0), 262_145), Err(ManifestError::EntryLength(262_145)));
        assert_eq!(builder.finish().unwrap().0, empty_file(1));
    }
}
