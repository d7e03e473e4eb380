//! Downloading: from a node's content to a staged file whose bytes are verified.
//!
//! Bytes come from an interrupted download, a file here that holds the same, a file fetched just before, blocks that rode in a
//! push, or else the network. Small files are asked for by the hundred; [`assemble`](super::assemble) makes the large ones.

use super::ClientError;
use super::fresh::Fresh;
use super::reusable::open_with;
use super::sketching::Sketching;
use crate::block::{Block, SealedBlock};
use crate::folder::nearby::Nearby;
use crate::folder::stage::Staged;
use crate::folder::{Folder, FolderError};
use crate::model::counters::Counters;
use crate::model::{BlockHash, FileContent, NodeId, RelPath, limits};
use crate::wire::Connection;
use crate::work::Work;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Plain bytes asked for in one request.
pub(super) const REQUEST_BYTES: u64 = 1024 * 1024;
/// Requests on their way at once.
pub(super) const REQUESTS_MAX: usize = 8;

/// A file to fetch.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The node.
    pub id: NodeId,
    /// Where it will be.
    pub path: RelPath,
    /// Its bytes.
    pub content: FileContent,
    /// Its executable bit.
    pub exec: bool,
    /// Its modification time.
    pub mtime_ns: i64,
    /// Files here that hold some of its bytes, or all.
    pub sources: Vec<(RelPath, FileContent)>,
    /// For a file of one block: another such file here that may be like it.
    pub like: Option<(RelPath, FileContent)>,
}

/// Finds the bytes of a block that is here.
pub(super) type Held = Arc<dyn Fn(&BlockHash) -> Option<Bytes> + Send + Sync>;

/// What came of a [`Wanted`].
pub type Fetched = (NodeId, Result<Staged, ClientError>);

/// Where bytes come from.
#[derive(Clone)]
pub struct Fetcher {
    /// The network.
    pub connection: Connection,
    /// The folder, for staging and for bytes that are here.
    pub folder: Arc<Folder>,
    /// Work done.
    pub counters: Arc<Counters>,
    /// Blocks that came with pushes.
    pub inline: Arc<HashMap<BlockHash, Bytes>>,
    /// Large files that came before.
    pub fresh: Arc<Fresh>,
    /// Told about every byte that is there.
    pub on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Fetcher {
    /// Fetches all of a batch.
    ///
    /// # Errors
    /// When the connection is lost or the disk is full. What concerns one file is in its result.
    pub async fn fetch(&self, batch: Vec<Wanted>) -> Result<Vec<Fetched>, ClientError> {
        let (small, large): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|wanted| wanted.content.root.level == 0);
        let mut fetched = self.fetch_small(small).await?;
        for wanted in large {
            let id = wanted.id;
            let done = match self.fetch_large(wanted).await {
                // The half of a file that does not fit takes the room of those that do.
                Err(ClientError::Folder(error @ FolderError::NoSpace { .. })) => {
                    self.folder.discard_partials(id)?;
                    Err(ClientError::Folder(error))
                }
                done => keep_one(done)?,
            };
            fetched.push((id, done));
        }
        Ok(fetched)
    }

    /// Files of one block. Requests are made of whole blocks and run side by side.
    async fn fetch_small(&self, batch: Vec<Wanted>) -> Result<Vec<Fetched>, ClientError> {
        let mut fetched = Vec::new();
        let mut by_hash: BTreeMap<BlockHash, Vec<Wanted>> = BTreeMap::new();
        let mut here = Vec::new();
        let mut order = Vec::new();
        for wanted in batch {
            let hash = wanted.content.root.hash;
            let pushed = self.inline.contains_key(&hash);
            if wanted.content.size == 0 || pushed || !wanted.sources.is_empty() {
                here.push(wanted);
                continue;
            }
            let same = by_hash.entry(hash).or_default();
            if same.is_empty() {
                order.push((hash, wanted.content.size));
            }
            same.push(wanted);
        }
        let mut tasks: JoinSet<Result<Vec<Fetched>, ClientError>> = JoinSet::new();
        if !here.is_empty() {
            let fetcher = self.clone();
            tasks.spawn(async move { fetcher.stage_here(here).await });
        }
        let mut request = Vec::new();
        let mut bytes = 0;
        // First those whose own old version is the base: the server tries further bases as long as they prove good.
        let is_guess = |(hash, _): &(BlockHash, u64)| {
            let mut same = by_hash.get(hash).into_iter().flatten();
            !same.any(|one| one.like.as_ref().is_some_and(|(path, _)| *path == one.path))
        };
        order.sort_by_cached_key(is_guess);
        for (hash, size) in order {
            if (bytes + size > REQUEST_BYTES || request.len() >= limits::HASHES_PER_REQUEST_MAX)
                && !request.is_empty()
            {
                self.spawn_request(&mut tasks, std::mem::take(&mut request), bytes, &mut fetched).await?;
                bytes = 0;
            }
            bytes += size;
            request.push((hash, by_hash.remove(&hash).unwrap_or_default()));
        }
        if !request.is_empty() {
            self.spawn_request(&mut tasks, request, bytes, &mut fetched).await?;
        }
        while let Some(done) = tasks.join_next().await {
            fetched.extend(done.map_err(|_| ClientError::Stopped)??);
        }
        Ok(fetched)
    }

    async fn spawn_request(
        &self,
        tasks: &mut JoinSet<Result<Vec<Fetched>, ClientError>>,
        request: Vec<(BlockHash, Vec<Wanted>)>,
        bytes: u64,
        fetched: &mut Vec<Fetched>,
    ) -> Result<(), ClientError> {
        while tasks.len() >= REQUESTS_MAX {
            if let Some(done) = tasks.join_next().await {
                fetched.extend(done.map_err(|_| ClientError::Stopped)??);
            }
        }
        let fetcher = self.clone();
        tasks.spawn(async move {
            let hashes: Vec<BlockHash> = request.iter().map(|(hash, _)| *hash).collect();
            let likes: Vec<_> =
                request.iter().map(|(_, wanted)| wanted.iter().find_map(|one| one.like.clone())).collect();
            let base = |like: &Option<(RelPath, FileContent)>| {
                like.as_ref().map_or(BlockHash::NONE, |(_, content)| content.root.hash)
            };
            let bases = likes.iter().map(base).collect();
            let held: HashMap<_, _> =
                likes.into_iter().flatten().map(|like| (like.1.root.hash, like)).collect();
            let folder = fetcher.folder.clone();
            let read = move |hash: &BlockHash| held.get(hash).and_then(|like| read_whole(&folder, like));
            let blocks = fetcher.want(&hashes, bases, bytes, Arc::new(read)).await?;
            blocking(fetcher.folder.work(), move || {
                let mut fetched = Vec::new();
                let mut near = fetcher.folder.nearby();
                for ((_, wanted), block) in request.into_iter().zip(blocks) {
                    for wanted in wanted {
                        let staged = match &block {
                            Some(block) => fetcher.stage_whole(&mut near, &wanted, block.bytes()),
                            None => Err(blocks_lost(&wanted.path)),
                        };
                        fetched.push((wanted.id, keep_one(staged)?));
                    }
                }
                Ok(fetched)
            })
            .await
        });
        Ok(())
    }

    /// Blocks from the network, opened; `None` for one that the server lacks. `bases` are blocks that `held` knows, one for
    /// each hash, which may be like it. What does not open with them is asked for again without.
    pub(super) async fn want(
        &self,
        hashes: &[BlockHash],
        bases: Vec<BlockHash>,
        plain_bytes_max: u64,
        held: Held,
    ) -> Result<Vec<Option<Block>>, ClientError> {
        let sealed =
            self.connection.want_against(hashes.to_vec(), bases, plain_bytes_max).await?.all().await?;
        let open = |hashes: Vec<BlockHash>, sealed: Vec<Option<SealedBlock>>| {
            let (fetcher, held) = (self.clone(), held.clone());
            blocking(self.folder.work(), move || {
                let open =
                    |(hash, sealed): (BlockHash, Option<SealedBlock>)| fetcher.open(&sealed?, hash, &*held);
                Ok(hashes.into_iter().zip(sealed).map(open).collect::<Vec<_>>())
            })
        };
        let needs = |sealed: &Option<SealedBlock>| {
            sealed.as_ref().is_some_and(|sealed| sealed.bases().is_ok_and(|bases| !bases.is_empty()))
        };
        let had_base: Vec<bool> = sealed.iter().map(needs).collect();
        let mut blocks = open(hashes.to_vec(), sealed).await?;
        let failed: Vec<usize> = (0..blocks.len())
            .filter(|at| had_base.get(*at) == Some(&true) && blocks.get(*at) == Some(&None))
            .collect();
        if !failed.is_empty() {
            let again: Vec<BlockHash> = failed.iter().filter_map(|at| hashes.get(*at).copied()).collect();
            let sealed = self.connection.want(again.clone(), plain_bytes_max).await?.all().await?;
            for (at, block) in failed.into_iter().zip(open(again, sealed).await?) {
                if let Some(place) = blocks.get_mut(at) {
                    *place = block;
                }
            }
        }
        Ok(blocks)
    }

    /// Opens a block from the network; `None` when its bytes are not the ones that were asked for.
    fn open(
        &self,
        sealed: &SealedBlock,
        hash: BlockHash,
        held: &dyn Fn(&BlockHash) -> Option<Bytes>,
    ) -> Option<Block> {
        let block = open_with(sealed, held).filter(|block| block.hash() == hash)?;
        self.counters.blocks_received.add(1);
        self.counters.block_bytes_received.add_len(block.bytes().len());
        Some(block)
    }

    /// Small files whose bytes are here already; those that are not after all are asked for one by one.
    async fn stage_here(&self, batch: Vec<Wanted>) -> Result<Vec<Fetched>, ClientError> {
        let mut fetched = Vec::new();
        let mut near = self.folder.nearby();
        for wanted in batch {
            let hash = wanted.content.root.hash;
            let here = match self.inline.get(&hash) {
                Some(bytes) => Some(bytes.clone()),
                None if wanted.content.size == 0 => Some(Bytes::new()),
                None => self.read_source(&wanted),
            };
            let bytes = match here {
                Some(bytes) => Some(bytes),
                None => {
                    let blocks =
                        self.want(&[hash], Vec::new(), wanted.content.size, Arc::new(|_| None)).await?;
                    blocks.into_iter().flatten().next().map(Block::into_bytes)
                }
            };
            let id = wanted.id;
            let staged = match bytes {
                Some(bytes) => self.stage_whole(&mut near, &wanted, &bytes),
                None => Err(blocks_lost(&wanted.path)),
            };
            fetched.push((id, keep_one(staged)?));
        }
        Ok(fetched)
    }

    /// The bytes of a small file from a file here that should hold the same.
    fn read_source(&self, wanted: &Wanted) -> Option<Bytes> {
        let same = wanted.sources.iter().filter(|(_, content)| content == &wanted.content);
        same.filter_map(|source| read_whole(&self.folder, source))
            .inspect(|bytes| self.counters.bytes_reused.add_len(bytes.len()))
            .next()
    }

    fn stage_whole(
        &self,
        near: &mut Nearby<'_>,
        wanted: &Wanted,
        bytes: &[u8],
    ) -> Result<Staged, ClientError> {
        if bytes.len() as u64 != wanted.content.size {
            return Err(blocks_lost(&wanted.path));
        }
        let (what, how) = ((wanted.id, &wanted.content), (wanted.exec, wanted.mtime_ns));
        let staged = self.folder.stage_for(near, &wanted.path, what, bytes, how)?;
        let mut sketching = Sketching::new(&self.folder, wanted.content.size);
        sketching.push(0, bytes);
        sketching.finish(&wanted.content);
        (self.on_bytes)(wanted.content.size);
        Ok(staged)
    }
}

/// The bytes of a file of one block, if it still holds them.
pub(super) fn read_whole(folder: &Folder, (path, content): &(RelPath, FileContent)) -> Option<Bytes> {
    let len = usize::try_from(content.size).ok().filter(|len| *len <= limits::BLOCK_BYTES_MAX)?;
    let (file, _) = folder.open_file(path).ok()??;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).ok()?;
    (BlockHash::of(&bytes) == content.root.hash).then(|| Bytes::from(bytes))
}

/// Runs blocking work on the pool.
pub(super) async fn blocking<T: Send + 'static>(
    place: Work,
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    place.beside(work).await.map_err(|_| ClientError::Stopped)?
}

/// Keeps what concerns one file as its result; a lost connection or a full disk concerns all.
fn keep_one<T>(result: Result<T, ClientError>) -> Result<Result<T, ClientError>, ClientError> {
    match result {
        Err(ClientError::Folder(error)) if super::place::concerns_all(&error) => Err(error.into()),
        Err(error @ (ClientError::BlocksLost { .. } | ClientError::Manifest(_) | ClientError::Folder(_))) => {
            Ok(Err(error))
        }
        Err(error) => Err(error),
        Ok(done) => Ok(Ok(done)),
    }
}

pub(super) fn blocks_lost(path: &RelPath) -> ClientError {
    ClientError::BlocksLost { path: path.to_string() }
}
