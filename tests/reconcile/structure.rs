//! Folders: what comes back, what is carried along, and cycles.

use crate::case::{both_ways, case};
use crate::script::{ORIGIN, diff, file, id_at, run};
use dropblock::model::{IdSource, Name, NodeId, NodeState};
use dropblock::reconcile::{Sides, reconcile};
use dropblock::tree::{Diff, Tree};

#[test]
fn r40_an_edit_deep_in_a_deleted_folder_brings_back_only_the_way_to_it() {
    both_ways("d/ d/e/ d/e/f=1 d/e/g=2 d/h=3 d/i/", "-d", "d/e/f=4", "d/ d/e/ d/e/f=4");
}

#[test]
fn r41_what_was_made_in_a_deleted_folder_keeps_the_folder() {
    both_ways("d/ d/a=1", "-d", "d/b=2", "d/ d/b=2");
    both_ways("d/ d/a=1", "-d", "d/e/", "d/ d/e/");
}

#[test]
fn r42_what_was_moved_into_a_deleted_folder_keeps_the_folder() {
    both_ways("d/ d/a=1 f=2", "-d", "f>d/f", "d/ d/f=2");
}

#[test]
fn r43_an_edit_in_a_folder_that_was_moved_meanwhile_is_in_the_moved_folder() {
    both_ways("d/ d/a=1 d/b=2", "d>e", "d/a=3 d/c=4", "e/ e/a=3 e/b=2 e/c=4");
    both_ways("d/ d/a=1 x/", "d>x/d", "-d/a", "x/ x/d/");
}

#[test]
fn r44_a_folder_moved_on_one_side_and_deleted_on_the_other_keeps_all_it_holds() {
    both_ways("d/ d/a=1 d/e/ d/e/b=2", "d>x", "-d", "x/ x/a=1 x/e/ x/e/b=2");
    // Whoever moves the folder keeps it, even into a folder that is new there.
    both_ways("d/ d/a=1", "n/ d>n/d", "-d", "n/ n/d/ n/d/a=1");
}

#[test]
fn r45_what_was_taken_out_of_a_folder_before_the_folder_was_deleted_stays_taken_out() {
    both_ways("d/ d/a=1 d/b=2", "d>e", "d/a>a -d", "a=1 e/ e/b=2");
}

#[test]
fn r46_two_folders_moved_into_each_other_are_as_the_server_has_them() {
    case("a/ b/", "a>b/a", "b>a/b").becomes("a/ a/b/").sends(false);
    case("a/ a/x=1 b/ b/y=2", "a>b/a", "b>a/b").becomes("a/ a/b/ a/b/y=2 a/x=1").sends(false);
    case("a/ b/ c/", "a>b/a", "b>c/b c>a/c").becomes("a/ a/c/ a/c/b/");
}

#[test]
fn r47_a_folder_that_comes_back_is_where_the_server_has_it_or_else_where_the_disk_has_it() {
    // Deleted here, and there moved as well as edited inside.
    case("d/ d/a=1", "-d", "d>e e/a=2").becomes("e/ e/a=2");
    case("d/ d/a=1", "d>e e/a=2", "-d").becomes("e/ e/a=2");
    // The way to a folder that comes back was moved.
    both_ways("x/ x/d/ x/d/a=1", "-x/d x>y", "x/d/a=2", "y/ y/d/ y/d/a=2");
}

#[test]
fn r48_a_node_whose_folder_no_side_knows_is_put_at_the_top() {
    let mut ids = IdSource::new([3; 32]);
    let (id, nowhere) = (ids.node(), ids.node());
    let state = NodeState { parent: nowhere, name: Name::new(b"a").unwrap(), kind: file("1") };
    let (local, remote) = (Diff::new(), Diff::from([(id, Some(state))]));
    let base = Tree::new();
    let merge = reconcile(Sides { base: &base, local: &local, remote: &remote }, ORIGIN, &mut ids);
    assert_eq!(merge.nodes[&id].as_ref().unwrap().parent, NodeId::ROOT);
}

#[test]
fn r49_a_name_that_a_folder_needs_when_it_comes_back_is_given_up_by_the_file_there() {
    both_ways("d/ d/a=1", "-d d=5", "d/a=2", "d/ d/a=2 d{pc}=5");
}

#[test]
fn r50_a_whole_tree_renamed_is_one_change() {
    let mut base = Tree::new();
    let mut ids = IdSource::new([4; 32]);
    run(&mut base, "d/", &mut ids);
    (0..50).for_each(|n| run(&mut base, &format!("d/f{n}=1"), &mut ids));
    let mut there = base.clone();
    run(&mut there, "d>e", &mut ids);
    let changes = diff(&base, &there);
    assert_eq!(changes.keys().copied().collect::<Vec<_>>(), vec![id_at(&base, "d")]);
    crate::case::merged(base, there.clone(), there.clone(), ids.clone()).nothing_to_do();
}
