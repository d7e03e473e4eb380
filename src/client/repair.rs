//! Repair: the server lacks blocks and asks for them; what files of this folder hold of them goes to it. Beside everything
//! else, except that nothing is replaced or deleted here before what was asked for is sent: this may be the only copy.
//! What cannot be found or read is simply not sent. With a chunk list that the server lacks goes all that it lacks below it,
//! except from a read-only device: from it the server takes what it has asked for, and nothing else.
//!
//! Only what hashes to what was asked for is sent, so a file that changed meanwhile does no harm.

use super::known;
use super::session::Session;
use crate::block::pack::Packer;
use crate::block::{Block, SealedBlock, Sealer};
use crate::folder::Folder;
use crate::manifest::{Builder, ChunkRef};
use crate::model::{BlockHash, FileContent, RelPath, limits};
use crate::wire::{Connection, Pushes, WireError};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{
    self,
    error::{TryRecvError, TrySendError},
};
use tokio::task::JoinSet;

/// Blocks held in memory at one time: 16 MiB at most.
const FOUND_MAX: usize = 64;

/// Requests that wait while one is answered: more than the server makes at once. What does not find room is asked for
/// again a minute later.
const WAITING_MAX: usize = 16;

/// The server looks below what came back within this time, and asks for more. A one-time sync waits for it.
const MORE: Duration = Duration::from_millis(300);
/// So often at most.
const MORE_MAX: u32 = 100;

/// Requests of a session on their way to the one task that answers them.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    running: Option<mpsc::Sender<Vec<BlockHash>>>,
    /// One, and others that are about to end.
    tasks: JoinSet<()>,
    /// Something was asked for.
    asked: bool,
}

impl Repairs {
    /// Passes a request on, to a new task when none runs; false when too many wait.
    fn offer(
        &mut self,
        hashes: Vec<BlockHash>,
        start: impl FnOnce(&mut JoinSet<()>, mpsc::Receiver<Vec<BlockHash>>),
    ) -> bool {
        self.asked = true;
        let rest = match &self.running {
            None => hashes,
            Some(running) => match running.try_send(hashes) {
                Ok(()) => return true,
                Err(TrySendError::Full(_)) => return false,
                // It found nothing more to do and has ended.
                Err(TrySendError::Closed(hashes)) => hashes,
            },
        };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let passed = sender.try_send(rest).is_ok();
        while self.tasks.try_join_next().is_some() {}
        start(&mut self.tasks, receiver);
        self.running = Some(sender);
        passed
    }

    /// Waits until everything that was asked for is sent, as far as it is here.
    pub(super) async fn finish(&mut self) {
        self.running = None;
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Looks for blocks among the agreed files, and sends what is found.
pub(super) fn start(session: &mut Session<'_>, hashes: Vec<BlockHash>) {
    let mut repairs = std::mem::take(&mut session.repairs);
    let passed = repairs.offer(hashes, |tasks, requests| {
        tasks.spawn(work(session.connection.clone(), Files::of(session), requests));
    });
    if !passed {
        tracing::debug!("the server asks for more blocks than can be looked for at once");
    }
    session.repairs = repairs;
}

/// Answers all that the server asks for, also after it has looked below what came back.
pub(super) async fn finish(session: &mut Session<'_>, pushes: &mut Pushes) {
    for _ in 0..MORE_MAX {
        session.take_pushes(pushes);
        if !std::mem::take(&mut session.repairs.asked) {
            return;
        }
        session.repairs.finish().await;
        tokio::time::sleep(MORE).await;
    }
}

fn told(done: Result<(), WireError>) {
    if let Err(error) = done {
        tracing::debug!(%error, "blocks that the server lacks were not sent");
    }
}

/// Answers requests one by one, until none waits.
async fn work(connection: Connection, files: Files, mut requests: mpsc::Receiver<Vec<BlockHash>>) {
    loop {
        match requests.try_recv() {
            Ok(hashes) => told(send(connection.clone(), files.finder(hashes)).await),
            // Closed first: what was passed on in this instant is still answered.
            Err(TryRecvError::Empty) => requests.close(),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// The agreed files, as they were when the first of a few requests came.
struct Files {
    folder: Arc<Folder>,
    all: Vec<(RelPath, FileContent)>,
    /// Nothing may be sent but what was asked for by name.
    only_wanted: bool,
}

impl Files {
    fn of(session: &Session<'_>) -> Self {
        let base = &session.client.state.base;
        let contents = base.iter().filter_map(|(id, node)| Some((id, node.state.kind.content()?)));
        let all = contents.filter_map(|(id, content)| Some((base.path_of(id)?, content.clone())));
        let only_wanted = session.connection.welcome().is_read_only();
        Self { folder: session.client.folder.clone(), all: all.collect(), only_wanted }
    }

    fn finder(&self, hashes: Vec<BlockHash>) -> Finder {
        let wanted: HashSet<BlockHash> = hashes.into_iter().collect();
        // Files of one block are known by it; the others may hold any.
        let may_hold = |content: &FileContent| content.root.level > 0 || wanted.contains(&content.root.hash);
        let files = self.all.iter().filter(|(_, content)| may_hold(content)).cloned().collect();
        let (folder, only_wanted) = (self.folder.clone(), self.only_wanted);
        Finder { folder, wanted, only_wanted, files, named: Vec::new(), named_by: None }
    }
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
        for hashes in std::mem::take(&mut finder.named).chunks(limits::HASHES_PER_REQUEST_MAX) {
            let missing = connection.missing(hashes.to_vec()).await?;
            finder
                .wanted
                .extend(hashes.iter().zip(missing).filter(|(_, missing)| *missing).map(|(hash, _)| *hash));
        }
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
    /// As in `Files`.
    only_wanted: bool,
    /// Those that were not looked at yet.
    files: Vec<(RelPath, FileContent)>,
    /// Blocks of a file of which a chunk list is wanted: the server may lack these too.
    named: Vec<BlockHash>,
    /// The root of the last of these files.
    named_by: Option<BlockHash>,
}

impl Finder {
    /// Some more blocks, ready to be sent; `None` when there are no more.
    fn next(&mut self) -> Option<Vec<Vec<SealedBlock>>> {
        while let Some((path, content)) = self.files.last().filter(|_| !self.wanted.is_empty()).cloned() {
            let Some(chunks) = known::chunks_of(&self.folder, &content) else {
                self.files.pop();
                continue;
            };
            let nodes = nodes_of(&content, &chunks);
            let is_wanted = |node: &Block| self.wanted.contains(&node.hash());
            if !self.only_wanted && self.named_by != Some(content.root.hash) && nodes.iter().any(is_wanted) {
                self.named_by = Some(content.root.hash);
                self.named =
                    nodes.iter().map(Block::hash).chain(chunks.iter().map(|chunk| chunk.hash)).collect();
                return Some(Vec::new());
            }
            let found = self.look_in(&path, &chunks, nodes);
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

    fn look_in(&self, path: &RelPath, chunks: &[ChunkRef], nodes: Vec<Block>) -> Vec<Block> {
        let mut found = nodes;
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

/// The chunk lists of a file.
fn nodes_of(content: &FileContent, chunks: &[ChunkRef]) -> Vec<Block> {
    let mut builder = Builder::new(content.root.params);
    let mut nodes = Vec::new();
    for chunk in chunks {
        nodes.extend(builder.push(chunk.hash, u64::from(chunk.len)).unwrap_or_default());
    }
    nodes.extend(builder.finish().map(|(_, nodes)| nodes).unwrap_or_default());
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each `Wanted` of a server once started a task with a list of all files.
    #[test]
    fn one_task_answers_and_few_requests_wait() {
        let hash = |n: u8| vec![BlockHash::from_bytes([n; 32])];
        let mut started = Vec::new();
        let mut repairs = Repairs::default();
        let taken =
            (0..100).filter(|n| repairs.offer(hash(*n), |_, requests| started.push(requests))).count();
        assert_eq!((taken, started.len()), (WAITING_MAX, 1));
        let mut first = started.remove(0);
        assert_eq!(first.try_recv().unwrap(), hash(0));
        assert!(repairs.offer(hash(100), |_, _| panic!("one is enough")));
        first.close();
        assert!(repairs.offer(hash(101), |_, requests| started.push(requests)));
        assert_eq!(started.remove(0).try_recv().unwrap(), hash(101));
        assert_eq!(std::iter::from_fn(|| first.try_recv().ok()).count(), WAITING_MAX, "none is forgotten");
    }
}
