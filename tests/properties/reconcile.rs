//! Reconcile: what must be true of any three trees, and of any number of clients.

use dropblock::model::{
    BlockHash, Change, FileContent, IdSource, Kind, Name, Node, NodeId, NodeState, Root, Seq,
};
use dropblock::reconcile::{DiskOp, Merge, Origin, Sides, plan_disk, reconcile};
use dropblock::tree::{Diff, Nodes, Overlay, Tree, TreeNode, judge};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

const ORIGIN: Origin<'static> = Origin { device: "pc", when: "2026-11-22 12-00-00" };

/// One random act of a user: what, on which node, into which folder, under which name, with which bytes.
type Act = (u8, u8, u8, u8, u8);

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(any::<Act>(), 0..most)
}

fn file(content: u8) -> Kind {
    let hash = BlockHash::of(&[content]);
    let content = FileContent { size: 1, root: Root { params: 1, level: 0, hash } };
    Kind::File { content, mtime_ns: 0, exec: false }
}

/// Does one act on a tree, if it can be done there.
fn act(tree: &mut Tree, (what, node, folder, name, content): Act, ids: &mut IdSource) {
    let mut all: Vec<NodeId> = tree.iter().map(|(id, _)| id).collect();
    all.sort_by_key(|id| tree.path_of(*id));
    let folders: Vec<NodeId> = std::iter::once(NodeId::ROOT)
        .chain(all.iter().copied().filter(|id| tree.get(*id).unwrap().state.kind.is_folder()))
        .collect();
    let parent = folders[usize::from(folder) % folders.len()];
    let name = Name::new(&[b'a' + name % 4]).unwrap();
    let free = tree.child(parent, &name).is_none();
    let put = |tree: &mut Tree, id, state| {
        tree.insert(id, TreeNode { version: Seq::ZERO, state });
    };
    if what % 8 < 3 || all.is_empty() {
        if free {
            let kind = if what % 8 == 0 { Kind::Folder } else { file(content % 6) };
            put(tree, ids.node(), NodeState { parent, name, kind });
        }
        return;
    }
    let id = all[usize::from(node) % all.len()];
    let state = tree.get(id).unwrap().state.clone();
    match what % 8 {
        3 | 4 if !state.kind.is_folder() => put(tree, id, NodeState { kind: file(content % 6), ..state }),
        5 | 6 if free && id != parent && !tree.descendants(id).contains(&parent) => {
            put(tree, id, NodeState { parent, name, ..state });
        }
        7 => {
            for below in tree.descendants(id) {
                tree.remove(below);
            }
            tree.remove(id);
        }
        _ => {}
    }
}

fn diff(from: &Tree, to: &Tree) -> Diff {
    let ids: BTreeSet<NodeId> = from.iter().chain(to.iter()).map(|(id, _)| id).collect();
    let state = |tree: &Tree, id| tree.get(id).map(|node| node.state.clone());
    ids.into_iter().filter(|id| state(from, *id) != state(to, *id)).map(|id| (id, state(to, id))).collect()
}

fn patched(base: &Tree, changes: &Diff) -> Tree {
    let mut tree = base.clone();
    for (id, state) in changes {
        match state {
            Some(state) => drop(tree.insert(*id, TreeNode { version: Seq::ZERO, state: state.clone() })),
            None => drop(tree.remove(*id)),
        }
    }
    tree
}

/// Path -> what is there, without ids.
fn picture(tree: &Tree) -> BTreeMap<String, Kind> {
    let picture: BTreeMap<_, _> = tree
        .iter()
        .map(|(id, node)| {
            (tree.path_of(id).expect("every node hangs on the root").to_string(), node.state.kind.clone())
        })
        .collect();
    assert_eq!(picture.len(), tree.len(), "two nodes at one place");
    picture
}

fn contents(tree: &Tree) -> BTreeSet<BlockHash> {
    tree.iter().filter_map(|(_, node)| node.state.kind.content().map(|content| content.root.hash)).collect()
}

/// Carries disk operations out on a tree, and insists that each can be done when its turn comes.
fn run_on_disk(base: &Tree, merge: &Merge) -> Tree {
    let mut disk = patched(base, &merge.local);
    let mut parked = BTreeMap::new();
    let free = |disk: &Tree, state: &NodeState| {
        let folder =
            state.parent == NodeId::ROOT || disk.get(state.parent).is_some_and(|n| n.state.kind.is_folder());
        assert!(folder, "no folder for {state:?}");
        assert_eq!(disk.child(state.parent, &state.name), None, "taken: {state:?}");
    };
    for op in plan_disk(base, merge) {
        let id = op.id();
        assert!(
            disk.get(id).is_none() || disk.path_of(id).is_some(),
            "inside something that is parked: {op:?}"
        );
        match op {
            DiskOp::Trash { id } => assert!(!disk.remove(id).unwrap().state.kind.is_folder()),
            DiskOp::RemoveFolder { id } => {
                assert!(!disk.has_children(id), "removed a folder that holds something");
                disk.remove(id).unwrap();
            }
            DiskOp::MakeFolder { id, parent, name } => {
                let state = NodeState { parent, name, kind: Kind::Folder };
                free(&disk, &state);
                disk.insert(id, TreeNode { version: Seq::ZERO, state });
            }
            DiskOp::Park { id } => drop(parked.insert(id, disk.remove(id).unwrap())),
            DiskOp::Move { id, parent, name } => {
                let kind = disk.remove(id).or_else(|| parked.remove(&id)).unwrap().state.kind;
                let state = NodeState { parent, name, kind };
                free(&disk, &state);
                disk.insert(id, TreeNode { version: Seq::ZERO, state });
                assert!(disk.path_of(id).is_some(), "moved out of the tree");
            }
            DiskOp::Place { id, state, copy } => {
                if let Some((copy, copy_state)) = copy {
                    free(&disk, &copy_state);
                    let bytes = disk.get(id).unwrap().state.kind.clone();
                    assert!(
                        bytes.same_content(&copy_state.kind),
                        "the copy keeps other bytes than the disk had"
                    );
                    disk.insert(copy, TreeNode { version: Seq::ZERO, state: copy_state });
                } else if disk.get(id).is_none() {
                    free(&disk, &state);
                }
                disk.insert(id, TreeNode { version: Seq::ZERO, state });
            }
            DiskOp::Meta { id, kind } => {
                let mut node = disk.remove(id).unwrap();
                assert!(node.state.kind.same_content(&kind));
                node.state.kind = kind;
                disk.insert(id, node);
            }
        }
    }
    assert!(parked.is_empty(), "left parked");
    disk
}

/// The same nodes anywhere: each has a rank, a folder among those before it and one of three names; where its name is taken it
/// is not in the tree. Every third is a file.
fn arranged(places: &[(u8, u8, u8)]) -> Tree {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| places[*at].0);
    let (mut tree, mut folders) = (Tree::new(), vec![NodeId::ROOT]);
    for at in order {
        let (_, folder, name) = places[at];
        let (parent, name) =
            (folders[usize::from(folder) % folders.len()], Name::new(&[b'a' + name % 3]).unwrap());
        if tree.child(parent, &name).is_some() {
            continue;
        }
        let id = NodeId::from_bytes([u8::try_from(at + 1).unwrap(); 16]);
        let kind = if at % 3 == 2 { file(1) } else { Kind::Folder };
        if kind.is_folder() {
            folders.push(id);
        }
        tree.insert(id, TreeNode { version: Seq::ZERO, state: NodeState { parent, name, kind } });
    }
    tree
}

/// A share on the server: latest versions with tombstones.
#[derive(Default, Clone)]
struct Server {
    nodes: BTreeMap<NodeId, Node>,
    head: u64,
}

impl Nodes for Server {
    type Error = Infallible;
    fn node(&self, id: NodeId) -> Result<Option<Node>, Infallible> {
        Ok(self.nodes.get(&id).cloned())
    }
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>, Infallible> {
        let at = |n: &&Node| n.state.as_ref().is_some_and(|s| s.parent == parent && s.name == *name);
        Ok(self.nodes.values().find(at).map(|n| n.id))
    }
    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool, Infallible> {
        let inside = |n: &&Node| n.state.as_ref().is_some_and(|s| s.parent == parent);
        Ok(self.nodes.values().filter(inside).any(|n| is(n.id)))
    }
}

impl Server {
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for node in self.nodes.values() {
            if let Some(state) = &node.state {
                tree.insert(node.id, TreeNode { version: node.version, state: state.clone() });
            }
        }
        tree
    }

    /// Commits what differs between the server and `goal`; every change must stand.
    fn commit(&mut self, goal: &Tree) {
        let changes: Vec<Change> = diff(&self.tree(), goal)
            .into_iter()
            .map(|(id, state)| Change {
                id,
                base: self.nodes.get(&id).map_or(Seq::ZERO, |n| n.version),
                state,
            })
            .collect();
        let verdicts = judge(self, &changes, &vec![true; changes.len()]).unwrap();
        for (change, verdict) in changes.iter().zip(verdicts) {
            assert_eq!(verdict, None, "refused: {change:?}");
        }
        if !changes.is_empty() {
            self.head += 1;
        }
        for change in changes {
            let node = Node { id: change.id, version: Seq(self.head), state: change.state };
            self.nodes.insert(change.id, node);
        }
    }
}

fn base_from(acts: &[Act], ids: &mut IdSource) -> Tree {
    let mut tree = Tree::new();
    acts.iter().for_each(|a| act(&mut tree, *a, ids));
    tree
}

fn edited(base: &Tree, acts: &[Act], ids: &mut IdSource) -> Tree {
    let mut tree = base.clone();
    acts.iter().for_each(|a| act(&mut tree, *a, ids));
    tree
}

/// Bytes that a side wrote: new files, and files whose bytes it changed.
fn written(base: &Tree, side: &Tree) -> BTreeSet<BlockHash> {
    let changed = side
        .iter()
        .filter(|(id, node)| base.get(*id).is_none_or(|old| !old.state.kind.same_content(&node.state.kind)));
    changed.filter_map(|(_, node)| node.state.kind.content().map(|c| c.root.hash)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_three_trees_become_one_and_nothing_written_is_lost(start in acts(14), here in acts(8), there in acts(8)) {
        let mut ids = IdSource::new([3; 32]);
        let base = base_from(&start, &mut ids);
        let (local, remote) = (edited(&base, &here, &mut ids), edited(&base, &there, &mut ids));
        let (local_diff, remote_diff) = (diff(&base, &local), diff(&base, &remote));
        let sides = Sides { base: &base, local: &local_diff, remote: &remote_diff };
        let merge = reconcile(sides, ORIGIN, &mut ids.clone());
        prop_assert_eq!(&merge.nodes, &reconcile(sides, ORIGIN, &mut ids).nodes, "not deterministic");

        let goal = patched(&base, &merge.nodes);
        let disk = run_on_disk(&base, &merge);
        prop_assert_eq!(picture(&disk), picture(&goal));

        let mut server = Server::default();
        server.commit(&base);
        server.commit(&remote);
        server.commit(&goal);
        prop_assert_eq!(picture(&server.tree()), picture(&goal));

        let kept = contents(&goal);
        for bytes in written(&base, &local).union(&written(&base, &remote)) {
            prop_assert!(kept.contains(bytes), "lost {bytes}");
        }
        for (id, node) in local.iter() {
            let both = remote.get(id).filter(|other| other.state.kind.same_content(&node.state.kind));
            if let (Some(_), Some(content)) = (both, node.state.kind.content()) {
                prop_assert!(kept.contains(&content.root.hash), "both sides have it, the merge has not");
            }
        }
    }

    #[test]
    fn what_one_side_deleted_and_the_other_left_alone_is_gone(start in acts(14), there in acts(8)) {
        let mut ids = IdSource::new([4; 32]);
        let base = base_from(&start, &mut ids);
        let remote = edited(&base, &there, &mut ids);
        let (nothing, changes) = (Diff::new(), diff(&base, &remote));
        for (local, remote_diff) in [(&nothing, &changes), (&changes, &nothing)] {
            let merge = reconcile(Sides { base: &base, local, remote: remote_diff }, ORIGIN, &mut ids);
            prop_assert_eq!(picture(&patched(&base, &merge.nodes)), picture(&remote));
            prop_assert!(merge.copies.is_empty() && merge.adopted.is_empty());
        }
    }

    #[test]
    fn clients_that_sync_in_any_order_end_equal_and_then_stay(
        start in acts(10),
        steps in prop::collection::vec((0usize..3, any::<Act>(), any::<bool>()), 0..24),
    ) {
        let mut ids = IdSource::new([5; 32]);
        let mut server = Server::default();
        server.commit(&base_from(&start, &mut ids));
        // Each client: what it agreed on with the server last, and its disk.
        let mut clients = vec![(Tree::new(), Tree::new()); 3];
        for (client, what, sync) in steps {
            act(&mut clients[client].1, what, &mut ids);
            if sync {
                sync_client(&mut clients[client], &mut server, &mut ids);
            }
        }
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| sync_client(client, &mut server, &mut ids));
        }
        let settled = (server.head, picture(&server.tree()));
        for _ in 0..5 {
            clients.iter_mut().for_each(|client| sync_client(client, &mut server, &mut ids));
        }
        prop_assert_eq!((server.head, picture(&server.tree())), settled.clone(), "changes go on by themselves");
        for (_, disk) in &clients {
            prop_assert_eq!(picture(disk), settled.1.clone());
        }
    }

    #[test]
    fn any_tree_is_made_of_any_other_of_the_same_nodes(
        places in prop::collection::vec((any::<[u8; 3]>(), any::<[u8; 3]>()), 1..14)
    ) {
        let side = |side: [u8; 3]| (side[0], side[1], side[2]);
        let from = arranged(&places.iter().map(|(from, _)| side(*from)).collect::<Vec<_>>());
        let to = arranged(&places.iter().map(|(_, to)| side(*to)).collect::<Vec<_>>());
        let merge = Merge { nodes: diff(&from, &to), ..Merge::default() };
        prop_assert_eq!(picture(&run_on_disk(&from, &merge)), picture(&to));
    }

    #[test]
    fn folders_that_hold_the_same_join_without_copies(start in acts(14)) {
        let mut ids = IdSource::new([6; 32]);
        let there = base_from(&start, &mut ids);
        let here = base_from(&start, &mut IdSource::new([7; 32]));
        let nothing = Tree::new();
        let sides = Sides { base: &nothing, local: &diff(&nothing, &here), remote: &diff(&nothing, &there) };
        let merge = reconcile(sides, ORIGIN, &mut ids);
        prop_assert_eq!(plan_disk(&nothing, &merge), vec![]);
        prop_assert_eq!(picture(&patched(&nothing, &merge.nodes)), picture(&there));
        prop_assert!(merge.nodes.iter().all(|(id, state)| there.get(*id).is_some() == state.is_some()));
    }
}

/// One cycle of a client with an ideal disk: scan, reconcile, apply, commit.
fn sync_client((base, disk): &mut (Tree, Tree), server: &mut Server, ids: &mut IdSource) {
    let (local, remote) = (diff(base, disk), diff(base, &server.tree()));
    let merge = reconcile(Sides { base, local: &local, remote: &remote }, ORIGIN, ids);
    let goal = patched(base, &merge.nodes);
    *disk = run_on_disk(base, &merge);
    assert_eq!(picture(disk), picture(&goal));
    server.commit(&goal);
    *base = goal.clone();
    *disk = goal;
    let overlay = Overlay::on(base);
    assert!(base.iter().all(|(id, _)| overlay.path_of(id).is_some()));
}
