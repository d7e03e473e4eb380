//! Decisions of the client: own work that is recognised, and files that wait.

use super::*;
use crate::model::{Kind, Name};

fn folder(parent: NodeId, name: &str) -> NodeState {
    NodeState { parent, name: Name::new(name.as_bytes()).unwrap(), kind: Kind::Folder }
}

fn node(n: u8, version: u64, state: Option<NodeState>) -> Node {
    Node { id: id(n), version: Seq(version), state }
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

#[test]
fn own_work_is_recognised_folders_first_and_only_when_it_is_exactly_what_was_sent() {
    let mut cycle = Cycle::new(IdSource::new([1; 32]));
    let mut base = Tree::new();
    for n in [3, 4] {
        base.insert(id(n), TreeNode { version: Seq(1), state: folder(NodeId::ROOT, &n.to_string()) });
    }
    let (outer, inner) = (folder(NodeId::ROOT, "outer"), folder(id(9), "inner"));
    let (mine, theirs) = (folder(NodeId::ROOT, "mine"), folder(NodeId::ROOT, "theirs"));
    let lost = folder(id(8), "in a folder that nobody knows");
    cycle.remote_changed(
        &base,
        vec![
            node(9, 5, Some(outer.clone())),
            node(2, 5, Some(inner.clone())),
            node(3, 5, None),
            node(4, 6, Some(theirs)),
            node(5, 5, Some(lost.clone())),
        ],
    );
    let sent = [
        (id(2), Some(&inner)),
        (id(3), None),
        (id(4), Some(&mine)),
        (id(5), Some(&lost)),
        (id(7), Some(&mine)),
        (id(9), Some(&outer)),
    ];
    let found = cycle.recognise(&base, &sent);
    let agreed = |state: &NodeState| Some(TreeNode { version: Seq(5), state: state.clone() });
    assert_eq!(found, [(1, (id(3), None)), (5, (id(9), agreed(&outer))), (0, (id(2), agreed(&inner)))]);
    assert!(cycle.remote_state(id(9)).is_none() && cycle.remote_state(id(4)).is_some());
    assert!(cycle.recognise(&base, &sent).is_empty(), "once");
}

fn link(name: &str, target: &str) -> NodeState {
    let kind = Kind::Symlink { target: target.as_bytes().to_vec(), mtime_ns: 0 };
    NodeState { kind, ..folder(NodeId::ROOT, name) }
}

const ORIGIN: Origin<'_> = Origin { device: "pc", when: "now" };

#[test]
fn what_takes_the_name_of_a_file_that_waits_waits_with_it() {
    // Also when its id is the greater one, and so on from name to name.
    for (taker, held) in [(2, 1), (1, 2)] {
        let mut base = Tree::new();
        base.insert(id(held), TreeNode { version: Seq(1), state: link("F", "old") });
        base.insert(id(taker), TreeNode { version: Seq(1), state: link("G", "old too") });
        let mut cycle = Cycle::new(IdSource::new([1; 32]));
        let news = vec![
            node(held, 3, Some(link("e", "theirs"))),
            node(taker, 4, Some(link("F", "taken"))),
            node(7, 5, Some(link("G", "taken too"))),
            node(8, 6, Some(link("H", "free"))),
        ];
        cycle.remote_changed(&base, news);
        let plan = cycle.plan(&base, ORIGIN, &BTreeSet::from([id(held)]));
        assert_eq!(plan.ops.len(), 1, "{:?}", plan.ops);
        assert!(matches!(&plan.ops[0], DiskOp::Place { id: placed, .. } if *placed == id(8)));
        assert!(cycle.changes(&base, &plan).is_empty());
        // Read at last: both edits are kept, and every name is as the server has it.
        cycle.observe(&base, id(held), Some(link("F", "mine")));
        let plan = cycle.plan(&base, ORIGIN, &BTreeSet::new());
        let shall = |n| plan.merge.nodes.get(&id(n)).cloned().flatten().map(|state| state.name.to_string());
        assert_eq!([held, taker, 7].map(shall), ["e", "F", "G"].map(|name| Some(name.to_owned())));
        assert_eq!(plan.merge.copies.len(), 1);
    }
}

#[test]
fn a_file_that_waits_and_must_make_room_for_a_folder_is_not_sent_over_what_the_server_has() {
    // Found by the simulator: moved aside with its old bytes, it was sent on top of another device's edit.
    let mut base = Tree::new();
    base.insert(id(1), TreeNode { version: Seq(1), state: link("F", "old") });
    let mut cycle = Cycle::new(IdSource::new([1; 32]));
    let taker = folder(NodeId::ROOT, "F");
    cycle.remote_changed(&base, vec![node(1, 3, Some(link("e", "theirs"))), node(2, 4, Some(taker.clone()))]);
    let plan = cycle.plan(&base, ORIGIN, &BTreeSet::from([id(1)]));
    let aside = plan.merge.nodes.get(&id(1)).cloned().flatten().unwrap();
    assert_ne!(aside.name.as_bytes(), b"F");
    cycle.observe(&base, id(1), Some(aside));
    cycle.observe(&base, id(2), Some(taker));
    assert!(cycle.changes(&base, &plan).is_empty());
}
