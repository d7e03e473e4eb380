//! Mending: what is done when everything that was lost has come back. Lost packs are noted as such and spoken of no more; packs
//! with damage in them are written anew without it; what is damaged and needed by nobody leaves the index.
//!
//! Nothing of it happens before all versions that can be restored were walked and lack nothing. A crash at any step leaves a
//! store that is as whole as before: a note says only that somebody looked, and a pack is written anew like one of a
//! garbage collection (`sweep`), except that nothing goes but the bytes that are no blocks, and these are set aside.

use super::check::{self, CheckOptions};
use super::journal::JournalFile;
use super::packs::Packs;
use super::shared::{Problem, Shared};
use super::sled::Index;
use super::upkeep::{Brake, Upkeep};
use super::writer::Writer;
use super::{Result, gone, packs, sweep};
use crate::model::BlockHash;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Blocks that leave the index at once: how long a commit may have to wait.
const DROP_BLOCKS: usize = 512;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Every version is whole.
    pub whole: bool,
    /// Packs that are gone and were noted as such.
    pub lost: Vec<u32>,
    /// Packs that were written anew.
    pub rewritten: Vec<u32>,
}

/// True when a start found something that has to be looked at.
pub fn is_called_for(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| matches!(problem, Problem::MissingPack(_) | Problem::DamagedPack { .. }))
}

/// Packs in which a start finds damage: that it met, and where blocks lie that were known to be damaged before.
pub fn bent(problems: &[Problem], wanted: &BTreeSet<BlockHash>, index: &Index) -> Result<BTreeSet<u32>> {
    let mut bent: BTreeSet<u32> = BTreeSet::new();
    for problem in problems {
        if let Problem::DamagedPack { path, .. } = problem {
            bent.extend(packs::number(path));
        }
    }
    for hash in wanted {
        bent.extend(index.block(hash)?.map(|location| location.place.pack));
    }
    Ok(bent)
}

/// Takes away what would explain the loss of a pack that is there again and in use. A pack beside its tombstone of which
/// the index uses nothing was emptied by a run that was stopped: the next one removes it.
fn forget_notes(upkeep: &Upkeep) -> Result<()> {
    let folder = upkeep.packs_folder();
    let (buried, notes) = gone::beside(&folder, upkeep.store)?;
    if buried.is_empty() && notes.is_empty() {
        return Ok(());
    }
    let mut used = BTreeSet::new();
    upkeep.each_block(&mut |_, location| {
        if buried.contains(&location.place.pack) {
            used.insert(location.place.pack);
        }
    })?;
    gone::forget(&folder, &used, &notes)
}

/// Of blocks that were wanted before the index was built anew, those that still cannot be read: what was put back is not
/// asked for.
pub fn retain_lacking(wanted: &mut BTreeSet<BlockHash>, packs: &Packs, index: &Index) -> Result<()> {
    for hash in wanted.clone() {
        if let Some(place) = index.block(&hash)?
            && packs.read(&[(hash, place)]).is_ok()
        {
            wanted.remove(&hash);
        }
    }
    Ok(())
}

/// Looks, and mends what can be mended.
pub fn run(upkeep: &Upkeep, brake: &Brake) -> Result<Mended> {
    let shared = &upkeep.shared;
    // What happens from here on asks for another look.
    shared.unsettled.store(false, Ordering::Relaxed);
    let bent = std::mem::take(&mut *shared.bent.lock().unwrap_or_else(PoisonError::into_inner));
    let done = look_and_mend(upkeep, &bent, brake);
    if !matches!(&done, Ok(Mended { whole: true, .. })) {
        shared.bent.lock().unwrap_or_else(PoisonError::into_inner).extend(bent);
    }
    done.inspect_err(|_| shared.unsettled.store(true, Ordering::Relaxed))
}

fn look_and_mend(upkeep: &Upkeep, bent: &BTreeSet<u32>, brake: &Brake) -> Result<Mended> {
    let shared = &upkeep.shared;
    forget_notes(upkeep)?;
    let wanted = shared.wanted();
    let options = CheckOptions { quick: true, repair: false, gentle: brake.gentle };
    if !check::look(upkeep, &options, brake)?.is_clean() {
        return Ok(Mended::default());
    }
    // Damaged before, and no version lacks them: they came back, or nobody needs them.
    for batch in wanted.chunks(DROP_BLOCKS) {
        let batch = batch.to_vec();
        upkeep.begin_era(brake, move |writer| drop_unneeded(writer, &batch))?;
    }
    forget_absent(shared);
    let lost = note_lost(upkeep)?;
    let rewritten = sweep::rewrite(upkeep, bent, brake)?;
    Ok(Mended { whole: true, lost, rewritten })
}

/// On the storage thread: takes damaged blocks out of the index that no version names. They count as missing either way.
fn drop_unneeded(writer: &mut Writer, batch: &[BlockHash]) -> Result<()> {
    let shared = writer.shared.clone();
    let _settling = shared.settling.lock().unwrap_or_else(PoisonError::into_inner);
    let here: Vec<BlockHash> = batch
        .iter()
        .filter(|hash| shared.is_damaged(hash) && shared.recent(hash).is_none())
        .copied()
        .collect();
    writer.index.remove_blocks(&here).map_err(|error| shared.fail(error))?;
    // After it: who looks from now on sees that they are gone.
    shared.leases().begin_era();
    here.iter().for_each(|hash| shared.unwant(hash));
    Ok(())
}

/// Nothing is missing: what was known of it is history.
fn forget_absent(shared: &Shared) {
    // Something may have been found missing in this instant.
    let wanted: BTreeSet<BlockHash> = shared.wanted().into_iter().collect();
    shared.absent.lock().unwrap_or_else(PoisonError::into_inner).retain(|hash, _| wanted.contains(hash));
    shared.follow.lock().unwrap_or_else(PoisonError::into_inner).forget();
}

/// On the storage thread, while nothing is appended: reads the journals again after one was found damaged. What would be
/// acknowledged from here on would be in a file that the next start refuses.
///
/// # Errors
/// [`Damaged`](super::StorageError::Damaged) when it is so.
pub fn doubt_journals(writer: &Writer) -> Result<()> {
    for (share, journal) in &writer.journals {
        let path = journal.path();
        let read = JournalFile::open(path, writer.store)?.replay(&mut |_| Ok(()))?;
        if read.head != writer.shared.head(*share) {
            return Err(super::StorageError::Damaged { path: path.to_owned(), offset: read.len });
        }
    }
    Ok(())
}

/// Notes packs that are gone, while nothing lacks: from then on nobody is told of them.
pub fn note_lost(upkeep: &Upkeep) -> Result<Vec<u32>> {
    let (folder, store) = (upkeep.packs_folder(), upkeep.store);
    let lost = lost_packs(upkeep)?;
    for pack in &lost {
        if let Err(error) = gone::note_lost(&folder, *pack, store) {
            // A folder of that name, for one. It is said again, and nothing else.
            tracing::warn!(pack, %error, "the loss of a pack cannot be noted");
        }
    }
    Ok(lost)
}

/// Numbers of packs that are gone, were not removed on purpose, and are not noted as lost.
pub fn lost_packs(upkeep: &Upkeep) -> Result<Vec<u32>> {
    let (folder, store) = (upkeep.packs_folder(), upkeep.store);
    let last = upkeep.shared.packs.synced().pack;
    let (packs, removed) = (upkeep.packs()?, gone::list(&folder, store)?);
    let noted = gone::lost(&folder, store)?;
    let is_lost =
        |pack: &u32| !packs.contains_key(pack) && !removed.contains_key(pack) && !noted.contains(pack);
    Ok((1..=last).filter(is_lost).collect())
}
