//! The client's decisions, without IO: what differs on either side, what to do about it, and what both sides agree on
//! once it is done. The session feeds events in (`observe`, `remote_changed`, `committed`, …) and carries plans out.

use crate::model::{Change, IdSource, Node, NodeId, NodeState, Refusal, Seq};
use crate::reconcile::{self, DiskOp, Merge, Origin, Sides};
use crate::tree::{Diff, Overlay, Tree, TreeNode};
use std::collections::{BTreeMap, BTreeSet};

/// A row of the base tree to be saved: the node both sides agree on now, or `None` when both agree it is gone.
pub type Agreed = (NodeId, Option<TreeNode>);

/// What to do, in this order: the disk operations, then [`Cycle::changes`].
#[derive(Debug, Default)]
pub struct Plan {
    /// Operations on the folder.
    pub ops: Vec<DiskOp>,
    /// What both sides shall have.
    pub merge: Merge,
    /// Nodes of which the server has news that the merge was not shown. Nothing may be sent on top of them.
    pub waits: BTreeSet<NodeId>,
}

/// Differences of both sides against the base.
#[derive(Debug)]
pub struct Cycle {
    ids: IdSource,
    /// What the disk shows, where it differs from the base.
    local: Diff,
    /// What the server has at a newer version than the base.
    remote: BTreeMap<NodeId, Node>,
    /// Nodes of which something changed since the last [`Cycle::agree`]: the others still differ.
    unsure: BTreeSet<NodeId>,
}

impl Cycle {
    /// Nothing differs yet.
    pub const fn new(ids: IdSource) -> Self {
        Self { ids, local: Diff::new(), remote: BTreeMap::new(), unsure: BTreeSet::new() }
    }

    /// Fresh ids for nodes that are new on this disk.
    pub const fn ids(&mut self) -> &mut IdSource {
        &mut self.ids
    }

    /// What the server has for a node, where it is newer than the base.
    pub fn remote_state(&self, id: NodeId) -> Option<&NodeState> {
        self.remote.get(&id)?.state.as_ref()
    }

    /// The node that both sides agree on once the disk has `state`, if that is what the server has.
    pub fn agreed_by(&self, id: NodeId, state: &NodeState) -> Option<TreeNode> {
        let node = self.remote.get(&id).filter(|node| node.state.as_ref() == Some(state))?;
        Some(TreeNode { version: node.version, state: state.clone() })
    }

    /// What the disk shows, where it differs from the base.
    pub const fn local(&self) -> &Diff {
        &self.local
    }

    /// The disk as far as it is known: base plus local differences.
    pub const fn disk<'a>(&'a self, base: &'a Tree) -> Overlay<'a> {
        Overlay::new(base, &self.local)
    }

    /// The version a change of `id` would be made on top of.
    fn version(&self, base: &Tree, id: NodeId) -> Seq {
        match self.remote.get(&id) {
            Some(node) => node.version,
            None => base.get(id).map_or(Seq::ZERO, |node| node.version),
        }
    }

    /// The disk shows `state` for a node now.
    pub fn observe(&mut self, base: &Tree, id: NodeId, state: Option<NodeState>) {
        self.unsure.insert(id);
        if base.get(id).map(|node| &node.state) == state.as_ref() {
            self.local.remove(&id);
        } else {
            self.local.insert(id, state);
        }
    }

    /// What the disk shows for a node is not to be sent now; the next look finds it again.
    pub fn put_off(&mut self, id: NodeId) {
        self.unsure.insert(id);
        self.local.remove(&id);
    }

    /// The server has these nodes now. Older news than what is known is ignored.
    pub fn remote_changed(&mut self, base: &Tree, nodes: Vec<Node>) {
        for node in nodes {
            let known = self.version(base, node.id);
            if node.version > known {
                self.unsure.insert(node.id);
                self.remote.insert(node.id, node);
            }
        }
    }

    /// The server deleted this node, and the base does not know it yet.
    pub fn is_deleted_there(&self, id: NodeId) -> bool {
        self.remote.get(&id).is_some_and(|node| node.state.is_none())
    }

    /// What this client had sent when the connection or the program ended, and the server took: both sides agree on it,
    /// although no answer came. Must be asked before a scan and a plan, or the server's node looks like another device's
    /// work. Returns for each recognised node the index in `sent`, and what to save.
    ///
    /// Only a node that is exactly as sent is recognised: with someone's edit on top nobody knows whether the edit was
    /// made on top, so both versions are kept. A node whose folder the base does not have yet waits for its folder.
    pub fn recognise(&mut self, base: &Tree, sent: &[(NodeId, Option<&NodeState>)]) -> Vec<(usize, Agreed)> {
        let mut recognised = Vec::new();
        let mut folders = BTreeSet::new();
        loop {
            let before = recognised.len();
            for (index, (id, state)) in sent.iter().enumerate() {
                let Some(node) = self.remote.get(id).filter(|node| node.state.as_ref() == *state) else {
                    continue;
                };
                let version = node.version;
                let in_base = |folder| base.get(folder).is_some() || folders.contains(&folder);
                if state.is_some_and(|state| state.parent != NodeId::ROOT && !in_base(state.parent)) {
                    continue;
                }
                self.remote.remove(id);
                let node = state.cloned().map(|state| TreeNode { version, state });
                folders.extend(node.as_ref().filter(|node| node.state.kind.is_folder()).map(|_| *id));
                recognised.push((index, (*id, node)));
            }
            if recognised.len() == before {
                return recognised;
            }
        }
    }

    /// True when nothing differs, apart from nodes that are gone there and stay here.
    pub fn is_settled(&self, stays: &BTreeSet<NodeId>) -> bool {
        self.local.is_empty() && self.has_applied_but(stays)
    }

    /// True when everything the server told is on the disk, apart from nodes that are gone there and stay here.
    pub fn has_applied_but(&self, stays: &BTreeSet<NodeId>) -> bool {
        self.remote.keys().all(|id| stays.contains(id))
    }

    /// True when everything the server told is on the disk.
    pub fn has_applied_all(&self) -> bool {
        self.remote.is_empty()
    }

    /// Forgets what was observed on disk; a full scan follows.
    pub fn forget_local(&mut self) {
        self.unsure.extend(std::mem::take(&mut self.local).into_keys());
    }

    /// Forgets everything about the server: another journal answers.
    pub fn forget_remote(&mut self) {
        self.remote.clear();
    }

    /// Merges all differences, except those of `held` nodes, of folders above them that would go, and of files that would
    /// take their names.
    pub fn plan(&mut self, base: &Tree, origin: Origin<'_>, held: &BTreeSet<NodeId>) -> Plan {
        let waits = self.waiting(base, held);
        let mut skip = self.skipped(base, held);
        skip.extend(&waits);
        let remote: Diff = self
            .remote
            .iter()
            .filter(|(id, _)| !skip.contains(id))
            .map(|(id, node)| (*id, node.state.clone()))
            .collect();
        // Taken and given back: of a first sync of many files, each copy takes its share of memory.
        let mut local = std::mem::take(&mut self.local);
        let mut kept: Diff = skip.iter().filter_map(|id| local.remove_entry(id)).collect();
        if local.is_empty() && remote.is_empty() {
            self.local = kept;
            return Plan::default();
        }
        let sides = Sides { base, local: &local, remote: &remote };
        let mut merge = reconcile::reconcile(sides, origin, &mut self.ids);
        drop(remote);
        let ops = reconcile::plan_disk(base, &merge);
        self.unsure.extend(local.into_keys().chain(merge.adopted.keys().copied()));
        for id in merge.adopted.keys() {
            kept.remove(id);
        }
        for (id, state) in std::mem::take(&mut merge.local) {
            if !skip.contains(&id) {
                self.unsure.insert(id);
                if base.get(id).map(|node| &node.state) == state.as_ref() {
                    kept.remove(&id);
                } else {
                    kept.insert(id, state);
                }
            }
        }
        self.local = kept;
        Plan { ops, merge, waits }
    }

    /// Held nodes of which the server has news, and files of others that take the names which these have here until then.
    fn waiting(&self, base: &Tree, held: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut waits: BTreeSet<NodeId> =
            held.iter().filter(|id| self.remote.contains_key(id)).copied().collect();
        let disk = self.disk(base);
        let mut before = 0;
        // Who waits keeps a name from others in turn.
        while before < waits.len() {
            before = waits.len();
            for (id, node) in &self.remote {
                let Some(state) = node.state.as_ref().filter(|state| !state.kind.is_folder()) else {
                    continue;
                };
                if disk.at(state.parent, &state.name).iter().any(|here| here != id && waits.contains(here)) {
                    waits.insert(*id);
                }
            }
        }
        waits
    }

    /// Held nodes, and changed folders above them that one side deleted: those wait for the node.
    fn skipped(&self, base: &Tree, held: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut skip = held.clone();
        let disk = self.disk(base);
        for id in skip.clone() {
            let Some(parent) = disk.state(id).map(|state| state.parent) else { continue };
            // Also a folder that is not in the base any more.
            let above = base.upwards(parent).map(|(folder, _)| folder).chain([parent]);
            for folder in above.filter(|folder| *folder != NodeId::ROOT) {
                let gone_there = self.remote.get(&folder).is_some_and(|node| node.state.is_none());
                if gone_there || disk.state(folder).is_none() {
                    skip.insert(folder);
                }
            }
        }
        skip
    }

    /// What to commit: every node that the disk has as planned and the server has not. Sorted so that a prefix of any
    /// length is likely to stand: files that go, then what comes from the outside in, then folders that go.
    pub fn changes(&self, base: &Tree, plan: &Plan) -> Vec<Change> {
        let disk = self.disk(base);
        let mut changes = Vec::new();
        for (id, goal) in &plan.merge.nodes {
            let there = match self.remote.get(id) {
                Some(node) => node.state.as_ref(),
                None => base.get(*id).map(|node| &node.state),
            };
            if disk.state(*id) != goal.as_ref() || there == goal.as_ref() || plan.waits.contains(id) {
                continue;
            }
            let depth = disk.depth_of(*id).unwrap_or(0);
            let folder_goes = goal.is_none() && there.is_some_and(|state| state.kind.is_folder());
            let rank = match (goal, folder_goes) {
                (None, false) => (0, 0),
                (Some(_), _) => (1, depth),
                (None, true) => (2, usize::MAX - base.path_of(*id).map_or(0, |path| path.names().len())),
            };
            changes.push((rank, Change { id: *id, base: self.version(base, *id), state: goal.clone() }));
        }
        changes.sort_by_key(|(rank, change)| (*rank, change.id));
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// The server took a commit. Returns what to save.
    pub fn committed(
        &mut self,
        base: &Tree,
        changes: &[Change],
        refused: &[(u32, Refusal)],
        version: Seq,
    ) -> Vec<Agreed> {
        let refused: BTreeSet<usize> =
            refused.iter().filter_map(|(index, _)| usize::try_from(*index).ok()).collect();
        let mut agreed = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if refused.contains(&index) {
                continue;
            }
            self.unsure.insert(change.id);
            let newer = self.remote.get(&change.id).is_some_and(|node| node.version > version);
            if !newer {
                self.remote.remove(&change.id);
            }
            // The disk may have moved on while the commit was on its way: then the difference stays.
            if self.local.get(&change.id).is_none_or(|disk| *disk == change.state) {
                self.local.remove(&change.id);
            }
            let known = change.state.is_some() || base.get(change.id).is_some();
            if known {
                let node = change.state.clone().map(|state| TreeNode { version, state });
                agreed.push((change.id, node));
            }
        }
        agreed
    }

    /// What both sides have alike by now. Returns what to save.
    pub fn agree(&mut self, base: &Tree) -> Vec<Agreed> {
        let unsure = std::mem::take(&mut self.unsure);
        let disk = self.disk(base);
        let is_alike = |node: &&Node| disk.state(node.id) == node.state.as_ref();
        let alike: Vec<NodeId> =
            unsure.iter().filter_map(|id| self.remote.get(id)).filter(is_alike).map(|node| node.id).collect();
        let mut agreed = Vec::new();
        for id in alike {
            let Some(node) = self.remote.remove(&id) else { continue };
            self.local.remove(&id);
            if node.state.is_some() || base.get(id).is_some() {
                agreed.push((id, node.state.map(|state| TreeNode { version: node.version, state })));
            }
        }
        // Made here and gone again before anyone else knew.
        for id in unsure {
            if self.local.get(&id).is_some_and(Option::is_none) && base.get(id).is_none() {
                self.local.remove(&id);
            }
        }
        agreed
    }
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;
