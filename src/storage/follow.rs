//! What comes back is followed: when a chunk list that was missing is brought again, the blocks that it names become wanted in
//! their turn if they are not here, level by level, and the share that names the list reaches those that are.
//!
//! Only what journals name is followed, at the level at which they do: nothing is a chunk list because it looks like one,
//! and nobody reaches a block by writing its hash into a file. Work is done in small steps on the storage thread, where
//! no block comes or goes meanwhile. Bounded: what waits is a path down with the siblings on it, one for each block that
//! came back; nothing new is looked at while [`WANTED_MAX`](super::shared::WANTED_MAX) blocks are asked for; and no node is
//! read twice for one share, however often it is named. All of it is in memory only: a start looks at everything again.

use super::pack_file::Location;
use super::reach::{self, Tag};
use super::shared::{Named, Shared};
use super::sled::Index;
use super::writer::Writer;
use super::{Result, StorageError};
use crate::block::seal;
use crate::manifest::ManifestNode;
use crate::model::BlockHash;
use std::collections::HashSet;
use std::sync::PoisonError;

/// Blocks looked at in one step: how long a commit may have to wait.
const STEP_BLOCKS: usize = 1024;

/// A block, the share that names it, and the level at which it does.
type Named1 = (BlockHash, Tag, u8);

/// Blocks that have to be looked below.
#[derive(Debug, Default)]
pub struct Follow {
    /// The last first.
    queue: Vec<Named1>,
    /// Nodes that were looked below.
    seen: HashSet<Named1>,
}

impl Follow {
    /// A block came back.
    pub fn add(&mut self, hash: BlockHash, named: Named) {
        self.queue.extend(named.into_iter().map(|(tag, level)| (hash, tag, level)));
    }

    /// Nothing is missing any more.
    pub fn forget(&mut self) {
        if self.queue.is_empty() {
            self.seen = HashSet::new();
        }
    }
}

/// True when there is something to look at, and room to ask for what is found.
pub fn has_more(shared: &Shared) -> bool {
    let waits = !shared.follow.lock().unwrap_or_else(PoisonError::into_inner).queue.is_empty();
    waits && !shared.is_wanting_enough()
}

/// On the storage thread: looks at some more.
pub fn step(writer: &mut Writer) -> Result<()> {
    let shared = writer.shared.clone();
    // Only this thread adds to it.
    let mut follow = std::mem::take(&mut *shared.follow.lock().unwrap_or_else(PoisonError::into_inner));
    let mut reached = Vec::new();
    let mut done = Ok(());
    for _ in 0..STEP_BLOCKS {
        if shared.is_wanting_enough() {
            break;
        }
        let Some(named) = follow.queue.pop() else { break };
        done = look(&shared, &writer.index, named, &mut follow, &mut reached);
        if done.is_err() {
            break;
        }
    }
    *shared.follow.lock().unwrap_or_else(PoisonError::into_inner) = follow;
    done.and_then(|()| tag(writer, reached)).map_err(|error| match error {
        StorageError::Index(_) => shared.fail(error),
        error => error,
    })
}

fn look(
    shared: &Shared,
    index: &Index,
    (hash, tag, level): Named1,
    follow: &mut Follow,
    reached: &mut Vec<(BlockHash, Tag)>,
) -> Result<()> {
    let (place, tags) = reach::look(shared, index, &hash)?;
    let Some(location) = place.filter(|_| !shared.is_damaged(&hash)) else {
        lacks(shared, (hash, tag, level), place.is_some());
        return Ok(());
    };
    if !tags.contains(&tag) {
        reached.push((hash, tag));
    }
    if level == 0 || !follow.seen.insert((hash, tag, level)) {
        return Ok(());
    }
    match node(shared, hash, location)? {
        Some(node) if node.level() == level => {
            follow.queue.extend(node.entries().iter().map(|entry| (entry.hash, tag, level - 1)));
        }
        // What it is was judged when it was committed.
        Some(_) => {}
        None => {
            follow.seen.remove(&(hash, tag, level));
            shared.bend(location.place.pack);
            lacks(shared, (hash, tag, level), true);
        }
    }
    Ok(())
}

/// Asks for a block, and remembers to look below it when it comes.
fn lacks(shared: &Shared, (hash, tag, level): Named1, in_index: bool) {
    let mut absent = shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
    absent.entry(hash).or_default().insert((tag, level));
    drop(absent);
    if in_index {
        shared.want(hash)
    } else {
        shared.want_absent(hash)
    };
}

/// `None` for one that cannot be read as what it is.
pub fn node(shared: &Shared, hash: BlockHash, location: Location) -> Result<Option<ManifestNode>> {
    let sealed = match shared.packs.read(&[(hash, location)]) {
        Ok(sealed) => sealed,
        Err(StorageError::DamagedBlock { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let block = sealed.first().and_then(|sealed| seal::open(sealed, None).ok());
    Ok(block.filter(|block| block.hash() == hash).and_then(|block| ManifestNode::decode(block.bytes()).ok()))
}

/// The share reaches these from now on.
fn tag(writer: &Writer, reached: Vec<(BlockHash, Tag)>) -> Result<()> {
    let shared = &writer.shared;
    let (lately, settled): (Vec<_>, Vec<_>) =
        reached.into_iter().partition(|(hash, _)| shared.recent(hash).is_some());
    writer.tag(lately);
    let _settling = shared.settling.lock().unwrap_or_else(PoisonError::into_inner);
    for (hash, tag) in settled {
        writer.index.add_rows([(hash, None, [tag].as_slice())])?;
    }
    Ok(())
}
