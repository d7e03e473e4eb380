//! The scrub: reads everything again, slowly, so that bit rot is found while somebody still has the block.
//!
//! One pass goes through all packs from front to back. Blocks that are new are read a first time soon after they were
//! written. How far a pass has come is remembered in `STORE/scrub`, so that restarts do not begin anew; losing that file
//! only does.

use super::error::At;
use super::inspect::{BATCH_BYTES, Seen};
use super::pack_file::{self, FILE_HEADER, Place, Step};
use super::upkeep::Upkeep;
use super::{Result, file, gc};
use crate::model::BlockHash;
use std::collections::VecDeque;
use std::path::Path;

/// New blocks are read again after this long, ms.
const FRESH_MS: u64 = 10 * 60_000;
/// Name of the file that remembers.
const FILE: &str = "scrub";
/// The place is written after this much was read, bytes.
const REMEMBER_BYTES: u64 = 64 * 1024 * 1024;

/// Where a scrub is.
#[derive(Debug)]
pub struct Scrub {
    /// Read up to here in this pass.
    at: Place,
    /// New blocks were read up to here.
    fresh: Place,
    /// Where the packs ended, and when.
    samples: VecDeque<(u64, Place)>,
    unremembered: u64,
}

/// What one step found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that are damaged, and were not known to be.
    pub damaged: Vec<BlockHash>,
    /// A pass ended: everything that was there when it began was read once.
    pub pass_done: bool,
}

impl Scrub {
    /// Goes on where the last one stopped.
    pub fn load(upkeep: &Upkeep) -> Self {
        let text = std::fs::read_to_string(upkeep.shared.path.join(FILE)).unwrap_or_default();
        let place = text.lines().find_map(|line| {
            let (pack, offset) = line.strip_prefix("at = \"")?.strip_suffix('"')?.split_once(':')?;
            Some(Place { pack: pack.parse().ok()?, offset: offset.parse().ok()? })
        });
        let end = upkeep.shared.packs.synced();
        let place = place.filter(|place| is_between_records(upkeep, *place).unwrap_or(false));
        Self { at: place.unwrap_or_default(), fresh: end, samples: VecDeque::new(), unremembered: 0 }
    }

    /// Reads about `bytes_max` more.
    pub fn step(&mut self, upkeep: &Upkeep, bytes_max: u64) -> Result<ScrubStep> {
        let mut step = ScrubStep::default();
        let (now_ms, end) = (upkeep.now_ms(), upkeep.shared.packs.synced());
        if self.samples.back().is_none_or(|(_, place)| *place < end) {
            self.samples.push_back((now_ms, end));
        }
        while self.samples.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= FRESH_MS) {
            let Some((_, until)) = self.samples.front().copied() else { break };
            self.fresh = read(upkeep, self.fresh, until, bytes_max, &mut step)?;
            if self.fresh < until {
                return Ok(step);
            }
            self.samples.pop_front();
        }
        if step.bytes >= bytes_max {
            return Ok(step);
        }
        let rest = bytes_max - step.bytes;
        let before = step.bytes;
        self.at = read(upkeep, self.at, end, rest, &mut step)?;
        self.unremembered += step.bytes - before;
        if self.at >= end {
            step.pass_done = true;
            self.at = Place::default();
        }
        if step.pass_done || self.unremembered >= REMEMBER_BYTES {
            self.unremembered = 0;
            self.remember(&upkeep.shared.path)?;
        }
        Ok(step)
    }

    /// Writes down how far this pass has come.
    pub fn remember(&self, home: &Path) -> Result<()> {
        let at = self.at;
        let text =
            format!("# How far the scrub has come; may be deleted.\nat = \"{}:{}\"\n", at.pack, at.offset);
        file::write_whole(home, FILE, text.as_bytes()).at("write", &home.join(FILE))
    }
}

/// True when a record may begin there. A pack that was lost may have given its number to another one since the place was
/// written down, and from the middle of a record everything looks damaged.
fn is_between_records(upkeep: &Upkeep, place: Place) -> Result<bool> {
    if place.offset <= FILE_HEADER {
        return Ok(true);
    }
    let path = upkeep.shared.packs.path(place.pack);
    let opened = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        opened => opened.at("open", &path)?,
    };
    let (mut found, from) = (false, u64::from(FILE_HEADER));
    pack_file::walk(&opened, &path, place.pack, from, u64::MAX, &mut |step| {
        let end = match step {
            Step::Block(_, location) => location.end(),
            Step::Gap { to, .. } => to,
        };
        found = end == u64::from(place.offset);
        Ok(end < u64::from(place.offset))
    })?;
    Ok(found)
}

/// Reads packs from `from` to `until`, about `bytes_max`; returns how far it came.
fn read(upkeep: &Upkeep, from: Place, until: Place, bytes_max: u64, step: &mut ScrubStep) -> Result<Place> {
    let mut at = from;
    let stop_at = step.bytes.saturating_add(bytes_max);
    let batch_bytes = bytes_max.min(BATCH_BYTES);
    for number in upkeep.packs()?.into_keys().filter(|n| *n >= from.pack && *n <= until.pack) {
        let offset = if number == from.pack { u64::from(from.offset) } else { 0 };
        let mut gaps = Vec::new();
        let mut full = false;
        let inspected = upkeep.inspect(number, offset, until, batch_bytes, &mut |seen| {
            match seen {
                Seen::Good(_, location) | Seen::Bad(_, location) => {
                    step.bytes += gc::record_bytes(&location);
                    let end = u32::try_from(location.end()).unwrap_or(u32::MAX);
                    at = Place { pack: number, offset: end };
                }
                Seen::Gap { from, to } => {
                    gaps.push((from, to));
                    step.bytes += to - from;
                    at = Place { pack: number, offset: u32::try_from(to).unwrap_or(u32::MAX) };
                }
            }
            if !matches!(seen, Seen::Good(..)) {
                upkeep.shared.bend(number);
            }
            if let Seen::Bad(hash, location) = seen
                // Not the index: a copy that came back is not there yet.
                && upkeep.place(&hash)? == Some(location)
                && upkeep.shared.mark_damaged(hash)
            {
                step.damaged.push(hash);
            }
            full = step.bytes >= stop_at;
            Ok(!full)
        });
        match inspected {
            // Removed by somebody meanwhile: the quick check sees what is missing.
            Err(super::StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        blame(upkeep, number, &gaps, step)?;
        if full {
            return Ok(at);
        }
    }
    Ok(until)
}

/// Blocks of the index that lie in damage.
fn blame(upkeep: &Upkeep, number: u32, gaps: &[(u64, u64)], step: &mut ScrubStep) -> Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    upkeep.each_block(&mut |hash, location| {
        let here = location.place.pack == number
            && gaps.iter().any(|gap| gap.0 < location.end() && u64::from(location.place.offset) < gap.1);
        if here && upkeep.shared.mark_damaged(hash) {
            step.damaged.push(hash);
        }
    })
}
