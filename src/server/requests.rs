//! Everything a client asks but commits: polls, which blocks are missing, blocks in, blocks out.

use super::session::Session;
use super::{Fault, Server, broadcast};
use crate::block::seal::{self, Sealer};
use crate::block::{SealedBlock, VerifiedBlock, pack};
use crate::model::{BlockHash, Seq, limits};
use crate::storage::{self, Page, StorageError};
use crate::wire::message::{Bitmap, Position};
use crate::wire::{EncodedFrame, ErrorCode, Message, WireError};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Blocks read from storage at once: at most 8 MiB, 2 MiB on average.
const READ_BLOCKS: usize = 32;
/// Packs of at most this many plain bytes are verified in place: a trip to the thread pool costs more.
const VERIFY_HERE_BYTES_MAX: usize = 32 * 1024;

/// Answers a poll: a page that fits a frame.
pub async fn poll(
    session: &Session,
    after: Position,
    nodes_max: u32,
    tombstones_after: Seq,
) -> Result<Message, Fault> {
    let nodes_max = usize::try_from(nodes_max).unwrap_or(limits::NODES_PER_PAGE_MAX);
    let stood_at_head = after.node.is_none() && after.seq == session.server.journal.head(session.share).seq;
    let Page { mut nodes, next, mut complete, head } =
        read_page(session, storage_position(after), nodes_max, tombstones_after).await?;
    let mut next = wire_position(next);
    loop {
        let head = (!(stood_at_head && after.seq == head.seq)).then(|| broadcast::head(&head));
        let message = Message::Changes { nodes, next, complete, head };
        // Names and targets may be long: half a page always fits sooner or later, one node always does.
        match EncodedFrame::new(0, &message, Vec::new()) {
            Err(WireError::FrameTooLarge { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(message),
        }
        let Message::Changes { nodes: all, .. } = message else {
            return Err(WireError::Unexpected("page").into());
        };
        nodes = all;
        nodes.truncate(nodes.len() / 2);
        complete = false;
        next = match nodes.last() {
            Some(node) => Position { seq: node.version, node: Some(node.id) },
            None => return Err(WireError::OverLimit("node").into()),
        };
    }
}

/// Reads a page, leaving out tombstones that were there before a first listing began.
async fn read_page(
    session: &Session,
    after: storage::Position,
    nodes_max: usize,
    tombstones_after: Seq,
) -> Result<Page, Fault> {
    let (server, share) = (&session.server, session.share);
    let fault = |error| server.storage_fault(error);
    if tombstones_after > Seq::ZERO {
        let page = server.journal.read_since(share, after, nodes_max, false).await.map_err(fault)?;
        if page.head.seq <= tombstones_after {
            return Ok(page);
        }
        // Commits came meanwhile and may have deleted what an earlier page listed.
    }
    let mut after = after;
    loop {
        let mut page = server.journal.read_since(share, after, nodes_max, true).await.map_err(fault)?;
        page.nodes.retain(|node| node.state.is_some() || node.version > tombstones_after);
        if !page.nodes.is_empty() || page.complete {
            return Ok(page);
        }
        after = page.next;
    }
}

/// Answers which blocks are missing.
pub async fn have(session: &Session, hashes: Vec<BlockHash>) -> Result<Message, Fault> {
    let server = &session.server;
    server.blocks.lease(session.id, &hashes);
    let missing = server.blocks.missing(hashes).await.map_err(|error| server.storage_fault(error))?;
    Ok(Message::Missing { bitmap: Bitmap::from_flags(&missing) })
}

/// Takes blocks.
pub async fn put(session: &Session, count: u32, payload: Bytes) -> Result<Message, Fault> {
    let server = &session.server;
    let sealed = pack::decode(payload).map_err(WireError::from)?;
    if usize::try_from(count).ok() != Some(sealed.len()) {
        return Err(WireError::Unexpected("number of blocks").into());
    }
    server.config.counters.blocks_received.add_len(sealed.len());
    let verified = verify(server, sealed).await?;
    let hashes: Vec<BlockHash> = verified.iter().map(VerifiedBlock::hash).collect();
    server.blocks.lease(session.id, &hashes);
    server.blocks.put_many(verified).await.map_err(|error| server.storage_fault(error))?;
    Ok(Message::Stored { count })
}

/// Sends blocks, in parts of about `PACK_BYTES_TARGET`, as they come from storage.
pub async fn want(session: &Session, request: u32, hashes: Vec<BlockHash>) -> Result<(), Fault> {
    let server = &session.server;
    // Few readers per session: each holds a group of blocks in memory, and the disk gains nothing from more.
    let _turn = session.reads.acquire().await.map_err(|_| WireError::Ended)?;
    let mut part = Part::default();
    for group in hashes.chunks(READ_BLOCKS) {
        for block in read_group(server, group).await? {
            if part.is_full_before(block.as_ref()) {
                part.send(session, request, false).await?;
            }
            part.add(block);
        }
    }
    part.send(session, request, true).await
}

/// Reads a few blocks. A damaged one counts as missing: the others are still good, and a client that has it may bring it
/// again.
async fn read_group(server: &Server, hashes: &[BlockHash]) -> Result<Vec<Option<SealedBlock>>, Fault> {
    let mut damaged = Vec::new();
    loop {
        let good = hashes.iter().filter(|hash| !damaged.contains(*hash)).copied().collect();
        match server.blocks.get_many(good).await {
            Ok(blocks) if damaged.is_empty() => return Ok(blocks),
            Ok(blocks) => {
                let mut blocks = blocks.into_iter();
                let in_place = |hash| if damaged.contains(hash) { None } else { blocks.next().flatten() };
                return Ok(hashes.iter().map(in_place).collect());
            }
            // Each turn names one more: the loop ends.
            Err(StorageError::DamagedBlock { hash, .. }) if !damaged.contains(&hash) => {
                tracing::error!(%hash, "a stored block is damaged");
                damaged.push(hash);
            }
            Err(error) => return Err(server.storage_fault(error)),
        }
    }
}

/// A part of the answer to `WantBlocks` as it fills.
#[derive(Default)]
struct Part {
    first: usize,
    present: Vec<bool>,
    blocks: Vec<SealedBlock>,
    bytes: usize,
}

impl Part {
    fn is_full_before(&self, block: Option<&SealedBlock>) -> bool {
        let bytes = self.bytes + block.map_or(0, pack::encoded_bytes);
        !self.blocks.is_empty() && bytes > limits::PACK_BYTES_TARGET
    }

    fn add(&mut self, block: Option<SealedBlock>) {
        self.present.push(block.is_some());
        self.bytes += block.as_ref().map_or(0, pack::encoded_bytes);
        self.blocks.extend(block);
    }

    /// Sends what is here and starts the next part. Waits while the client is slow to read.
    async fn send(&mut self, session: &Session, request: u32, last: bool) -> Result<(), Fault> {
        let first = u32::try_from(self.first).map_err(|_| WireError::OverLimit("place of a part"))?;
        let present = Bitmap::from_flags(&self.present);
        session.server.config.counters.blocks_sent.add_len(self.blocks.len());
        let payload = pack::encode(&self.blocks);
        *self = Self { first: self.first + self.present.len(), ..Self::default() };
        session.outbox.send(request, &Message::Blocks { first, present, last }, payload).await?;
        Ok(())
    }
}

/// Opens every block and computes its hash, off the async threads when that takes long.
///
/// Blocks that are sealed against a base are opened with the stored base and sealed anew: the store keeps blocks that
/// stand alone.
pub async fn verify(server: &Server, sealed: Vec<SealedBlock>) -> Result<Vec<VerifiedBlock>, Fault> {
    let plain_bytes: u64 = sealed.iter().map(|b| u64::from(b.plain_len)).sum();
    let bases = read_bases(server, &sealed).await?;
    if plain_bytes <= VERIFY_HERE_BYTES_MAX as u64 && bases.is_empty() {
        return verify_here(sealed, &bases);
    }
    let _worker = server.workers.acquire().await.map_err(|_| WireError::Ended)?;
    match server.config.work.beside(move || verify_here(sealed, &bases)).await {
        Ok(verified) => verified,
        Err(_) => Err(Fault::Request(ErrorCode::Internal, "a block could not be checked")),
    }
}

fn verify_here(
    sealed: Vec<SealedBlock>,
    bases: &BTreeMap<BlockHash, SealedBlock>,
) -> Result<Vec<VerifiedBlock>, Fault> {
    let sealer = Sealer::new(RESEAL_LEVEL);
    let verify_one = |sealed: SealedBlock| match sealed.base {
        None => Ok(seal::verify(sealed, None).map_err(WireError::from)?),
        Some(hash) => {
            let missing = Fault::Request(ErrorCode::BaseMissing, "a base block is not here");
            // A stored block that does not open is as good as missing: the client sends the new one plain.
            let Some(base) = bases.get(&hash).and_then(|base| seal::open(base, None).ok()) else {
                return Err(missing);
            };
            let block = seal::open(&sealed, Some(base.bytes())).map_err(WireError::from)?;
            Ok(sealer.seal(&block))
        }
    };
    sealed.into_iter().map(verify_one).collect()
}

/// zstd level of blocks that the server seals itself: the clients' usual one.
const RESEAL_LEVEL: i32 = 1;

async fn read_bases(
    server: &Server,
    sealed: &[SealedBlock],
) -> Result<BTreeMap<BlockHash, SealedBlock>, Fault> {
    let hashes: Vec<BlockHash> = sealed.iter().filter_map(|b| b.base).collect();
    if hashes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let blocks = read_group(server, &hashes).await?;
    Ok(hashes.into_iter().zip(blocks).filter_map(|(hash, block)| Some((hash, block?))).collect())
}

fn storage_position(position: Position) -> storage::Position {
    storage::Position { seq: position.seq, node: position.node }
}

fn wire_position(position: storage::Position) -> Position {
    Position { seq: position.seq, node: position.node }
}
