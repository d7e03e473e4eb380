//! Names that several nodes claim, and the names of conflict copies.

use crate::case::{both_ways, case, merged};
use crate::script::{file, id_at, put};
use crate::share::Share;
use dropblock::model::{IdSource, Name, NodeId, NodeState};
use dropblock::reconcile::conflict_name;
use dropblock::tree::Tree;

#[test]
fn r60_folders_made_on_both_sides_under_one_name_become_the_one_of_the_server() {
    let joined = case("", "d/ d/e/ d/e/a=1", "d/ d/e/ d/e/b=2").becomes("d/ d/e/ d/e/a=1 d/e/b=2");
    assert_eq!(id_at(&joined.goal, "d/e"), id_at(&joined.there, "d/e"));
    assert_eq!(joined.ops(), "place d/e/b");
    case("", "d/", "d/").becomes("d/").nothing_to_do();
    both_ways("e/ e/a=1", "e>d", "d/ d/b=2", "d/ d/a=1 d/b=2");
}

#[test]
fn r61_the_same_file_made_on_both_sides_is_one_file() {
    let joined = case("", "a=1@5", "a=1@9").becomes("a=1@9").without_copies().does("meta a").sends(false);
    assert_eq!(id_at(&joined.goal, "a"), id_at(&joined.there, "a"));
    case("", "a=1", "a=1").nothing_to_do();
    case("", "l:x", "l:x").nothing_to_do();
}

#[test]
fn r62_two_files_made_under_one_name_are_both_kept_and_the_server_has_the_name() {
    case("", "a.txt=1", "a.txt=2").becomes("a{pc}.txt=1 a.txt=2").does("move a.txt a{pc}.txt, place a.txt");
    case("", "a=1", "a:x").becomes("a:x a{pc}=1");
    case("", "a:x", "a=1").becomes("a=1 a{pc}:x");
}

#[test]
fn r62_a_file_that_has_the_name_of_a_conflict_copy_is_not_taken_for_its_own_copy() {
    // Found by the simulator: the copy was edited here, and lost when it met the older one of a server that came back.
    case("", "a{pc}.txt=1", "a{pc}.txt=2").becomes_with_contents("a{pc}.txt=2", &["1", "2"]);
    case("", "a{pc}=1 a=3", "a{pc}=2 a=4").becomes("a=4 a{pc_2}=3 a{pc_3}=1 a{pc}=2");
}

#[test]
fn r63_a_folder_keeps_its_name_against_a_file_on_either_side() {
    both_ways("", "a/ a/x=1", "a=2", "a/ a/x=1 a{pc}=2");
    both_ways("", "a/", "a:t", "a/ a{pc}:t");
}

#[test]
fn r64_a_move_to_a_name_that_the_server_gave_to_another_goes_beside_it() {
    case("a=1", "a>b", "b=2").becomes("b=2 b{pc}=1");
    case("a=1", "b=2", "a>b").becomes("b=1 b{pc}=2");
    case("a=1 c=2", "a>b", "c>b").becomes("b=2 b{pc}=1");
}

#[test]
fn r65_a_move_to_a_name_where_the_same_bytes_are_is_one_file() {
    both_ways("a=1", "a>b", "b=1", "b=1");
}

#[test]
fn r66_a_file_put_over_another_that_was_edited_there_leaves_both() {
    // An editor saves by renaming a new file over the old one; its name is a new node here.
    case("a=1", "-a n=2 n>a", "a=3").becomes("a=3 a{pc}=2");
    case("a=1 b=2", "-b a>b", "b=3").becomes("b=3 b{pc}=1");
    case("a=1 b=2", "b=3", "-b a>b").becomes_with_contents("b=1", &["1", "3"]);
}

#[test]
fn r67_edits_follow_the_file_when_names_were_swapped() {
    both_ways("a=1 b=2", "a>t b>a t>b", "a=3", "a=2 b=3");
    both_ways("a/ a/x=1 b/ b/y=2", "a>t b>a t>b", "a/x=3", "a/ a/y=2 b/ b/x=3");
}

#[test]
fn r68_bytes_that_stand_beside_as_a_copy_already_make_no_other() {
    case("a=1", "a=2", "a=3 a{pc}=2").becomes("a=3 a{pc}=2").does("place a, place a{pc}");
    case("", "a=2", "a=3 a{pc}=2").becomes("a=3 a{pc}=2").does("trash a, place a, place a{pc}");
    // A file with these bytes under any other name does not count: nobody would look for them there.
    case("a=1 z=2", "a=2", "a=3").becomes("a=3 a{pc}=2 z=2");
}

#[test]
fn r68_a_copy_that_both_sides_have_is_a_file_like_any_other() {
    // This row said otherwise. Found by the simulator: somebody puts the copy over the file, while another device edits that
    // file and a third one the copy. Relying on the copy then loses what was put there.
    case("a=1 a{pc}=2", "a=2", "a=3").becomes("a=3 a{pc_2}=2 a{pc}=2");
    case("a{pc}=2", "a=2", "a=3").becomes("a=3 a{pc_2}=2 a{pc}=2");
    case("a=1", "a=2 a{pc}=2", "a=3 a{pc}=2").becomes("a=3 a{pc_2}=2 a{pc}=2");
    case("", "a=2 a{pc}=2", "a=3 a{pc}=2").becomes("a=3 a{pc_2}=2 a{pc}=2");
    let mut share = Share::new("a=1 a{x}=2", &["x", "y", "z"]);
    share.act(0, "a{x}=4").act(1, "a=2").act(2, "a=3");
    assert_eq!(share.sync(0).sync(2).settle(), "a=3 a{x}=4 a{y}=2");
    let mut share = Share::new("a{x}=2", &["x", "y", "z"]);
    share.act(0, "a{x}=4").act(1, "a=2").act(2, "a=3");
    assert_eq!(share.sync(2).sync(1).settle(), "a=3 a{x}=4 a{y}=2");
}

#[test]
fn r68_a_file_with_the_name_of_a_copy_is_not_its_own_copy() {
    case("", "a{x}=2", "a{x}/").becomes("a{pc}=2 a{x}/");
    case("", "a{x}=2", "a{x}=3").becomes("a{pc}=2 a{x}=3");
    // Of two that hold the same, one stays.
    case("", "a{x}=2 a{y}=2", "a{x}/ a{y}/").becomes("a{pc}=2 a{x}/ a{y}/");
    case("", "a{x}=2 a{y}=2", "a{x}/").becomes("a{x}/ a{y}=2");
}

#[test]
fn r69_every_device_keeps_its_bytes_and_all_have_all_of_them() {
    let mut share = Share::new("a=0", &["x", "y", "z"]);
    share.act(0, "a=1").act(1, "a=2").act(2, "a=3");
    assert_eq!(share.sync(1).settle(), "a=2 a{x}=1 a{z}=3");
    let mut share = Share::new("a=0", &["pc", "pc", "pc"]);
    share.act(0, "a=1").act(1, "a=2").act(2, "a=3");
    assert_eq!(share.settle(), "a=1 a{pc_2}=3 a{pc}=2");
    let mut share = Share::new("", &["pc", "pc", "pc", "pc"]);
    share.act(0, "a=1").act(1, "a=2").act(2, "a=3").act(3, "a=2");
    assert_eq!(share.settle(), "a=1 a{pc_2}=3 a{pc}=2");
}

#[test]
fn r70_a_conflict_settled_once_makes_no_further_names() {
    let mut share = Share::new("a=0", &["x", "y"]);
    share.act(0, "a=1").act(1, "a=2");
    assert_eq!(share.settle(), "a=1 a{y}=2");
    // From here on the copy is a file like any other.
    share.act(0, "a{y}=3");
    assert_eq!(share.settle(), "a=1 a{y}=3");
    share.act(1, "-a{y}");
    assert_eq!(share.settle(), "a=1");
}

#[test]
fn r71_a_conflict_about_a_copy_renews_its_mark_instead_of_adding_one() {
    case("a{pc}.txt=1", "a{pc}.txt=2", "a{pc}.txt=3").becomes("a{pc_2}.txt=2 a{pc}.txt=3");
    case("a{x}=1", "a{x}=2", "a{x}=3").becomes("a{pc}=2 a{x}=3");
}

#[test]
fn r72_the_name_of_a_copy_is_free_in_all_three_trees() {
    case("a=1", "a=2 a{pc}=5", "a=3").becomes("a=3 a{pc_2}=2 a{pc}=5");
    case("a=1", "a=2", "a=3 a{pc}=5").becomes("a=3 a{pc_2}=2 a{pc}=5");
    // Even a name that is about to go: the copy must not wait for it.
    case("a=1 a{pc}=5", "a=2", "a=3 -a{pc}").becomes("a=3 a{pc_2}=2");
}

#[test]
fn r72_what_stands_under_a_conflict_name_already_keeps_it() {
    // Its new bytes are still to come: were the name another one in each round, it would never stand still.
    case("a=1", "a>a{pc} a/", "a=3").becomes("a/ a{pc}=3").does("place a{pc}");
    case("a=1 t/", "a>a{pc} t>a", "a=3").becomes("a/ a{pc}=3").does("place a{pc}");
}

#[test]
fn r73_a_file_in_conflict_that_becomes_one_with_another_leaves_its_copy() {
    case("a=1", "a>b b=2", "a=3 b=3").becomes("b=3 b{pc}=2");
}

/// Two files with these names and bytes, made on either side.
fn two_names(one: &[u8], other: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let mut ids = IdSource::new([5; 32]);
    let mut side = |name: &[u8], text: &str| {
        let mut tree = Tree::new();
        let name = Name::new(name).unwrap();
        put(&mut tree, ids.node(), NodeState { parent: NodeId::ROOT, name, kind: file(text) });
        tree
    };
    let (here, there) = (side(one, "1"), side(other, "2"));
    let case = merged(Tree::new(), here, there, ids);
    let found = case.goal.children(NodeId::ROOT);
    found
        .map(|(name, id)| {
            let ours = case.goal.get(id).unwrap().state.kind.same_content(&file("1"));
            (name.as_bytes().to_vec(), ours)
        })
        .collect()
}

#[test]
fn r74_names_are_bytes_and_only_equal_bytes_meet() {
    let twins: [(&[u8], &[u8]); 6] = [
        ("\u{e9}".as_bytes(), "e\u{301}".as_bytes()),
        (b"README", b"readme"),
        (b"a", b"a "),
        (b" a", b"a"),
        (b"\xff", b"\xfe"),
        (b"a\n", b"a"),
    ];
    for (one, other) in twins {
        let mut names: Vec<Vec<u8>> = two_names(one, other).into_iter().map(|(name, _)| name).collect();
        let mut wanted = vec![one.to_vec(), other.to_vec()];
        names.sort();
        wanted.sort();
        assert_eq!(names, wanted);
    }
}

/// The name of the copy when two files meet under `name`.
fn copy_of(name: &[u8]) -> Vec<u8> {
    let found = two_names(name, name);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&(name.to_vec(), false)), "the server's file keeps its name byte for byte");
    found.into_iter().find(|(_, ours)| *ours).unwrap().0
}

#[test]
fn r75_an_ugly_name_gets_its_mark_before_the_ending_and_keeps_its_other_bytes() {
    let cases: [(&[u8], &[u8]); 12] = [
        (b"a.txt", b"a (conflict from pc now).txt"),
        (b"\xff\xfe.bin", b"\xff\xfe (conflict from pc now).bin"),
        (b"e\xcc\x81.md", b"e\xcc\x81 (conflict from pc now).md"),
        (b".bashrc", b".bashrc (conflict from pc now)"),
        (b".config.json", b".config (conflict from pc now).json"),
        (b"a.tar.gz", b"a.tar (conflict from pc now).gz"),
        (b" ", b"  (conflict from pc now)"),
        (b"a ", b"a  (conflict from pc now)"),
        (b"...", b".. (conflict from pc now)."),
        (b"-rf", b"-rf (conflict from pc now)"),
        (b"a\nb", b"a\nb (conflict from pc now)"),
        (b"x.", b"x (conflict from pc now)."),
    ];
    for (name, wanted) in cases {
        let copy = copy_of(name);
        assert_eq!(copy, wanted, "{}", String::from_utf8_lossy(&copy));
    }
}

#[test]
fn r76_a_name_of_255_bytes_is_shortened_before_the_mark_at_a_character() {
    assert_eq!(copy_of(&[b'x'; 255]).len(), 255);
    let with_ending = [&[b'y'; 251][..], b".txt"].concat();
    let copy = copy_of(&with_ending);
    assert!(copy.len() == 255 && copy.ends_with(b" (conflict from pc now).txt"));
    let umlauts = "\u{f6}".repeat(127);
    let copy = copy_of(umlauts.as_bytes());
    assert!(copy.len() <= 255 && String::from_utf8(copy).is_ok(), "cut inside a character");
    let not_text = copy_of(&[0x80; 255]);
    assert!(not_text.len() <= 255 && not_text.ends_with(b" (conflict from pc now)"));
}

#[test]
fn r77_two_long_names_that_shorten_to_one_still_get_two_copies() {
    let mut ids = IdSource::new([6; 32]);
    let [mut base, mut here, mut there] = [Tree::new(), Tree::new(), Tree::new()];
    for last in [b'1', b'2'] {
        let name = Name::new(&[&[b'x'; 254][..], &[last]].concat()).unwrap();
        let id = ids.node();
        for (tree, text) in [(&mut base, "0"), (&mut here, "1"), (&mut there, "2")] {
            let state = NodeState { parent: NodeId::ROOT, name: name.clone(), kind: file(text) };
            put(tree, id, state);
        }
    }
    // The copies have the same bytes, and the shortened name no longer says whose they are: both must stay findable.
    let case = merged(base, here, there, ids);
    assert_eq!(case.goal.len(), 4);
}

#[test]
fn r78_a_device_name_can_not_leave_the_folder_or_end_the_mark() {
    let name = Name::new(b"a.txt").unwrap();
    let copy = conflict_name(&name, "../x)\u{7}", "now", &|_| false);
    assert_eq!(copy.as_bytes(), b"a (conflict from .._x__ now).txt");
    let long = conflict_name(&name, &"\u{fc}".repeat(32), "2026-11-22 12-00-00", &|_| false);
    assert!(long.as_bytes().len() <= 255);
}
