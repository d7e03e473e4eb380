//! Checks a store: are all versions that can be restored whole, and is every file what was written?
//!
//! Looks at journals (records, numbers, chain), at packs (every record opened and hashed), at the index (each entry where
//! it says), and walks the manifest of every version. Quick: without opening records. Repair only ever adds: it points the
//! index at intact copies, has what is missing asked for, and notes packs that are gone and not needed; it never blanks, cuts
//! or deletes.
//!
//! What counts is what versions need: a pack that is gone, or bytes that are bent, are findings as long as any version lacks
//! something, and harmless when none does.

use super::finding::Finding;
use super::inspect::{BATCH_BYTES, Seen};
use super::journal::Replayed;
use super::pack_file::{self, FILE_HEADER, Location, Place};
use super::upkeep::{Brake, Upkeep};
use super::writer::Writer;
use super::{Result, mend, reach};
use crate::manifest::ManifestNode;
use crate::model::{BlockHash, FileContent, Name, NodeId, RelPath, Seq};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Findings listed; the others are counted.
const FINDINGS_MAX: usize = 2000;

/// How a store is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOptions {
    /// Only look whether everything is there.
    pub quick: bool,
    /// Put right what can be put right by adding.
    pub repair: bool,
    /// Rest between two steps.
    pub gentle: bool,
}

/// What a check found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What is wrong, in order; with repair: what is left.
    pub findings: Vec<Finding>,
    /// Findings that are not listed.
    pub more: u64,
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Bytes of packs that were read and hashed.
    pub bytes: u64,
    /// Contents of versions that were walked.
    pub contents: u64,
    /// Intact blocks in packs that the index does not know: garbage of a run that was stopped, if no version lacks them.
    pub unindexed: u64,
    /// Blocks put right.
    pub repaired: u64,
    /// Blocks that versions need and that are asked for from clients.
    pub wanted: u64,
    /// Places in packs that are gone or damaged, and of which no version needs anything. The server puts them in order.
    pub harmless: u64,
}

impl CheckReport {
    /// Nothing is wrong.
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX { self.findings.push(finding) } else { self.more += 1 }
    }
}

/// Checks the store.
pub fn run(upkeep: &Upkeep, options: &CheckOptions, brake: &Brake) -> Result<CheckReport> {
    let report = look(upkeep, options, brake)?;
    if report.is_clean() && options.repair {
        mend::note_lost(upkeep)?;
    }
    if report.harmless > 0 {
        // A server puts it in order.
        upkeep.shared.unsettled.store(true, Ordering::Relaxed);
    }
    Ok(report)
}

/// Looks only; what is bad or missing is asked for from then on.
pub fn look(upkeep: &Upkeep, options: &CheckOptions, brake: &Brake) -> Result<CheckReport> {
    let brake = Brake { gentle: options.gentle, ..brake.clone() };
    let mut check = Check { upkeep, options, brake, report: CheckReport::default(), bad: BTreeMap::new() };
    check.packs()?;
    let (of_packs, more) = (std::mem::take(&mut check.report.findings), check.report.more);
    check.versions()?;
    if check.report.findings.is_empty() && check.report.more == more {
        // Everything that versions name is there, and was read unless it is quick.
        check.report.harmless =
            of_packs.len() as u64 + std::mem::take(&mut check.report.more) + check.bad_left()?;
        return Ok(check.report);
    }
    check.report.findings.extend(of_packs);
    let mut blocks = Vec::new();
    for (hash, place) in &check.bad {
        if check.is_bad(hash)? {
            blocks.push(Finding::Block { hash: *hash, place: *place });
        }
    }
    blocks.append(&mut check.report.findings);
    check.report.findings.clear();
    blocks.sort();
    blocks.into_iter().for_each(|finding| check.report.find(finding));
    Ok(check.report)
}

/// A block that a manifest names, its level (0: a chunk), and the bytes of the file that are said to be below it.
type Promise = (BlockHash, u8, u64);

struct Check<'a> {
    upkeep: &'a Upkeep,
    options: &'a CheckOptions,
    brake: Brake,
    report: CheckReport,
    /// Blocks that cannot be read, and where they should be.
    bad: BTreeMap<BlockHash, Option<(u32, u32)>>,
}

impl Check<'_> {
    /// Packs against the index and the other way round.
    fn packs(&mut self) -> Result<()> {
        self.upkeep.settle()?;
        let limit = self.upkeep.shared.packs.synced();
        let packs = self.upkeep.packs()?;
        for pack in mend::lost_packs(self.upkeep)? {
            self.report.find(Finding::PackMissing { pack });
            if pack == self.upkeep.shared.packs.end().pack {
                // What is appended to a file without a name is gone at the next start.
                self.upkeep.on_writer(move |writer| leave(writer, pack))?;
            }
        }
        let mut gaps: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        // Intact records that the index does not point at.
        let mut spare: HashMap<BlockHash, Location> = HashMap::new();
        for (number, len) in &packs {
            self.header(*number)?;
            if !self.options.quick {
                self.records(*number, *len, limit, &mut gaps, &mut spare)?;
            }
        }
        self.entries(&packs, &gaps, limit)?;
        let mut unknown = 0;
        let mut found = Vec::new();
        for (hash, location) in &spare {
            let known = self.upkeep.locate(hash)?;
            unknown += u64::from(known.is_none() && !self.bad.contains_key(hash));
            if known.is_none() || self.bad.contains_key(hash) {
                found.push((*hash, *location));
            }
        }
        self.report.unindexed = unknown;
        if self.options.repair && !found.is_empty() {
            self.reindex(found)?;
        }
        // What is bad is asked for from now on, and taken again when it comes.
        for hash in self.bad.keys() {
            if self.is_bad(hash)? {
                self.upkeep.shared.want(*hash);
            }
        }
        Ok(())
    }

    /// Blocks that were found bad and are so still.
    fn bad_left(&self) -> Result<u64> {
        let mut left = 0;
        for hash in self.bad.keys() {
            left += u64::from(self.is_bad(hash)?);
        }
        Ok(left)
    }

    /// True for a block that was found bad and was not brought again since.
    fn is_bad(&self, hash: &BlockHash) -> Result<bool> {
        let Some(found) = self.bad.get(hash) else { return Ok(false) };
        let now = self.upkeep.place(hash)?.map(|location| (location.place.pack, location.place.offset));
        Ok(now == *found)
    }

    fn header(&mut self, number: u32) -> Result<()> {
        use super::error::At;
        let path = self.upkeep.shared.packs.path(number);
        let file = std::fs::File::open(&path).at("open", &path)?;
        if !pack_file::check_file_header(&file, &path, number, self.upkeep.store)? {
            self.upkeep.shared.bend(number);
            self.report.find(Finding::PackDamaged { pack: number, from: 0, to: u64::from(FILE_HEADER) });
        }
        Ok(())
    }

    fn records(
        &mut self,
        number: u32,
        len: u64,
        limit: Place,
        gaps: &mut BTreeMap<u32, Vec<(u64, u64)>>,
        spare: &mut HashMap<BlockHash, Location>,
    ) -> Result<()> {
        let mut since = Instant::now();
        let upkeep = self.upkeep;
        upkeep.inspect(number, 0, limit, BATCH_BYTES, &mut |seen| {
            match seen {
                Seen::Good(hash, location) => {
                    if upkeep.place(&hash)? == Some(location) {
                        // It may have been brought again since it was found damaged.
                        upkeep.shared.unwant(&hash);
                    } else {
                        spare.insert(hash, location);
                    }
                }
                Seen::Bad(hash, location) => {
                    upkeep.shared.bend(number);
                    let place = (location.place.pack, location.place.offset);
                    let in_use = upkeep.index.block(&hash)? == Some(location);
                    if in_use {
                        self.bad.insert(hash, Some(place));
                    } else {
                        let (from, to) = (u64::from(location.place.offset), location.end());
                        self.report.find(Finding::PackDamaged { pack: number, from, to });
                    }
                }
                Seen::Gap { from, to } => {
                    upkeep.shared.bend(number);
                    gaps.entry(number).or_default().push((from, to));
                    self.report.find(Finding::PackDamaged { pack: number, from, to });
                }
            }
            since = upkeep.pace(&self.brake, since)?;
            Ok(true)
        })?;
        self.report.bytes += len;
        Ok(())
    }

    /// Every entry of the index lies inside a pack, and not in damage.
    fn entries(
        &mut self,
        packs: &BTreeMap<u32, u64>,
        gaps: &BTreeMap<u32, Vec<(u64, u64)>>,
        limit: Place,
    ) -> Result<()> {
        let (bad, count) = (&mut self.bad, &mut self.report.blocks);
        self.upkeep.each_block(&mut |hash, location| {
            *count += 1;
            if location.place >= limit {
                // Appended since the packs were listed.
                return;
            }
            let (pack, from) = (location.place.pack, u64::from(location.place.offset));
            let inside = packs.get(&pack).is_some_and(|len| location.end() <= *len);
            let in_gap = gaps
                .get(&pack)
                .is_some_and(|gaps| gaps.iter().any(|gap| gap.0 < location.end() && from < gap.1));
            if !inside || in_gap {
                bad.insert(hash, Some((pack, location.place.offset)));
            }
        })?;
        Ok(())
    }

    /// Points the index at intact copies.
    fn reindex(&mut self, found: Vec<(BlockHash, Location)>) -> Result<()> {
        let hashes: Vec<BlockHash> = found.iter().map(|(hash, _)| *hash).collect();
        self.report.repaired += self.upkeep.on_writer(move |writer| adopt(writer, &found))?;
        for hash in hashes {
            self.bad.remove(&hash);
        }
        Ok(())
    }

    /// Walks every version.
    fn versions(&mut self) -> Result<()> {
        let cutoff_ms = self.upkeep.now_ms().saturating_sub(self.upkeep.shared.keep_ms);
        let contents = match self.upkeep.contents(cutoff_ms, &self.brake) {
            Ok(contents) => contents,
            Err(error @ super::StorageError::NoJournal(_)) => {
                self.report.find(Finding::Journal { text: error.to_string() });
                return Ok(());
            }
            Err(error @ super::StorageError::Damaged { .. }) => {
                self.report.find(Finding::Journal { text: error.to_string() });
                let doubted = self.upkeep.on_writer(|writer| mend::doubt_journals(writer));
                if let Err(error @ super::StorageError::Damaged { .. }) = doubted {
                    self.upkeep.shared.fail(error);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.chains()?;
        let mut clean = HashSet::new();
        let mut broken: HashMap<FileContent, u64> = HashMap::new();
        let mut since = Instant::now();
        for content in contents.head.union(&contents.history) {
            self.report.contents += 1;
            let lacks = self.walk(content, &mut clean, &mut since)?;
            if !lacks.is_empty() {
                broken.insert(content.clone(), lacks.len() as u64);
                for hash in lacks {
                    let place = self.upkeep.place(&hash)?;
                    let place = place.map(|location| (location.place.pack, location.place.offset));
                    self.bad.entry(hash).or_insert(place);
                    self.want(hash, place.is_some())?;
                    self.report.wanted += 1;
                }
            }
            since = self.upkeep.pace(&self.brake, since)?;
        }
        if broken.is_empty() { Ok(()) } else { self.name(&broken, cutoff_ms) }
    }

    /// Has a block asked for that versions lack.
    fn want(&self, hash: BlockHash, in_index: bool) -> Result<()> {
        let (shared, index) = (&self.upkeep.shared, &self.upkeep.index);
        if in_index {
            shared.want(hash);
            return Ok(());
        }
        shared.want_absent(hash);
        if reach::tags_of(shared, index, &hash)?.is_empty() {
            // Nobody knows which share names it: all are asked, and the next start looks.
            shared.tags_lack.store(true, Ordering::Relaxed);
            index.set_has_tags(false)?;
        }
        Ok(())
    }

    /// Journals end where the store says they do.
    fn chains(&mut self) -> Result<()> {
        for (title, journal) in self.upkeep.journals()? {
            let before = self.upkeep.shared.head(title.share);
            let read = journal.replay(&mut |_| Ok(()))?;
            let same = read.head.seq > before.seq
                || (read.head.seq == before.seq && read.head.chain == before.chain);
            if !same {
                let path = journal.path().display();
                let text = format!("{path}: ends at commit {}, not as it should", read.head.seq);
                self.report.find(Finding::Journal { text });
            }
        }
        Ok(())
    }

    /// Blocks of a content that are not there as they should be. Nodes of which nothing is missing come into `clean`, with
    /// what was promised of them. Each promise is looked at once, however often it is made: nodes that name each other
    /// describe files that no walk ends on.
    fn walk(
        &self,
        content: &FileContent,
        clean: &mut HashSet<Promise>,
        since: &mut Instant,
    ) -> Result<BTreeSet<BlockHash>> {
        let mut lacks = BTreeSet::new();
        let mut walked = HashSet::new();
        let mut waiting = vec![(content.root.hash, content.root.level, content.size)];
        while let Some(promise @ (hash, level, len)) = waiting.pop() {
            if content.size == 0 || clean.contains(&promise) {
                continue;
            }
            if level == 0 {
                let held = self.upkeep.locate(&hash)?;
                let as_promised = held.is_some_and(|location| u64::from(location.plain_len) == len);
                if !as_promised || self.is_bad(&hash)? {
                    lacks.insert(hash);
                }
                continue;
            }
            if !walked.insert(promise) {
                continue;
            }
            *since = self.upkeep.pace(&self.brake, *since)?;
            let node = self.upkeep.plain(&hash)?.and_then(|bytes| ManifestNode::decode(&bytes).ok());
            match node.filter(|node| node.level() == level && node.file_bytes() == len) {
                Some(node) => {
                    waiting.extend(node.entries().iter().map(|entry| (entry.hash, level - 1, entry.len)));
                }
                None => {
                    lacks.insert(hash);
                }
            }
        }
        if lacks.is_empty() {
            clean.extend(walked);
        }
        Ok(lacks)
    }

    /// Says which files of which shares are affected.
    fn name(&mut self, broken: &HashMap<FileContent, u64>, cutoff_ms: u64) -> Result<()> {
        for (title, journal) in self.upkeep.journals()? {
            let mut names: HashMap<NodeId, (NodeId, Name)> = HashMap::new();
            let mut current: HashMap<NodeId, (Seq, FileContent)> = HashMap::new();
            let mut versions = Vec::new();
            let mut time_max_ms = 0;
            let collected = self.upkeep.shared.collected(title.share);
            journal.replay(&mut |Replayed { record, .. }| {
                time_max_ms = record.time_ms.max(time_max_ms);
                for change in record.changes {
                    if let Some(state) = &change.state {
                        names.insert(change.id, (state.parent, state.name.clone()));
                    }
                    let content = change.state.as_ref().and_then(|state| state.kind.content());
                    let old = match content.filter(|content| broken.contains_key(content)) {
                        Some(content) => current.insert(change.id, (record.seq, content.clone())),
                        None => current.remove(&change.id),
                    };
                    let kept = time_max_ms > cutoff_ms && record.seq > collected;
                    if let Some((seq, content)) = old.filter(|_| kept) {
                        versions.push((change.id, seq, content, false));
                    }
                }
                Ok(())
            })?;
            versions.extend(current.into_iter().map(|(id, (seq, content))| (id, seq, content, true)));
            for (id, version, content, current) in versions {
                let (share, path) = (title.name.clone(), path_of(&names, id));
                let blocks = broken.get(&content).copied().unwrap_or(0);
                self.report.find(Finding::Version { share, path, version, current, blocks });
            }
        }
        Ok(())
    }
}

/// The path of a node by the last names that are known.
fn path_of(names: &HashMap<NodeId, (NodeId, Name)>, id: NodeId) -> String {
    let mut parts = Vec::new();
    let mut at = id;
    while let Some((parent, name)) = names.get(&at).filter(|_| parts.len() < 1024) {
        parts.push(name.clone());
        at = *parent;
    }
    parts.reverse();
    RelPath::from_names(parts).to_string()
}

/// On the storage thread: appends to this pack no more, whose file was taken away.
fn leave(writer: &mut Writer, pack: u32) -> Result<()> {
    let packs = &writer.shared.packs;
    if packs.end().pack == pack && !packs.path(pack).exists() {
        packs.rotate(&writer.shared.failure)?;
    }
    Ok(())
}

/// On the storage thread: takes copies that were found intact, unless the block is somewhere newer by now.
pub fn adopt(writer: &mut Writer, found: &[(BlockHash, Location)]) -> Result<u64> {
    let shared = &writer.shared;
    let fresh: Vec<_> = found.iter().filter(|(hash, _)| shared.recent(hash).is_none()).copied().collect();
    writer.index.add_blocks(&fresh).map_err(|error| shared.fail(error))?;
    fresh.iter().for_each(|(hash, _)| shared.unwant(hash));
    shared.came(fresh.iter().map(|(hash, _)| *hash));
    Ok(fresh.len() as u64)
}
