//! Everything a client asks but commits: polls, which blocks are missing, blocks in, blocks out.

use super::account::Account;
use super::luck::Luck;
use super::session::Session;
use super::{Fault, broadcast};
use crate::block::seal::{self, Sealer};
use crate::block::{Block, Codec, SealedBlock, VerifiedBlock, pack};
use crate::model::{BlockHash, Seq, limits};
use crate::storage::{self, Page, StorageError};
use crate::wire::message::{Bitmap, Position};
use crate::wire::{EncodedFrame, ErrorCode, Message, WireError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use tokio::sync::OwnedSemaphorePermit;

/// Blocks read from storage at once: at most 8 MiB, 2 MiB on average.
const READ_BLOCKS: usize = 32;
/// Plain bytes of blocks that came against a base and are not yet with storage, over all sessions.
pub const DELTA_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Packs of at most this many plain bytes are verified in place: a trip to the thread pool costs more.
const VERIFY_HERE_BYTES_MAX: u64 = 32 * 1024;

/// What a device is told that tries to change something and may not.
pub const READ_ONLY: Fault = Fault::Request(ErrorCode::ReadOnly, "this device may look and not change");

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
    let mut at = (tombstones_after > Seq::ZERO).then_some(after);
    while let Some(from) = at {
        let page = server.journal.read_since(share, from, nodes_max, false).await.map_err(fault)?;
        if page.head.seq > tombstones_after {
            // Commits came meanwhile and may have deleted what an earlier page listed.
            break;
        }
        if !page.nodes.is_empty() || page.complete {
            return Ok(page);
        }
        at = Some(page.next);
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

/// Answers which blocks are missing. Only what is here, and may be named by a commit of this session, is held for it.
pub async fn have(session: &Session, hashes: Vec<BlockHash>) -> Result<Message, Fault> {
    let server = &session.server;
    let leases = !session.guest.scope.read_only;
    let _turn = session.seat.desk.looking.acquire().await.map_err(|_| WireError::Ended)?;
    if leases {
        server.blocks.lease(session.id, &hashes);
    }
    let missing = server.blocks.missing_in(Some(session.share), hashes.clone()).await;
    let missing = missing.map_err(|error| server.storage_fault(error))?;
    if leases {
        let absent: Vec<BlockHash> =
            hashes.into_iter().zip(&missing).filter(|(_, is)| **is).map(|(hash, _)| hash).collect();
        server.blocks.let_go(session.id, &absent);
    }
    Ok(Message::Missing { bitmap: Bitmap::from_flags(&missing) })
}

/// Takes blocks.
pub async fn put(session: &Session, count: u32, payload: Bytes) -> Result<Message, Fault> {
    let server = &session.server;
    let sealed = pack::decode(payload).map_err(WireError::from)?;
    if usize::try_from(count).ok() != Some(sealed.len()) {
        return Err(WireError::Unexpected("number of blocks").into());
    }
    let wanted = if session.guest.scope.read_only { Some(wanted(session).await?) } else { None };
    server.config.counters.blocks_received.add_len(sealed.len());
    let Verified { blocks: mut verified, unopened, held: _held } = verify(session, sealed).await?;
    if let Some(wanted) = wanted {
        let (asked, others): (Vec<_>, Vec<_>) =
            verified.into_iter().partition(|block| wanted.contains(&block.hash()));
        let others = others.iter().map(VerifiedBlock::hash).collect();
        let missing = server.blocks.missing_in(Some(session.share), others).await;
        // Two devices may bring the same: the second one's is here.
        if missing.map_err(|error| server.storage_fault(error))?.contains(&true) {
            return Err(READ_ONLY);
        }
        verified = asked;
    }
    let hashes: Vec<BlockHash> = verified.iter().map(VerifiedBlock::hash).collect();
    server.blocks.lease(session.id, &hashes);
    if let Err(fault) = store(session, verified).await {
        // Nothing of it was taken.
        server.blocks.let_go(session.id, &hashes);
        return Err(fault);
    }
    Ok(unopened.map_or(Message::Stored { count }, |bitmap| Message::Unopened { bitmap }))
}

/// What a device may bring that may not change anything: blocks that were lost here.
async fn wanted(session: &Session) -> Result<HashSet<BlockHash>, Fault> {
    let tended = session.server.config.tended.as_ref();
    let store =
        tended.map(|tended| &tended.store).filter(|store| !store.wanted().is_empty()).ok_or(READ_ONLY)?;
    let wanted = store.wanted_in(session.share).await.map_err(|error| session.server.storage_fault(error))?;
    Ok(wanted.into_iter().collect())
}

/// Stores blocks, if the device may bring so much.
async fn store(session: &Session, blocks: Vec<VerifiedBlock>) -> Result<(), Fault> {
    if let Some(account) = Account::of(session) {
        return account.store(blocks).await;
    }
    let stored = session.server.blocks.put_in(Some(session.share), blocks).await;
    stored.map(drop).map_err(|error| session.server.storage_fault(error))
}

/// Sends blocks, in parts of about `PACK_BYTES_TARGET`, as they come from storage; against the bases that the client names
/// where that is shorter.
pub async fn want(
    session: &Session,
    request: u32,
    hashes: Vec<BlockHash>,
    bases: Vec<BlockHash>,
) -> Result<(), Fault> {
    // Few readers per session: each holds a group of blocks in memory, and the disk gains nothing from more.
    let _turn = session.reads.acquire().await.map_err(|_| WireError::Ended)?;
    let _of_device = session.seat.desk.fetching.acquire().await.map_err(|_| WireError::Ended)?;
    let mut part = Part::default();
    let bases = if session.deltas { bases } else { Vec::new() };
    let held: HashSet<BlockHash> = bases.iter().copied().collect();
    let (mut base_groups, mut luck) = (bases.chunks(READ_BLOCKS), Luck::default());
    for group in hashes.chunks(READ_BLOCKS) {
        let blocks = read_group(session, group).await?;
        if let Some(tended) = &session.server.config.tended {
            let missed: Vec<BlockHash> = group
                .iter()
                .zip(&blocks)
                .filter(|(_, block)| block.is_none())
                .map(|(hash, _)| *hash)
                .collect();
            tended.store.missed(&missed);
        }
        let blocks = match base_groups.next() {
            Some(bases) => against(session, group, blocks, bases, &held, &mut luck).await?,
            None => blocks,
        };
        for block in blocks {
            if part.is_full_before(block.as_ref()) {
                part.send(session, request, false).await?;
            }
            part.add(block);
        }
    }
    part.send(session, request, true).await
}

/// Replaces blocks by shorter forms of them: as they came from another client, or sealed against the base that this one names
/// for each. Where two old blocks became one it names only one of them: it holds the other too, or asks again without.
async fn against(
    session: &Session,
    hashes: &[BlockHash],
    mut blocks: Vec<Option<SealedBlock>>,
    bases: &[BlockHash],
    held: &HashSet<BlockHash>,
    luck: &mut Luck,
) -> Result<Vec<Option<SealedBlock>>, Fault> {
    let server = &session.server;
    let mut work = Vec::new();
    for (place, ((hash, block), base)) in hashes.iter().zip(&mut blocks).zip(bases).enumerate() {
        let Some(sealed) = block else { continue };
        let known = server.deltas.get(session.share, *hash);
        match known
            .filter(|delta| delta.bases().is_ok_and(|bases| bases.iter().any(|base| held.contains(base))))
        {
            Some(delta) if delta.payload.len() < sealed.payload.len() => *sealed = delta,
            Some(_) => {}
            None if *base != BlockHash::NONE && base != hash => work.push((place, sealed.clone(), *base)),
            None => {}
        }
    }
    if work.is_empty() {
        return Ok(blocks);
    }
    let found = read_group(session, &work.iter().map(|(.., base)| *base).collect::<Vec<_>>()).await?;
    let (share, shared) = (session.share, server.clone());
    let _worker = server.workers.acquire().await.map_err(|_| WireError::Ended)?;
    let mut learned = *luck;
    let sealed = server.config.work.beside(move || {
        let mut sealed = Vec::new();
        for ((place, block, _), base) in work.into_iter().zip(found) {
            if !learned.tries() {
                continue;
            }
            let (Ok(plain), Some(Ok(base))) =
                (seal::open(&block, None), base.map(|base| seal::open(&base, None)))
            else {
                continue;
            };
            let delta = Sealer::reseal_against(&plain, &base, block.payload.len());
            learned
                .learn(delta.as_ref().is_some_and(|d| d.sealed().payload.len() <= block.payload.len() / 2));
            if let Some(delta) = delta {
                shared.deltas.keep(share, delta.hash(), delta.sealed());
                sealed.push((place, delta.into_sealed()));
            }
        }
        (sealed, learned)
    });
    // Blocks that could not be sealed go as they are.
    let (sealed, learned) = sealed.await.unwrap_or_default();
    *luck = learned;
    for (place, delta) in sealed {
        if let Some(block) = blocks.get_mut(place) {
            *block = Some(delta);
        }
    }
    Ok(blocks)
}

/// Reads a few blocks. A damaged one counts as missing: the others are still good, and a client that has it may bring it
/// again.
async fn read_group(session: &Session, hashes: &[BlockHash]) -> Result<Vec<Option<SealedBlock>>, Fault> {
    let server = &session.server;
    let mut damaged = Vec::new();
    loop {
        let good = hashes.iter().filter(|hash| !damaged.contains(*hash)).copied().collect();
        match server.blocks.get_in(Some(session.share), good).await {
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

/// Blocks that a client sent.
pub struct Verified {
    /// Those that opened, in order, in forms that stand alone.
    pub blocks: Vec<VerifiedBlock>,
    /// Which did not open with their bases; `None`: all did.
    pub unopened: Option<Bitmap>,
    /// Their part of what may wait for storage.
    pub held: OwnedSemaphorePermit,
}

/// Opens every block and computes its hash, off the async threads when that takes long.
///
/// Blocks that are sealed against a base are opened with the stored base and sealed anew: the store keeps blocks that
/// stand alone. What came is kept for other clients.
pub async fn verify(session: &Session, sealed: Vec<SealedBlock>) -> Result<Verified, Fault> {
    let server = &session.server;
    let plain_bytes: u64 = sealed.iter().map(|b| u64::from(b.plain_len)).sum();
    if plain_bytes > limits::PUT_PLAIN_BYTES_MAX as u64 {
        return Err(WireError::OverLimit("plain bytes of a pack").into());
    }
    let mut runs = runs(sealed)?;
    let held = runs.iter().map(|run| run.plain_bytes).sum::<usize>();
    if held > limits::DELTA_PLAIN_BYTES_MAX {
        return Err(WireError::OverLimit("plain bytes of deltas").into());
    }
    // Opening costs by what comes out, which a frame of zeros makes as much of as it likes.
    let _turn = match plain_bytes {
        ..=VERIFY_HERE_BYTES_MAX if held == 0 => None,
        _ => Some(session.seat.desk.opening.acquire().await.map_err(|_| WireError::Ended)?),
    };
    let permits = u32::try_from(held).unwrap_or(u32::MAX);
    let held = server.delta_bytes.clone().acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
    let mut opened = Vec::new();
    for run in runs.drain(..) {
        if plain_bytes <= VERIFY_HERE_BYTES_MAX && run.bases.is_empty() {
            opened.extend(verify_here(run.blocks, &BTreeMap::new())?);
            continue;
        }
        let bases = read_bases(session, run.bases).await?;
        let _worker = server.workers.acquire().await.map_err(|_| WireError::Ended)?;
        let failed = |_| Fault::Request(ErrorCode::Internal, "a block could not be checked");
        let blocks = run.blocks;
        opened.extend(server.config.work.beside(move || verify_here(blocks, &bases)).await.map_err(failed)??);
    }
    let flags: Vec<bool> = opened.iter().map(Option::is_none).collect();
    if flags.contains(&true) && !session.deltas {
        return Err(Fault::Request(ErrorCode::BaseMissing, "a base block is not here"));
    }
    let unopened = flags.contains(&true).then(|| Bitmap::from_flags(&flags));
    let mut blocks = Vec::with_capacity(opened.len());
    for Opened { block, delta } in opened.into_iter().flatten() {
        if let Some(delta) = delta.filter(|_| session.deltas) {
            server.deltas.keep(session.share, block.hash(), &delta);
        }
        blocks.push(block);
    }
    Ok(Verified { blocks, unopened, held })
}

/// Blocks in a row that are opened at once.
#[derive(Default)]
struct Run {
    blocks: Vec<SealedBlock>,
    /// Their bases, each once.
    bases: BTreeSet<BlockHash>,
    /// Plain bytes of those that have bases.
    plain_bytes: usize,
}

/// Cuts blocks into runs of few bases, because a small frame can name gigabytes of them.
fn runs(sealed: Vec<SealedBlock>) -> Result<Vec<Run>, Fault> {
    let (mut runs, mut run) = (Vec::new(), Run::default());
    for block in sealed {
        let bases = block.bases().map_err(WireError::from)?;
        if run.bases.len() + bases.len() > READ_BLOCKS {
            runs.push(std::mem::take(&mut run));
        }
        if !bases.is_empty() {
            run.plain_bytes += usize::try_from(block.plain_len).unwrap_or(usize::MAX);
        }
        run.bases.extend(bases);
        run.blocks.push(block);
    }
    runs.push(run);
    Ok(runs)
}

struct Opened {
    block: VerifiedBlock,
    /// As it came, if that was against a base.
    delta: Option<SealedBlock>,
}

/// `None` for a block that does not open with the bases that are here. One that stands alone has no such excuse.
fn verify_here(
    sealed: Vec<SealedBlock>,
    bases: &BTreeMap<BlockHash, SealedBlock>,
) -> Result<Vec<Option<Opened>>, Fault> {
    let sealer = Sealer::new(RESEAL_LEVEL);
    let verify_one = |sealed: SealedBlock| {
        let names = sealed.bases().map_err(WireError::from)?;
        if names.is_empty() {
            let block = seal::verify(sealed, None).map_err(WireError::from)?;
            return Ok(Some(Opened { block, delta: None }));
        }
        // A stored block that does not open is as good as missing: the client sends the new one plain.
        let base = names.iter().map(|hash| seal::open(bases.get(hash)?, None).ok().map(Block::into_bytes));
        let base: Option<Vec<Bytes>> = base.collect();
        let Some(base) = base else { return Ok(None) };
        let opened = match base.as_slice() {
            [one] => seal::open(&sealed, Some(one)),
            many => seal::open(&sealed, Some(&many.concat())),
        };
        let opened = match opened {
            // Its sender guessed what the base holds, and says so.
            Err(_) if sealed.codec == Codec::Patch => None,
            opened => Some(opened.map_err(WireError::from)?),
        };
        Ok(opened.map(|block| Opened { block: sealer.seal(&block), delta: Some(sealed) }))
    };
    sealed.into_iter().map(verify_one).collect()
}

/// zstd level of blocks that the server seals itself: the clients' usual one.
const RESEAL_LEVEL: i32 = 1;

/// The bases of blocks, each once. A block read here is one that this session may ask for: a patch of it could be
/// committed and read back.
async fn read_bases(
    session: &Session,
    hashes: BTreeSet<BlockHash>,
) -> Result<BTreeMap<BlockHash, SealedBlock>, Fault> {
    let hashes: Vec<BlockHash> = hashes.into_iter().collect();
    let blocks = read_group(session, &hashes).await?;
    Ok(hashes.into_iter().zip(blocks).filter_map(|(hash, block)| Some((hash, block?))).collect())
}

fn storage_position(position: Position) -> storage::Position {
    storage::Position { seq: position.seq, node: position.node }
}

fn wire_position(position: storage::Position) -> Position {
    Position { seq: position.seq, node: position.node }
}
