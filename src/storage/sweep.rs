//! Collects garbage from a store that is in use: makes the plan of `gc` and carries it out, looking again before each step.
//!
//! | step | what is on disk after it | a crash here |
//! |---|---|---|
//! | mark, plan, condemn | the list `condemned` | nothing was deleted |
//! | doom, forget | the index in memory lacks blocks that go | the index of before comes back, or a newer one: either is right, the packs are whole |
//! | move what stays | copies of blocks in later packs | blocks stand twice, either is good |
//! | sync, settle, flush | copies are durable, the index names them | as before |
//! | bury | a tombstone beside each pack | what stays is elsewhere and durable; a pack that is there is never removed for its tombstone, but by the next run |
//! | remove | the pack is gone | - |
//!
//! Between mark and forget the store goes on: what commits name meanwhile is learned from their events, and whatever a
//! commit or a session looks at is saved by [`Leases`](super::lease::Leases).

mod rewrite;

pub use rewrite::rewrite;

use super::collected::{self, Collected};
use super::error::{At, StorageError};
use super::gc::{Condemned, Due, GcOptions, PackPlan, Plan, Sums, Survey, plan, record_bytes};
use super::inbox::Prepared;
use super::mark::Marked;
use super::pack_file::{self, FILE_HEADER, Location, Step};
use super::upkeep::{Brake, Upkeep};
use super::writer::Writer;
use super::{CommitEvent, Result, check, file, gone};
use crate::block::seal;
use crate::model::BlockHash;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

/// Blocks forgotten at once: how long a commit may have to wait.
const FORGET_BLOCKS: usize = 512;
/// Bytes moved at once.
const MOVE_BYTES: u64 = 1024 * 1024;
/// Packs are removed after this much was moved: until then it stands twice.
const GROUP_BYTES: u64 = 256 * 1024 * 1024;

/// Where a run is; tests stop it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcStep {
    /// The plan is made and the list of condemned blocks written.
    Condemned,
    /// From here on blocks may vanish from the index.
    Doomed,
    /// A batch of blocks has left the index.
    Forgotten,
    /// A batch of blocks stands in another pack too.
    Moved,
    /// What was moved is durable, and in the index on disk.
    Flushed,
    /// A pack may be absent from now on.
    Buried,
    /// A pack was removed.
    Removed,
}

/// What a run found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The plan in numbers.
    pub sums: Sums,
    /// The plan by pack.
    pub packs: Vec<PackPlan>,
    /// Blocks deleted.
    pub deleted_blocks: u64,
    /// Packs removed.
    pub removed_packs: u64,
    /// Bytes that the disk got back.
    pub freed_bytes: u64,
    /// Packs that were left alone, because something in them is damaged.
    pub damaged_packs: Vec<u32>,
}

/// Makes a plan, shows it to `look`, and carries it out unless it is a dry run.
///
/// # Errors
/// Anything that goes wrong while marking: then nothing was deleted. [`StorageError::Stopped`] between two steps.
pub fn run(
    upkeep: &Upkeep,
    options: &GcOptions,
    brake: &Brake,
    look: &mut dyn FnMut(GcStep) -> Result<()>,
) -> Result<GcReport> {
    let sweep = Sweep { upkeep, options, brake, look, finishes: false };
    let done = sweep.run();
    // Whatever happened: nothing is being deleted any more.
    upkeep.shared.leases().absolve();
    done
}

/// Deletes what earlier runs condemned, once all of it is ripe, and condemns nothing; `None` when it is not yet time.
///
/// # Errors
/// As [`run`]. It is tried again a grace time later.
pub fn finish(upkeep: &Upkeep, brake: &Brake) -> Result<Option<GcReport>> {
    let now_ms = upkeep.now_ms();
    let due = upkeep.shared.due().filter(|due| due.at_ms <= now_ms);
    let Some(Due { options, .. }) = due else { return Ok(None) };
    let later = Due { at_ms: now_ms.saturating_add(GcOptions::GRACE_MS), options };
    upkeep.shared.set_due(Some(later));
    let sweep = Sweep { upkeep, options: &options, brake, look: &mut |_| Ok(()), finishes: true };
    let done = sweep.run();
    upkeep.shared.leases().absolve();
    done.map(Some)
}

struct Sweep<'a> {
    upkeep: &'a Upkeep,
    options: &'a GcOptions,
    brake: &'a Brake,
    look: &'a mut dyn FnMut(GcStep) -> Result<()>,
    /// Only what was condemned before.
    finishes: bool,
}

impl Sweep<'_> {
    fn run(mut self) -> Result<GcReport> {
        let (upkeep, options) = (self.upkeep, self.options);
        let now_ms = upkeep.now_ms();
        // Before anything is read: no commit may fall between the journals and the events.
        let mut events = upkeep.shared.events.subscribe();
        upkeep.shared.leases().prune(now_ms, options.grace_ms);
        let (mut marked, floors) = self.mark(now_ms)?;
        let condemned = gone::load_condemned(&upkeep.shared.path, upkeep.store)?;
        let mut plan = self.plan(&marked, &condemned, now_ms, true)?;
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        if !options.dry_run {
            if plan.packs.iter().any(|pack| pack.number == upkeep.shared.packs.end().pack) {
                upkeep.on_writer(|writer| writer.shared.packs.rotate(&writer.shared.failure))?;
            }
            // From here on the index alone knows what lies in the packs before the last.
            upkeep.settle()?;
            plan = self.plan(&marked, &condemned, now_ms, false)?;
        }
        report.sums = plan.sums;
        report.packs.clone_from(&plan.packs);
        if options.dry_run {
            return Ok(report);
        }
        gone::save_condemned(&upkeep.shared.path, upkeep.store, &plan.condemned)?;
        if !self.finishes {
            upkeep.shared.set_due(Due::of(&plan.condemned, options));
        }
        (self.look)(GcStep::Condemned)?;
        if !plan.packs.is_empty() {
            self.remember(floors)?;
            self.doom(&plan, &mut marked, &mut events, now_ms)?;
            self.collect(&plan, &marked, &mut report)?;
        }
        let goes: HashSet<BlockHash> = plan.goes.into_iter().collect();
        let is_ripe = |since: &u64| now_ms.saturating_sub(*since) >= options.grace_ms;
        // What is ripe and left lies in packs that are not worth it. The next run of the owner condemns it anew; otherwise the
        // server would look at it for ever.
        let is_done = |since: &u64| self.finishes && is_ripe(since);
        plan.condemned.retain(|hash, since| !goes.contains(hash) && !is_done(since));
        gone::save_condemned(&upkeep.shared.path, upkeep.store, &plan.condemned)?;
        let waits = plan.condemned.values().any(|since| !is_ripe(since));
        upkeep.shared.set_due(Due::of(&plan.condemned, options).filter(|_| waits));
        Ok(report)
    }

    fn mark(&self, now_ms: u64) -> Result<(Marked, Collected)> {
        let contents = self.upkeep.contents(now_ms.saturating_sub(self.upkeep.shared.keep_ms), self.brake)?;
        let mut marked = Marked::default();
        self.upkeep.mark(&mut marked, contents.head.iter().chain(&contents.history), self.brake)?;
        Ok((marked, contents.floors))
    }

    /// Says for good, before anything is deleted, how much of the past may be gone from now on.
    fn remember(&self, floors: Collected) -> Result<()> {
        let shared = &self.upkeep.shared;
        // One run at a time: nobody else writes it.
        let mut all = shared.collected.read().unwrap_or_else(PoisonError::into_inner).clone();
        if floors.iter().any(|(share, (seq, _))| all.get(share).is_none_or(|(before, _)| before < seq)) {
            all.extend(floors);
            collected::save(&shared.path, self.upkeep.store, &all)?;
            *shared.collected.write().unwrap_or_else(PoisonError::into_inner) = all;
        }
        Ok(())
    }

    fn plan(&self, marked: &Marked, condemned: &Condemned, now_ms: u64, with_last: bool) -> Result<Plan> {
        let packs = self.upkeep.packs()?;
        let last = self.upkeep.shared.packs.end().pack;
        let open = if with_last { last.saturating_add(1) } else { last };
        let leased = self.upkeep.shared.leases().all();
        let mut blocks = Vec::new();
        self.upkeep.each_block(&mut |hash, location| {
            if packs.contains_key(&location.place.pack) {
                blocks.push((hash, location));
            }
        })?;
        let condemns = !self.finishes;
        let survey =
            Survey { marked, leased: leased.as_ref(), condemned, packs: &packs, open, now_ms, condemns };
        Ok(plan(&survey, blocks, self.options))
    }

    /// Begins to delete, then takes out again what was named since the mark.
    fn doom(
        &mut self,
        plan: &Plan,
        marked: &mut Marked,
        events: &mut Receiver<Arc<CommitEvent>>,
        now_ms: u64,
    ) -> Result<()> {
        let goes = plan.goes.clone();
        self.upkeep.begin_era(self.brake, move |writer| {
            writer.shared.leases().doom(goes);
            Ok(())
        })?;
        // Events of all commits before the job are here by now; later ones look at what they name themselves.
        loop {
            match events.try_recv() {
                Ok(event) => {
                    let states = event.nodes.iter().filter_map(|node| node.state.as_ref());
                    let contents = states.filter_map(|state| state.kind.content());
                    self.upkeep.mark(marked, contents, self.brake)?;
                }
                Err(TryRecvError::Lagged(_)) => {
                    // Read after the job: whatever came before it is in the journals.
                    *marked = self.mark(now_ms)?.0;
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.upkeep.shared.leases().save_marked(marked);
        (self.look)(GcStep::Doomed)
    }

    fn collect(&mut self, plan: &Plan, marked: &Marked, report: &mut GcReport) -> Result<()> {
        let goes: HashSet<BlockHash> = plan.goes.iter().copied().collect();
        let mut emptied = Vec::new();
        let mut moved = 0;
        for pack in &plan.packs {
            match self.empty(pack, &goes, marked, report)? {
                Some(bytes) => {
                    moved += bytes;
                    emptied.push((pack, bytes));
                }
                None => report.damaged_packs.push(pack.number),
            }
            if moved >= GROUP_BYTES {
                self.remove(std::mem::take(&mut emptied), report)?;
                moved = 0;
            }
        }
        self.remove(emptied, report)
    }

    /// Forgets what goes and moves what stays; the bytes moved, or `None` for a pack that is left alone.
    fn empty(
        &mut self,
        pack: &PackPlan,
        goes: &HashSet<BlockHash>,
        marked: &Marked,
        report: &mut GcReport,
    ) -> Result<Option<u64>> {
        let upkeep = self.upkeep;
        let Some(records) = self.records(pack, marked)? else { return Ok(None) };
        let (go, mut stay): (Vec<_>, Vec<_>) = records.into_iter().partition(|(hash, _)| goes.contains(hash));
        let mut since = Instant::now();
        // First what is moved is read, so that a damaged block leaves its pack as it is.
        for batch in batches(&stay) {
            if !self.is_whole(batch)? {
                return Ok(None);
            }
            since = upkeep.pace(self.brake, since)?;
        }
        for batch in go.chunks(FORGET_BLOCKS) {
            let batch: Vec<(BlockHash, Location)> = batch.to_vec();
            let (forgotten, saved) = upkeep.on_writer(move |writer| forget(writer, &batch))?;
            report.deleted_blocks += forgotten;
            stay.extend(saved);
            since = upkeep.pace(self.brake, since)?;
            (self.look)(GcStep::Forgotten)?;
        }
        let mut bytes = 0;
        for batch in batches(&stay) {
            let Some(blocks) = self.read(batch)? else { return Ok(None) };
            let from: Vec<Location> = batch.iter().map(|(_, location)| *location).collect();
            bytes += upkeep.on_writer(move |writer| relocate(writer, &blocks, &from))?;
            since = upkeep.pace(self.brake, since)?;
            (self.look)(GcStep::Moved)?;
        }
        Ok(Some(bytes))
    }

    /// The blocks whose place is in this pack; `None` when damage hides some of them, or it may hold an intact copy of one
    /// that is damaged elsewhere. One that versions name and the index has lost has its place here from now on.
    fn records(&self, pack: &PackPlan, marked: &Marked) -> Result<Option<Vec<(BlockHash, Location)>>> {
        let number = pack.number;
        let path = self.upkeep.shared.packs.path(number);
        let opened = std::fs::File::open(&path).at("open", &path)?;
        let mut records = Vec::new();
        let mut lost = Vec::new();
        // Copies in other packs of what versions name.
        let mut copies = Vec::new();
        let mut whole = true;
        let wanted = self.upkeep.shared.wanted();
        pack_file::walk(&opened, &path, number, u64::from(FILE_HEADER), u64::MAX, &mut |step| {
            match step {
                Step::Block(hash, location) => {
                    whole &= wanted.binary_search(&hash).is_err();
                    match self.upkeep.place(&hash)? {
                        // What was appended since and is not in the index yet is in no pack of the plan.
                        Some(place) if place == location => records.push((hash, location)),
                        None if marked.contains(&hash) => lost.push((hash, location)),
                        Some(place) if marked.contains(&hash) => copies.push((hash, place)),
                        _ => {}
                    }
                }
                Step::Gap { .. } => whole = false,
            }
            Ok(true)
        })?;
        let all = records.len() as u64 == pack.kept_blocks + pack.ripe_blocks;
        let settled = whole || wanted.is_empty();
        if !all || !settled || !self.adopt(&lost)? {
            return Ok(None);
        }
        for batch in batches(&copies) {
            // What is here may be the only one that can be read.
            if !self.is_whole(batch)? {
                return Ok(None);
            }
        }
        records.extend(lost);
        Ok(Some(records))
    }

    /// Puts blocks back into the index that it has lost; false when one of them is not what it should be.
    fn adopt(&self, lost: &[(BlockHash, Location)]) -> Result<bool> {
        for batch in batches(lost) {
            if self.read(batch)?.is_none() {
                return Ok(false);
            }
            tracing::warn!(blocks = batch.len(), "the index had lost blocks that versions name");
            let batch = batch.to_vec();
            self.upkeep.on_writer(move |writer| check::adopt(writer, &batch))?;
        }
        Ok(true)
    }

    fn is_whole(&self, batch: &[(BlockHash, Location)]) -> Result<bool> {
        match self.upkeep.shared.packs.read(batch) {
            Ok(_) => Ok(true),
            Err(StorageError::DamagedBlock { hash, .. }) => {
                self.upkeep.shared.mark_damaged(hash);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Blocks ready to be written again, opened and hashed on the way.
    fn read(&self, batch: &[(BlockHash, Location)]) -> Result<Option<Vec<Prepared>>> {
        if !self.is_whole(batch)? {
            return Ok(None);
        }
        let sealed = self.upkeep.shared.packs.read(batch)?;
        let verified: Option<Vec<_>> = sealed
            .into_iter()
            .zip(batch)
            .map(|(sealed, (hash, _))| seal::verify(sealed, None).ok().filter(|block| block.hash() == *hash))
            .collect();
        verified.map(Prepared::all).transpose()
    }

    /// Removes packs of which everything that stays is elsewhere.
    fn remove(&mut self, emptied: Vec<(&PackPlan, u64)>, report: &mut GcReport) -> Result<()> {
        if emptied.is_empty() {
            return Ok(());
        }
        let upkeep = self.upkeep;
        let folder = upkeep.packs_folder();
        upkeep.settle()?;
        upkeep.flush()?;
        (self.look)(GcStep::Flushed)?;
        for (pack, moved_bytes) in emptied {
            let path = upkeep.shared.packs.path(pack.number);
            gone::bury(&folder, pack.number, upkeep.store, upkeep.shared.packs.synced())?;
            (self.look)(GcStep::Buried)?;
            std::fs::remove_file(&path).at("remove", &path)?;
            file::sync_dir(&folder).at("sync", &folder)?;
            upkeep.shared.packs.forget(pack.number);
            report.removed_packs += 1;
            report.freed_bytes += pack.file_bytes.saturating_sub(moved_bytes);
            (self.look)(GcStep::Removed)?;
        }
        upkeep.flush()
    }
}

/// Slices of about [`MOVE_BYTES`].
fn batches(blocks: &[(BlockHash, Location)]) -> impl Iterator<Item = &[(BlockHash, Location)]> {
    let mut rest = blocks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, location)| {
            bytes += record_bytes(location);
            bytes <= MOVE_BYTES
        });
        let (batch, after) = rest.split_at_checked(fits.count().max(1))?;
        rest = after;
        Some(batch)
    })
}

/// On the storage thread: takes blocks out of the index, unless they were saved or are elsewhere by now. Returns how many,
/// and the others.
fn forget(writer: &mut Writer, batch: &[(BlockHash, Location)]) -> Result<(u64, Vec<(BlockHash, Location)>)> {
    let shared = writer.shared.clone();
    let index = &writer.index;
    let hashes: Vec<BlockHash> = batch.iter().map(|(hash, _)| *hash).collect();
    // Locked until the index has changed: whoever takes a lease looks after it, and sees what is true.
    let mut leases = shared.leases();
    let places: BTreeMap<BlockHash, Location> = batch.iter().copied().collect();
    let mut goes = leases.forget(&hashes);
    let mut here = Vec::with_capacity(goes.len());
    for hash in goes.drain(..) {
        let same = shared.recent(&hash).is_none() && index.block(&hash)? == places.get(&hash).copied();
        if same {
            here.push(hash);
        }
    }
    index.remove_blocks(&here).map_err(|error| shared.fail(error))?;
    let mut damaged = shared.damaged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Nobody needs to be asked for what nobody needs.
    here.iter().for_each(|hash| {
        damaged.remove(hash);
    });
    let gone: HashSet<BlockHash> = here.into_iter().collect();
    let saved = batch.iter().filter(|(hash, _)| !gone.contains(hash)).copied().collect();
    Ok((gone.len() as u64, saved))
}

/// On the storage thread: appends copies of blocks that still lie at `from`; returns the bytes written.
fn relocate(writer: &mut Writer, blocks: &[Prepared], from: &[Location]) -> Result<u64> {
    let mut records = Vec::with_capacity(blocks.len());
    let mut bytes = 0;
    for (block, place) in blocks.iter().zip(from) {
        let hash = block.hash();
        if writer.shared.recent(&hash).is_none() && writer.index.block(&hash)? == Some(*place) {
            records.push(block.record());
            bytes += record_bytes(place);
        }
    }
    if !records.is_empty() {
        writer.append(&records, bytes)?;
    }
    Ok(bytes)
}
