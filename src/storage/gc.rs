//! What may be deleted, and which packs give their space back for it. Pure: a survey of the store goes in, a plan that can
//! be shown and tested comes out; `sweep` carries it out and looks again before each step.
//!
//! A block is *live* when a version names it that is current or can still be restored, *leased* when a session relies on it
//! before its commit, *garbage* otherwise. Garbage is first condemned; what is still garbage a grace time later is *ripe*.
//! Space returns by whole packs: a pack in which enough is ripe is rewritten without it, or dropped when nothing else is
//! in it. Garbage in other packs stays, and costs nothing to use again.

use super::mark::Marked;
use super::pack_file::{FILE_HEADER, Location, RECORD_HEADER};
use crate::model::BlockHash;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How garbage is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcOptions {
    /// Garbage stays for this long after it was first seen, ms.
    pub grace_ms: u64,
    /// A pack is rewritten when at least this much of it would go, percent.
    pub sparse_percent: u8,
    /// Plan, and change nothing.
    pub dry_run: bool,
    /// Rest between two steps: others use the disk at the same time.
    pub gentle: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace_ms: Self::GRACE_MS, sparse_percent: Self::SPARSE_PERCENT, dry_run: false, gentle: false }
    }
}

impl GcOptions {
    /// Grace time unless it is given: an hour.
    pub const GRACE_MS: u64 = 3_600_000;
    /// Of a pack, unless it is given, percent.
    pub const SPARSE_PERCENT: u8 = 25;
}

/// Garbage that was seen before, and since when (ms since 1970).
pub type Condemned = HashMap<BlockHash, u64>;

/// What the server has still to do by itself of a run of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When the grace time of everything that was condemned is over, ms since 1970.
    pub at_ms: u64,
    /// How it will be collected.
    pub options: GcOptions,
}

impl Due {
    /// `None` when nothing is condemned.
    pub fn of(condemned: &Condemned, options: &GcOptions) -> Option<Self> {
        let last_ms = condemned.values().max()?;
        Some(Self { at_ms: last_ms.saturating_add(options.grace_ms), options: *options })
    }
}

/// What is known of a store when a plan is made.
#[derive(Debug)]
pub struct Survey<'a> {
    /// What versions name.
    pub marked: &'a Marked,
    /// What sessions rely on; `None`: everything.
    pub leased: Option<&'a HashSet<BlockHash>>,
    /// Garbage that was seen before.
    pub condemned: &'a Condemned,
    /// Bytes of every pack file.
    pub packs: &'a BTreeMap<u32, u64>,
    /// Packs from this one on stay as they are: the last one is being written.
    pub open: u32,
    /// Now, ms since 1970.
    pub now_ms: u64,
    /// Garbage that was never seen before is condemned; otherwise it is left alone.
    pub condemns: bool,
}

/// What one pack loses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackPlan {
    /// The pack.
    pub number: u32,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Blocks that stay, and are moved to another pack.
    pub kept_blocks: u64,
    /// Bytes of their records.
    pub kept_bytes: u64,
    /// Blocks that go.
    pub ripe_blocks: u64,
}

impl PackPlan {
    /// Bytes that the disk gets back.
    pub const fn freed_bytes(&self) -> u64 {
        self.file_bytes.saturating_sub(self.kept_bytes)
    }
}

/// What will be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The condemned from now on, each since when.
    pub condemned: Condemned,
    /// Packs of which nothing stays; then those that are rewritten, the emptiest first.
    pub packs: Vec<PackPlan>,
    /// The blocks that go.
    pub goes: Vec<BlockHash>,
    /// Counts for people.
    pub sums: Sums,
}

/// A plan in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Blocks that versions name or sessions rely on.
    pub live_blocks: u64,
    /// Bytes of their records.
    pub live_bytes: u64,
    /// Of these, blocks that no version names: sessions rely on them.
    pub leased_blocks: u64,
    /// Bytes of their records.
    pub leased_bytes: u64,
    /// Other blocks.
    pub garbage_blocks: u64,
    /// Bytes of their records, and of copies that are not used.
    pub garbage_bytes: u64,
    /// Garbage that was never seen before.
    pub new_blocks: u64,
    /// Garbage whose grace time is not over.
    pub waiting_blocks: u64,
    /// Bytes of its records.
    pub waiting_bytes: u64,
    /// Packs of which nothing stays.
    pub dropped_packs: u64,
    /// Packs that are rewritten.
    pub rewritten_packs: u64,
    /// Bytes written again for that.
    pub moved_bytes: u64,
    /// Bytes that the disk gets back.
    pub freed_bytes: u64,
    /// When the first garbage that waits will be ripe, ms since 1970; 0 when none waits.
    pub next_ripe_ms: u64,
}

/// Bytes of a block's record.
pub fn record_bytes(location: &Location) -> u64 {
    u64::from(RECORD_HEADER) + u64::from(location.payload_len)
}

#[derive(Default)]
struct Use {
    kept_blocks: u64,
    kept_bytes: u64,
    ripe: Vec<BlockHash>,
}

/// Makes a plan from a survey and the place of every block.
pub fn plan(
    survey: &Survey<'_>,
    blocks: impl IntoIterator<Item = (BlockHash, Location)>,
    options: &GcOptions,
) -> Plan {
    let mut plan = Plan::default();
    let mut uses: BTreeMap<u32, Use> = BTreeMap::new();
    let sums = &mut plan.sums;
    let mut placed_bytes = 0;
    for (hash, location) in blocks {
        let bytes = record_bytes(&location);
        placed_bytes += bytes;
        let used = uses.entry(location.place.pack).or_default();
        let named = survey.marked.contains(&hash);
        if named || survey.leased.is_none_or(|leased| leased.contains(&hash)) {
            sums.live_blocks += 1;
            sums.live_bytes += bytes;
            sums.leased_blocks += u64::from(!named);
            sums.leased_bytes += if named { 0 } else { bytes };
            used.kept_blocks += 1;
            used.kept_bytes += bytes;
            continue;
        }
        sums.garbage_blocks += 1;
        sums.garbage_bytes += bytes;
        let since = survey.condemned.get(&hash).copied();
        sums.new_blocks += u64::from(since.is_none());
        if since.is_none() && !survey.condemns {
            used.kept_blocks += 1;
            used.kept_bytes += bytes;
            continue;
        }
        // A clock that was set back must not make anything ripe, nor keep it for ever.
        let since = since.unwrap_or(survey.now_ms).min(survey.now_ms);
        plan.condemned.insert(hash, since);
        if survey.now_ms - since >= options.grace_ms {
            used.ripe.push(hash);
        } else {
            sums.waiting_blocks += 1;
            sums.waiting_bytes += bytes;
            let ripe_ms = since.saturating_add(options.grace_ms);
            sums.next_ripe_ms = if sums.next_ripe_ms == 0 { ripe_ms } else { sums.next_ripe_ms.min(ripe_ms) };
            used.kept_blocks += 1;
            used.kept_bytes += bytes;
        }
    }
    let stored: u64 = survey.packs.values().map(|len| len.saturating_sub(u64::from(FILE_HEADER))).sum();
    plan.sums.garbage_bytes += stored.saturating_sub(placed_bytes);
    choose(&mut plan, uses, survey.packs.range(..survey.open), options);
    plan
}

/// Chooses the packs that are worth it.
fn choose<'a>(
    plan: &mut Plan,
    mut uses: BTreeMap<u32, Use>,
    packs: impl Iterator<Item = (&'a u32, &'a u64)>,
    options: &GcOptions,
) {
    for (number, file_bytes) in packs {
        let used = uses.remove(number).unwrap_or_default();
        let pack = PackPlan {
            number: *number,
            file_bytes: *file_bytes,
            kept_blocks: used.kept_blocks,
            kept_bytes: used.kept_bytes,
            ripe_blocks: used.ripe.len() as u64,
        };
        let goes = pack.freed_bytes().saturating_sub(u64::from(FILE_HEADER));
        let enough = u128::from(goes) * 100 >= u128::from(*file_bytes) * u128::from(options.sparse_percent);
        if goes == 0 || !(enough || used.kept_blocks == 0) {
            continue;
        }
        if pack.kept_blocks == 0 {
            plan.sums.dropped_packs += 1;
        } else {
            plan.sums.rewritten_packs += 1;
            plan.sums.moved_bytes += pack.kept_bytes;
        }
        plan.sums.freed_bytes += pack.freed_bytes();
        plan.goes.extend(used.ripe);
        plan.packs.push(pack);
    }
    // Dropping needs no room, and makes some for the rest.
    plan.packs.sort_by_key(|pack| (pack.kept_bytes, pack.number));
}
