//! Looking for the blocks of a commit before its turn comes; see [`Looked`](super::super::looked::Looked).

use super::super::content::{self, Held, Search};
use super::super::looked::Who;
use super::super::reach::{Asker, Tag};
use super::super::{Result, StorageError};
use super::{Reader, locate_for};
use crate::block::{SealedBlock, seal};
use crate::model::{BlockHash, Change, FileContent, NodeId};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

/// Blocks that came with the commit: they are held when its turn comes.
pub type Inline = Arc<HashMap<BlockHash, SealedBlock>>;

/// A content that is looked for, and the version before it.
pub type Sought = (FileContent, Option<FileContent>);

/// The contents with a chunk list that changes name, each once, with the node that is to have it.
pub fn lists(changes: &[Change]) -> Vec<(NodeId, FileContent)> {
    let named = changes.iter().filter_map(|change| Some((change.id, content::named(change)?)));
    named.filter(|(_, content)| content.root.level > 0).map(|(id, content)| (id, content.clone())).collect()
}

impl Reader {
    /// What has to be looked for in this era, each once; and what was found complete in it already.
    pub fn sought(
        &self,
        who: Who,
        era: u64,
        lists: Vec<(NodeId, FileContent)>,
    ) -> Result<(Vec<Sought>, Vec<FileContent>)> {
        let (mut sought, mut complete, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for (id, new) in lists {
            if seen.contains(&new) {
                continue;
            }
            let before = self.index.node(who.share, id).map_err(|error| self.shared.fail(error))?;
            let old = before.and_then(|node| node.state).and_then(|state| state.kind.content().cloned());
            // It stays what it is, whatever has become of its blocks.
            if old.as_ref() == Some(&new) {
                continue;
            }
            seen.insert(new.clone());
            let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.has(era, who.share, &new) { complete.push(new) } else { sought.push((new, old)) }
        }
        Ok((sought, complete))
    }

    /// One step of a search; with the blocks it looked at on which the session has a lease.
    pub fn search(
        &self,
        who: Who,
        search: &mut Search,
        inline: &Inline,
    ) -> Result<(Option<bool>, Vec<BlockHash>)> {
        let there = There { reader: self, who, inline, leased: RefCell::default() };
        let found = search.step(&there).map_err(|error| self.fatal_if_index(error))?;
        Ok((found, there.leased.into_inner()))
    }
}

struct There<'a> {
    reader: &'a Reader,
    who: Who,
    inline: &'a Inline,
    leased: RefCell<Vec<BlockHash>>,
}

impl There<'_> {
    /// Before anything is looked at: from now on it is not deleted in this era.
    fn name(&self, hashes: &[BlockHash]) {
        let mut leases = self.reader.shared.leases();
        let leased = hashes.iter().filter(|hash| leases.named(self.who.session, hash));
        self.leased.borrow_mut().extend(leased);
    }

    fn asker(&self) -> Asker {
        Asker::Share(Tag::of(self.who.share))
    }
}

impl Held for There<'_> {
    fn plain_lens(&self, hashes: &[BlockHash]) -> Result<Vec<Option<u32>>> {
        self.name(hashes);
        let len = |hash: &BlockHash| match self.inline.get(hash) {
            Some(sealed) => Ok(Some(sealed.plain_len)),
            None => {
                let found = locate_for(&self.reader.shared, &self.reader.index, self.asker(), hash)?;
                Ok(found.map(|location| location.plain_len))
            }
        };
        hashes.iter().map(len).collect()
    }

    fn plain(&self, hashes: &[BlockHash]) -> Result<Option<Vec<Bytes>>> {
        self.name(hashes);
        let asked: Vec<BlockHash> =
            hashes.iter().filter(|hash| !self.inline.contains_key(hash)).copied().collect();
        if asked.iter().any(|hash| self.reader.shared.is_damaged(hash)) {
            return Ok(None);
        }
        let found = match self.reader.get_many(self.asker(), &asked) {
            Ok(found) => found,
            Err(StorageError::DamagedBlock { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut found: HashMap<BlockHash, SealedBlock> =
            asked.into_iter().zip(found).filter_map(|(hash, sealed)| Some((hash, sealed?))).collect();
        let open = |hash: &BlockHash| {
            let sealed = self.inline.get(hash).cloned().or_else(|| found.remove(hash))?;
            seal::open(&sealed, None).ok().map(crate::block::Block::into_bytes)
        };
        Ok(hashes.iter().map(open).collect())
    }
}
