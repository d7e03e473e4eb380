//! The live nodes of a share, with an index of children by name.

use crate::model::id_map::IdMap;
use crate::model::{Name, NodeId, NodeState, RelPath, Seq, limits};
use std::collections::{BTreeMap, BTreeSet};

/// A live node and the version it is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// The commit that changed it last.
    pub version: Seq,
    /// Where it is and what it is.
    pub state: NodeState,
}

/// All live nodes of a share at one moment. [`NodeId::ROOT`] exists always and is not stored.
///
/// Two nodes may claim one place: a client agrees node by node, so one may have arrived where another, whose own move is
/// still to come, was before, or a folder may be gone before what was in it has moved. Such nodes are
/// [unreachable](Self::unreachable) until their own change comes.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: IdMap<NodeId, TreeNode>,
    children: IdMap<NodeId, BTreeMap<Name, NodeId>>,
    /// Nodes whose place is held by another node.
    shadowed: BTreeSet<NodeId>,
    /// Folders that are not here although nodes lie in them.
    absent: BTreeSet<NodeId>,
}

impl Tree {
    /// An empty share.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node, unless it is absent or the root.
    pub fn get(&self, id: NodeId) -> Option<&TreeNode> {
        self.nodes.get(&id)
    }

    /// The node with that name in that folder.
    pub fn child(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        self.children.get(&parent)?.get(name).copied()
    }

    /// The children of a folder, ordered by name.
    pub fn children(&self, parent: NodeId) -> impl Iterator<Item = (&Name, NodeId)> {
        self.children.get(&parent).into_iter().flatten().map(|(name, id)| (name, *id))
    }

    /// True when the folder holds anything.
    pub fn has_children(&self, parent: NodeId) -> bool {
        self.children.contains_key(&parent)
    }

    /// Adds a node, or gives it a new version and state (also a new place). Returns what it replaced.
    pub fn insert(&mut self, id: NodeId, node: TreeNode) -> Option<TreeNode> {
        let old = self.nodes.insert(id, node.clone());
        if let Some(old) = &old {
            if old.state.same_place(&node.state) {
                return Some(old.clone());
            }
            self.unlink(id, &old.state);
        }
        self.shadowed.remove(&id);
        self.absent.remove(&id);
        if node.state.parent != NodeId::ROOT && !self.nodes.contains_key(&node.state.parent) {
            self.absent.insert(node.state.parent);
        }
        let holder = self.children.entry(node.state.parent).or_default().insert(node.state.name, id);
        self.shadowed.extend(holder.filter(|holder| *holder != id));
        old
    }

    /// Takes a node out. Its children stay and are for the caller to move or remove.
    pub fn remove(&mut self, id: NodeId) -> Option<TreeNode> {
        let old = self.nodes.remove(&id)?;
        self.shadowed.remove(&id);
        if self.children.contains_key(&id) {
            self.absent.insert(id);
        }
        self.unlink(id, &old.state);
        Some(old)
    }

    /// Nodes that no walk from the root comes by, because another node holds their place or their folder is not here;
    /// without what lies in them.
    pub fn unreachable(&self) -> impl Iterator<Item = NodeId> {
        let orphans = self.absent.iter().flat_map(|folder| self.children(*folder).map(|(_, id)| id));
        self.shadowed.iter().copied().chain(orphans)
    }

    /// Drops the index entry of `id` at its old place, unless another node has taken the place meanwhile. The place goes
    /// to a node that it shadowed.
    fn unlink(&mut self, id: NodeId, state: &NodeState) {
        if self.child(state.parent, &state.name) != Some(id) {
            return;
        }
        let nodes = &self.nodes;
        let claims = |other: &&NodeId| nodes.get(other).is_some_and(|node| node.state.same_place(state));
        let heir = self.shadowed.iter().find(claims).copied();
        if let Some(siblings) = self.children.get_mut(&state.parent) {
            match heir {
                Some(heir) => drop(siblings.insert(state.name.clone(), heir)),
                None => drop(siblings.remove(&state.name)),
            }
            if siblings.is_empty() {
                self.children.remove(&state.parent);
                self.absent.remove(&state.parent);
            }
        }
        if let Some(heir) = heir {
            self.shadowed.remove(&heir);
        }
    }

    /// How many nodes, without the root.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True for an empty share.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &TreeNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A node and the folders above it, innermost first, without the root. Never more than a path may have: while only a
    /// part of a change is agreed on, folders may lie in each other, and a server may have made its tree up.
    pub fn upwards(&self, id: NodeId) -> impl Iterator<Item = (NodeId, &TreeNode)> {
        let above = |(_, node): &(NodeId, &TreeNode)| Some((node.state.parent, self.get(node.state.parent)?));
        std::iter::successors(self.get(id).map(|node| (id, node)), above).take(limits::PATH_DEPTH_MAX)
    }

    /// The path of a node; `None` when it or a folder above it is absent.
    pub fn path_of(&self, id: NodeId) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let state = &self.nodes.get(&at)?.state;
            names.push(state.name.clone());
            if names.len() > limits::PATH_DEPTH_MAX {
                return None;
            }
            at = state.parent;
        }
        names.reverse();
        Some(RelPath::from_names(names))
    }

    /// The node at a path; the root for the empty path.
    pub fn by_path(&self, path: &RelPath) -> Option<NodeId> {
        path.names().iter().try_fold(NodeId::ROOT, |at, name| self.child(at, name))
    }

    /// Everything below a folder, parents before children; without the folder itself.
    pub fn descendants(&self, id: NodeId) -> Vec<NodeId> {
        let mut found: Vec<NodeId> = self.children(id).map(|(_, child)| child).collect();
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            // A folder inside itself would be listed for ever.
            if found.len() > self.nodes.len() {
                break;
            }
            found.extend(self.children(at).map(|(_, child)| child));
            next += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn folders_that_lie_in_each_other_are_walked_to_an_end() {
        let mut tree = Tree::new();
        let (a, b) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        for (id, parent) in [(a, b), (b, a)] {
            let mut node = at("x");
            node.state.parent = parent;
            tree.insert(id, node);
        }
        assert_eq!(tree.upwards(a).count(), limits::PATH_DEPTH_MAX);
        assert!(tree.descendants(a).len() <= 3);
        assert_eq!(tree.path_of(a), None);
    }

    fn at(name: &str) -> TreeNode {
        let state =
            NodeState { parent: NodeId::ROOT, name: Name::new(name.as_bytes()).unwrap(), kind: Kind::Folder };
        TreeNode { version: Seq(1), state }
    }

    #[test]
    fn a_node_at_a_place_that_another_takes_is_shadowed_until_it_leaves() {
        let (x, f) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let name = Name::new(b"b").unwrap();
        let mut tree = Tree::new();
        tree.insert(x, at("b"));
        tree.insert(f, at("b"));
        assert_eq!((tree.child(NodeId::ROOT, &name), tree.unreachable().any(|id| id == x)), (Some(f), true));
        let mut moved = tree.clone();
        moved.insert(x, at("d"));
        assert!(moved.unreachable().next().is_none());
        assert_eq!(moved.child(NodeId::ROOT, &name), Some(f));
        tree.remove(f);
        assert_eq!((tree.child(NodeId::ROOT, &name), tree.unreachable().count()), (Some(x), 0));
        let inside = NodeState { parent: x, ..at("in").state };
        tree.insert(f, TreeNode { version: Seq(1), state: inside });
        assert_eq!(tree.unreachable().count(), 0);
        let mut orphaned = tree.clone();
        orphaned.remove(x);
        assert_eq!(orphaned.unreachable().collect::<Vec<_>>(), [f]);
        orphaned.insert(f, at("out"));
        assert_eq!(orphaned.unreachable().count(), 0);
        tree.insert(x, at("e"));
        assert_eq!(tree.child(NodeId::ROOT, &name), None);
    }
}
