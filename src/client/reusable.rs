//! What files here hold of a wanted one: chunks to copy, manifest nodes, and blocks that others can be said with.

use super::known;
use crate::block::{Block, SealedBlock, seal};
use crate::folder::Folder;
use crate::folder::fs::File;
use crate::manifest::{Builder, ChunkRef, ManifestNode};
use crate::model::{BlockHash, FileContent, RelPath};
use bytes::Bytes;
use std::collections::HashMap;

/// Files here that hold chunks of a wanted one.
#[derive(Debug, Default)]
pub struct Reusable {
    files: Vec<File>,
    lists: Vec<Vec<ChunkRef>>,
    /// Hash -> file and offset, length.
    chunks: HashMap<BlockHash, (usize, u64, u32)>,
    /// Manifest nodes that can be made here.
    pub nodes: HashMap<BlockHash, Bytes>,
    /// Level, offset and hash of each node.
    places: Vec<(u8, u64, BlockHash)>,
}

/// Where in the old files the chunks stand that were recognised last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Track {
    file: usize,
    shift: i64,
}

impl Reusable {
    /// Opens those of the files whose chunks are known.
    pub fn open(folder: &Folder, sources: &[(RelPath, FileContent)]) -> Self {
        let mut reusable = Self::default();
        for (path, content) in sources {
            let (Some(chunks), Ok(Some((file, _)))) =
                (known::chunks_of(folder, content), folder.open_file(path))
            else {
                continue;
            };
            let index = reusable.files.len();
            reusable.files.push(file);
            let mut builder = Builder::new(content.root.params);
            let mut end = 0;
            for chunk in &chunks {
                reusable.chunks.insert(chunk.hash, (index, chunk.offset, chunk.len));
                end = chunk.offset + u64::from(chunk.len);
                let closed = builder.push(chunk.hash, u64::from(chunk.len)).unwrap_or_default();
                reusable.take_nodes(closed, end);
            }
            reusable.take_nodes(builder.finish().map(|(_, nodes)| nodes).unwrap_or_default(), end);
            reusable.lists.push(chunks);
        }
        reusable
    }

    /// Takes nodes that end at this offset of their file.
    fn take_nodes(&mut self, nodes: Vec<Block>, end: u64) {
        for node in nodes {
            if let Ok(decoded) = ManifestNode::decode(node.bytes()) {
                let start = end.saturating_sub(decoded.file_bytes());
                self.places.push((decoded.level(), start, node.hash()));
            }
            self.nodes.insert(node.hash(), node.into_bytes());
        }
    }

    /// True when nothing is here.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The bytes of a chunk, if a file here still holds them.
    pub fn read<'a>(&self, chunk: &ChunkRef, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (index, offset, _) = self.chunks.get(&chunk.hash)?;
        buffer.resize(usize::try_from(chunk.len).ok()?, 0);
        self.files.get(*index)?.read_exact_at(buffer, *offset).ok()?;
        (BlockHash::of(buffer) == chunk.hash).then_some(&**buffer)
    }

    /// The bytes of a chunk or a node.
    pub fn bytes_of(&self, hash: &BlockHash) -> Option<Bytes> {
        if let Some(node) = self.nodes.get(hash) {
            return Some(node.clone());
        }
        let (_, offset, len) = *self.chunks.get(hash)?;
        let mut buffer = Vec::new();
        self.read(&ChunkRef { hash: *hash, offset, len }, &mut buffer)?;
        Some(Bytes::from(buffer))
    }

    /// For each of some wanted chunks one here that it may be like; [`BlockHash::NONE`]: none, or it is here itself. To be asked
    /// for in order.
    pub fn like_chunks(&self, track: &mut Track, chunks: &[ChunkRef]) -> Vec<BlockHash> {
        // What is recognised next: of several new chunks in a row, only the first still hangs on what stood before it.
        let mut next = None;
        let mut follows: Vec<Option<Track>> = Vec::with_capacity(chunks.len());
        for chunk in chunks.iter().rev() {
            next = self.track_of(chunk).or(next);
            follows.push(next);
        }
        let (mut like, mut is_first) = (Vec::with_capacity(chunks.len()), true);
        for (chunk, follows) in chunks.iter().zip(follows.into_iter().rev()) {
            let here = self.track_of(chunk);
            if let Some(known) = here.or(follows.filter(|_| !is_first)) {
                *track = known;
            }
            is_first = here.is_some();
            like.push(if is_first { BlockHash::NONE } else { self.like_chunk(*track, chunk) });
        }
        like
    }

    /// Where a chunk that is here stands.
    fn track_of(&self, chunk: &ChunkRef) -> Option<Track> {
        let (file, offset, _) = self.chunks.get(&chunk.hash)?;
        let shift = i128::from(chunk.offset) - i128::from(*offset);
        Some(Track { file: *file, shift: i64::try_from(shift).unwrap_or(0) })
    }

    fn like_chunk(&self, track: Track, chunk: &ChunkRef) -> BlockHash {
        let from = chunk.offset.checked_add_signed(-track.shift).unwrap_or(0);
        // The one that covers most of it.
        let end = from.saturating_add(u64::from(chunk.len));
        let list = self.lists.get(track.file).map_or(&[][..], Vec::as_slice);
        let first = list.partition_point(|old| old.offset + u64::from(old.len) <= from);
        let covers = |old: &ChunkRef| (old.offset + u64::from(old.len)).min(end) - old.offset.max(from);
        let behind = list.iter().skip(first).take_while(|old| old.offset < end).max_by_key(|old| covers(old));
        behind.or(list.last()).map_or(BlockHash::NONE, |old| old.hash)
    }

    /// A node here that a wanted one may be like.
    pub fn like_node(&self, level: u8, offset: u64) -> BlockHash {
        let same = self.places.iter().filter(|(here, ..)| *here == level);
        let nearest = same.min_by_key(|(_, start, _)| start.abs_diff(offset));
        nearest.map_or(BlockHash::NONE, |(.., hash)| *hash)
    }
}

/// Opens a block from the network with what is held here; `None` when it does not open.
pub fn open_with(sealed: &SealedBlock, held: &dyn Fn(&BlockHash) -> Option<Bytes>) -> Option<Block> {
    let bases: Option<Vec<Bytes>> = sealed.bases().ok()?.iter().map(held).collect();
    match bases?.as_slice() {
        [] => seal::open(sealed, None),
        [one] => seal::open(sealed, Some(one)),
        many => seal::open(sealed, Some(&many.concat())),
    }
    .ok()
}
