//! A share of the index behind the gate, which is let go every so many look-ups: commits wait for one step of a question
//! about the past, and not for all of it.
//!
//! What is past stays as it is, and a node is looked up before its past: commits in between are as those between two pages.

use crate::model::{Name, Node, NodeId, Seq};
use crate::storage::Result;
use crate::storage::sled::{CommitInfo, Replaced, ShareIndex};
use crate::storage::timeline::Timeline;
use std::cell::{Cell, RefCell};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Look-ups of one step: some 2 ms.
const STEP_LOOKS: usize = 1024;

/// See the module. Holds the gate until it is dropped.
pub(super) struct Paced<'a> {
    line: ShareIndex<'a>,
    gate: &'a RwLock<()>,
    held: RefCell<Option<RwLockReadGuard<'a, ()>>>,
    left: Cell<usize>,
    /// How often it let go.
    #[cfg(test)]
    pub(super) steps: Cell<usize>,
}

impl<'a> Paced<'a> {
    /// Takes the gate before `line` is made of what is behind it.
    pub(super) fn new(gate: &'a RwLock<()>, line: impl FnOnce() -> Result<ShareIndex<'a>>) -> Result<Self> {
        let held = gate.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            line: line()?,
            gate,
            held: RefCell::new(Some(held)),
            left: Cell::new(STEP_LOOKS),
            #[cfg(test)]
            steps: Cell::new(0),
        })
    }

    fn look(&self, looks: usize) -> &ShareIndex<'a> {
        if self.left.get() == 0 {
            self.left.set(STEP_LOOKS);
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            // Whoever waits to write goes first.
            self.held.replace(None);
            self.held.replace(Some(self.gate.read().unwrap_or_else(PoisonError::into_inner)));
        }
        self.left.set(self.left.get().saturating_sub(looks));
        &self.line
    }
}

impl Timeline for Paced<'_> {
    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        self.look(1).node(id)
    }

    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>> {
        self.look(1).replaced(id, at)
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        self.look(1).child(parent, name)
    }

    fn left_next(&self, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>> {
        self.look(1).left_next(parent, name, at)
    }

    fn left_last(&self, parent: NodeId, name: &Name, max: usize) -> Result<Vec<(NodeId, Seq)>> {
        self.look(max).left_last(parent, name, max)
    }

    fn children_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        self.look(max).children_after(parent, after, max)
    }

    fn left_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>> {
        self.look(2 * max).left_after(parent, after, at, max)
    }

    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>> {
        self.look(2 * max).log_before(before, max)
    }

    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>> {
        self.look(1).commit(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ShareId;
    use crate::storage::sled::Index;
    use std::time::Duration;

    #[test]
    fn a_long_question_lets_commits_in_every_so_many_look_ups() {
        let folder = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(folder.path(), Duration::from_secs(30)).unwrap();
        let gate = RwLock::new(());
        let line = ShareIndex { share: ShareId::from_bytes([1; 16]), index: &index };
        let paced = Paced::new(&gate, || Ok(line)).unwrap();
        for _ in 0..STEP_LOOKS {
            paced.node(NodeId::ROOT).unwrap();
        }
        assert!(gate.try_write().is_err(), "it is held meanwhile");
        assert_eq!(paced.steps.get(), 0);
        for _ in 0..3 * STEP_LOOKS {
            paced.replaced(NodeId::ROOT, Seq(1)).unwrap();
        }
        assert_eq!(paced.steps.get(), 3);
        paced.log_before((Seq(1), NodeId::ROOT), STEP_LOOKS).unwrap();
        paced.commit(Seq(1)).unwrap();
        assert_eq!(paced.steps.get(), 5, "a list counts for as many as it may have");
        drop(paced);
        assert!(gate.try_write().is_ok());
    }
}
