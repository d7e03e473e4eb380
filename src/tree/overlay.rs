//! A tree plus differences, without copying either.

use super::Tree;
use crate::model::{Name, NodeId, NodeState, RelPath, limits};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that differ from a base: the new state, or `None` for deleted.
pub type Diff = BTreeMap<NodeId, Option<NodeState>>;

/// Live changed nodes by place. A set, because while trees are merged two nodes may claim one place.
type Placed = BTreeMap<NodeId, BTreeMap<Name, BTreeSet<NodeId>>>;

static NOTHING: Diff = Diff::new();

/// "Base plus differences" as one tree that can be changed further.
///
/// The differences are borrowed, and what is [set](Self::set) lies on top of them. Nothing is indexed by name until
/// somebody asks for a name, so an overlay that is only asked for nodes and their paths costs nothing to make.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    base: &'a Tree,
    under: &'a Diff,
    over: Diff,
    placed: OnceCell<Placed>,
}

impl<'a> Overlay<'a> {
    /// `base` with `changed` on top.
    pub const fn new(base: &'a Tree, changed: &'a Diff) -> Self {
        Self { base, under: changed, over: Diff::new(), placed: OnceCell::new() }
    }

    /// `base` as it is.
    pub fn on(base: &'a Tree) -> Self {
        Self::new(base, &NOTHING)
    }

    /// What differs for this node, if anything does.
    fn difference(&self, id: NodeId) -> Option<Option<&NodeState>> {
        self.over.get(&id).or_else(|| self.under.get(&id)).map(Option::as_ref)
    }

    /// True when the node differs from the base, or was set back to what the base has.
    fn is_changed(&self, id: NodeId) -> bool {
        self.over.contains_key(&id) || self.under.contains_key(&id)
    }

    /// The node, unless absent or deleted.
    pub fn state(&self, id: NodeId) -> Option<&NodeState> {
        match self.difference(id) {
            Some(state) => state,
            None => self.base.get(id).map(|node| &node.state),
        }
    }

    /// True for the root and for live folders.
    pub fn is_live_folder(&self, id: NodeId) -> bool {
        id == NodeId::ROOT || self.state(id).is_some_and(|state| state.kind.is_folder())
    }

    fn placed(&self) -> &Placed {
        self.placed.get_or_init(|| {
            let mut placed = Placed::new();
            let under = self.under.iter().filter(|(id, _)| !self.over.contains_key(id));
            for (id, state) in under.chain(&self.over) {
                if let Some(state) = state {
                    place(&mut placed, *id, state);
                }
            }
            placed
        })
    }

    /// Gives a node a new state, or deletes it.
    pub fn set(&mut self, id: NodeId, state: Option<NodeState>) {
        if let Some(placed) = self.placed.get_mut() {
            let old = self.over.get(&id).or_else(|| self.under.get(&id));
            if let Some(Some(old)) = old
                && let Some(names) = placed.get_mut(&old.parent)
            {
                if let Some(ids) = names.get_mut(&old.name) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        names.remove(&old.name);
                    }
                }
                if names.is_empty() {
                    placed.remove(&old.parent);
                }
            }
            if let Some(new) = &state {
                place(placed, id, new);
            }
        }
        self.over.insert(id, state);
    }

    /// Every node that claims a place: more than one only while trees are merged. Ordered by id.
    pub fn at(&self, parent: NodeId, name: &Name) -> Vec<NodeId> {
        let placed = self.placed().get(&parent).and_then(|names| names.get(name));
        let mut ids: Vec<NodeId> = placed.into_iter().flatten().copied().collect();
        if let Some(id) = self.base_at(parent, name) {
            ids.push(id);
            ids.sort_unstable();
        }
        ids
    }

    /// The node of the base at a place, if it does not differ.
    fn base_at(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        self.base.child(parent, name).filter(|id| !self.is_changed(*id))
    }

    /// True when a place is free.
    pub fn is_free(&self, parent: NodeId, name: &Name) -> bool {
        let placed = self.placed().get(&parent).is_some_and(|names| names.contains_key(name));
        !placed && self.base_at(parent, name).is_none()
    }

    /// The children of a folder, ordered by id.
    pub fn children(&self, parent: NodeId) -> Vec<NodeId> {
        let placed = self.placed().get(&parent).into_iter();
        let mut ids: Vec<NodeId> = self
            .base
            .children(parent)
            .map(|(_, id)| id)
            .filter(|id| !self.is_changed(*id))
            .chain(placed.flat_map(|names| names.values().flatten().copied()))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// True when the folder holds anything.
    pub fn has_children(&self, parent: NodeId) -> bool {
        self.placed().contains_key(&parent) || self.base.children(parent).any(|(_, id)| !self.is_changed(id))
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

    /// How many folders a live node lies deep, itself included: as many names as [`path_of`](Self::path_of) has.
    pub fn depth_of(&self, id: NodeId) -> Option<usize> {
        let (mut at, mut depth) = (id, 0);
        while at != NodeId::ROOT {
            depth += 1;
            if depth > limits::PATH_DEPTH_MAX {
                return None;
            }
            at = self.state(at)?.parent;
        }
        Some(depth)
    }

    /// Nodes that differ from the base, including those that were set back to what the base has. A node that was set
    /// comes twice when it differed before.
    pub fn changed_ids(&self) -> impl Iterator<Item = NodeId> {
        self.under.keys().chain(self.over.keys()).copied()
    }

    /// What differs from the base, including nodes that were set back to what the base has.
    pub fn into_changed(self) -> Diff {
        if self.under.is_empty() {
            return self.over;
        }
        let mut changed = self.under.clone();
        changed.extend(self.over);
        changed
    }

    /// The tree below.
    pub const fn base(&self) -> &'a Tree {
        self.base
    }
}

fn place(placed: &mut Placed, id: NodeId, state: &NodeState) {
    placed.entry(state.parent).or_default().entry(state.name.clone()).or_default().insert(id);
}
