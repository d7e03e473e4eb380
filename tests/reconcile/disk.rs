//! An ideal disk: carries a plan out step by step, and insists that each step can be done when its turn comes.

use crate::script::{patched, put};
use dropblock::model::Kind;
use dropblock::model::{NodeId, NodeState};
use dropblock::reconcile::{DiskOp, Merge, plan_disk};
use dropblock::tree::{Tree, TreeNode};
use std::collections::BTreeMap;

struct Disk {
    tree: Tree,
    parked: BTreeMap<NodeId, TreeNode>,
}

/// The disk after the plan of a merge.
pub fn carry_out(base: &Tree, merge: &Merge) -> Tree {
    let mut disk = Disk { tree: patched(base, &merge.local), parked: BTreeMap::new() };
    for op in plan_disk(base, merge) {
        disk.step(op);
    }
    assert!(disk.parked.is_empty(), "left parked");
    disk.tree
}

impl Disk {
    fn step(&mut self, op: DiskOp) {
        let id = op.id();
        let in_tree = self.tree.get(id).is_none() || self.tree.path_of(id).is_some();
        assert!(in_tree, "inside something that is parked: {op:?}");
        match op {
            DiskOp::Trash { id } => assert!(!self.tree.remove(id).unwrap().state.kind.is_folder()),
            DiskOp::RemoveFolder { id } => {
                assert!(!self.tree.has_children(id), "removed a folder that holds something");
                self.tree.remove(id).unwrap();
            }
            DiskOp::MakeFolder { id, parent, name } => {
                self.arrive(id, NodeState { parent, name, kind: Kind::Folder });
            }
            DiskOp::Park { id } => drop(self.parked.insert(id, self.tree.remove(id).unwrap())),
            DiskOp::Move { id, parent, name } => {
                let node = self.tree.remove(id).or_else(|| self.parked.remove(&id)).unwrap();
                self.arrive(id, NodeState { parent, name, kind: node.state.kind });
                assert!(self.tree.path_of(id).is_some(), "moved out of the tree");
            }
            DiskOp::Place { id, state, copy } => self.place(id, state, copy),
            DiskOp::Meta { id, kind } => {
                let state = self.tree.get(id).unwrap().state.clone();
                assert!(state.kind.same_content(&kind));
                put(&mut self.tree, id, NodeState { kind, ..state });
            }
        }
    }

    fn arrive(&mut self, id: NodeId, state: NodeState) {
        let parent = state.parent;
        let folder =
            parent == NodeId::ROOT || self.tree.get(parent).is_some_and(|node| node.state.kind.is_folder());
        assert!(folder, "no folder for {state:?}");
        assert_eq!(self.tree.child(parent, &state.name), None, "taken: {state:?}");
        put(&mut self.tree, id, state);
    }

    fn place(&mut self, id: NodeId, state: NodeState, copy: Option<(NodeId, NodeState)>) {
        let there = self.tree.get(id).map(|node| node.state.clone());
        if let Some(there) = &there {
            assert!(there.same_place(&state), "placed elsewhere than the node is");
        }
        match (copy, there) {
            (Some((copy, copy_state)), Some(there)) => {
                assert!(there.kind.same_content(&copy_state.kind), "the copy has other bytes than the disk");
                self.arrive(copy, copy_state);
                put(&mut self.tree, id, state);
            }
            (Some(_), None) => panic!("a copy of nothing"),
            (None, Some(_)) => put(&mut self.tree, id, state),
            (None, None) => self.arrive(id, state),
        }
    }
}
