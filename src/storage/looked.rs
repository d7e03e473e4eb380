//! What was found out about the contents of a commit before its turn came.
//!
//! A file of many blocks is looked for by the threads that read, in steps, while others are served: on the storage thread a
//! list of 16,384 nodes would stop every share for as long as its reading takes. What they found holds when the turn of
//! the commit comes, because of the *era*: each block they saw was taken out of what is being deleted before they looked, the
//! storage thread says that a new era has begun whenever it begins to delete others, and a commit that was looked at in an
//! earlier era than the one in which its turn comes is looked at again; the second time no era begins [meanwhile](super::hold).

use super::inbox::Prepared;
use super::{CommitRequest, ShareId};
use crate::model::{BlockHash, Change, FileContent, Refusal, SessionId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A commit and the blocks it brought.
#[derive(Debug)]
pub struct Asked {
    /// Without its blocks.
    pub request: CommitRequest,
    /// Those.
    pub inline: Vec<Prepared>,
}

/// Named by more than one content.
const SEVERAL: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub struct Looked {
    /// In which it was looked.
    pub era: u64,
    /// Each content with its number, and whether all its blocks are held.
    contents: HashMap<FileContent, (u32, bool)>,
    /// Blocks on which the session has a lease, each with the number of the content that names it.
    leased: HashMap<BlockHash, u32>,
}

impl Looked {
    /// Nothing was looked at yet.
    pub fn new(era: u64) -> Self {
        Self { era, ..Self::default() }
    }

    /// True when nothing was looked at that could have changed.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Whether all blocks of a content are held, if somebody has looked.
    pub fn is_complete(&self, content: &FileContent) -> Option<bool> {
        self.contents.get(content).map(|(_, complete)| *complete)
    }

    /// Contents all of whose blocks are held, of those with a chunk list.
    pub fn complete(&self) -> impl Iterator<Item = &FileContent> {
        let complete =
            self.contents.iter().filter(|(content, (_, complete))| *complete && content.root.level > 0);
        complete.map(|(content, _)| content)
    }

    /// A content was looked at; `leased` are the blocks it names on which the session has a lease.
    pub fn add(&mut self, content: FileContent, complete: bool, leased: impl IntoIterator<Item = BlockHash>) {
        let number = u32::try_from(self.contents.len()).unwrap_or(SEVERAL);
        self.contents.insert(content, (number, complete));
        for hash in leased {
            self.leased.entry(hash).and_modify(|by| *by = SEVERAL).or_insert(number);
        }
    }

    /// The blocks on which the lease of the session ends with this commit: those that only changes name that stand. A client
    /// that was refused will send its change again, and was told that the blocks of it are here.
    pub fn taken(self, changes: &[Change], verdicts: &[Option<Refusal>]) -> Vec<BlockHash> {
        let refused = changes.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_some());
        let contents = refused.clone().filter_map(|(change, _)| change.state.as_ref()?.kind.content());
        let contents: HashSet<u32> =
            contents.filter_map(|content| self.contents.get(content)).map(|(number, _)| *number).collect();
        let all_stand = refused.count() == 0;
        let ends = |by: u32| all_stand || (by != SEVERAL && !contents.contains(&by));
        self.leased.into_iter().filter(|(_, by)| ends(*by)).map(|(hash, _)| hash).collect()
    }
}

/// Contents found complete not long ago: the same large file committed at many places is walked once.
#[derive(Debug, Default)]
pub struct Known {
    /// In which they were looked at.
    era: u64,
    shares: BTreeMap<ShareId, HashSet<FileContent>>,
}

/// Above this the memory of a share is emptied: it saves work, nothing depends on it.
const KNOWN_MAX: usize = 4096;

impl Known {
    /// True when this was found complete in this era.
    pub fn has(&self, era: u64, share: ShareId, content: &FileContent) -> bool {
        self.era == era && self.shares.get(&share).is_some_and(|known| known.contains(content))
    }

    /// On the storage thread, in whose era: the blocks that came with the commit are held by now.
    pub fn learn(&mut self, share: ShareId, looked: &Looked) {
        if looked.era > self.era {
            *self = Self { era: looked.era, ..Self::default() };
        }
        let known = self.shares.entry(share).or_default();
        for content in looked.complete() {
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(content.clone());
        }
    }
}

/// Whose blocks are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// A commit can only name what its share reaches, or it would be a way to what others have.
    pub share: ShareId,
    /// Who committed.
    pub session: SessionId,
}
