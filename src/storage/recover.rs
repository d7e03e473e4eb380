//! Opening a store: what is on disk decides, the index only saves work.
//!
//! 1. Journals are read from front to back. They say which commits exist, and up to where the packs must be whole.
//! 2. The index is opened and its checkpoint compared with packs and journals. If it is from elsewhere, from another
//!    time, damaged, or hangs, it is put aside as `db.corrupt-N` and a new one is begun.
//! 3. Packs are read from the checkpoint on, journals too, and what they hold goes into the index.
//!
//! Files are synced before anything of them goes into the index: after a kill they may hold more than the disk does.

use super::error::At;
use super::home::Home;
use super::journal::{CommitRecord, JournalFile, Replayed, Verified};
use super::pack_file::{self, FILE_HEADER, Location, Place, Step};
use super::shared::{Problem, ShareHead};
use super::sled::{Applied, Checkpoint, Index};
use super::{Result, ShareId, StorageError, file, gone, packs};
use crate::model::{BlockHash, Node, Seq};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Says that the index failed while it was in use.
pub const SUSPECT: &str = "db.suspect";
/// Without this much room on the disk no index is built anew, bytes.
const INDEX_ROOM_MIN: u64 = 8 * 1024 * 1024;
/// Blocks added to the index at once.
const BATCH_BLOCKS: usize = 4096;
/// The index is flushed every so many batches, or its memory would grow with the store.
const BATCHES_PER_FLUSH: usize = 16;

/// An open store, before its threads run.
#[derive(Debug)]
pub struct Recovered {
    pub index: Index,
    pub journals: BTreeMap<ShareId, JournalFile>,
    pub heads: BTreeMap<ShareId, ShareHead>,
    /// The last commit of each share that the index held.
    pub known: BTreeMap<ShareId, Seq>,
    /// Where the packs go on.
    pub end: Place,
    /// The pack at `end` must not be appended to.
    pub start_new_pack: bool,
    pub problems: Vec<Problem>,
}

struct Recovery<'a> {
    home: &'a Home,
    /// How long opening the index may take.
    patience: Duration,
    problems: Vec<Problem>,
    journals: BTreeMap<ShareId, (JournalFile, Verified)>,
    /// Packs were durable up to here.
    durable: Place,
    /// Packs that were removed on purpose.
    gone: BTreeSet<u32>,
    /// Packs that are there beside a tombstone: a run was stopped before it removed them, or somebody put them back.
    beside: BTreeSet<u32>,
}

/// Reads what is there and brings the index up to it.
pub fn recover(home: &Home, patience: Duration) -> Result<Recovered> {
    let (problems, journals, durable) = (Vec::new(), BTreeMap::new(), Place::default());
    let (gone, beside) = Default::default();
    let mut recovery = Recovery { home, patience, problems, journals, durable, gone, beside };
    recovery.read_journals()?;
    let packs = packs::list(&home.packs())?;
    recovery.read_tombstones(&packs)?;
    let (index, checkpoint) = recovery.open_index(&packs)?;
    recovery.durable = recovery.durable.max(checkpoint.packs_end);
    let settled = recovery.settle_journals();
    let read = settled.and_then(|()| recovery.read_packs(&packs, &index, &checkpoint));
    match read.and_then(|end| recovery.replay(&index, &checkpoint).map(|()| end)) {
        Ok((end, start_new_pack)) => recovery.finish(index, &checkpoint, end, start_new_pack),
        Err(error) => {
            index.abandon();
            Err(error)
        }
    }
}

impl Recovery<'_> {
    fn report(&mut self, problem: Problem) {
        // Whoever opens the store says so, for people: it is in the list.
        tracing::debug!(?problem, "found while opening the store");
        self.problems.push(problem);
    }

    fn read_journals(&mut self) -> Result<()> {
        let folder = self.home.journals();
        for entry in std::fs::read_dir(&folder).at("list", &folder)? {
            let path = entry.at("list", &folder)?.path();
            if path.extension().is_none_or(|extension| extension != "journal") {
                continue;
            }
            let journal = JournalFile::open(&path, self.home.id)?;
            let mut durable = Place::default();
            let verified = journal.replay(&mut |commit| {
                durable = durable.max(commit.record.packs);
                Ok(())
            })?;
            self.durable = self.durable.max(durable);
            self.journals.insert(journal.title.share, (journal, verified));
        }
        Ok(())
    }

    /// Cuts torn tails. Not before the index has said that nothing durable is behind them: a journal that is refused stays
    /// as it is.
    fn settle_journals(&mut self) -> Result<()> {
        let mut cut = Vec::new();
        for (journal, verified) in self.journals.values_mut() {
            journal.settle(verified)?;
            if verified.torn > 0 {
                cut.push(Problem::CutTail { path: journal.path().to_owned(), bytes: verified.torn });
            }
        }
        cut.into_iter().for_each(|problem| self.report(problem));
        Ok(())
    }

    /// A tombstone says why a pack is absent, and never that one that is there may go: it may be the only copy by now.
    fn read_tombstones(&mut self, packs: &BTreeMap<u32, u64>) -> Result<()> {
        for (number, place) in gone::list(&self.home.packs(), self.home.id)? {
            self.durable = self.durable.max(place);
            if packs.contains_key(&number) {
                self.beside.insert(number)
            } else {
                self.gone.insert(number)
            };
        }
        Ok(())
    }

    /// The index and its checkpoint; a new one and an empty checkpoint when the old one cannot be trusted.
    fn open_index(&mut self, packs: &BTreeMap<u32, u64>) -> Result<(Index, Checkpoint)> {
        let path = self.home.index();
        let suspect = self.home.path.join(SUSPECT);
        let was_there = path.exists();
        if was_there && !suspect.exists() {
            match Index::open(&path, self.patience) {
                Ok((index, checkpoint)) => {
                    let is_new = checkpoint == Checkpoint::default();
                    let trusted = if is_new { Ok(true) } else { self.trusts(&index, &checkpoint, packs) };
                    if matches!(trusted, Ok(true)) {
                        return Ok((index, checkpoint));
                    }
                    trusted?;
                    // Its files are about to be moved: no last flush into them.
                    index.abandon();
                }
                // Said by what follows: it is built anew, or there is no room for that.
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::debug!(cause, "the index cannot be opened");
                }
            }
        }
        if was_there {
            self.check_room()?;
        }
        let kept = if was_there { Some(self.put_index_aside()?) } else { None };
        if suspect.exists() {
            std::fs::remove_file(&suspect).at("remove", &suspect)?;
        }
        if kept.is_some() || !packs.is_empty() {
            self.report(Problem::RebuiltIndex { kept });
        }
        Index::open(&path, self.patience).map_err(|error| match error {
            StorageError::Index(cause) if file::is_full(&cause) => {
                StorageError::FullForIndex(self.home.path.clone())
            }
            error => error,
        })
    }

    /// On a full disk the index fails without being damaged. Put aside it would keep its room, and no other could be made.
    fn check_room(&self) -> Result<()> {
        let path = &self.home.path;
        let free = file::free_bytes(path).at("look at the disk of", path)?;
        if free < INDEX_ROOM_MIN { Err(StorageError::FullForIndex(path.clone())) } else { Ok(()) }
    }

    fn put_index_aside(&self) -> Result<PathBuf> {
        let path = self.home.index();
        let names = (1..u32::MAX).map(|n| self.home.path.join(format!("db.corrupt-{n}")));
        let kept = names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| path.clone());
        std::fs::rename(&path, &kept).at("put aside", &path)?;
        file::sync_dir(&self.home.path).at("sync", &self.home.path)?;
        Ok(kept)
    }

    /// True when the checkpoint speaks of these packs and journals, and samples show that the index holds what it says.
    fn trusts(&self, index: &Index, checkpoint: &Checkpoint, packs: &BTreeMap<u32, u64>) -> Result<bool> {
        if checkpoint.store != Some(self.home.id) {
            return Ok(false);
        }
        for (share, journal_id, seq, chain) in &checkpoint.shares {
            let Some((journal, verified)) = self.journals.get(share) else {
                // To go on would tell whoever joins that the share is empty.
                let path = self.home.journals().join(format!("{}.journal", share.to_hex()));
                return Err(StorageError::JournalMissing { path, seen: *seq });
            };
            if journal.title.journal != *journal_id {
                return Ok(false);
            }
            if verified.head.seq < *seq {
                let path = journal.path().to_owned();
                return Err(StorageError::JournalCut { path, has: verified.head.seq, seen: *seq });
            }
            if verified.head.seq == *seq && verified.head.chain != *chain {
                return Ok(false);
            }
            if *seq > Seq::ZERO
                && !matches!(index.commit(*share, *seq), Ok(Some(found)) if found.chain == *chain)
            {
                return Ok(false);
            }
        }
        // One that was put back while the index went on without it may hold what is nowhere else.
        let read: BTreeSet<u32> = checkpoint.packs.iter().copied().collect();
        if packs.range(..=checkpoint.packs_end.pack).any(|(number, _)| !read.contains(number)) {
            return Ok(false);
        }
        let gone = |number: &u32| self.gone.contains(number);
        let whole = checkpoint.packs.iter().all(|number| packs.contains_key(number) || gone(number))
            && (gone(&checkpoint.packs_end.pack)
                || checkpoint.packs_end.pack == 0
                || packs
                    .get(&checkpoint.packs_end.pack)
                    .is_some_and(|len| *len >= u64::from(checkpoint.packs_end.offset)));
        Ok(whole && self.samples(index, checkpoint) && self.knows_removals(index, checkpoint))
    }

    /// True when no block of the index lies in a pack that was removed. A run flushes the index without them before the
    /// tombstone, so one that has some is older: a copy that was put back. What else was deleted since it cannot know, and
    /// clients would be told that it is here. Looked at only when packs were removed that the checkpoint does not know of.
    fn knows_removals(&self, index: &Index, checkpoint: &Checkpoint) -> bool {
        let news = |number: &u32| *number >= checkpoint.packs_end.pack || checkpoint.packs.contains(number);
        if !self.gone.iter().any(news) {
            return true;
        }
        let mut stale = false;
        let walked = index.each_block(&mut |_, location| {
            stale = self.gone.contains(&location.place.pack);
            Ok(!stale)
        });
        walked.is_ok() && !stale
    }

    /// The first block of every pack is in the index. A lost file of sled takes much more with it than one entry. A pack
    /// that was emptied and not yet removed has none.
    fn samples(&self, index: &Index, checkpoint: &Checkpoint) -> bool {
        let buried = |number: &u32| self.gone.contains(number) || self.beside.contains(number);
        let there = checkpoint.packs.iter().filter(|number| !buried(number));
        there.into_iter().all(|number| {
            let path = packs::path(&self.home.packs(), *number);
            let from = u64::from(FILE_HEADER);
            if checkpoint.packs_end <= (Place { pack: *number, offset: FILE_HEADER }) {
                return true;
            }
            let mut found = true;
            let mut look = |step| {
                if let Step::Block(hash, _) = step {
                    found = matches!(index.block(&hash), Ok(Some(_)));
                }
                Ok(false)
            };
            let walked = std::fs::File::open(&path)
                .at("open", &path)
                .and_then(|file| pack_file::walk(&file, &path, *number, from, u64::MAX, &mut look));
            walked.is_ok() && found
        })
    }

    /// Adds the records after the checkpoint to the index, cuts a torn tail; returns where the packs go on.
    fn read_packs(
        &mut self,
        packs: &BTreeMap<u32, u64>,
        index: &Index,
        checkpoint: &Checkpoint,
    ) -> Result<(Place, bool)> {
        let lost = gone::lost(&self.home.packs(), self.home.id)?;
        let newest = packs.last_key_value().map_or(0, |(number, _)| *number);
        for number in (1..newest.max(self.durable.pack))
            .chain((self.durable.pack > newest).then_some(self.durable.pack))
        {
            if !packs.contains_key(&number) && !self.gone.contains(&number) && !lost.contains(&number) {
                self.report(Problem::MissingPack(packs::path(&self.home.packs(), number)));
            }
        }
        if self.journals.is_empty() && packs.values().any(|len| *len > u64::from(FILE_HEADER)) {
            self.report(Problem::NoJournal(self.home.journals()));
        }
        let mut end = Place::default();
        let mut start_new_pack = false;
        let mut batches = Batches { index, blocks: Vec::new(), count: 0 };
        for (number, len) in packs.range(checkpoint.packs_end.pack..) {
            let last = *number == newest;
            match self.read_pack(*number, *len, last, checkpoint, &mut batches)? {
                PackEnd::At(offset) => end = Place { pack: *number, offset },
                PackEnd::Damaged => {
                    end = Place { pack: *number, offset: u32::try_from(*len).unwrap_or(u32::MAX) };
                    start_new_pack = last;
                }
                PackEnd::Removed => {}
            }
        }
        batches.add()?;
        if self.durable.pack > newest {
            end = Place { pack: self.durable.pack, offset: 0 };
            start_new_pack = true;
        }
        Ok((end, start_new_pack))
    }

    fn read_pack(
        &mut self,
        number: u32,
        len: u64,
        last: bool,
        checkpoint: &Checkpoint,
        batches: &mut Batches<'_>,
    ) -> Result<PackEnd> {
        let path = packs::path(&self.home.packs(), number);
        let opened = file::open_write(&path).at("open", &path)?;
        let durable = match number.cmp(&self.durable.pack) {
            std::cmp::Ordering::Less => len,
            std::cmp::Ordering::Equal => u64::from(self.durable.offset),
            std::cmp::Ordering::Greater if last => 0,
            // Before a pack is begun the one before it is synced.
            std::cmp::Ordering::Greater => len,
        };
        let mut from = u64::from(FILE_HEADER);
        let mut damaged = len < durable;
        if damaged {
            self.report(Problem::DamagedPack { path: path.clone(), from: len, to: durable });
        }
        if number == checkpoint.packs_end.pack {
            from = from.max(u64::from(checkpoint.packs_end.offset));
        }
        if !pack_file::check_file_header(&opened, &path, number, self.home.id)? {
            if durable < u64::from(FILE_HEADER) {
                std::fs::remove_file(&path).at("remove", &path)?;
                self.report(Problem::CutTail { path, bytes: len });
                return Ok(PackEnd::Removed);
            }
            damaged = true;
            self.report(Problem::DamagedPack { path: path.clone(), from: 0, to: u64::from(FILE_HEADER) });
        }
        if last {
            opened.sync_data().at("sync", &path)?;
        }
        // Only the last pack can be torn; of the others the headers tell enough.
        let check_from = if last { from } else { u64::MAX };
        let mut gaps = Vec::new();
        let mut cut = None;
        pack_file::walk(&opened, &path, number, from, check_from, &mut |step| {
            match step {
                Step::Block(hash, location) => batches.push(hash, location)?,
                Step::Gap { from, .. } if last && from >= durable => cut = Some(from),
                Step::Gap { from, to } => gaps.push((from, to)),
            }
            Ok(cut.is_none())
        })?;
        for (from, to) in gaps {
            damaged = true;
            self.report(Problem::DamagedPack { path: path.clone(), from, to });
        }
        if let Some(cut) = cut {
            opened.set_len(cut).at("cut", &path)?;
            opened.sync_all().at("sync", &path)?;
            self.report(Problem::CutTail { path, bytes: len - cut });
        }
        let end = cut.unwrap_or(len);
        Ok(if damaged { PackEnd::Damaged } else { u32::try_from(end).map_or(PackEnd::Damaged, PackEnd::At) })
    }

    /// Adds the commits after the checkpoint to the index.
    fn replay(&mut self, index: &Index, checkpoint: &Checkpoint) -> Result<()> {
        for (share, (journal, _)) in &self.journals {
            let known =
                checkpoint.shares.iter().find(|(id, ..)| id == share).map_or(Seq::ZERO, |known| known.2);
            journal_tail(journal, known, &mut |commit| index.apply(*share, commit))?;
        }
        Ok(())
    }

    fn finish(
        self,
        index: Index,
        checkpoint: &Checkpoint,
        end: Place,
        start_new_pack: bool,
    ) -> Result<Recovered> {
        let mut heads = BTreeMap::new();
        let mut journals = BTreeMap::new();
        for (share, (journal, verified)) in self.journals {
            heads.insert(share, ShareHead { head: verified.head, start: journal.start() });
            journals.insert(share, journal);
        }
        let known = checkpoint.shares.iter().map(|(share, _, seq, _)| (*share, *seq)).collect();
        Ok(Recovered { index, journals, heads, known, end, start_new_pack, problems: self.problems })
    }
}

enum PackEnd {
    /// Whole, up to here.
    At(u32),
    /// Read as far as it could be; nothing is appended to it.
    Damaged,
    /// It held nothing.
    Removed,
}

type Tail<'a> = dyn FnMut(&Applied<'_>) -> Result<()> + 'a;

fn journal_tail(journal: &JournalFile, known: Seq, apply: &mut Tail<'_>) -> Result<()> {
    // `replay` starts at the title whatever was settled since.
    let journal = JournalFile::open(journal.path(), journal.title.store)?;
    journal
        .replay(&mut |Replayed { record, chain, offset }| {
            let CommitRecord { seq, time_ms, device, changes, .. } = record;
            if seq <= known {
                return Ok(());
            }
            let changes = changes.into_iter();
            let nodes: Vec<Node> =
                changes.map(|change| Node { id: change.id, version: seq, state: change.state }).collect();
            apply(&Applied { seq, time_ms, device: &device, chain, offset, nodes: &nodes })
        })
        .map(|_| ())
}

/// Collects blocks for the index.
struct Batches<'a> {
    index: &'a Index,
    blocks: Vec<(BlockHash, Location)>,
    count: usize,
}

impl Batches<'_> {
    fn push(&mut self, hash: BlockHash, location: Location) -> Result<()> {
        self.blocks.push((hash, location));
        if self.blocks.len() >= BATCH_BLOCKS { self.add() } else { Ok(()) }
    }

    fn add(&mut self) -> Result<()> {
        self.index.add_blocks(&self.blocks)?;
        self.blocks.clear();
        self.count += 1;
        if self.count.is_multiple_of(BATCHES_PER_FLUSH) {
            // Says that nothing is in it yet: a crash now begins anew.
            self.index.flush(&Checkpoint::default())?;
        }
        Ok(())
    }
}
