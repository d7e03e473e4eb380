//! The structure of a merged tree: every live node has a live folder above it, no folder is inside itself, and no two
//! nodes have one name. Runs until nothing is left to look at.

use super::merge::Merger;
use crate::model::{Name, NodeId, NodeState, limits};
use crate::tree::Overlay;

impl Merger<'_> {
    /// Looks at the place of every node that the merge put somewhere, until all places are sound.
    pub(super) fn settle(&mut self) {
        while let Some(id) = self.queue.pop_front() {
            let Some(state) = self.merged.state(id).cloned() else { continue };
            if !self.merged.is_live_folder(state.parent) {
                self.revive(id, &state);
            } else if !self.break_cycle(id) {
                self.settle_name(&state);
            }
        }
        self.settle_copies();
    }

    /// A node whose local bytes live on as a copy may itself have gone (it was the same as another one). Then there is
    /// nothing to swap: what the disk has under the node is the copy.
    fn settle_copies(&mut self) {
        for (copy, source) in self.copies.clone() {
            if self.merged.state(source).is_some() || self.merged.state(copy).is_none() {
                continue;
            }
            let bytes = self.local.state(source).cloned();
            self.local.set(copy, bytes);
            self.local.set(source, None);
            self.copies.remove(&copy);
            self.adopted.insert(source, copy);
        }
    }

    /// Brings the folder above a live node back: where the server has it, else where the disk has it, else where it was.
    fn revive(&mut self, id: NodeId, state: &NodeState) {
        let parent = state.parent;
        let known = self.remote.state(parent).or_else(|| self.local.state(parent)).cloned();
        let known = known.or_else(|| self.merged.base().get(parent).map(|node| node.state.clone()));
        match known.filter(|folder| folder.kind.is_folder()) {
            Some(folder) => self.put(parent, Some(folder)),
            // Neither side ever showed the folder: better at the top than lost.
            None => {
                self.put(id, Some(NodeState { parent: NodeId::ROOT, ..state.clone() }));
                return;
            }
        }
        self.queue.push_back(id);
    }

    /// Puts folders that ended up inside each other back where the server has them. True when there was a cycle.
    fn break_cycle(&mut self, id: NodeId) -> bool {
        let mut chain = vec![id];
        let mut at = id;
        loop {
            let Some(parent) = self.merged.state(at).map(|state| state.parent) else { return false };
            if parent == NodeId::ROOT {
                return false;
            }
            if let Some(start) = chain.iter().position(|seen| *seen == parent) {
                let cycle = chain.split_off(start);
                self.undo_moves(&cycle);
                self.queue.push_back(id);
                return true;
            }
            if chain.len() > limits::PATH_DEPTH_MAX {
                return false;
            }
            chain.push(parent);
            at = parent;
        }
    }

    /// The server's tree has no cycle, so at least one folder of the cycle is where only this side put it.
    fn undo_moves(&mut self, cycle: &[NodeId]) {
        let mut undone = false;
        for id in cycle {
            let (Some(merged), remote) = (self.merged.state(*id).cloned(), self.remote.state(*id).cloned())
            else {
                continue;
            };
            if let Some(remote) = remote.filter(|remote| !remote.same_place(&merged)) {
                self.put(
                    *id,
                    Some(NodeState { parent: remote.parent, name: remote.name, kind: merged.kind }),
                );
                undone = true;
            }
        }
        if let (false, Some(id)) = (undone, cycle.first())
            && let Some(state) = self.merged.state(*id).cloned()
        {
            self.put(*id, Some(NodeState { parent: NodeId::ROOT, ..state }));
        }
    }

    /// Settles who has a name that several nodes claim.
    fn settle_name(&mut self, place: &NodeState) {
        let mut claims = self.merged.at(place.parent, &place.name);
        if claims.len() < 2 {
            return;
        }
        claims.sort_by_key(|id| self.claim_rank(*id, place));
        let (Some(winner), Some(loser)) = (claims.first().copied(), claims.get(1).copied()) else { return };
        let (Some(kept), Some(other)) =
            (self.merged.state(winner).cloned(), self.merged.state(loser).cloned())
        else {
            return;
        };
        match (kept.kind.is_folder(), other.kind.is_folder()) {
            (true, true) => self.absorb(loser, winner),
            (false, false) if kept.kind.same_content(&other.kind) => self.unite(loser, winner),
            _ => self.rename_aside(loser, other),
        }
        self.queue.push_back(winner);
    }

    /// Smaller ranks keep the name: folders before files, then the node the server has there, then known before new.
    fn claim_rank(&self, id: NodeId, place: &NodeState) -> (bool, bool, bool, NodeId) {
        let folder = self.merged.is_live_folder(id);
        let remote_here = self.remote.state(id).is_some_and(|remote| remote.same_place(place));
        let known = self.remote.state(id).is_some();
        (!folder, !remote_here, !known, id)
    }

    /// One folder takes in all that another of the same name holds.
    fn absorb(&mut self, loser: NodeId, winner: NodeId) {
        self.adopt(loser, winner);
        for child in self.merged.children(loser) {
            if let Some(state) = self.merged.state(child).cloned() {
                self.put(child, Some(NodeState { parent: winner, ..state }));
            }
        }
        self.put(loser, None);
    }

    /// Two files with the same bytes under one name are one file.
    fn unite(&mut self, loser: NodeId, winner: NodeId) {
        self.adopt(loser, winner);
        self.put(loser, None);
    }

    /// What the disk has under the loser's id is the winner from now on, unless the disk has the winner as well.
    fn adopt(&mut self, loser: NodeId, winner: NodeId) {
        if self.local.state(winner).is_some() || self.copies.contains_key(&loser) {
            return;
        }
        let Some(state) = self.local.state(loser).cloned() else { return };
        let children = self.local.children(loser);
        self.local.set(winner, Some(state));
        self.local.set(loser, None);
        for child in children {
            if let Some(state) = self.local.state(child).cloned() {
                self.local.set(child, Some(NodeState { parent: winner, ..state }));
                // A child that no side changed must be in the plan all the same: its folder has another id now.
                if let Some(merged) = self.merged.state(child).cloned() {
                    self.merged.set(child, Some(merged));
                }
            }
        }
        self.adopted.insert(loser, winner);
        self.copies.remove(&winner);
        self.adopters.insert(winner);
        if !self.adopters.contains(&loser) {
            return;
        }
        for target in self.adopted.values_mut().filter(|target| **target == loser) {
            *target = winner;
        }
        for source in self.copies.values_mut().filter(|source| **source == loser) {
            *source = winner;
        }
    }

    /// Gives the loser a conflict name, or drops it when a copy with its bytes stands there already.
    fn rename_aside(&mut self, loser: NodeId, state: NodeState) {
        let new_here = self.remote.state(loser).is_none() && self.merged.base().get(loser).is_none();
        if new_here
            && !self.copies.contains_key(&loser)
            && self.has_copy(loser, state.parent, &state.name, &state.kind)
        {
            self.put(loser, None);
            return;
        }
        let kept = self.kept_name(loser, &state);
        let name = kept.unwrap_or_else(|| self.free_name(state.parent, &state.name));
        self.put(loser, Some(NodeState { name, ..state }));
    }

    /// The conflict name that the disk has the loser under already, if nothing else claims it. What waits for its bytes
    /// is decided anew in each round: with another name each time it would never rest.
    fn kept_name(&self, loser: NodeId, state: &NodeState) -> Option<Name> {
        let here = self.local.state(loser).filter(|here| here.parent == state.parent)?;
        let bare = |name: &Name| super::names::original_of(name);
        let original = bare(&state.name).unwrap_or_else(|| state.name.as_bytes().to_vec());
        let is_alone =
            |overlay: &Overlay<'_>| overlay.at(state.parent, &here.name).iter().all(|id| *id == loser);
        let free = is_alone(&self.merged) && is_alone(&self.local) && is_alone(&self.remote);
        (here.name != state.name && bare(&here.name) == Some(original) && free).then(|| here.name.clone())
    }
}
