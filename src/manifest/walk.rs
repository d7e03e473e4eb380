//! [`Walker`]: from a file's root to its chunks in file order, without IO.
//!
//! Ask it for the next [`Step`]; give it the nodes it needs, in any order, from wherever they are; take the chunks.
//! It trusts nothing but the [`FileContent`] it was given. Memory: at most 64 nodes wait per level, whatever the size
//! of the file; no recursion.

use super::{Entry, ManifestError, ManifestNode};
use crate::model::{BlockHash, FileContent, limits};
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};

/// Most nodes asked for in one step: a request that fits in one frame (64 nodes have at most 640 KiB).
pub const NODES_PER_STEP_MAX: usize = 64;
/// Most chunks given in one step.
pub const CHUNKS_PER_STEP_MAX: usize = 1024;

/// One chunk at its place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The block.
    pub hash: BlockHash,
    /// Where in the file, bytes.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u32,
}

/// What a walker needs or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// [`Walker::feed`] these nodes, in any order; at least 1, each once.
    NeedNodes(Vec<BlockHash>),
    /// The next chunks in file order, at least 1.
    Chunks(Vec<ChunkRef>),
    /// All chunks have been given.
    Done,
}

/// A block that a manifest names, at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub hash: BlockHash,
    /// Bytes of the file below it, as promised by the parent.
    pub len: u64,
    pub offset: u64,
    /// 0 for a chunk.
    pub level: u8,
}

impl Item {
    /// The root of a file; `None` for the empty file.
    pub(super) fn root(content: &FileContent) -> Result<Option<Self>, ManifestError> {
        let FileContent { size, root } = content;
        if root.level > limits::MANIFEST_LEVEL_MAX {
            return Err(ManifestError::Level(root.level));
        }
        match (*size, root.level) {
            (0, 0) if root.hash == BlockHash::of(&[]) => Ok(None),
            (0, _) => Err(ManifestError::Size(0)),
            (size, 0) if size > limits::BLOCK_BYTES_MAX as u64 => Err(ManifestError::Size(size)),
            (len, level) => Ok(Some(Self { hash: root.hash, len, offset: 0, level })),
        }
    }

    /// What its parent says of it.
    pub(super) const fn promise(&self) -> (BlockHash, u64) {
        (self.hash, self.len)
    }

    /// As a chunk; only at level 0, where lengths are bounded by blocks.
    pub(super) fn chunk(&self) -> ChunkRef {
        ChunkRef { hash: self.hash, offset: self.offset, len: u32::try_from(self.len).unwrap_or(u32::MAX) }
    }

    /// What stands below it, in file order, once the node is seen to keep what was promised for it.
    pub(super) fn children(
        &self,
        node: &ManifestNode,
        content: &FileContent,
    ) -> Result<Vec<Self>, ManifestError> {
        let hash = self.hash;
        if node.level() != self.level {
            return Err(ManifestError::LevelPromise { hash, promised: self.level, found: node.level() });
        }
        if node.file_bytes() != self.len {
            return Err(ManifestError::LengthPromise { hash, promised: self.len, found: node.file_bytes() });
        }
        if node.params() != content.root.params {
            return Err(ManifestError::Params(hash));
        }
        // No chunk but the last of a file is shorter, so no node but the last of a level either: what a client remembers of a
        // file is in proportion to its size, whoever made the manifest.
        if let Some((_, before)) = node.entries().split_last()
            && let Some(short) = before.iter().find(|entry| entry.len < limits::CHUNK_BYTES_MIN)
        {
            return Err(ManifestError::EntryLength(short.len));
        }
        // A root of one entry would give one file many roots.
        if self.level == content.root.level && node.entries().len() < 2 {
            return Err(ManifestError::EntryCount(1));
        }
        let level = self.level.saturating_sub(1);
        let mut offset = self.offset;
        let place = |&Entry { hash, len }: &Entry| {
            let item = Self { hash, len, offset, level };
            offset = offset.saturating_add(len);
            item
        };
        Ok(node.entries().iter().map(place).collect())
    }
}

/// Decodes the node that was asked for as `hash`.
pub(super) fn read_node(hash: BlockHash, bytes: &[u8]) -> Result<ManifestNode, ManifestError> {
    if BlockHash::of(bytes) != hash {
        return Err(ManifestError::Hash(hash));
    }
    ManifestNode::decode(bytes)
}

/// Walks one manifest. See the module.
#[derive(Debug)]
pub struct Walker {
    content: FileContent,
    /// What remains, in file order: chunks only at the front, nodes behind them.
    queue: VecDeque<Item>,
    /// Nodes that were fed and whose turn has not come.
    fetched: HashMap<BlockHash, ManifestNode>,
    asked: HashSet<BlockHash>,
    /// Nodes whose chunks were given; only [`Walker::distinct`] keeps it.
    given: Option<HashMap<BlockHash, u64>>,
}

impl Walker {
    /// Gives every chunk of the file.
    ///
    /// # Errors
    /// A size and a root that cannot belong together.
    pub fn new(content: &FileContent) -> Result<Self, ManifestError> {
        Ok(Self {
            content: content.clone(),
            queue: Item::root(content)?.into_iter().collect(),
            fetched: HashMap::new(),
            asked: HashSet::new(),
            given: None,
        })
    }

    /// Gives the chunks below every node once, however often the file repeats that node.
    ///
    /// For what must touch each block of a file that someone else describes: a few nodes that name each other many
    /// times over describe a file of exabytes, and take no longer here than they are. Remembers each node's hash.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn distinct(content: &FileContent) -> Result<Self, ManifestError> {
        Ok(Self { given: Some(HashMap::new()), ..Self::new(content)? })
    }

    /// What is next. After `NeedNodes` it says the same again until the first of them is fed.
    ///
    /// # Errors
    /// A node that does not keep what its parent promised. The walk cannot go on.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it has to be fed between steps")]
    pub fn next(&mut self) -> Result<Step, ManifestError> {
        while let Some(front) = self.queue.front().copied() {
            if front.level == 0 {
                return Ok(Step::Chunks(self.take_chunks()));
            }
            if self.skip_given(&front)? {
                continue;
            }
            let Some(node) = self.fetched.get(&front.hash) else {
                return Ok(Step::NeedNodes(self.ask()));
            };
            let children = front.children(node, &self.content)?;
            self.queue.pop_front();
            // A run of equal nodes (a long stretch of zeros) is fetched once.
            if self.queue.front().is_none_or(|next| next.hash != front.hash) {
                self.fetched.remove(&front.hash);
            }
            for child in children.into_iter().rev() {
                self.queue.push_front(child);
            }
        }
        Ok(Step::Done)
    }

    /// Takes a node that was asked for.
    ///
    /// # Errors
    /// Bytes that are not that node, or a node nobody asked for.
    pub fn feed(&mut self, hash: BlockHash, bytes: &[u8]) -> Result<(), ManifestError> {
        if !self.asked.remove(&hash) {
            return Err(ManifestError::Unasked(hash));
        }
        self.fetched.insert(hash, read_node(hash, bytes)?);
        Ok(())
    }

    /// Level and place in the file of a node that is asked for.
    pub fn place_of(&self, hash: &BlockHash) -> Option<(u8, u64)> {
        self.queue.iter().find(|item| item.hash == *hash).map(|item| (item.level, item.offset))
    }

    fn take_chunks(&mut self) -> Vec<ChunkRef> {
        let ready = self.queue.iter().take(CHUNKS_PER_STEP_MAX).take_while(|item| item.level == 0).count();
        self.queue.drain(..ready).map(|item| item.chunk()).collect()
    }

    /// The first nodes of the queue that have not come yet. Those further on are asked for together with the first,
    /// so that a walk over a slow link takes one round trip for 64 nodes.
    fn ask(&mut self) -> Vec<BlockHash> {
        let mut need = Vec::new();
        for item in self.queue.iter().take(NODES_PER_STEP_MAX) {
            let given = self.given.as_ref().is_some_and(|given| given.contains_key(&item.hash));
            if !given && !self.fetched.contains_key(&item.hash) && !need.contains(&item.hash) {
                need.push(item.hash);
            }
        }
        // Asked for stays asked for: a node may come late, when others have moved in front of it.
        self.asked.extend(need.iter().copied());
        need
    }

    /// For a distinct walk: drops the front node when it had its turn before, and notes it otherwise.
    fn skip_given(&mut self, front: &Item) -> Result<bool, ManifestError> {
        let Some(given) = &mut self.given else { return Ok(false) };
        match given.get(&front.hash) {
            Some(&found) if found != front.len => {
                Err(ManifestError::LengthPromise { hash: front.hash, promised: front.len, found })
            }
            Some(_) => {
                self.queue.pop_front();
                self.fetched.remove(&front.hash);
                Ok(true)
            }
            None => {
                if self.fetched.contains_key(&front.hash) {
                    given.insert(front.hash, front.len);
                }
                Ok(false)
            }
        }
    }
}

/// The nodes behind some hashes, in the same order: how the functions here that wait for nodes get them.
pub type Fetch<'a, E> = dyn FnMut(&[BlockHash]) -> Result<Vec<Bytes>, E> + 'a;

/// Fetches `need` and pairs each hash with its bytes.
pub(super) fn fetched<E: From<ManifestError>>(
    need: Vec<BlockHash>,
    fetch: &mut Fetch<'_, E>,
) -> Result<impl Iterator<Item = (BlockHash, Bytes)>, E> {
    let nodes = fetch(&need)?;
    if nodes.len() != need.len() {
        return Err(ManifestError::Undelivered { asked: need.len(), found: nodes.len() }.into());
    }
    Ok(need.into_iter().zip(nodes))
}

/// All chunks of a file in file order. Takes memory for the whole list: for a file that someone else describes and
/// that may be huge, use a [`Walker`].
///
/// # Errors
/// Those of `fetch`, and a manifest that is not sound.
pub fn chunk_list<E: From<ManifestError>>(
    content: &FileContent,
    fetch: &mut Fetch<'_, E>,
) -> Result<Vec<ChunkRef>, E> {
    let mut walker = Walker::new(content)?;
    let mut chunks = Vec::new();
    loop {
        match walker.next()? {
            Step::Chunks(more) => chunks.extend(more),
            Step::Done => return Ok(chunks),
            Step::NeedNodes(need) => {
                for (hash, bytes) in fetched(need, fetch)? {
                    walker.feed(hash, &bytes)?;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
