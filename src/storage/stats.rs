//! Counts a store: what its shares hold, what that takes on disk, what is kept for history, what is garbage.

use super::error::At;
use super::gc::record_bytes;
use super::journal::Replayed;
use super::mark::Marked;
use super::upkeep::{Brake, Upkeep};
use super::{Result, StorageError, gone};
use crate::model::{FileContent, Kind, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One share in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStats {
    /// Its name.
    pub name: String,
    /// Files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of the files.
    pub logical_bytes: u64,
    /// Commits since it was made.
    pub commits: u64,
    /// Bytes of its journal.
    pub journal_bytes: u64,
}

/// A store in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// By share, in the order of their names.
    pub shares: Vec<ShareStats>,
    /// Bytes of all files of all shares.
    pub logical_bytes: u64,
    /// Bytes of the blocks of these files, each once, manifests included.
    pub unique_bytes: u64,
    /// Bytes of their records in packs.
    pub current_stored_bytes: u64,
    /// Bytes of records that only replaced versions need.
    pub history_stored_bytes: u64,
    /// Bytes in packs that nothing needs.
    pub garbage_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are garbage.
    pub garbage_blocks: u64,
    /// Garbage that waits for its grace time to pass, blocks.
    pub condemned_blocks: u64,
    /// Blocks that are damaged or missing, as far as is known.
    pub damaged_blocks: u64,
    /// How long replaced versions are kept, ms.
    pub keep_ms: u64,
    /// Contents of current versions of which a chunk list cannot be read: what they need is counted in part.
    pub unread_current: u64,
    /// The same of replaced versions.
    pub unread_history: u64,
    /// Files with what was no block when a pack was written anew (`packs/*.bad`). Nothing needs them.
    pub aside_files: u64,
    /// Their bytes. They are in no other figure.
    pub aside_bytes: u64,
}

impl Stats {
    /// Everything that versions need was counted. Otherwise nobody can say what is garbage.
    pub const fn is_complete(&self) -> bool {
        self.unread_current == 0 && self.unread_history == 0
    }

    /// Bytes of files per byte of distinct blocks, in thousandths; `None` for an empty store.
    pub fn dedup_permille(&self) -> Option<u64> {
        permille(self.logical_bytes, self.unique_bytes)
    }

    /// Bytes of distinct blocks per byte stored for them, in thousandths; `None` for an empty store.
    pub fn compression_permille(&self) -> Option<u64> {
        permille(self.unique_bytes, self.current_stored_bytes)
    }
}

fn permille(part: u64, whole: u64) -> Option<u64> {
    let ratio = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    u64::try_from(ratio).ok()
}

/// Counts the store.
pub fn run(upkeep: &Upkeep, brake: &Brake) -> Result<Stats> {
    let now_ms = upkeep.now_ms();
    let contents = upkeep.contents(now_ms.saturating_sub(upkeep.shared.keep_ms), brake)?;
    let (mut head, mut history) = (Marked::default(), Marked::default());
    let unread_current = mark(upkeep, &mut head, &contents.head, brake)?;
    // Current ones may be among them.
    let unread_history = mark(upkeep, &mut history, contents.history.difference(&contents.head), brake)?;
    let shares = shares(upkeep, brake)?;
    let mut stats = Stats { shares, unread_current, unread_history, ..Stats::default() };
    (stats.aside_files, stats.aside_bytes) = aside(upkeep)?;
    stats.logical_bytes = stats.shares.iter().map(|share| share.logical_bytes).fold(0, u64::saturating_add);
    let packs = upkeep.packs()?;
    stats.packs = packs.len() as u64;
    stats.stored_bytes = packs.values().sum();
    upkeep.each_block(&mut |hash, location| {
        stats.blocks += 1;
        let bytes = record_bytes(&location);
        if head.contains(&hash) {
            stats.unique_bytes += u64::from(location.plain_len);
            stats.current_stored_bytes += bytes;
        } else if history.contains(&hash) {
            stats.history_stored_bytes += bytes;
        } else {
            stats.garbage_blocks += 1;
        }
    })?;
    let headers = stats.packs * u64::from(super::pack_file::FILE_HEADER);
    stats.garbage_bytes =
        stats.stored_bytes.saturating_sub(headers + stats.current_stored_bytes + stats.history_stored_bytes);
    stats.condemned_blocks = gone::load_condemned(&upkeep.shared.path, upkeep.store)?.len() as u64;
    stats.damaged_blocks = upkeep.shared.wanted().len() as u64;
    stats.keep_ms = upkeep.shared.keep_ms;
    Ok(stats)
}

/// Marks what can be read; returns how many contents cannot.
fn mark<'a>(
    upkeep: &Upkeep,
    marked: &mut Marked,
    contents: impl IntoIterator<Item = &'a FileContent>,
    brake: &Brake,
) -> Result<u64> {
    let mut unread = 0;
    for content in contents {
        match upkeep.mark(marked, [content], brake) {
            Err(StorageError::Unreadable(_)) => unread += 1,
            other => other?,
        }
    }
    Ok(unread)
}

/// What was set aside: files, bytes.
fn aside(upkeep: &Upkeep) -> Result<(u64, u64)> {
    let folder = upkeep.packs_folder();
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(&folder).at("list", &folder)? {
        let entry = entry.at("list", &folder)?;
        if entry.path().extension().is_some_and(|extension| extension == "bad") {
            files += 1;
            bytes += entry.metadata().at("look at", &entry.path())?.len();
        }
    }
    Ok((files, bytes))
}

fn shares(upkeep: &Upkeep, brake: &Brake) -> Result<Vec<ShareStats>> {
    let mut shares = Vec::new();
    let mut since = std::time::Instant::now();
    for (title, journal) in upkeep.journals()? {
        let mut nodes: HashMap<NodeId, Option<u64>> = HashMap::new();
        let mut symlinks = 0u64;
        let mut links: std::collections::HashSet<NodeId> = std::collections::HashSet::new();
        let read = journal.replay(&mut |Replayed { record, .. }| {
            for change in record.changes {
                links.remove(&change.id);
                match change.state.map(|state| state.kind) {
                    Some(Kind::File { content, .. }) => nodes.insert(change.id, Some(content.size)),
                    Some(Kind::Folder) => nodes.insert(change.id, None),
                    Some(Kind::Symlink { .. }) => {
                        links.insert(change.id);
                        nodes.remove(&change.id)
                    }
                    None => nodes.remove(&change.id),
                };
            }
            since = upkeep.pace(brake, since)?;
            Ok(())
        })?;
        symlinks += links.len() as u64;
        shares.push(ShareStats {
            name: title.name,
            files: nodes.values().flatten().count() as u64,
            folders: nodes.values().filter(|size| size.is_none()).count() as u64,
            symlinks,
            // Sizes are what somebody says they are.
            logical_bytes: nodes.values().flatten().copied().fold(0, u64::saturating_add),
            commits: read.head.seq.0,
            journal_bytes: read.len,
        });
    }
    shares.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(shares)
}
