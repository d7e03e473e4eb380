//! What the chunk lists of large files are known from: a private cache, so that after an edit only what is new must be
//! asked for, and so that a receiver takes unchanged parts from the old file. A cache: absent or damaged is no error.

use crate::folder::Folder;
use crate::manifest::{Builder, ChunkRef};
use crate::model::{BlockHash, FileContent};
use std::collections::HashSet;

/// 32 bytes of hash, 4 of length (u32 LE).
const ENTRY_BYTES: usize = 36;

/// Remembers the chunks of a file, if it has more than one.
pub fn remember(folder: &Folder, content: &FileContent, list: &[(BlockHash, u64)]) {
    if content.root.level == 0 {
        return;
    }
    let mut bytes = Vec::with_capacity(list.len() * ENTRY_BYTES);
    for (hash, len) in list {
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&u32::try_from(*len).unwrap_or(0).to_le_bytes());
    }
    if let Err(error) = folder.save_manifest(&content.root.hash, &bytes) {
        tracing::debug!(%error, "chunk list not kept");
    }
}

/// The chunks of a file, in order; `None` when they are not known here.
pub fn chunks_of(folder: &Folder, content: &FileContent) -> Option<Vec<ChunkRef>> {
    if content.size == 0 {
        return Some(Vec::new());
    }
    if content.root.level == 0 {
        let len = u32::try_from(content.size).ok()?;
        return Some(vec![ChunkRef { hash: content.root.hash, offset: 0, len }]);
    }
    let bytes = folder.load_manifest(&content.root.hash)?;
    let mut offset = 0u64;
    let mut chunks = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    for entry in bytes.chunks(ENTRY_BYTES) {
        let (hash, len) = entry.split_first_chunk::<32>()?;
        let len = u32::from_le_bytes(*len.first_chunk::<4>()?);
        chunks.push(ChunkRef { hash: BlockHash::from_bytes(*hash), offset, len });
        offset = offset.checked_add(u64::from(len))?;
    }
    (offset == content.size).then_some(chunks)
}

/// All blocks that make up a file, manifest nodes included.
pub fn blocks_of(folder: &Folder, content: &FileContent) -> Option<HashSet<BlockHash>> {
    let chunks = chunks_of(folder, content)?;
    let mut known: HashSet<BlockHash> = chunks.iter().map(|chunk| chunk.hash).collect();
    let mut builder = Builder::new(content.root.params);
    for chunk in &chunks {
        known.extend(builder.push(chunk.hash, u64::from(chunk.len)).ok()?.iter().map(|node| node.hash()));
    }
    let (rebuilt, nodes) = builder.finish().ok()?;
    known.extend(nodes.iter().map(|node| node.hash()));
    (rebuilt == *content).then_some(known)
}
