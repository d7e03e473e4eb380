//! The order of disk operations. [`crate::disk`] insists in every other test that each can be done when its turn comes.

use crate::case::case;

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
