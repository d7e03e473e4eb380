//! Writes packs anew in which something is damaged, like those that are worth it for a garbage collection, except that no block
//! goes: what is whole is moved, and what is not is set aside in `packs/NNNNNNNN.bad`, which may be deleted.
//!
//! A pack is left as it is when anything speaks against it: a block of the index that lies in damage, a copy elsewhere of a
//! damaged block that cannot be read, something that is wanted and might be hidden there.

use super::super::error::At;
use super::super::gc::{GcOptions, PackPlan, record_bytes};
use super::super::inspect::{BATCH_BYTES, Seen};
use super::super::mark::Marked;
use super::super::pack_file::{self, FILE_HEADER};
use super::super::upkeep::{Brake, Upkeep};
use super::super::{Result, file};
use super::{GcReport, Sweep};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Read, Seek, SeekFrom, Write};

const BAD_MAGIC: &[u8; 8] = b"DBLKBENT";
const VERSION: u32 = 1;

/// Writes these packs anew, and says which it did.
///
/// # Errors
/// Anything that goes wrong on the way. What was moved by then stands twice.
pub fn rewrite(upkeep: &Upkeep, packs: &BTreeSet<u32>, brake: &Brake) -> Result<Vec<u32>> {
    let there = upkeep.packs()?;
    let packs: BTreeMap<u32, u64> = there.into_iter().filter(|(number, _)| packs.contains(number)).collect();
    if packs.is_empty() {
        return Ok(Vec::new());
    }
    let options = GcOptions { gentle: brake.gentle, ..GcOptions::default() };
    let mut sweep = Sweep { upkeep, options: &options, brake, look: &mut |_| Ok(()), finishes: true };
    let (marked, _) = sweep.mark(upkeep.now_ms())?;
    if packs.contains_key(&upkeep.shared.packs.end().pack) {
        upkeep.on_writer(|writer| writer.shared.packs.rotate(&writer.shared.failure))?;
    }
    // From here on the index alone knows what lies in the packs before the last.
    upkeep.settle()?;
    let mut plans: BTreeMap<u32, PackPlan> = BTreeMap::new();
    for (number, file_bytes) in &packs {
        let plan = PackPlan {
            number: *number,
            file_bytes: *file_bytes,
            kept_blocks: 0,
            kept_bytes: 0,
            ripe_blocks: 0,
        };
        plans.insert(*number, plan);
    }
    upkeep.each_block(&mut |_, location| {
        if let Some(plan) = plans.get_mut(&location.place.pack) {
            plan.kept_blocks += 1;
            plan.kept_bytes += record_bytes(&location);
        }
    })?;
    let mut report = GcReport::default();
    let mut rewritten = Vec::new();
    for plan in plans.values() {
        let Some(damage) = sweep.damage(plan.number, &marked)? else { continue };
        // It was found damaged and reads well now: a disk that could not for a moment.
        if damage.is_empty() {
            continue;
        }
        if let Some(bytes) = sweep.empty(plan, &HashSet::new(), &marked, &mut report)? {
            sweep.set_aside(plan.number, &damage)?;
            sweep.remove(vec![(plan, bytes)], &mut report)?;
            rewritten.push(plan.number);
        }
    }
    Ok(rewritten)
}

impl Sweep<'_> {
    /// Where a pack is not what was written, from and to; `None` when a block that is damaged there and that versions name
    /// cannot be read elsewhere.
    fn damage(&self, number: u32, marked: &Marked) -> Result<Option<Vec<(u64, u64)>>> {
        let upkeep = self.upkeep;
        let path = upkeep.shared.packs.path(number);
        let opened = std::fs::File::open(&path).at("open", &path)?;
        let mut damage = Vec::new();
        if !pack_file::check_file_header(&opened, &path, number, upkeep.store)? {
            damage.push((0, u64::from(FILE_HEADER)));
        }
        let mut elsewhere = true;
        let mut since = std::time::Instant::now();
        upkeep.inspect(number, 0, upkeep.shared.packs.synced(), BATCH_BYTES, &mut |seen| {
            match seen {
                Seen::Good(..) => {}
                Seen::Gap { from, to } => damage.push((from, to)),
                Seen::Bad(hash, location) => {
                    damage.push((u64::from(location.place.offset), location.end()));
                    elsewhere &= match upkeep.place(&hash)? {
                        Some(place) => place != location && self.read(&[(hash, place)])?.is_some(),
                        None => !marked.contains(&hash),
                    };
                }
            }
            since = upkeep.pace(self.brake, since)?;
            Ok(elsewhere)
        })?;
        Ok(elsewhere.then_some(damage))
    }

    /// Keeps the damaged bytes of a pack.
    fn set_aside(&self, number: u32, damage: &[(u64, u64)]) -> Result<()> {
        let folder = self.upkeep.packs_folder();
        let (pack, name) = (self.upkeep.shared.packs.path(number), format!("{number:08}.bad"));
        let (path, temporary) = (folder.join(&name), folder.join(format!("{name}.tmp")));
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at("remove", &temporary);
            }
            _ => {}
        }
        let mut from_pack = std::fs::File::open(&pack).at("open", &pack)?;
        let mut bad = file::create_new(&temporary).at("make", &temporary)?;
        let mut header = BAD_MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(self.upkeep.store.as_bytes());
        bad.write_all(&header).at("write", &temporary)?;
        for (from, to) in damage {
            bad.write_all(&[from.to_le_bytes(), to.to_le_bytes()].concat()).at("write", &temporary)?;
            from_pack.seek(SeekFrom::Start(*from)).at("read", &pack)?;
            let copied = std::io::copy(&mut (&mut from_pack).take(to - from), &mut bad).at("copy", &pack)?;
            if copied != to - from {
                let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(cut).at("copy", &pack);
            }
        }
        bad.sync_all().at("sync", &temporary)?;
        std::fs::rename(&temporary, &path).at("rename", &path)?;
        file::sync_dir(&folder).at("sync", &folder)
    }
}
