//! The table for one node that both sides know: what either side did to it.

use crate::case::{both_ways, case, merged};
use crate::script::{file, id_at, put};
use dropblock::model::{IdSource, NodeState};
use dropblock::tree::Tree;

#[test]
fn r01_unchanged_on_both_sides_is_left_alone() {
    case("a=1 d/ d/b=2", "", "").becomes("a=1 d/ d/b=2").nothing_to_do();
}

#[test]
fn r02_unchanged_here_and_edited_there_takes_their_bytes() {
    case("a=1", "", "a=2@7!").becomes("a=2@7!").does("place a").sends(false);
}

#[test]
fn r03_unchanged_here_and_deleted_there_goes() {
    case("a=1 b=2", "", "-a").becomes("b=2").does("trash a").sends(false);
    case("d/ d/a=1", "", "-d").becomes("").does("trash d/a, rmdir d").sends(false);
}

#[test]
fn r04_unchanged_here_and_moved_there_moves() {
    case("a=1 d/", "", "a>d/b").becomes("d/ d/b=1").does("move a d/b").sends(false);
}

#[test]
fn r05_edited_here_and_unchanged_there_is_sent() {
    case("a=1", "a=2", "").becomes("a=2").does("").sends(true);
}

#[test]
fn r06_edited_to_the_same_bytes_on_both_sides_is_agreed() {
    case("a=1", "a=2", "a=2").becomes("a=2").without_copies().nothing_to_do();
}

#[test]
fn r07_edited_differently_keeps_theirs_under_the_name_and_ours_beside_it() {
    case("a=1", "a=2", "a=3").becomes("a=3 a{pc}=2").does("swap a a{pc}").sends(true);
}

#[test]
fn r07_the_copy_is_in_the_folder_of_the_file() {
    case("d/ d/a.txt=1", "d/a.txt=2", "d/a.txt=3").becomes("d/ d/a{pc}.txt=2 d/a.txt=3");
}

#[test]
fn r08_edited_here_and_deleted_there_keeps_the_edit() {
    case("a=1", "a=2", "-a").becomes("a=2").does("").sends(true);
}

#[test]
fn r09_edited_here_and_moved_there_is_the_edited_file_at_the_new_place() {
    case("a=1 d/", "a=2", "a>d/b").becomes("d/ d/b=2").does("move a d/b").sends(true);
}

#[test]
fn r10_deleted_here_and_unchanged_there_is_deleted_there() {
    case("a=1 b=2", "-a", "").becomes("b=2").does("").sends(true);
    case("d/ d/a=1", "-d", "").becomes("").does("").sends(true);
}

#[test]
fn r11_deleted_here_and_edited_there_comes_back_with_their_edit() {
    case("a=1", "-a", "a=2").becomes("a=2").does("place a").sends(false);
}

#[test]
fn r12_deleted_on_both_sides_is_agreed() {
    case("a=1 d/ d/b=2", "-a -d", "-a -d").becomes("").nothing_to_do();
}

#[test]
fn r13_deleted_here_and_moved_there_stays_at_the_new_place() {
    case("a=1", "-a", "a>b").becomes("b=1").does("place b").sends(false);
}

#[test]
fn r14_moved_here_and_unchanged_there_is_moved_there() {
    case("a=1 d/", "a>d/b", "").becomes("d/ d/b=1").does("").sends(true);
}

#[test]
fn r15_moved_here_and_edited_there_is_moved_and_edited() {
    case("a=1", "a>b", "a=2").becomes("b=2").does("place b").sends(true);
}

#[test]
fn r16_moved_here_and_deleted_there_stays_at_the_new_place() {
    case("a=1", "a>b", "-a").becomes("b=1").does("").sends(true);
}

#[test]
fn r17_moved_to_the_same_place_on_both_sides_is_agreed() {
    case("a=1", "a>b", "a>b").becomes("b=1").nothing_to_do();
}

#[test]
fn r18_moved_to_two_places_is_at_the_place_of_the_server() {
    case("a=1", "a>b", "a>c").becomes("c=1").does("move b c").sends(false);
    case("d/ d/x=1", "d>e", "d>f").becomes("f/ f/x=1").does("move e f").sends(false);
}

#[test]
fn r19_moved_on_one_side_and_edited_differently_on_both_conflicts_at_the_new_place() {
    both_ways("a=1", "a>b b=2", "a=2", "b=2");
    case("a=1", "a>b b=2", "a=3").becomes("b=3 b{pc}=2");
    case("a=1", "a=2", "a>b b=3").becomes("b=3 b{pc}=2");
}

#[test]
fn r20_moved_and_edited_differently_on_both_sides_conflicts_at_the_place_of_the_server() {
    case("a=1", "a>b b=2", "a>c c=3").becomes("c=3 c{pc}=2").does("move b c, swap c c{pc}");
}

#[test]
fn r21_a_file_that_became_a_folder_here_is_a_delete_and_a_new_folder() {
    both_ways("a=1", "-a a/ a/x=2", "", "a/ a/x=2");
    both_ways("a=1", "-a a/ a/x=2", "a=3", "a/ a/x=2 a{pc}=3");
    both_ways("d/ d/x=1", "-d d=2", "", "d=2");
    both_ways("d/ d/x=1", "-d d=2", "d/x=3", "d/ d/x=3 d{pc}=2");
}

#[test]
fn r22_the_target_of_a_symlink_is_its_content() {
    case("l:x", "", "l:y").becomes("l:y").does("place l");
    case("l:x", "l:y", "l:y").becomes("l:y").nothing_to_do();
    case("l:x", "l:y", "l:z").becomes("l:z l{pc}:y").does("swap l l{pc}");
    both_ways("l:x", "l:y", "-l", "l:y");
}

/// A commit arrived but its answer did not: both sides have the node, the base does not.
#[test]
fn r23_a_node_that_both_sides_have_and_the_base_does_not_is_agreed_when_it_is_the_same() {
    let mut ids = IdSource::new([2; 32]);
    let mut there = Tree::new();
    crate::script::run(&mut there, "d/ d/a=1", &mut ids);
    let mut here = there.clone();
    merged(Tree::new(), here.clone(), there.clone(), ids.clone()).becomes("d/ d/a=1").nothing_to_do();
    let id = id_at(&here, "d/a");
    let state = here.get(id).unwrap().state.clone();
    put(&mut here, id, NodeState { kind: file("2"), ..state });
    merged(Tree::new(), here, there, ids).becomes("d/ d/a=1 d/a{pc}=2");
}
