//! A tree plus differences, without copying the tree.

use super::Tree;
use crate::model::{Name, NodeId, NodeState, RelPath, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that differ from a base: the new state, or `None` for deleted.
pub type Diff = BTreeMap<NodeId, Option<NodeState>>;

/// "Base plus differences" as one tree that can be changed further.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    base: &'a Tree,
    changed: Diff,
    /// Live changed nodes by place. A set, because while trees are merged two nodes may claim one place.
    placed: BTreeMap<NodeId, BTreeMap<Name, BTreeSet<NodeId>>>,
}

impl<'a> Overlay<'a> {
    /// `base` with `changed` on top.
    pub fn new(base: &'a Tree, changed: &Diff) -> Self {
        let mut overlay = Self { base, changed: Diff::new(), placed: BTreeMap::new() };
        for (id, state) in changed {
            overlay.set(*id, state.clone());
        }
        overlay
    }

    /// The node, unless absent or deleted.
    pub fn state(&self, id: NodeId) -> Option<&NodeState> {
        match self.changed.get(&id) {
            Some(state) => state.as_ref(),
            None => self.base.get(id).map(|node| &node.state),
        }
    }

    /// True for the root and for live folders.
    pub fn is_live_folder(&self, id: NodeId) -> bool {
        id == NodeId::ROOT || self.state(id).is_some_and(|state| state.kind.is_folder())
    }

    /// Gives a node a new state, or deletes it.
    pub fn set(&mut self, id: NodeId, state: Option<NodeState>) {
        if let Some(Some(old)) = self.changed.get(&id)
            && let Some(names) = self.placed.get_mut(&old.parent)
        {
            if let Some(ids) = names.get_mut(&old.name) {
                ids.remove(&id);
                if ids.is_empty() {
                    names.remove(&old.name);
                }
            }
            if names.is_empty() {
                self.placed.remove(&old.parent);
            }
        }
        if let Some(new) = &state {
            self.placed.entry(new.parent).or_default().entry(new.name.clone()).or_default().insert(id);
        }
        self.changed.insert(id, state);
    }

    /// Every node that claims a place: more than one only while trees are merged. Ordered by id.
    pub fn at(&self, parent: NodeId, name: &Name) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self
            .placed
            .get(&parent)
            .and_then(|names| names.get(name))
            .into_iter()
            .flatten()
            .copied()
            .collect();
        if let Some(id) = self.base.child(parent, name)
            && !self.changed.contains_key(&id)
        {
            ids.push(id);
            ids.sort_unstable();
        }
        ids
    }

    /// True when a place is free.
    pub fn is_free(&self, parent: NodeId, name: &Name) -> bool {
        self.at(parent, name).is_empty()
    }

    /// The children of a folder, ordered by id.
    pub fn children(&self, parent: NodeId) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self
            .base
            .children(parent)
            .map(|(_, id)| id)
            .filter(|id| !self.changed.contains_key(id))
            .chain(self.placed.get(&parent).into_iter().flat_map(|names| names.values().flatten().copied()))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// True when the folder holds anything.
    pub fn has_children(&self, parent: NodeId) -> bool {
        self.placed.contains_key(&parent)
            || self.base.children(parent).any(|(_, id)| !self.changed.contains_key(&id))
    }

    /// The path of a live node; `None` when a folder above it is not live, or it lies in a cycle.
    pub fn path_of(&self, id: NodeId) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let state = self.state(at)?;
            names.push(state.name.clone());
            if names.len() > limits::PATH_DEPTH_MAX {
                return None;
            }
            at = state.parent;
        }
        names.reverse();
        Some(RelPath::from_names(names))
    }

    /// What differs from the base, including nodes that were set back to what the base has.
    pub const fn changed(&self) -> &Diff {
        &self.changed
    }

    /// The tree below.
    pub const fn base(&self) -> &'a Tree {
        self.base
    }
}
