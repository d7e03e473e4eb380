//! Repair: the server lacks blocks and asks for them; what files of this folder hold of them goes to it. Beside everything
//! else: a session does not wait for it, and what cannot be found or read is simply not sent.
//!
//! Only what hashes to what was asked for is sent, so a file that changed meanwhile does no harm.

use super::known;
use super::session::Session;
use crate::block::pack::Packer;
use crate::block::{Block, Sealer};
use crate::folder::Folder;
use crate::manifest::Builder;
use crate::model::{BlockHash, FileContent, RelPath};
use crate::wire::{Connection, WireError};
use bytes::Bytes;
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Blocks that wait to be sent.
const WAITING_MAX: usize = 16;

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
    send(session.connection.clone(), session.client.folder.clone(), wanted, files)
}

async fn send(
    connection: Connection,
    folder: Arc<Folder>,
    wanted: HashSet<BlockHash>,
    files: Vec<(RelPath, FileContent)>,
) -> Result<(), WireError> {
    let (sender, mut found) = tokio::sync::mpsc::channel(WAITING_MAX);
    let reading = tokio::task::spawn_blocking(move || {
        find(&folder, wanted, &files, |block| sender.blocking_send(block).is_ok());
    });
    let (sealer, mut packer, mut sent) = (Sealer::new(1), Packer::default(), 0usize);
    while let Some(block) = found.recv().await {
        sent += 1;
        if let Some(pack) = packer.push(sealer.seal(&block).into_sealed()) {
            connection.put(&pack).await?;
        }
    }
    let rest = packer.take();
    if !rest.is_empty() {
        connection.put(&rest).await?;
    }
    // A panic there has been told already, and what was found before it is sent.
    let _ = reading.await;
    if sent > 0 {
        tracing::info!(blocks = sent, "sent blocks that the server had lost");
    }
    Ok(())
}

/// Hands out every wanted block once, as long as somebody takes them.
fn find(
    folder: &Folder,
    mut wanted: HashSet<BlockHash>,
    files: &[(RelPath, FileContent)],
    mut take: impl FnMut(Block) -> bool,
) {
    for (path, content) in files {
        if wanted.is_empty() {
            return;
        }
        let Some(chunks) = known::chunks_of(folder, content) else { continue };
        let mut builder = Builder::new(content.root.params);
        let mut nodes = Vec::new();
        for chunk in &chunks {
            match builder.push(chunk.hash, u64::from(chunk.len)) {
                Ok(more) => nodes.extend(more.into_iter().filter(|node| wanted.contains(&node.hash()))),
                Err(_) => break,
            }
        }
        if let Ok((_, last)) = builder.finish() {
            nodes.extend(last);
        }
        for node in nodes {
            if wanted.remove(&node.hash()) && !take(node) {
                return;
            }
        }
        if !chunks.iter().any(|chunk| wanted.contains(&chunk.hash)) {
            continue;
        }
        let Ok(Some((file, _))) = folder.open_file(path) else { continue };
        for chunk in &chunks {
            if !wanted.contains(&chunk.hash) {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(chunk.len).unwrap_or(0)];
            if file.read_exact_at(&mut bytes, chunk.offset).is_err() {
                break;
            }
            let block = Block::new(Bytes::from(bytes));
            if block.hash() == chunk.hash {
                wanted.remove(&chunk.hash);
                if !take(block) {
                    return;
                }
            }
        }
    }
}
