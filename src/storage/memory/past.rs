//! What the reference remembers of a share.

use super::{MemoryStore, Share};
use crate::model::past::{Found, Look, Moment, Seen, Versions};
use crate::model::{Name, Node, NodeId, Seq};
use crate::storage::history::{self, History};
use crate::storage::sled::{CommitInfo, Replaced};
use crate::storage::timeline::{self, Timeline};
use crate::storage::{BoxFuture, Result, ShareId};
use crate::tree::Nodes;
use std::collections::BTreeSet;

impl Share {
    fn floor(&self, now_ms: u64, keep_ms: u64) -> Result<Seq> {
        history::floor_by(self.head.seq, now_ms, keep_ms, |seq| self.commit(seq))
    }
}

impl Timeline for Share {
    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        Ok(self.nodes.get(&id).cloned())
    }

    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>> {
        Ok(self.past.range((id, Seq::ZERO)..=(id, at)).next_back().map(|(_, replaced)| replaced.clone()))
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        Nodes::child(self, parent, name)
    }

    fn left_next(&self, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>> {
        let mut all =
            self.left.iter().filter(|(folder, named, by, _)| *folder == parent && named == name && *by > at);
        Ok(all.next().map(|(.., id)| *id))
    }

    fn left_last(&self, parent: NodeId, name: &Name, max: usize) -> Result<Vec<(NodeId, Seq)>> {
        let all = self.left.iter().rev().filter(|(folder, named, ..)| *folder == parent && named == name);
        Ok(all.map(|(.., by, id)| (*id, *by)).take(max).collect())
    }

    fn children_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        let all = self.places.iter().filter(|((folder, name), _)| *folder == parent && Some(name) > after);
        Ok(all.map(|((_, name), id)| (name.clone(), *id)).take(max).collect())
    }

    fn left_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>> {
        let all = self.left.iter().filter(|(folder, name, ..)| *folder == parent && Some(name) > after);
        let names: BTreeSet<&Name> = all.map(|(_, name, ..)| name).collect();
        let next = |name: &Name| Ok((name.clone(), self.left_next(parent, name, at)?));
        names.into_iter().take(max).map(next).collect()
    }

    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>> {
        let past = self.past.keys().map(|(id, seq)| (*seq, *id));
        let mut all: Vec<_> = past.chain(self.versions.iter().copied()).filter(|at| *at < before).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(max);
        Ok(all)
    }

    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>> {
        Ok(usize::try_from(seq.0).ok().and_then(|seq| self.commits.get(seq)).cloned())
    }
}

impl History for MemoryStore {
    fn moment(&self, share: ShareId, at: Moment) -> BoxFuture<'_, Result<Found>> {
        Box::pin(
            self.ask(share, |share, now_ms, keep_ms| {
                history::find(share, share.head.seq, now_ms, keep_ms, at)
            }),
        )
    }

    fn versions(
        &self,
        share: ShareId,
        path: Vec<Name>,
        before: Option<(Seq, NodeId)>,
        max: usize,
    ) -> BoxFuture<'_, Result<Versions>> {
        Box::pin(self.ask(share, |share, now_ms, keep_ms| {
            timeline::versions(share, share.floor(now_ms, keep_ms)?, &path, before, max)
        }))
    }

    fn look(&self, share: ShareId, at: Seq, look: Look, max: usize) -> BoxFuture<'_, Result<Seen>> {
        Box::pin(self.ask(share, |share, now_ms, keep_ms| {
            let at = at.min(share.head.seq);
            timeline::look(share, share.floor(now_ms, keep_ms)?, at, &look, max)
        }))
    }
}
