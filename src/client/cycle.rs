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
}

/// Differences of both sides against the base.
#[derive(Debug)]
pub struct Cycle {
    ids: IdSource,
    /// What the disk shows, where it differs from the base.
    local: Diff,
    /// What the server has at a newer version than the base.
    remote: BTreeMap<NodeId, Node>,
    /// Nodes that something is under way for; plans leave them alone.
    busy: BTreeSet<NodeId>,
}

impl Cycle {
    /// Nothing differs yet.
    pub const fn new(ids: IdSource) -> Self {
        Self { ids, local: Diff::new(), remote: BTreeMap::new(), busy: BTreeSet::new() }
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
    pub fn disk<'a>(&self, base: &'a Tree) -> Overlay<'a> {
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
        if base.get(id).map(|node| &node.state) == state.as_ref() {
            self.local.remove(&id);
        } else {
            self.local.insert(id, state);
        }
    }

    /// The server has these nodes now. Older news than what is known is ignored.
    pub fn remote_changed(&mut self, base: &Tree, nodes: Vec<Node>) {
        for node in nodes {
            let known = self.version(base, node.id);
            if node.version > known {
                self.remote.insert(node.id, node);
            }
        }
    }

    /// True when nothing differs and nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.busy.is_empty()
    }

    /// True when everything the server told is on the disk.
    pub fn has_applied_all(&self) -> bool {
        self.remote.is_empty()
    }

    /// Forgets what was observed on disk; a full scan follows.
    pub fn forget_local(&mut self) {
        self.local.clear();
    }

    /// Forgets everything about the server: another journal answers.
    pub fn forget_remote(&mut self) {
        self.remote.clear();
    }

    /// Something is under way for a node.
    pub fn set_busy(&mut self, id: NodeId, busy: bool) {
        if busy {
            self.busy.insert(id);
        } else {
            self.busy.remove(&id);
        }
    }

    /// True while something is under way for a node.
    pub fn is_busy(&self, id: NodeId) -> bool {
        self.busy.contains(&id)
    }

    /// True while something is under way for any node.
    pub fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Merges all differences, except those of `held` nodes and busy ones and of folders above them that would go.
    pub fn plan(&mut self, base: &Tree, origin: Origin<'_>, held: &BTreeSet<NodeId>) -> Plan {
        let skip = self.skipped(base, held);
        let local: Diff = self
            .local
            .iter()
            .filter(|(id, _)| !skip.contains(id))
            .map(|(id, state)| (*id, state.clone()))
            .collect();
        let remote: Diff = self
            .remote
            .iter()
            .filter(|(id, _)| !skip.contains(id))
            .map(|(id, node)| (*id, node.state.clone()))
            .collect();
        if local.is_empty() && remote.is_empty() {
            return Plan::default();
        }
        let merge =
            reconcile::reconcile(Sides { base, local: &local, remote: &remote }, origin, &mut self.ids);
        let ops = reconcile::plan_disk(base, &merge);
        for id in local.keys().chain(merge.adopted.keys()) {
            self.local.remove(id);
        }
        for (id, state) in &merge.local {
            if !skip.contains(id) {
                self.observe(base, *id, state.clone());
            }
        }
        Plan { ops, merge }
    }

    /// Busy and held nodes, and changed folders above them that one side deleted: those wait for the node.
    fn skipped(&self, base: &Tree, held: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut skip: BTreeSet<NodeId> = self.busy.union(held).copied().collect();
        let disk = self.disk(base);
        for id in skip.clone() {
            let mut at = disk.state(id).map(|state| state.parent);
            while let Some(folder) = at.filter(|folder| *folder != NodeId::ROOT) {
                let gone_there = self.remote.get(&folder).is_some_and(|node| node.state.is_none());
                if gone_there || disk.state(folder).is_none() {
                    skip.insert(folder);
                }
                at = base.get(folder).map(|node| node.state.parent);
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
            if disk.state(*id) != goal.as_ref() || there == goal.as_ref() || self.busy.contains(id) {
                continue;
            }
            let depth = disk.path_of(*id).map_or(0, |path| path.names().len());
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
            let newer = self.remote.get(&change.id).is_some_and(|node| node.version > version);
            if !newer {
                self.remote.remove(&change.id);
            }
            // The disk may have moved on while the commit was on its way: then the difference stays.
            let disk = self.local.get(&change.id).cloned();
            if disk.as_ref() == Some(&change.state) || disk.is_none() {
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
        let disk = self.disk(base);
        let alike: Vec<NodeId> = self
            .remote
            .values()
            .filter(|node| !self.busy.contains(&node.id) && disk.state(node.id) == node.state.as_ref())
            .map(|node| node.id)
            .collect();
        let mut agreed = Vec::new();
        for id in alike {
            let Some(node) = self.remote.remove(&id) else { continue };
            self.local.remove(&id);
            if node.state.is_some() || base.get(id).is_some() {
                agreed.push((id, node.state.map(|state| TreeNode { version: node.version, state })));
            }
        }
        // Made here and gone again before anyone else knew.
        self.local.retain(|id, state| state.is_some() || base.get(*id).is_some());
        agreed
    }
}
