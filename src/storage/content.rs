//! Whether a commit may stand: all its blocks are held, and the rules of the share agree.
//!
//! A change that names bytes nobody can read would be a file that nobody can open, so the store looks before it
//! acknowledges. The cost follows the change: a new version of a file is compared with the version before, whose blocks
//! are known to be held, and only what is new is looked for. A file without a version before is walked, each node once.

use super::{Result, StorageError};
use crate::manifest::{Diff, DiffStep, Differ, ManifestError, Step, Walker};
use crate::model::{BlockHash, Change, FileContent, NodeState, Refusal};
use crate::tree::{Nodes, judge};
use bytes::Bytes;
use std::collections::HashSet;

/// Blocks that can be looked for.
pub trait Held {
    /// Plain length of a block; `None` when it is not held.
    fn plain_len(&self, hash: &BlockHash) -> Result<Option<u32>>;
    /// Plain bytes of a block; `None` when it is not held or cannot be read.
    fn plain(&self, hash: &BlockHash) -> Result<Option<Bytes>>;
    /// From here on blocks are looked for because the change of this number in its commit names them.
    fn begin(&self, _change: usize) {}
}

/// Contents found complete not long ago: the same large file committed at many places is walked once.
#[derive(Debug, Default)]
pub struct KnownContents(HashSet<FileContent>);

/// Above this the memory is emptied: it saves work, nothing depends on it.
const KNOWN_MAX: usize = 4096;

/// Decides every change of one commit; see [`judge`].
pub fn decide<N: Nodes<Error = StorageError>>(
    nodes: &N,
    held: &impl Held,
    known: &mut KnownContents,
    changes: &[Change],
) -> Result<Vec<Option<Refusal>>> {
    let mut content_ok = Vec::with_capacity(changes.len());
    for (number, change) in changes.iter().enumerate() {
        held.begin(number);
        let ok = match change.state.as_ref().and_then(|state| state.kind.content()) {
            Some(new) if change.state.as_ref().is_some_and(NodeState::is_valid) => {
                let before = nodes.node(change.id)?.and_then(|node| node.state);
                let old = before.as_ref().and_then(|state| state.kind.content());
                is_complete(held, known, old, new)?
            }
            // No blocks; or a change that is refused as invalid whatever is said here.
            _ => true,
        };
        content_ok.push(ok);
    }
    judge(nodes, changes, &content_ok)
}

/// True when every block of `new` is held, given that those of `old` are.
fn is_complete(
    held: &impl Held,
    known: &mut KnownContents,
    old: Option<&FileContent>,
    new: &FileContent,
) -> Result<bool> {
    if old == Some(new) || known.0.contains(new) {
        return Ok(true);
    }
    let checked = match old {
        Some(old) if new.root.level > 0 && old.root.level > 0 => differs_by_held(held, old, new),
        _ => Err(Stop::Incomplete),
    };
    // Also when the old version cannot be read: a damaged block there is no reason to refuse the new version.
    let checked = match checked {
        Err(Stop::Incomplete) => walks_over_held(held, new),
        other => other,
    };
    match checked {
        Ok(()) => {
            if new.root.level > 0 {
                if known.0.len() >= KNOWN_MAX {
                    known.0.clear();
                }
                known.0.insert(new.clone());
            }
            Ok(true)
        }
        Err(Stop::Incomplete) => Ok(false),
        Err(Stop::Storage(error)) => Err(error),
    }
}

enum Stop {
    /// A block is missing, or the manifest is not sound.
    Incomplete,
    Storage(StorageError),
}

impl From<ManifestError> for Stop {
    fn from(_: ManifestError) -> Self {
        Self::Incomplete
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn plain(held: &impl Held, hash: &BlockHash) -> std::result::Result<Bytes, Stop> {
    held.plain(hash)?.ok_or(Stop::Incomplete)
}

fn has(held: &impl Held, hash: &BlockHash, len: u32) -> std::result::Result<(), Stop> {
    if held.plain_len(hash)? == Some(len) { Ok(()) } else { Err(Stop::Incomplete) }
}

fn differs_by_held(held: &impl Held, old: &FileContent, new: &FileContent) -> std::result::Result<(), Stop> {
    let mut differ = Differ::new(old, new)?;
    loop {
        match differ.next()? {
            DiffStep::NeedNodes(need) => {
                for hash in need {
                    differ.feed(hash, &plain(held, &hash)?)?;
                }
            }
            // The new nodes were all read above.
            DiffStep::Done(Diff { new_chunks, .. }) => {
                return new_chunks.iter().try_for_each(|chunk| has(held, &chunk.hash, chunk.len));
            }
        }
    }
}

fn walks_over_held(held: &impl Held, content: &FileContent) -> std::result::Result<(), Stop> {
    let mut walker = Walker::distinct(content)?;
    loop {
        match walker.next()? {
            Step::NeedNodes(need) => {
                for hash in need {
                    walker.feed(hash, &plain(held, &hash)?)?;
                }
            }
            Step::Chunks(chunks) => chunks.iter().try_for_each(|chunk| has(held, &chunk.hash, chunk.len))?,
            Step::Done => return Ok(()),
        }
    }
}
