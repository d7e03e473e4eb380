//! What the server holds that a file may be like: its last agreed version, or a file that looks like its origin. While the
//! file is read from front to back, this says which blocks are known, and says new ones as what changed.
//!
//! A new chunk is compared with the chunks that stood at its place: the one behind the last chunk that was recognised, and
//! those at the same distance as that one, or as the one that is recognised next: another when something was cut out. Their
//! bytes may be gone; their [sketches](crate::block::sketch) are kept. Nodes of the manifest can be made again, so they are
//! compared byte by byte.

use super::known;
use crate::block::sketch::{self, Sketched};
use crate::block::{Block, SealedBlock, Sealer, patch};
use crate::folder::Folder;
use crate::folder::sketches::KeptSketch;
use crate::manifest::{Builder, ChunkRef, ManifestNode};
use crate::model::{BlockHash, FileContent};
use std::collections::{BTreeMap, HashMap};

/// A file whose last chunks had nothing in common with its origin is compared once in so many chunks only.
const MISSES_MAX: u32 = 8;
/// So many bytes of new chunks in a row wait until one is recognised. Cuts find back to the old ones within a few chunks.
const RUN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// zstd level of what is weighed against a delta.
const SEAL_LEVEL: i32 = 1;

/// Contents that the server holds, as one file is read.
#[derive(Debug, Default)]
pub struct Basis {
    sources: Vec<Source>,
    /// Chunk -> (source, place).
    chunks: HashMap<BlockHash, (usize, usize)>,
    nodes: Vec<Block>,
    /// Node -> its place in `nodes`.
    node_places: HashMap<BlockHash, usize>,
    /// Node -> the node above it.
    parents: HashMap<BlockHash, usize>,
    view: View,
    misses: u32,
    /// New chunks, with their offsets, that wait for one that is known; and the view before them.
    run: Vec<(u64, Block)>,
    run_bytes: usize,
    before: View,
}

/// Where a file stands in the old contents.
#[derive(Debug, Clone, Copy, Default)]
struct View {
    /// Where the next chunk is expected: source and place.
    next: (usize, usize),
    /// How much further back in the file chunks stand now than they did, bytes.
    shift: i64,
}

/// A block, and the same against blocks that the server holds.
pub type Said = (Block, Option<SealedBlock>);

#[derive(Debug)]
struct Source {
    chunks: Vec<ChunkRef>,
    sketch: Option<Sketch>,
    /// Behind the last chunk of each node of level 1, and that node.
    leaves: Vec<(usize, usize)>,
}

/// Sums of all chunks.
#[derive(Debug)]
enum Sketch {
    Small(Vec<u16>),
    Large(KeptSketch),
}

impl Sketch {
    fn open(folder: &Folder, content: &FileContent) -> Option<Self> {
        let hash = &content.root.hash;
        Some(match content.root.level {
            0 => Self::Small(folder.small_sketch(hash)?),
            _ => Self::Large(folder.kept_sketch(hash)?),
        })
    }

    const fn grain(&self) -> usize {
        match self {
            Self::Small(_) => sketch::GRAIN_BYTES_MIN,
            Self::Large(kept) => kept.grain(),
        }
    }

    fn sums(&self, offset: u64, len: usize) -> Option<Vec<u16>> {
        match self {
            Self::Small(sums) => Some(sums.clone()),
            Self::Large(kept) => kept.sums(offset, len),
        }
    }
}

impl Basis {
    /// Contents that the server holds, the likeliest first. One whose chunks are not known here is left out.
    pub fn open(folder: &Folder, contents: &[FileContent]) -> Self {
        let mut basis = Self::default();
        for content in contents {
            if let Some(chunks) = known::chunks_of(folder, content).filter(|chunks| !chunks.is_empty()) {
                basis.add(folder, content, chunks);
            }
        }
        basis
    }

    fn add(&mut self, folder: &Folder, content: &FileContent, chunks: Vec<ChunkRef>) {
        let mut builder = Builder::new(content.root.params);
        let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
        for (place, chunk) in chunks.iter().enumerate() {
            let Ok(closed) = builder.push(chunk.hash, u64::from(chunk.len)) else { return };
            if !closed.is_empty() {
                leaves.push((place + 1, self.nodes.len() + nodes.len()));
            }
            nodes.extend(closed);
        }
        // A list that does not make the content names blocks that the server never said it has.
        let Ok((rebuilt, rest)) = builder.finish() else { return };
        if rebuilt != *content {
            return;
        }
        if leaves.last().is_none_or(|(end, _)| *end < chunks.len()) && !rest.is_empty() {
            leaves.push((chunks.len(), self.nodes.len() + nodes.len()));
        }
        nodes.extend(rest);
        for node in nodes {
            let place = self.nodes.len();
            let entries = ManifestNode::decode(node.bytes()).ok().filter(|decoded| decoded.level() > 1);
            for entry in entries.iter().flat_map(|decoded| decoded.entries()) {
                self.parents.insert(entry.hash, place);
            }
            self.node_places.insert(node.hash(), place);
            self.nodes.push(node);
        }
        let source = self.sources.len();
        for (place, chunk) in chunks.iter().enumerate() {
            self.chunks.entry(chunk.hash).or_insert((source, place));
        }
        let sketch = Sketch::open(folder, content);
        self.sources.push(Source { chunks, sketch, leaves });
    }

    /// True when nothing is known.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Starts again at the front of the file.
    pub fn rewind(&mut self) {
        self.view = View::default();
        self.misses = 0;
        self.run.clear();
        self.run_bytes = 0;
    }

    /// True for a node that the server holds.
    pub fn knows_node(&self, hash: &BlockHash) -> bool {
        self.node_places.contains_key(hash)
    }

    /// True for a chunk that the server holds. To be asked for each chunk, in order.
    pub fn knows_chunk(&mut self, offset: u64, hash: &BlockHash) -> bool {
        let (source, place) = self.view.next;
        let expected = self.sources.get(source).and_then(|source| source.chunks.get(place));
        let found = match expected {
            // Of equal chunks the one that follows.
            Some(chunk) if chunk.hash == *hash => Some((source, place)),
            _ => self.chunks.get(hash).copied(),
        };
        let Some((source, place)) = found else { return false };
        if let Some(chunk) = self.sources.get(source).and_then(|source| source.chunks.get(place)) {
            self.view.shift = distance(chunk.offset, offset);
        }
        self.view.next = (source, place + 1);
        self.misses = 0;
        true
    }

    /// Takes a new chunk. It is to be said once the next one is known, or [`Basis::is_full`].
    pub fn wait(&mut self, offset: u64, block: Block) {
        if self.run.is_empty() {
            self.before = self.view;
        }
        self.run_bytes += block.bytes().len();
        self.run.push((offset, block));
    }

    /// True when no more chunks should wait.
    pub const fn is_full(&self) -> bool {
        self.run_bytes >= RUN_BYTES_MAX
    }

    /// Says the chunks that wait as parts of old ones and what is new. `knows_next`: the chunk behind them was recognised.
    pub fn say(&mut self, knows_next: bool) -> Vec<Said> {
        self.run_bytes = 0;
        let run = std::mem::take(&mut self.run);
        let after = knows_next.then_some(self.view);
        if !run.is_empty() {
            self.view = self.before;
        }
        let said = run.into_iter().map(|(offset, block)| {
            let patch = self.patch(offset, &block, after);
            (block, patch)
        });
        let said = said.collect();
        if let Some(after) = after {
            (self.view, self.misses) = (after, 0);
        }
        said
    }

    fn patch(&mut self, offset: u64, block: &Block, after: Option<View>) -> Option<SealedBlock> {
        if self.misses >= MISSES_MAX && !self.misses.is_multiple_of(MISSES_MAX) {
            self.misses += 1;
            return None;
        }
        let first = self.view.next.0;
        // At the front nothing tells yet which of the contents it is, unless what follows does.
        let sources = match (self.view.next.1 == 0 && self.view.shift == 0, after) {
            (true, Some(after)) => after.next.0..after.next.0 + 1,
            (true, None) => first..self.sources.len(),
            (false, _) => first..first + 1,
        };
        for source in sources {
            if let Some((sealed, view)) = self.patch_from(source, offset, block, after) {
                (self.view, self.misses) = (view, 0);
                return Some(sealed);
            }
        }
        self.misses += 1;
        None
    }

    /// Also the view behind it.
    fn patch_from(
        &self,
        index: usize,
        offset: u64,
        block: &Block,
        after: Option<View>,
    ) -> Option<(SealedBlock, View)> {
        let source = self.sources.get(index)?;
        let sketch = source.sketch.as_ref()?;
        let next = if index == self.view.next.0 { self.view.next.1 } else { 0 };
        let shifts = [after.filter(|after| after.next.0 == index), Some(self.view)].into_iter().flatten();
        let froms: Vec<u64> =
            shifts.map(|view| offset.checked_add_signed(-view.shift).unwrap_or(0)).collect();
        let places = source.places(next, &froms, block.bytes().len());
        let mut old = Vec::with_capacity(places.len());
        for place in places {
            let chunk = source.chunks.get(place)?;
            let len = usize::try_from(chunk.len).ok()?;
            old.push((place, chunk, len, sketch.sums(chunk.offset, len)?));
        }
        let sketched: Vec<_> = old.iter().map(|(_, _, len, sums)| Sketched { len: *len, sums }).collect();
        let mut shared = sketch::shared(block.bytes(), &sketched, sketch.grain());
        // Bases that nothing is taken from are not named.
        let mut start = 0;
        let mut used = Vec::new();
        let mut last: Option<(usize, i64, usize)> = None;
        for (place, chunk, len, _) in &old {
            let end = start + len;
            let touches = |run: &&sketch::Shared| run.from < end && run.from + run.len > start;
            if shared.iter().any(|run| touches(&run)) {
                used.push(chunk.hash);
                if let Some(run) = shared.iter().rfind(touches) {
                    let from = chunk.offset + run.from.saturating_sub(start) as u64;
                    let at = offset + run.at as u64 + start.saturating_sub(run.from) as u64;
                    let whole = run.from + run.len >= end;
                    let better = last.as_ref().is_none_or(|(known, ..)| *known <= run.at);
                    if better {
                        last = Some((run.at, distance(from, at), place + usize::from(whole)));
                    }
                }
                start = end;
            } else {
                // What comes behind it moves up.
                shared.iter_mut().filter(|run| run.from >= end).for_each(|run| run.from -= len);
            }
        }
        let sealed = Sealer::new(SEAL_LEVEL).seal_patch(block, &used, &shared)?;
        let (_, shift, place) = last?;
        Some((sealed.into_sealed(), View { next: (index, place), shift }))
    }

    /// Says a new node of the manifest as what changed in an old one.
    pub fn patch_node(&self, node: &Block) -> Option<SealedBlock> {
        let decoded = ManifestNode::decode(node.bytes()).ok()?;
        let above = |hash: &BlockHash| match decoded.level() {
            1 => self.chunks.get(hash).and_then(|(source, place)| self.leaf(*source, *place)),
            _ => self.parents.get(hash).copied(),
        };
        // The old node that most of its entries come from.
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for place in decoded.entries().iter().filter_map(|entry| above(&entry.hash)) {
            *votes.entry(place).or_default() += 1;
        }
        let like = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(place, _)| place);
        let like = like.or_else(|| match decoded.level() {
            1 => self.leaf(self.view.next.0, self.view.next.1.saturating_sub(1)),
            _ => self.nodes.len().checked_sub(1),
        });
        let base = self.nodes.get(like?)?;
        Some(Sealer::new(SEAL_LEVEL).seal_against(node, base)?.into_sealed())
    }

    fn leaf(&self, source: usize, place: usize) -> Option<usize> {
        let leaves = &self.sources.get(source)?.leaves;
        let at = leaves.partition_point(|(end, _)| *end <= place);
        leaves.get(at).map(|(_, node)| *node)
    }
}

impl Source {
    /// Chunks that a new chunk may be like: the one that is next, and those that stood where it stands now, by what is known
    /// of the distance.
    fn places(&self, next: usize, froms: &[u64], len: usize) -> Vec<usize> {
        let stood = |from: u64, nth: usize| {
            let first = self.chunks.partition_point(|chunk| chunk.offset + u64::from(chunk.len) <= from);
            let place = first + nth;
            self.chunks
                .get(place)
                .filter(|chunk| chunk.offset < from.saturating_add(len as u64))
                .map(|_| place)
        };
        let mut places: Vec<usize> = self.chunks.get(next).map(|_| next).into_iter().collect();
        for nth in 0..patch::BASES_MAX {
            for place in froms.iter().filter_map(|from| stood(*from, nth)) {
                if places.len() < patch::BASES_MAX && !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places.sort_unstable();
        places
    }
}

fn distance(from: u64, to: u64) -> i64 {
    i64::try_from(i128::from(to) - i128::from(from)).unwrap_or(0)
}

#[cfg(test)]
#[path = "basis_tests.rs"]
mod tests;
