//! Which share reaches which block. Blocks are stored once however many shares hold them, but a share is only told of, and
//! only given, what was brought to it: by a put of one of its devices, or by a commit that names it.
//!
//! A share is known by its *tag*, the first four bytes of its id (they differ within a store). The tags of a block stand
//! in its row of the index, beside its place: a look at the place is a look at the tags, and what moves or deletes the row
//! moves or deletes them. Tags that have not reached the index are in [`Recent`](super::shared::Recent), like places.
//!
//! Like everything in the index they can be made anew: from the journals, by walking what their commits name. That is done
//! for commits after the checkpoint at every start, and for all of them when the index is new; of versions that can be restored,
//! as the blocks of others may be gone. A block that was put and never committed has no tag then, and is brought again.

use super::journal::{JournalFile, Replayed};
use super::pack_file::Location;
use super::packs::Packs;
use super::shared::{Named, Shared, WANTED_MAX};
use super::sled::Index;
use super::{Result, ShareId, StorageError};
use crate::block::seal;
use crate::manifest::ManifestNode;
use crate::model::{BlockHash, FileContent, Seq, limits};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Names a share in the rows of the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(u32);

impl Tag {
    /// Of what was put without a share: every share has it. No share's own.
    pub const ALL: Self = Self(0);

    /// The tag of a share.
    pub fn of(share: ShareId) -> Self {
        Self(u32::from_le_bytes(*share.as_bytes().first_chunk().unwrap_or(&[0; 4])))
    }

    /// For the index.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// From the index.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }
}

/// Who asks for blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// The store's owner: sees everything.
    Owner,
    /// Somebody in a share.
    Share(Tag),
}

impl Asker {
    /// For a share, or the owner.
    pub fn of(share: Option<ShareId>) -> Self {
        share.map_or(Self::Owner, |share| Self::Share(Tag::of(share)))
    }

    /// What a put by it leaves behind.
    pub const fn tag(self) -> Tag {
        match self {
            Self::Owner => Tag::ALL,
            Self::Share(tag) => tag,
        }
    }
}

/// Where a block lies, if it is held and this asker reaches it; damaged or not.
pub fn find(shared: &Shared, index: &Index, asker: Asker, hash: &BlockHash) -> Result<Option<Location>> {
    let (location, tags) = look(shared, index, hash)?;
    Ok(location.filter(|_| reaches(shared, asker, &tags)))
}

/// Where a block lies, damaged or not, and who reaches it.
pub fn look(shared: &Shared, index: &Index, hash: &BlockHash) -> Result<(Option<Location>, Vec<Tag>)> {
    let (place, mut tags) = {
        let recent = shared.recent.read().unwrap_or_else(PoisonError::into_inner);
        (recent.blocks.get(hash).copied(), recent.tags.get(hash).cloned().unwrap_or_default())
    };
    let Some((location, more)) = index.row(hash)? else { return Ok((place, tags)) };
    tags.extend(more);
    // What was appended anew, in place of a damaged one, is the one that counts.
    Ok((place.or(Some(location)), tags))
}

fn reaches(shared: &Shared, asker: Asker, tags: &[Tag]) -> bool {
    match asker {
        Asker::Owner => true,
        Asker::Share(tag) => {
            tags.contains(&tag)
                || tags.contains(&Tag::ALL)
                // Damage has hidden who named it, and there is nobody else.
                || tags.is_empty() && shared.tags_lack.load(Ordering::Relaxed) && shared.is_only_share(tag)
        }
    }
}

/// True when a put of this block brings something: its share did not reach it, and was not asked for it.
pub fn is_brought(
    shared: &Shared,
    index: &Index,
    asker: Asker,
    hash: &BlockHash,
    tags: &[Tag],
) -> Result<bool> {
    if reaches(shared, asker, tags) {
        return Ok(false);
    }
    if !shared.is_damaged(hash) {
        return Ok(true);
    }
    Ok(!may_ask(shared, &tags_of(shared, index, hash)?, asker.tag()))
}

/// The tags of a block that is wanted, wherever they are known from.
pub fn tags_of(shared: &Shared, index: &Index, hash: &BlockHash) -> Result<Vec<Tag>> {
    let mut tags = index.row(hash)?.map(|(_, tags)| tags).unwrap_or_default();
    let recent = shared.recent.read().unwrap_or_else(PoisonError::into_inner);
    tags.extend(recent.tags.get(hash).into_iter().flatten());
    drop(recent);
    let absent = shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
    tags.extend(absent.get(hash).into_iter().flatten().map(|(tag, _)| *tag));
    Ok(tags)
}

/// True when a share's devices may be asked for a block.
pub fn may_ask(shared: &Shared, tags: &[Tag], tag: Tag) -> bool {
    // Damage has hidden who named it: everybody is asked. That tells its hash, and nothing of what is in it.
    let nobodys = tags.is_empty() && shared.tags_lack.load(Ordering::Relaxed);
    tags.contains(&tag) || tags.contains(&Tag::ALL) || nobodys || shared.is_only_share(tag)
}

/// What a pass over the journals found.
#[derive(Debug, Default)]
struct Traced {
    /// Blocks that are named and not held, or are chunk lists that cannot be read.
    absent: HashMap<BlockHash, Named>,
    /// Blocks of the index that cannot be read.
    unreadable: Vec<(BlockHash, Location)>,
    /// There were more.
    more: bool,
}

impl Traced {
    fn lacks(&mut self, hash: BlockHash, tag: Tag, level: u8) {
        if self.absent.len() < WANTED_MAX || self.absent.contains_key(&hash) {
            self.absent.entry(hash).or_default().insert((tag, level));
        } else {
            self.more = true;
        }
    }
}

/// Tags what commits name that the index does not know: those after `known`, or all. What is missing is wanted from then on.
/// Before the threads of the store run.
pub fn bring_up(
    shared: &Shared,
    index: &Index,
    journals: &BTreeMap<ShareId, JournalFile>,
    known: BTreeMap<ShareId, Seq>,
) -> Result<()> {
    let known = if index.has_tags()? { known } else { BTreeMap::new() };
    let traced = trace(shared, index, journals, &known)?;
    // Otherwise the next start looks again: by then the store may be whole.
    let complete = traced.absent.is_empty() && !traced.more;
    index.set_has_tags(complete)?;
    shared.tags_lack.store(!complete, Ordering::Relaxed);
    for (hash, location) in traced.unreadable {
        shared.want(hash);
        shared.bend(location.place.pack);
    }
    for hash in traced.absent.keys() {
        shared.want_absent(*hash);
    }
    if traced.more {
        shared.unsettled.store(true, Ordering::Relaxed);
    }
    *shared.absent.lock().unwrap_or_else(PoisonError::into_inner) = traced.absent;
    Ok(())
}

fn trace(
    shared: &Shared,
    index: &Index,
    journals: &BTreeMap<ShareId, JournalFile>,
    known: &BTreeMap<ShareId, Seq>,
) -> Result<Traced> {
    let mut traced = Traced::default();
    for (share, journal) in journals {
        let known = known.get(share).copied().unwrap_or(Seq::ZERO);
        let contents = contents(shared, *share, journal, known)?;
        let (tag, packs) = (Tag::of(*share), &shared.packs);
        let (seen, rows) = (HashSet::new(), Vec::new());
        let mut tracer = Tracer { index, packs, tag, seen, rows, traced: &mut traced };
        contents.iter().try_for_each(|content| tracer.content(content))?;
        tracer.write()?;
    }
    Ok(traced)
}

/// What commits after `known` brought that still stands or can be restored: the blocks of anything else may be gone.
fn contents(
    shared: &Shared,
    share: ShareId,
    journal: &JournalFile,
    known: Seq,
) -> Result<HashSet<FileContent>> {
    let cutoff_ms = (shared.options.clock)().saturating_sub(shared.keep_ms);
    let collected = shared.collected(share);
    let (mut current, mut kept, mut time_max_ms) = (HashMap::new(), HashSet::new(), 0);
    let journal = JournalFile::open(journal.path(), journal.title.store)?;
    journal.replay(&mut |Replayed { record, .. }| {
        time_max_ms = record.time_ms.max(time_max_ms);
        if record.seq <= known {
            return Ok(());
        }
        let restorable = time_max_ms > cutoff_ms && record.seq > collected;
        for change in record.changes {
            let old = match change.state.as_ref().and_then(|state| state.kind.content()).cloned() {
                Some(new) => current.insert(change.id, new),
                None => current.remove(&change.id),
            };
            kept.extend(old.filter(|_| restorable));
        }
        Ok(())
    })?;
    kept.extend(current.into_values());
    Ok(kept)
}

/// Rows written to the index at once.
const ROWS_MAX: usize = 4096;

struct Tracer<'a> {
    index: &'a Index,
    packs: &'a Packs,
    tag: Tag,
    /// Roots and manifest nodes that were walked.
    seen: HashSet<BlockHash>,
    rows: Vec<BlockHash>,
    traced: &'a mut Traced,
}

impl Tracer<'_> {
    fn content(&mut self, content: &FileContent) -> Result<()> {
        if content.size == 0 {
            return Ok(());
        }
        let mut waiting = vec![(content.root.hash, content.root.level)];
        while let Some((hash, level)) = waiting.pop() {
            if (level > 0 && !self.seen.insert(hash)) || level > limits::MANIFEST_LEVEL_MAX {
                continue;
            }
            let Some((location, _)) = self.index.row(&hash)? else {
                self.traced.lacks(hash, self.tag, level);
                continue;
            };
            self.rows.push(hash);
            if self.rows.len() >= ROWS_MAX {
                self.write()?;
            }
            if level == 0 {
                continue;
            }
            let sealed = match self.packs.read(&[(hash, location)]) {
                Ok(sealed) => sealed,
                Err(StorageError::DamagedBlock { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            let block = sealed.first().and_then(|sealed| seal::open(sealed, None).ok());
            let node = block.and_then(|block| ManifestNode::decode(block.bytes()).ok());
            match node.filter(|node| node.level() == level) {
                Some(node) => waiting.extend(node.entries().iter().map(|entry| (entry.hash, level - 1))),
                None => {
                    self.traced.lacks(hash, self.tag, level);
                    self.traced.unreadable.push((hash, location));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let tags = [self.tag];
        let rows = self.rows.drain(..).map(|hash| (hash, None, tags.as_slice()));
        self.index.add_rows(rows)
    }
}
