//! What the chunk lists of large files are known from: a private cache, so that after an edit only what is new must be
//! asked for, and so that a receiver takes unchanged parts from the old file. A cache: absent or damaged is no error.

use crate::folder::Folder;
use crate::manifest::ChunkRef;
use crate::model::{BlockHash, FileContent};

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

/// The first chunk of a file of several, as it was written down: a hint.
pub fn first_of(folder: &Folder, content: &FileContent) -> Option<BlockHash> {
    folder.first_of_manifest(&content.root.hash).map(BlockHash::from_bytes)
}
