//! Folders that join without a common past, clients that come back, and the mass-delete guard.

use crate::case::case;
use crate::script::id_at;
use crate::share::Share;
use dropblock::reconcile::{Held, mass_delete};

#[test]
fn r80_a_folder_that_holds_the_same_joins_without_moving_anything() {
    let joined = case("", "a=1 d/ d/e/ d/e/b=2 l:x", "a=1 d/ d/e/ d/e/b=2 l:x").nothing_to_do();
    for path in ["a", "d", "d/e", "d/e/b", "l"] {
        assert_eq!(id_at(&joined.goal, path), id_at(&joined.there, path), "{path} has the id of the server");
    }
}

#[test]
fn r81_joining_is_a_union_with_copies_only_where_bytes_differ() {
    case("", "a=1 b=2 d/ d/x=3 d/y=4", "a=1 b=5 d/ d/x=3 d/z=6")
        .becomes("a=1 b=5 b{pc}=2 d/ d/x=3 d/y=4 d/z=6");
}

#[test]
fn r82_a_client_that_lost_its_state_makes_no_copies_of_what_is_the_same() {
    let mut share = Share::new("a=1 d/ d/b=2 c=3", &["x", "y"]);
    share.act(0, "a=4 d/n=5").sync(0).forget(1);
    assert_eq!(share.settle(), "a=4 a{y}=1 c=3 d/ d/b=2 d/n=5");
    // Without a past nothing says who deleted: what is on either side stays.
    let mut share = Share::new("a=1 b=2", &["x", "y"]);
    share.act(0, "-a").sync(0).forget(1);
    assert_eq!(share.settle(), "a=1 b=2");
}

#[test]
fn r83_a_client_that_was_away_and_did_not_touch_a_file_never_brings_it_back() {
    let mut share = Share::new("a=1 d/ d/b=2 e/ e/c=3", &["x", "y"]);
    share.act(0, "-a -d e>f").sync(0).act(0, "-f").sync(0);
    assert_eq!(share.act(1, "n=9").settle(), "n=9");
}

#[test]
fn r84_the_first_commit_wins_the_place_and_the_name() {
    for (first, wanted) in [(0, "b=0"), (1, "c=0")] {
        let mut share = Share::new("a=0", &["x", "y"]);
        share.act(0, "a>b").act(1, "a>c");
        assert_eq!(share.sync(first).settle(), wanted);
    }
    for (first, wanted) in [(0, "a=1 a{y}=2"), (1, "a=2 a{x}=1")] {
        let mut share = Share::new("", &["x", "y"]);
        share.act(0, "a=1").act(1, "a=2");
        assert_eq!(share.sync(first).settle(), wanted);
    }
}

#[test]
fn r90_more_than_nine_tenths_and_at_least_a_hundred_files_gone_at_once_are_held() {
    assert_eq!(mass_delete(100, 100), Some(Held { missing: 100, tracked: 100 }));
    assert_eq!(mass_delete(901, 1000), Some(Held { missing: 901, tracked: 1000 }));
    assert_eq!(mass_delete(900, 1000), None, "exactly nine tenths");
    assert_eq!(mass_delete(99, 99), None, "fewer than a hundred");
    assert_eq!(mass_delete(0, 0), None);
}
