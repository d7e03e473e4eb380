//! Repair: the server lacks blocks and asks for them; what files of this folder hold of them goes to it. Beside everything
//! else: a session does not wait for it, and what cannot be found or read is simply not sent.
//!
//! Only what hashes to what was asked for is sent, so a file that changed meanwhile does no harm.

use super::known;
use super::session::Session;
use crate::block::pack::Packer;
use crate::block::{Block, SealedBlock, Sealer};
use crate::folder::Folder;
use crate::manifest::{Builder, ChunkRef};
use crate::model::{BlockHash, FileContent, RelPath};
use crate::wire::{Connection, WireError};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// Blocks held in memory at one time: 16 MiB at most.
const FOUND_MAX: usize = 64;

/// Looks for blocks among the agreed files, and sends what is found.
pub(super) fn start(session: &Session<'_>, hashes: Vec<BlockHash>) {
    let work = prepare(session, hashes);
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::debug!(%error, "blocks that the server lacks were not sent");
        }
    });
}

/// The same, done when it returns.
pub(super) async fn answer(session: &Session<'_>, hashes: Vec<BlockHash>) {
    if let Err(error) = prepare(session, hashes).await {
        tracing::debug!(%error, "blocks that the server lacks were not sent");
    }
}

fn prepare(
    session: &Session<'_>,
    hashes: Vec<BlockHash>,
) -> impl Future<Output = Result<(), WireError>> + Send + 'static {
    let wanted: HashSet<BlockHash> = hashes.into_iter().collect();
    let base = &session.client.state.base;
    // Files of one block are known by it; the others may hold any.
    let may_hold = |content: &FileContent| content.root.level > 0 || wanted.contains(&content.root.hash);
    let files: Vec<(RelPath, FileContent)> = base
        .iter()
        .filter_map(|(id, node)| Some((id, node.state.kind.content().filter(|content| may_hold(content))?)))
        .filter_map(|(id, content)| Some((base.path_of(id)?, content.clone())))
        .collect();
    let finder = Finder { folder: session.client.folder.clone(), wanted, files };
    send(session.connection.clone(), finder)
}

async fn send(connection: Connection, mut finder: Finder) -> Result<(), WireError> {
    let (work, mut sent) = (finder.folder.work(), 0usize);
    loop {
        let found = work.beside(move || {
            let packs = finder.next();
            (finder, packs)
        });
        // A panic there has been told already, and what was found before it is sent.
        let Ok((same, Some(packs))) = found.await else { break };
        for pack in packs {
            connection.put(&pack).await?;
            sent += pack.len();
        }
        finder = same;
    }
    if sent > 0 {
        tracing::info!(blocks = sent, "sent blocks that the server had lost");
    }
    Ok(())
}

/// Looks for blocks, file by file.
struct Finder {
    folder: Arc<Folder>,
    wanted: HashSet<BlockHash>,
    /// Those that were not looked at yet.
    files: Vec<(RelPath, FileContent)>,
}

impl Finder {
    /// Some more blocks, ready to be sent; `None` when there are no more.
    fn next(&mut self) -> Option<Vec<Vec<SealedBlock>>> {
        while let Some((path, content)) = self.files.last().filter(|_| !self.wanted.is_empty()).cloned() {
            let found = self.look_in(&path, &content);
            for block in &found {
                self.wanted.remove(&block.hash());
            }
            // A file may hold more than was taken at once.
            if found.len() < FOUND_MAX {
                self.files.pop();
            }
            if !found.is_empty() {
                let (sealer, mut packer) = (Sealer::new(1), Packer::default());
                let mut packs: Vec<_> =
                    found.iter().filter_map(|block| packer.push(sealer.seal(block).into_sealed())).collect();
                packs.extend(Some(packer.take()).filter(|rest| !rest.is_empty()));
                return Some(packs);
            }
        }
        None
    }

    fn look_in(&self, path: &RelPath, content: &FileContent) -> Vec<Block> {
        let Some(chunks) = known::chunks_of(&self.folder, content) else { return Vec::new() };
        let mut builder = Builder::new(content.root.params);
        let mut found = Vec::new();
        for chunk in &chunks {
            found.extend(builder.push(chunk.hash, u64::from(chunk.len)).unwrap_or_default());
        }
        found.extend(builder.finish().map(|(_, nodes)| nodes).unwrap_or_default());
        found.retain(|node| self.wanted.contains(&node.hash()));
        let mut lacking: Vec<&ChunkRef> =
            chunks.iter().filter(|chunk| self.wanted.contains(&chunk.hash)).collect();
        lacking.sort_unstable_by_key(|chunk| chunk.hash);
        lacking.dedup_by_key(|chunk| chunk.hash);
        if !lacking.is_empty()
            && let Ok(Some((file, _))) = self.folder.open_file(path)
        {
            let blocks = lacking.iter().filter_map(|chunk| {
                let mut bytes = vec![0; usize::try_from(chunk.len).ok()?];
                file.read_exact_at(&mut bytes, chunk.offset).ok()?;
                let block = Block::new(Bytes::from(bytes));
                (block.hash() == chunk.hash).then_some(block)
            });
            found.extend(blocks.take(FOUND_MAX));
        }
        found.truncate(FOUND_MAX);
        found
    }
}
