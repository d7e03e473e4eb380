//! The order of disk operations. [`crate::disk`] insists in every other test that each can be done when its turn comes.

use crate::case::case;
use dropblock::model::{BlockHash, FileContent, Kind, Name, NodeId, NodeState, Root, Seq};
use dropblock::reconcile::{DiskOp, Merge, plan_disk};
use dropblock::tree::{Tree, TreeNode};

#[test]
fn r91_files_that_go_are_out_of_the_way_first() {
    case("a=1 b=2 c=3", "", "-a b>a c=4").does("trash a, move b a, place c");
}

#[test]
fn r92_a_folder_is_there_before_what_goes_into_it() {
    case("a=1", "", "d/ d/e/ a>d/e/a").does("mkdir d, mkdir d/e, move a d/e/a");
    case("a=1 d/", "", "a>x d>a x>a/x").does("move a a/x, move d a");
}

#[test]
fn r93_a_folder_goes_after_all_it_held_and_inner_ones_first() {
    case("d/ d/e/ d/e/a=1 d/b=2", "", "d/b>b -d").does("trash d/e/a, move d/b b, rmdir d/e, rmdir d");
}

#[test]
fn r94_a_ring_of_names_is_opened_by_parking_one() {
    case("a=1 b=2", "", "a>t b>a t>b").does("park a, move b a, move a b");
    case("a=1 b=2 c=3", "", "a>t b>a c>b t>c").does("park a, move b a, move c b, move a c");
}

#[test]
fn r95_folders_that_change_places_with_their_own_children_wait_or_are_parked() {
    case("a/ a/b/", "", "a/b>b a>b/a").does("move a/b b, move a b/a");
    case("d/ d/d/ d/d/x=1", "", "d/d>t -d t>d").does("park d/d, rmdir d, move d/d d");
}

#[test]
fn r95b_a_folder_that_takes_the_name_of_the_one_around_it_is_not_carried_out_of_reach() {
    case("e/ e/e/ e/e/x=1 e/y=2", "", "e/e>t e>t/e t>e").does("park e/e, park e, move e/e e, move e e/e");
}

#[test]
fn r96_contents_come_last_in_the_order_of_paths() {
    case("b=1 d/ d/x=2 a=3 o=4", "", "b=5 d/x=6 a=7 e/ e/n=8 -o")
        .does("trash o, mkdir e, place a, place b, place d/x, place e/n");
}

#[test]
fn r97_the_same_bytes_are_not_fetched_again() {
    case("a=1 b=2", "", "a>c c=1@5!").does("move a c, meta c");
}

#[test]
fn r98_a_copy_gets_its_name_in_the_same_step_that_places_the_other_bytes() {
    case("a=1 d/", "a=2", "a>d/a d/a=3").does("move a d/a, swap d/a d/a{pc}");
}

#[test]
fn r99_the_same_trees_give_the_same_plan() {
    let plan = || case("a=1 b=2 d/ d/x=3", "a=4 d>e", "a=5 b>c d/x=6 n/ n/m=7").ops();
    assert_eq!(plan(), plan());
}

/// Tried one after the other again and again, these would take minutes.
#[test]
fn a_chain_and_rings_of_thousands_of_names_are_planned_in_their_length() {
    const CHAIN: u32 = 20_000;
    let id = |n: u32| {
        let mut bytes = [3; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    };
    let root = Root { params: 1, level: 0, hash: BlockHash::of(b"x") };
    let file = Kind::File { content: FileContent { size: 1, root }, mtime_ns: 0, exec: false };
    let state = |parent: NodeId, n: u32, kind: &Kind| {
        let name = Name::new(format!("{n:06}").as_bytes()).unwrap();
        NodeState { parent, name, kind: kind.clone() }
    };
    let is_folder = |n: u32| n >= 2 * CHAIN;
    let top = |n: u32, name: u32| state(NodeId::ROOT, name, if is_folder(n) { &Kind::Folder } else { &file });
    let mut base = Tree::new();
    for n in 0..3 * CHAIN {
        base.insert(id(n), TreeNode { version: Seq(1), state: top(n, n) });
        if is_folder(n) {
            base.insert(id(n + CHAIN), TreeNode { version: Seq(1), state: state(id(n), 0, &file) });
        }
    }
    // Each takes the name of the next, the last one a free name; behind them, pairs of files and of folders that hold something
    // swap their names.
    let chain = (0..CHAIN).map(|n| (n, if n + 1 < CHAIN { n + 1 } else { 9 * CHAIN }));
    let pairs = (CHAIN..3 * CHAIN).map(|n| (n, n ^ 1));
    let nodes = chain.chain(pairs).map(|(n, name)| (id(n), Some(top(n, name))));
    let merge = Merge { nodes: nodes.collect(), ..Merge::default() };
    let ops = plan_disk(&base, &merge);
    let moved: Vec<NodeId> = ops.iter().map(DiskOp::id).take(CHAIN as usize).collect();
    assert_eq!(moved, (0..CHAIN).rev().map(id).collect::<Vec<_>>());
    let parked = ops.iter().filter(|op| matches!(op, DiskOp::Park { .. })).count();
    assert_eq!((ops.len(), parked), (4 * CHAIN as usize, CHAIN as usize));
}
