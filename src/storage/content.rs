//! Whether a commit may stand: all its blocks are held, and the rules of the share agree.
//!
//! A change that names bytes nobody can read would be a file that nobody can open, so the store looks before it
//! acknowledges. The cost follows the change: a new version of a file is compared with the version before, whose blocks
//! are known to be held, and only what is new is looked for. A file without a version before is walked, each node once, and
//! so is one that has little in common with it;
//! and a content that many changes of a commit name is looked for once, whatever comes of it.

use super::{Result, StorageError};
use crate::manifest::{ChunkRef, Diff, DiffStep, Differ, ManifestError, Step, Walker};
use crate::model::{BlockHash, Change, FileContent, Refusal};
use crate::tree::{Nodes, judge};
use bytes::Bytes;
use std::collections::HashMap;

/// Blocks that can be looked for.
pub trait Held {
    /// Plain lengths of blocks; `None` for those that are not held.
    fn plain_lens(&self, hashes: &[BlockHash]) -> Result<Vec<Option<u32>>>;
    /// Plain bytes of blocks; `None` when one of them is not held or cannot be read.
    fn plain(&self, hashes: &[BlockHash]) -> Result<Option<Vec<Bytes>>>;
}

/// What a change names, if it is of a form that can stand.
pub fn named(change: &Change) -> Option<&FileContent> {
    change.state.as_ref().filter(|state| state.is_valid())?.kind.content()
}

/// Decides every change of one commit; see [`judge`]. `is_complete` is asked whether every block of a content is held, the
/// second, given that those of the first are; for each once.
pub fn decide<N: Nodes<Error = StorageError>>(
    nodes: &N,
    changes: &[Change],
    mut is_complete: impl FnMut(Option<&FileContent>, &FileContent) -> Result<bool>,
) -> Result<Vec<Option<Refusal>>> {
    let mut content_ok = Vec::with_capacity(changes.len());
    let mut known: HashMap<&FileContent, bool> = HashMap::new();
    for change in changes {
        // No blocks; or a change that is refused as invalid whatever is said here.
        let Some(new) = named(change) else {
            content_ok.push(true);
            continue;
        };
        let before = nodes.node(change.id)?.and_then(|node| node.state);
        let old = before.as_ref().and_then(|state| state.kind.content());
        let ok = match known.get(new) {
            _ if old == Some(new) => true,
            Some(ok) => *ok,
            None => {
                let ok = is_complete(old, new)?;
                known.insert(new, ok);
                ok
            }
        };
        content_ok.push(ok);
    }
    judge(nodes, changes, &content_ok)
}

/// A step looks for about so many chunks, or reads nodes that cost as much: a millisecond.
const STEP_LOOKS: usize = 1024;
/// To read a node costs as much as to look for so many chunks.
const NODE_LOOKS: usize = 16;
/// Lists that a comparison with the version before may read, bytes. A version that differs in more, in about 850 places far
/// from each other, is looked at as a whole: that takes longer, and remembers little.
const COMPARED_BYTES_MAX: usize = 4 << 20;
/// What a comparison holds of each byte that it has read: all entries of a level, by what they are called too.
const COMPARED_FACTOR: usize = 8;
/// What looking at the whole remembers of each node.
const WALKED_BYTES: usize = 96;

/// Looks for the blocks of one content, in steps.
#[derive(Debug)]
pub struct Search {
    content: FileContent,
    way: Way,
    /// Bytes of lists that were compared.
    compared: usize,
    /// Nodes that were walked.
    walked: usize,
}

#[derive(Debug)]
enum Way {
    /// Compares it with the version before.
    Differ(Box<Differ>),
    /// Looks for what is new in it. The new nodes were all read by then.
    Chunks(std::vec::IntoIter<ChunkRef>),
    /// Looks for everything.
    Walker(Box<Walker>),
    Over(bool),
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

impl Search {
    /// Every block of `new`, given that those of `old` are held.
    pub fn new(old: Option<&FileContent>, new: &FileContent) -> Self {
        let differ = match old {
            Some(old) if new.root.level > 0 && old.root.level > 0 => Differ::new(old, new).ok(),
            _ => None,
        };
        let way = differ.map_or_else(|| walk(new), |differ| Way::Differ(Box::new(differ)));
        Self { content: new.clone(), way, compared: 0, walked: 0 }
    }

    /// About what this remembers, bytes.
    pub const fn bytes(&self) -> usize {
        match self.way {
            Way::Differ(_) | Way::Chunks(_) => self.compared * COMPARED_FACTOR,
            Way::Walker(_) | Way::Over(_) => self.walked * WALKED_BYTES,
        }
    }

    /// Looks at some more; whether all are held, once that is known.
    pub fn step(&mut self, held: &impl Held) -> Result<Option<bool>> {
        let mut looks = 0;
        while looks < STEP_LOOKS {
            match self.look(held, &mut looks) {
                Ok(()) => {}
                Err(Stop::Storage(error)) => return Err(error),
                // Also when the old version cannot be read: a damaged block there is no reason to refuse the new version.
                Err(Stop::Incomplete) => {
                    let walked = matches!(self.way, Way::Walker(_) | Way::Over(_));
                    self.way = if walked { Way::Over(false) } else { walk(&self.content) };
                }
            }
            if let Way::Over(complete) = self.way {
                return Ok(Some(complete));
            }
        }
        Ok(None)
    }

    /// All of it at once.
    pub fn finish(mut self, held: &impl Held) -> Result<bool> {
        loop {
            if let Some(complete) = self.step(held)? {
                return Ok(complete);
            }
        }
    }

    fn look(&mut self, held: &impl Held, looks: &mut usize) -> std::result::Result<(), Stop> {
        match &mut self.way {
            Way::Differ(differ) => match differ.next()? {
                DiffStep::NeedNodes(_) if self.compared >= COMPARED_BYTES_MAX => {
                    self.way = walk(&self.content)
                }
                DiffStep::NeedNodes(need) => {
                    *looks += need.len() * NODE_LOOKS;
                    for (hash, bytes) in read(held, need)? {
                        self.compared += bytes.len();
                        differ.feed(hash, &bytes)?;
                    }
                }
                DiffStep::Done(Diff { new_chunks, .. }) => self.way = Way::Chunks(new_chunks.into_iter()),
            },
            Way::Chunks(chunks) => {
                let some: Vec<ChunkRef> = chunks.by_ref().take(STEP_LOOKS).collect();
                *looks += some.len();
                if some.is_empty() {
                    self.way = Way::Over(true);
                } else {
                    has(held, &some)?;
                }
            }
            Way::Walker(walker) => match walker.next()? {
                Step::NeedNodes(need) => {
                    self.walked += need.len();
                    *looks += need.len() * NODE_LOOKS;
                    for (hash, bytes) in read(held, need)? {
                        walker.feed(hash, &bytes)?;
                    }
                }
                Step::Chunks(chunks) => {
                    *looks += chunks.len();
                    has(held, &chunks)?;
                }
                Step::Done => self.way = Way::Over(true),
            },
            Way::Over(_) => {}
        }
        Ok(())
    }
}

fn walk(content: &FileContent) -> Way {
    Walker::distinct(content).map_or(Way::Over(false), |walker| Way::Walker(Box::new(walker)))
}

fn read(
    held: &impl Held,
    need: Vec<BlockHash>,
) -> std::result::Result<impl Iterator<Item = (BlockHash, Bytes)>, Stop> {
    let nodes = held.plain(&need)?.ok_or(Stop::Incomplete)?;
    if nodes.len() != need.len() {
        return Err(Stop::Incomplete);
    }
    Ok(need.into_iter().zip(nodes))
}

fn has(held: &impl Held, chunks: &[ChunkRef]) -> std::result::Result<(), Stop> {
    let hashes: Vec<BlockHash> = chunks.iter().map(|chunk| chunk.hash).collect();
    let found = held.plain_lens(&hashes)?;
    let all =
        found.len() == chunks.len() && chunks.iter().zip(found).all(|(chunk, len)| len == Some(chunk.len));
    if all { Ok(()) } else { Err(Stop::Incomplete) }
}
